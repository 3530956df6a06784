//! Numbers, `bool`, `char`, the unit and arrays of bytes: each is its own handle, or a reference to it.

use rkyv::{Archive, Place, Portable, bytecheck::CheckBytes};

use super::{
    Record,
    archive::{ArchiveWriter, Full},
    fingerprint_of,
};

macro_rules! scalar {
    ($($type:ty: $get:expr;)*) => { $(impl Record for $type {
        type Ref<'a> = $type;
        type Archived = <$type as Archive>::Archived;
        type Resolver = ();
        #[inline]
        fn handle(&self) -> $type {
            *self
        }
        #[inline]
        fn access(archived: &Self::Archived) -> $type {
            let get: fn(Self::Archived) -> $type = $get;
            get(*archived)
        }
        #[inline]
        fn shorten<'short, 'long: 'short>(record: $type) -> $type {
            record
        }
        #[inline]
        fn own(record: $type) -> $type {
            record
        }
        #[inline]
        fn serialize(_: $type, _: &mut ArchiveWriter<'_>) -> Result<(), Full> {
            Ok(())
        }
        #[inline]
        fn resolve(record: $type, (): (), out: Place<Self::Archived>) {
            Archive::resolve(&record, (), out);
        }
        fn fingerprint() -> u64 {
            const { fingerprint_of(stringify!($type), &[]) }
        }
    })* };
}
scalar! {
    u8: |v| v; u16: |v| v.to_native(); u32: |v| v.to_native(); u64: |v| v.to_native();
    i8: |v| v; i16: |v| v.to_native(); i32: |v| v.to_native(); i64: |v| v.to_native();
    f32: |v| v.to_native(); f64: |v| v.to_native();
    bool: |v| v; char: |v| v.to_native(); (): |v| v;
}

/// A 128-bit number in two halves, since rkyv's own form would be aligned to 16 bytes.
#[derive(Clone, Copy, Portable, CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
pub struct ArchivedWide {
    low: rkyv::rend::u64_le,
    high: rkyv::rend::u64_le,
}

macro_rules! wide {
    ($($type:ty),*) => { $(impl Record for $type {
        type Ref<'a> = $type;
        type Archived = ArchivedWide;
        type Resolver = ();
        fn handle(&self) -> $type {
            *self
        }
        fn access(archived: &ArchivedWide) -> $type {
            (u128::from(archived.high.to_native()) << 64 | u128::from(archived.low.to_native())) as $type
        }
        fn shorten<'short, 'long: 'short>(record: $type) -> $type {
            record
        }
        fn own(record: $type) -> $type {
            record
        }
        fn serialize(_: $type, _: &mut ArchiveWriter<'_>) -> Result<(), Full> {
            Ok(())
        }
        fn resolve(record: $type, (): (), out: Place<ArchivedWide>) {
            let low = rkyv::rend::u64_le::from_native(record as u64);
            let high = rkyv::rend::u64_le::from_native((record as u128 >> 64) as u64);
            rkyv::munge::munge!(let ArchivedWide { low: low_place, high: high_place } = out);
            low_place.write(low);
            high_place.write(high);
        }
        fn fingerprint() -> u64 {
            const { fingerprint_of(stringify!($type), &[]) }
        }
    })* };
}
wide!(u128, i128);

impl<const N: usize> Record for [u8; N] {
    type Ref<'a> = &'a [u8; N];
    type Archived = [u8; N];
    type Resolver = ();
    #[inline]
    fn handle(&self) -> &[u8; N] {
        self
    }
    #[inline]
    fn access(archived: &[u8; N]) -> &[u8; N] {
        archived
    }
    #[inline]
    fn shorten<'short, 'long: 'short>(record: &'long [u8; N]) -> &'short [u8; N] {
        record
    }
    #[inline]
    fn own(record: &[u8; N]) -> [u8; N] {
        *record
    }
    #[inline]
    fn serialize(_: &[u8; N], _: &mut ArchiveWriter<'_>) -> Result<(), Full> {
        Ok(())
    }
    #[inline]
    fn resolve(record: &[u8; N], (): (), out: Place<[u8; N]>) {
        out.write(*record);
    }
    fn fingerprint() -> u64 {
        const { fingerprint_of("bytes", &[N as u64]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::archive::{ALIGN, Trust, read, write_alone};

    fn survives<T: Record + PartialEq + std::fmt::Debug>(values: &[T]) {
        for value in values {
            let archive = write_alone::<T>(value.handle());
            let seen = read::<T>(archive.as_slice(), Trust::VALIDATE).expect("what was written can be read");
            assert_eq!(T::own(T::shorten(seen)), *value);
            assert_eq!(archive.as_slice().len(), size_of::<T::Archived>());
        }
        const { assert!(align_of::<T::Archived>() <= ALIGN) };
    }

    #[test]
    fn numbers_keep_their_limits() {
        survives(&[u8::MIN, 1, u8::MAX]);
        survives(&[u16::MIN, 1, u16::MAX]);
        survives(&[u32::MIN, 1, u32::MAX]);
        survives(&[u64::MIN, 1, u64::MAX]);
        survives(&[u128::MIN, 1, 1 << 64, u64::MAX.into(), u128::MAX]);
        survives(&[i8::MIN, -1, i8::MAX]);
        survives(&[i16::MIN, -1, i16::MAX]);
        survives(&[i32::MIN, -1, i32::MAX]);
        survives(&[i64::MIN, -1, i64::MAX]);
        survives(&[i128::MIN, -1, 1 << 64, i128::MAX]);
        survives(&[f32::MIN, -0.0, f32::EPSILON, f32::INFINITY]);
        survives(&[f64::MIN, -0.0, f64::EPSILON, f64::INFINITY]);
        survives(&[false, true]);
        survives(&['\0', 'ß', char::MAX]);
        survives(&[()]);
        survives(&[[0_u8; 0]]);
        survives(&[[1_u8, 2, 255]]);
    }

    #[test]
    fn a_number_that_is_not_a_number_keeps_its_bits() {
        let nan = f64::from_bits(0x7ff8_0000_0000_1234);
        let archive = write_alone::<f64>(nan);
        assert_eq!(read::<f64>(archive.as_slice(), Trust::VALIDATE).map(f64::to_bits), Ok(nan.to_bits()));
    }

    #[test]
    fn bytes_that_are_no_bool_or_char_are_refused() {
        let two = crate::record::archive::Aligned::copy_of(&[2]);
        assert!(read::<bool>(two.as_slice(), Trust::VALIDATE).is_err());
        let surrogate = crate::record::archive::Aligned::copy_of(&0xd800_u32.to_le_bytes());
        assert!(read::<char>(surrogate.as_slice(), Trust::VALIDATE).is_err());
    }
}
