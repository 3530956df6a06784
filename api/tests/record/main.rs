//! What `#[derive(Record)]` emits, written into bytes and read from them.
#![forbid(unsafe_code)]

mod forms;
mod hostile;
mod keys;
mod lifetimes;
mod random;
mod room;
mod structure;
#[allow(clippy::type_complexity, unused_qualifications)]
mod types;

use millstream_api::record::{
    Record,
    archive::{self, Aligned, Trust},
};

/// The archive of a record, in bytes of its own.
fn written<T: Record>(record: T::Ref<'_>) -> Aligned {
    let alone = archive::write_alone::<T>(record);
    Aligned::copy_of(alone.as_slice())
}

/// The record in an archive, checked first.
fn read<T: Record>(archive: &Aligned) -> T::Ref<'_> {
    archive::read::<T>(archive.as_slice(), Trust::VALIDATE).expect("what was written can be read")
}
