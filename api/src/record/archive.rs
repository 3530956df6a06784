//! Writes one archive into the bytes of a segment and reads it in place. The only `unsafe` of the record path.
//!
//! An archive is rkyv's: parts out of line first, the record itself (the root) last. It starts at an address that is
//! a multiple of [`ALIGN`], and no archived type needs more.

use rkyv::{
    Place, Portable,
    rancor::{Fallible, Source, Trace},
    ser::{Positional, Writer},
};

use super::Record;

/// What every archive is aligned to, in bytes.
pub const ALIGN: usize = 8;

/// The bytes at hand are too few for what is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl std::fmt::Display for Full {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the segment has no room for the record")
    }
}
impl std::error::Error for Full {}
impl Trace for Full {
    fn trace<R: std::fmt::Debug + std::fmt::Display + Send + Sync + 'static>(self, _: R) -> Self {
        self
    }
}
impl Source for Full {
    fn new<T: std::error::Error + Send + Sync + 'static>(_: T) -> Self {
        Full
    }
}

/// Writes forwards into borrowed bytes and never beyond them.
pub struct ArchiveWriter<'a> {
    /// Starts at a multiple of [`ALIGN`].
    bytes: &'a mut [u8],
    /// Invariant: `pos <= bytes.len()`.
    pos: usize,
}

impl<'a> ArchiveWriter<'a> {
    /// # Panics
    /// If `bytes` does not start at a multiple of [`ALIGN`].
    #[inline]
    pub fn new(bytes: &'a mut [u8]) -> Self {
        assert!((bytes.as_ptr() as usize).is_multiple_of(ALIGN), "archives are aligned");
        ArchiveWriter { bytes, pos: 0 }
    }

    #[inline]
    pub fn append(&mut self, part: &[u8]) -> Result<(), Full> {
        let end = self.pos + part.len();
        let room = self.bytes.get_mut(self.pos..end).ok_or(Full)?;
        room.copy_from_slice(part);
        self.pos = end;
        Ok(())
    }

    /// Reserves aligned places for `count` values; they are for [`ArchiveWriter::place`] to fill.
    #[inline]
    pub fn reserve<A: Portable>(&mut self, count: usize) -> Result<usize, Full> {
        const { assert!(align_of::<A>() <= ALIGN, "no archived type is aligned to more than 8 bytes") };
        let start = self.pos.next_multiple_of(align_of::<A>());
        let end = size_of::<A>().checked_mul(count).and_then(|bytes| start.checked_add(bytes)).ok_or(Full)?;
        if end > self.bytes.len() {
            return Err(Full);
        }
        self.pos = end;
        Ok(start)
    }

    /// The `index`th of the places that `reserve` has returned.
    ///
    /// # Panics
    /// If the place was not reserved.
    #[inline]
    pub fn place<A: Portable>(&mut self, start: usize, index: usize) -> Place<A> {
        let pos = start + index * size_of::<A>();
        assert!(pos + size_of::<A>() <= self.pos && pos.is_multiple_of(align_of::<A>()), "places are reserved");
        // SAFETY: the place lies within `bytes` (pos + size <= self.pos <= len), which this writer borrows mutably,
        // and is aligned: `bytes` starts at a multiple of ALIGN, and align_of::<A>() divides ALIGN and `pos`.
        unsafe { Place::new_unchecked(pos, self.bytes.as_mut_ptr().add(pos).cast()) }
    }
}

impl Fallible for ArchiveWriter<'_> {
    type Error = Full;
}
impl Positional for ArchiveWriter<'_> {
    #[inline]
    fn pos(&self) -> usize {
        self.pos
    }
}
impl Writer<Full> for ArchiveWriter<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), Full> {
        self.append(bytes)
    }
}

/// Writes one record at the start of `bytes`; returns how many it took.
///
/// # Errors
/// [`Full`] if `bytes` is too short. What is in it then is undefined, but initialised.
#[inline]
pub fn write<T: Record>(record: T::Ref<'_>, bytes: &mut [u8]) -> Result<usize, Full> {
    let mut out = ArchiveWriter::new(bytes);
    let resolver = T::serialize(record, &mut out)?;
    let root = out.reserve::<T::Archived>(1)?;
    T::resolve(record, resolver, out.place(root, 0));
    Ok(out.pos)
}

/// Writes one record into memory of its own, however large it is; the result starts at a multiple of [`ALIGN`].
pub fn write_alone<T: Record>(record: T::Ref<'_>) -> Aligned {
    let mut words = 64;
    loop {
        let mut aligned = Aligned { words: vec![0; words], len: 0 };
        if let Ok(len) = write::<T>(record, aligned.room()) {
            aligned.len = len;
            return aligned;
        }
        words *= 4;
    }
}

/// Bytes that start at a multiple of [`ALIGN`].
#[derive(Clone, Debug, Default)]
pub struct Aligned {
    words: Vec<u64>,
    len: usize,
}

impl Aligned {
    /// A copy of `bytes`.
    pub fn copy_of(bytes: &[u8]) -> Aligned {
        let mut aligned = Aligned { words: vec![0; bytes.len().div_ceil(8)], len: bytes.len() };
        aligned.room()[..bytes.len()].copy_from_slice(bytes);
        aligned
    }

    pub fn as_slice(&self) -> &[u8] {
        &self.all()[..self.len]
    }

    /// Appends `bytes`; what is already there may move.
    pub fn extend(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        self.words.resize(end.div_ceil(8), 0);
        let start = self.len;
        self.room()[start..end].copy_from_slice(bytes);
        self.len = end;
    }

    fn all(&self) -> &[u8] {
        // SAFETY: a u64 is eight initialised bytes without padding, and u8 needs no alignment.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast(), self.words.len() * 8) }
    }

    fn room(&mut self) -> &mut [u8] {
        // SAFETY: as in `all`; the borrow is unique, and any bytes are a valid u64.
        unsafe { std::slice::from_raw_parts_mut(self.words.as_mut_ptr().cast(), self.words.len() * 8) }
    }
}

/// Whether the bytes of a channel may be read without looking at every record first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trust(bool);

impl Trust {
    /// Every archive is validated before it is read.
    pub const VALIDATE: Trust = Trust(false);

    /// Archives are read as they are.
    ///
    /// # Safety
    /// The bytes must have been written by [`write`] for the same type, by the same build of the program.
    pub const unsafe fn same_program() -> Trust {
        Trust(true)
    }
}

/// An archive that cannot be one of the expected type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are no record of the expected type: {0}")]
pub struct NotARecord(String);

/// The handle of the record that fills `bytes`.
///
/// # Errors
/// If `trust` asks for validation and the bytes are not such a record.
#[inline]
pub fn read<T: Record>(bytes: &[u8], trust: Trust) -> Result<T::Ref<'_>, NotARecord> {
    if !trust.0 {
        return read_checked::<T>(bytes);
    }
    let root = bytes.len() - size_of::<T::Archived>();
    let pointer = bytes[root..].as_ptr();
    debug_assert!((pointer as usize).is_multiple_of(align_of::<T::Archived>()));
    // SAFETY: whoever made the `Trust` promises that `write::<T>` wrote these bytes; it ends with the root.
    Ok(T::access(unsafe { &*pointer.cast::<T::Archived>() }))
}

/// For every record of a peer that has not proved who it is, so it is part of the record path, too. Archives share nothing,
/// so that the validator does not have to remember what it has seen.
#[inline]
fn read_checked<T: Record>(bytes: &[u8]) -> Result<T::Ref<'_>, NotARecord> {
    let Some(root) = bytes.len().checked_sub(size_of::<T::Archived>()) else {
        return Err(NotARecord(format!("{} bytes are too few", bytes.len())));
    };
    let archived = rkyv::api::low::access_pos::<T::Archived, rkyv::rancor::Error>(bytes, root)
        .map_err(|cause| NotARecord(cause.to_string()))?;
    Ok(T::access(archived))
}
