//! `Option<T>`, seen as an `Option` of the handle.

use rkyv::{
    Place, Portable,
    bytecheck::{self, CheckBytes},
};

use super::{
    Record,
    archive::{ArchiveWriter, Full},
    fingerprint_of,
};

/// An archived `Option`; laid out like rkyv's own, whose variants cannot be written from outside.
#[derive(Portable, CheckBytes)]
#[bytecheck(crate = bytecheck)]
#[repr(u8)]
pub enum ArchivedOpt<A> {
    None,
    Some(A),
}

/// How `ArchivedOpt::Some` lies in memory: a `repr(u8)` enum is a union of such structs (RFC 2195).
#[derive(Portable)]
#[repr(C)]
struct SomeVariant<A> {
    tag: u8,
    value: A,
}

impl<T: Record> Record for Option<T> {
    const HAS_HEAP: bool = T::HAS_HEAP;
    type Ref<'a> = Option<T::Ref<'a>>;
    type Archived = ArchivedOpt<T::Archived>;
    type Resolver = Option<T::Resolver>;
    #[inline]
    fn handle(&self) -> Self::Ref<'_> {
        self.as_ref().map(T::handle)
    }
    #[inline]
    fn access(archived: &Self::Archived) -> Self::Ref<'_> {
        match archived {
            ArchivedOpt::None => None,
            ArchivedOpt::Some(value) => Some(T::access(value)),
        }
    }
    #[inline]
    fn shorten<'short, 'long: 'short>(record: Self::Ref<'long>) -> Self::Ref<'short> {
        record.map(T::shorten)
    }
    #[inline]
    fn own(record: Self::Ref<'_>) -> Self {
        record.map(T::own)
    }
    #[inline]
    fn serialize(record: Self::Ref<'_>, out: &mut ArchiveWriter<'_>) -> Result<Self::Resolver, Full> {
        record.map(|value| T::serialize(value, out)).transpose()
    }
    #[inline]
    fn resolve(record: Self::Ref<'_>, resolver: Self::Resolver, out: Place<Self::Archived>) {
        // SAFETY: RFC 2195 gives the enum the layout of its variants' structs, each starting with the tag; every
        // variant is written whole, and nothing else has access to the place.
        unsafe {
            match record.zip(resolver) {
                None => out.cast_unchecked::<u8>().write(0),
                Some((value, resolver)) => {
                    let out = out.cast_unchecked::<SomeVariant<T::Archived>>();
                    rkyv::munge::munge!(let SomeVariant { tag, value: place } = out);
                    tag.write(1);
                    T::resolve(value, resolver, place);
                }
            }
        }
    }
    #[inline]
    fn heap_bytes(&self) -> usize {
        self.as_ref().map_or(0, T::heap_bytes)
    }
    fn fingerprint() -> u64 {
        fingerprint_of("Option", &[T::fingerprint()])
    }
}
