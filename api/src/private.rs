//! What the code that `#[derive(Record)]` emits refers to. No part of the interface: it changes without notice.

pub use rkyv;

pub use crate::record::{
    Key, List, Record,
    archive::{ArchiveWriter, Full},
    fingerprint_of,
    key::{hash_number, mix},
    parts::{Lent, Parts},
};
