//! How elements lie one after another in the segments of a channel with codec `Row`.
//!
//! ```text
//!  0        4        8                16
//!  | kind,  | key    | time stamp     | archive …          | padding to 8
//!  | length | hash   | (if timed)     |                    |
//! ```
//! `kind` is the top two bits of the first word, `length` (of what follows the 8 bytes) the others. All numbers are
//! little-endian. An element never straddles two segments; a record larger than a segment travels as fragments of its
//! frame, which are put together again before anything is read.

use millstream_model::{
    fault::Failure,
    id::CheckpointId,
    key_group::KeyHash,
    message::CheckpointKind,
    time::{EventTime, Watermark},
};

use crate::{
    record::{
        Record,
        archive::{self, ALIGN, Aligned, Full},
    },
    signal::Barrier,
};

/// Bytes before what an element carries.
pub const HEADER_BYTES: usize = 8;
const STAMP_BYTES: usize = 8;
const CONTROL_BYTES: usize = 16;
const LENGTH_BITS: u32 = 30;
/// What an element can carry at the most: 1 GiB.
pub const PAYLOAD_BYTES_MAX: usize = (1 << LENGTH_BITS) - 1;

const RECORD: u32 = 0;
const TIMED: u32 = 1;
const CONTROL: u32 = 2;
const FRAGMENT: u32 = 3;

/// Writes the frame of one record at the start of `bytes`; returns how many it took, a multiple of 8.
#[inline]
pub fn write_record<T: Record>(
    record: T::Ref<'_>,
    time: EventTime,
    key_hash: KeyHash,
    bytes: &mut [u8],
) -> Result<usize, Full> {
    let (kind, start) = match time {
        EventTime::MIN => (RECORD, HEADER_BYTES),
        _ => (TIMED, HEADER_BYTES + STAMP_BYTES),
    };
    if bytes.len() < start {
        return Err(Full);
    }
    let (head, body) = bytes.split_at_mut(start);
    let length = archive::write::<T>(record, body)? + start - HEADER_BYTES;
    head[..8].copy_from_slice(&header(kind, length, key_hash.0));
    if kind == TIMED {
        head[8..].copy_from_slice(&time.0.to_le_bytes());
    }
    let end = (HEADER_BYTES + length).next_multiple_of(ALIGN);
    if end > bytes.len() { Err(Full) } else { Ok(end) }
}

/// The frame of one record in memory of its own, for records larger than a segment.
///
/// # Errors
/// If it is larger than any element may be.
pub fn write_record_alone<T: Record>(
    record: T::Ref<'_>,
    time: EventTime,
    key_hash: KeyHash,
) -> Result<Aligned, Failure> {
    let archive = archive::write_alone::<T>(record);
    let stamp: &[u8] = if time == EventTime::MIN { &[] } else { &time.0.to_le_bytes() };
    let length = archive.as_slice().len() + stamp.len();
    if length > PAYLOAD_BYTES_MAX {
        return Err(Failure::fatal(format!(
            "a record of {length} bytes is larger than the limit of {PAYLOAD_BYTES_MAX}; split it before it is sent on"
        )));
    }
    let kind = if stamp.is_empty() { RECORD } else { TIMED };
    let mut frame = Aligned::copy_of(&header(kind, length, key_hash.0));
    frame.extend(stamp);
    frame.extend(archive.as_slice());
    frame.extend(&[0; ALIGN][..length.next_multiple_of(ALIGN) - length]);
    Ok(frame)
}

#[inline]
fn header(kind: u32, length: usize, second: u32) -> [u8; 8] {
    let first = kind << LENGTH_BITS | length as u32;
    (u64::from(second) << 32 | u64::from(first)).to_le_bytes()
}

/// One record's frame, taken apart.
#[derive(Clone, Copy, Debug)]
pub struct RecordFrame<'a> {
    pub time: EventTime,
    pub key_hash: KeyHash,
    pub archive: &'a [u8],
    /// Where the next frame starts.
    pub end: usize,
}

/// Reads the record's frame at the start of `bytes`; `None` if something else is there.
///
/// # Errors
/// If the frame reaches beyond `bytes`.
#[inline]
pub fn read_record(bytes: &[u8]) -> Result<Option<RecordFrame<'_>>, Malformed> {
    let Some((first, rest)) = bytes.split_first_chunk::<8>() else { return Err(Malformed) };
    let word = u64::from_le_bytes(*first);
    let (kind, length) = ((word as u32) >> LENGTH_BITS, word as usize & PAYLOAD_BYTES_MAX);
    if kind > TIMED {
        return Ok(None);
    }
    let Some(payload) = rest.get(..length) else { return Err(Malformed) };
    let (time, archive) = match kind {
        RECORD => (EventTime::MIN, payload),
        _ => {
            let Some((stamp, archive)) = payload.split_first_chunk() else { return Err(Malformed) };
            (EventTime(i64::from_le_bytes(*stamp)), archive)
        }
    };
    let end = (HEADER_BYTES + length).next_multiple_of(ALIGN);
    Ok(Some(RecordFrame { time, key_hash: KeyHash((word >> 32) as u32), archive, end }))
}

/// The key hashes of the records at the start of `bytes`, as many as there are and fit; returns how many.
#[inline]
pub fn key_hashes(bytes: &[u8], hashes: &mut [KeyHash]) -> usize {
    let mut at = 0;
    for (index, hash) in hashes.iter_mut().enumerate() {
        let Some(first) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) else { return index };
        let word = u64::from_le_bytes(*first);
        if (word as u32) >> LENGTH_BITS > TIMED {
            return index;
        }
        *hash = KeyHash((word >> 32) as u32);
        at += (HEADER_BYTES + (word as usize & PAYLOAD_BYTES_MAX)).next_multiple_of(ALIGN);
    }
    hashes.len()
}

/// What else lies between records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Control {
    Watermark(Watermark),
    Idle(bool),
    Barrier(Barrier),
    EndOfData,
}

/// A control element's frame.
pub fn control(control: Control) -> [u8; HEADER_BYTES + CONTROL_BYTES] {
    let (tag, value): (u64, u64) = match control {
        Control::Watermark(watermark) => (1, watermark.0.0 as u64),
        Control::Idle(idle) => (2, idle.into()),
        Control::Barrier(Barrier { checkpoint, kind: CheckpointKind::Checkpoint }) => (3, checkpoint.0),
        Control::Barrier(Barrier { checkpoint, kind: CheckpointKind::Final }) => (4, checkpoint.0),
        Control::EndOfData => (5, 0),
    };
    let mut frame = [0; HEADER_BYTES + CONTROL_BYTES];
    frame[..8].copy_from_slice(&header(CONTROL, CONTROL_BYTES, 0));
    frame[8..16].copy_from_slice(&tag.to_le_bytes());
    frame[16..].copy_from_slice(&value.to_le_bytes());
    frame
}

/// A part of a frame that is larger than a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment<'a> {
    pub part: &'a [u8],
    pub last: bool,
}

/// Writes as much of `rest` as fits as a fragment into `bytes`; returns how many bytes of `rest` and of `bytes` it took.
pub fn write_fragment(rest: &[u8], bytes: &mut [u8]) -> Result<(usize, usize), Full> {
    let room = bytes.len().checked_sub(HEADER_BYTES).filter(|room| *room >= ALIGN).ok_or(Full)?;
    let part = rest.len().min(room / ALIGN * ALIGN);
    let last = u32::from(part == rest.len());
    bytes[..8].copy_from_slice(&header(FRAGMENT, part, last));
    bytes[8..8 + part].copy_from_slice(&rest[..part]);
    Ok((part, HEADER_BYTES + part.next_multiple_of(ALIGN)))
}

/// An element that is no record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Other<'a> {
    Control(Control),
    Fragment(Fragment<'a>),
}

/// Reads the element at the start of `bytes`, which is no record, and says where the next one starts.
///
/// # Errors
/// If it is none, or unknown, or reaches beyond `bytes`.
pub fn read_other(bytes: &[u8]) -> Result<(Other<'_>, usize), Malformed> {
    let (first, rest) = bytes.split_first_chunk::<8>().ok_or(Malformed)?;
    let word = u64::from_le_bytes(*first);
    let (kind, length) = ((word as u32) >> LENGTH_BITS, word as usize & PAYLOAD_BYTES_MAX);
    let payload = rest.get(..length).ok_or(Malformed)?;
    let end = (HEADER_BYTES + length).next_multiple_of(ALIGN);
    match kind {
        FRAGMENT => Ok((Other::Fragment(Fragment { part: payload, last: word >> 32 != 0 }), end)),
        CONTROL => {
            let (tag, value) = payload.split_first_chunk::<8>().ok_or(Malformed)?;
            let value = u64::from_le_bytes(value.try_into().map_err(|_| Malformed)?);
            let barrier = |kind| Control::Barrier(Barrier { checkpoint: CheckpointId(value), kind });
            let control = match u64::from_le_bytes(*tag) {
                1 => Control::Watermark(Watermark(EventTime(value as i64))),
                2 => Control::Idle(value != 0),
                3 => barrier(CheckpointKind::Checkpoint),
                4 => barrier(CheckpointKind::Final),
                5 => Control::EndOfData,
                _ => return Err(Malformed),
            };
            Ok((Other::Control(control), end))
        }
        _ => Err(Malformed),
    }
}

/// Bytes that are no sequence of elements.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a channel carries bytes that are no elements; the other end runs another version, or memory was damaged")]
pub struct Malformed;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::archive::Trust;

    #[test]
    fn every_control_element_survives() {
        let barrier = |kind| Control::Barrier(Barrier { checkpoint: CheckpointId(77), kind });
        for element in [
            Control::Watermark(Watermark(EventTime(-5))),
            Control::Idle(true),
            Control::Idle(false),
            barrier(CheckpointKind::Checkpoint),
            barrier(CheckpointKind::Final),
            Control::EndOfData,
        ] {
            let frame = control(element);
            assert_eq!(read_other(&frame), Ok((Other::Control(element), frame.len())));
            assert!(matches!(read_record(&frame), Ok(None)));
        }
    }

    #[test]
    fn a_record_keeps_its_time_and_hash() {
        for time in [EventTime::MIN, EventTime(42)] {
            let mut words = vec![0u64; 8];
            let end = write_record::<String>("streaming words", time, KeyHash(7), bytes_of(&mut words)).unwrap();
            let bytes = &bytes_of(&mut words)[..end];
            let frame = read_record(bytes).unwrap().unwrap();
            assert_eq!((frame.time, frame.key_hash, frame.end), (time, KeyHash(7), end));
            assert_eq!(archive::read::<String>(frame.archive, Trust::VALIDATE), Ok("streaming words"));
        }
    }

    fn bytes_of(words: &mut [u64]) -> &mut [u8] {
        // SAFETY: eight initialised bytes a word, and u8 needs no alignment.
        unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), words.len() * 8) }
    }

    #[test]
    fn truncated_and_foreign_bytes_are_refused() {
        let frame = control(Control::EndOfData);
        for length in 0..frame.len() {
            assert_eq!(read_other(&frame[..length]), Err(Malformed), "{length} bytes");
        }
        let mut foreign = frame;
        foreign[8] = 99;
        assert_eq!(read_other(&foreign), Err(Malformed));
    }
}
