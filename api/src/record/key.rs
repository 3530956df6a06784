//! Keys: records with a hash and an equality on the logical value, whatever form it has at the moment.
//!
//! The hashes decide which subtask owns a key and are part of the format of stored state, so they must never change:
//! xxh3 of the bytes for text, Murmur3's 64-bit finaliser for numbers.

use millstream_model::key_group::KeyHash;
use xxhash_rust::xxh3::xxh3_64;

use super::{List, Record};

/// A record that streams can be partitioned by. Floats are no keys, since equality and hash disagree on them.
pub trait Key: Record {
    /// The same for every form of the same value.
    fn hash(key: Self::Ref<'_>) -> u32;

    /// The hash that travels with records.
    #[inline]
    fn key_hash(key: Self::Ref<'_>) -> KeyHash {
        KeyHash::of(Self::hash(key))
    }

    fn same(a: Self::Ref<'_>, b: Self::Ref<'_>) -> bool;
}

/// A key selector, made a plain function pointer.
pub type KeyOf<K, T> = for<'a> fn(&'a <T as Record>::Ref<'a>) -> <K as Record>::Ref<'a>;

/// Shows the key of a record.
///
/// A selector borrows the handle as long as what the handle borrows, because only so can closures that return
/// borrowed keys be inferred (E0582). So the handle's lifetime is cut to that of a variable here.
#[inline]
pub fn with_key<K: Key, T: Record, R>(
    key_of: KeyOf<K, T>,
    record: T::Ref<'_>,
    show: impl FnOnce(K::Ref<'_>) -> R,
) -> R {
    let handle = T::shorten(record);
    let key = key_of(&handle);
    show(key)
}

/// Folds the hash of one part into that of the parts before it.
#[inline]
pub fn mix(hash: u32, part: u32) -> u32 {
    // Boost's hash_combine, in 32 bits.
    hash ^ part.wrapping_add(0x9e37_79b9).wrapping_add(hash << 6).wrapping_add(hash >> 2)
}

/// Murmur3's `fmix64`, folded to 32 bits.
#[inline]
pub fn hash_number(number: u64) -> u32 {
    let mut hash = number;
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (hash ^ (hash >> 33)) as u32
}

macro_rules! number_key {
    ($($type:ty),*) => { $(impl Key for $type {
        #[inline]
        fn hash(key: $type) -> u32 {
            hash_number(key as u64)
        }
        #[inline]
        fn same(a: $type, b: $type) -> bool {
            a == b
        }
    })* };
}
number_key!(u8, u16, u32, u64, i8, i16, i32, i64, bool, char);

macro_rules! wide_key {
    ($($type:ty),*) => { $(impl Key for $type {
        fn hash(key: $type) -> u32 {
            mix(hash_number(key as u64), hash_number((key as u128 >> 64) as u64))
        }
        fn same(a: $type, b: $type) -> bool {
            a == b
        }
    })* };
}
wide_key!(u128, i128);

impl Key for () {
    fn hash((): ()) -> u32 {
        0
    }
    fn same((): (), (): ()) -> bool {
        true
    }
}

impl Key for String {
    #[inline]
    fn hash(key: &str) -> u32 {
        xxh3_64(key.as_bytes()) as u32
    }
    #[inline]
    fn same(a: &str, b: &str) -> bool {
        same_bytes(a.as_bytes(), b.as_bytes())
    }
}

/// Whether two texts are equal. Keys are short more often than not, and calling `memcmp` costs more than comparing a word.
#[inline]
fn same_bytes(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    // Two loads that may overlap cover each of these lengths.
    match a.len() {
        8..=16 => a.first_chunk::<8>() == b.first_chunk::<8>() && a.last_chunk::<8>() == b.last_chunk::<8>(),
        4..8 => a.first_chunk::<4>() == b.first_chunk::<4>() && a.last_chunk::<4>() == b.last_chunk::<4>(),
        2..4 => a.first_chunk::<2>() == b.first_chunk::<2>() && a.last_chunk::<2>() == b.last_chunk::<2>(),
        1 => a[0] == b[0],
        _ => a == b,
    }
}

impl<const N: usize> Key for [u8; N] {
    #[inline]
    fn hash(key: &[u8; N]) -> u32 {
        xxh3_64(key) as u32
    }
    #[inline]
    fn same(a: &[u8; N], b: &[u8; N]) -> bool {
        a == b
    }
}

impl<T: Key> Key for Option<T> {
    #[inline]
    fn hash(key: Option<T::Ref<'_>>) -> u32 {
        key.map_or(0, |value| mix(1, T::hash(value)))
    }
    #[inline]
    fn same(a: Option<T::Ref<'_>>, b: Option<T::Ref<'_>>) -> bool {
        match (a, b) {
            (Some(a), Some(b)) => T::same(a, b),
            (None, None) => true,
            _ => false,
        }
    }
}

impl<T: Key> Key for Vec<T> {
    fn hash(key: List<'_, T>) -> u32 {
        key.iter().fold(key.len() as u32, |hash, element| mix(hash, T::hash(element)))
    }
    fn same(a: List<'_, T>, b: List<'_, T>) -> bool {
        a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| T::same(a, b))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_any_length_are_the_same_only_if_every_byte_is() {
        for length in 0..40 {
            let text: Vec<u8> = (0..length).map(|at| b'a' + at % 26).collect();
            assert!(same_bytes(&text, &text.clone()), "{length}");
            for at in 0..usize::from(length) {
                let mut other = text.clone();
                other[at] ^= 1;
                assert!(!same_bytes(&text, &other), "byte {at} of {length}");
            }
            assert!(!same_bytes(&text, &[&text[..], b"x"].concat()), "{length}");
        }
    }
}
