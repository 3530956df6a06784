//! Bytes that are no record, or not the one that was written: refused, or read as another record; never worse.

use std::fmt::Debug;

use millstream_api::record::{
    Record,
    archive::{Aligned, NotARecord, Trust, read, write_alone},
};

use crate::types::{Account, AccountRef, Click, Color, Everything, Kind, Owner, Wide, click, everything};

/// Reads all there is to read, if it is accepted.
fn look<T: Record + Debug>(bytes: &[u8]) -> Result<T, NotARecord>
where
    for<'a> T::Ref<'a>: Debug,
{
    let aligned = Aligned::copy_of(bytes);
    let record = read::<T>(aligned.as_slice(), Trust::VALIDATE)?;
    let _shown = format!("{record:?}");
    let own = T::own(record);
    let _again = write_alone::<T>(own.handle());
    Ok(own)
}

fn with_every_bit_flipped<T: Record + Debug>(record: &T) -> (usize, usize)
where
    for<'a> T::Ref<'a>: Debug,
{
    let archive = write_alone::<T>(record.handle());
    let mut bytes = archive.as_slice().to_vec();
    let (mut refused, mut accepted) = (0, 0);
    for at in (0..bytes.len()).step_by(if cfg!(miri) { 41 } else { 1 }) {
        for flip in (0..8).map(|bit| 1 << bit).chain([0xff, 0x55]) {
            bytes[at] ^= flip;
            match look::<T>(&bytes) {
                Ok(_) => accepted += 1,
                Err(_) => refused += 1,
            }
            bytes[at] ^= flip;
        }
    }
    (refused, accepted)
}

#[test]
fn flipped_bits_are_refused_or_make_another_record() {
    let (refused, accepted) = with_every_bit_flipped(&click());
    let many = if cfg!(miri) { 0 } else { 100 };
    assert!(refused > many && accepted > many, "{refused} refused, {accepted} accepted");
    with_every_bit_flipped(&Click { kind: Kind::Search("a text that lies out of line".into(), true), ..click() });
    with_every_bit_flipped(&everything());
    with_every_bit_flipped(&Wide::counted());
    let names = vec!["a name that is not written inline".into(), "b".into()];
    with_every_bit_flipped(&Owner::Machine { rack: 1, slot: Some(2), names, color: Color::Red });
}

/// Unless the record is of nothing but numbers and texts: any bytes are one, those of a longer text too. The length of an
/// archive is therefore part of the frame around it.
#[test]
#[cfg_attr(miri, ignore = "minutes, for as many archives as the others read in seconds")]
fn truncated_archives_are_refused() {
    fn truncate<T: Record + Debug>(record: T) -> (usize, usize)
    where
        for<'a> T::Ref<'a>: Debug,
    {
        let archive = write_alone::<T>(record.handle());
        let bytes = archive.as_slice();
        assert!(look::<T>(bytes).is_ok());
        let front = (0..bytes.len()).filter(|len| look::<T>(&bytes[..*len]).is_ok()).count();
        // Without its beginning the root is whole, but points outside.
        let back = (1..bytes.len() - size_of::<T::Archived>()).filter(|at| look::<T>(&bytes[*at..]).is_ok()).count();
        (front, back)
    }
    assert_eq!(truncate(click()), (0, 0));
    assert_eq!(truncate(everything()), (0, 0));
    assert_eq!(truncate(Wide::counted()), (0, 0));
    let (front, back) = truncate(Account("an account with a rather long name".into(), 9));
    assert!(front > 0 && back == 0, "{front}, {back}");
}

#[test]
fn an_unknown_variant_is_refused() {
    let archive = write_alone::<Color>((&Color::Blue).into());
    assert_eq!(archive.as_slice(), [2]);
    assert!(matches!(look::<Color>(&[2]), Ok(Color::Blue)));
    for tag in 3..=255 {
        assert!(look::<Color>(&[tag]).is_err(), "{tag}");
    }
}

#[test]
fn another_type_is_refused() {
    let account = write_alone::<Account>(AccountRef::Owned(&Account("an account with a long name".into(), 9)));
    assert!(look::<Click>(account.as_slice()).is_err());
    assert!(look::<Everything>(account.as_slice()).is_err());
}

#[test]
fn noise_is_never_worse_than_refused() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..if cfg!(miri) { 20 } else { 2_000 } {
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let len = (next() % 600) as usize;
        // Small values point to near places, which is where something may be found.
        let bytes: Vec<u8> = (0..len).map(|_| if next() % 3 == 0 { next() as u8 } else { 0 }).collect();
        let _ = (look::<Click>(&bytes), look::<Everything>(&bytes), look::<Owner>(&bytes));
    }
}
