//! Which subtask owns a key: hash → key group → subtask. State and shuffle must agree, so it lives here.
//!
//! The formula and the bounds are Flink's (`KeyGroupRangeAssignment`, `MathUtils.murmurHash`), so that reasoning about
//! rescaling carries over. What differs is the 32-bit hash that goes in: ours is defined on the logical value of a
//! record, Flink's is Java's `hashCode`.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// The number of key groups of an operator: the highest parallelism it can ever have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MaxParallelism(pub u32);

impl MaxParallelism {
    /// Flink's bound, `UPPER_BOUND_MAX_PARALLELISM`.
    pub const LIMIT: u32 = 1 << 15;

    /// What Flink chooses when the user says nothing (`computeDefaultMaxParallelism`): one and a half times the
    /// parallelism, rounded up to a power of two, at least 128.
    pub fn default_for(parallelism: u32) -> MaxParallelism {
        let wanted = (parallelism + parallelism / 2).next_power_of_two();
        MaxParallelism(wanted.clamp(128, Self::LIMIT))
    }
}

/// The hash of a key as it travels with records: that of its value, murmured, so that its group takes one more step and
/// is not murmured for again wherever the record comes by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct KeyHash(pub u32);

impl KeyHash {
    /// What a record without a key has; a key may have it too.
    pub const NONE: KeyHash = KeyHash(0);

    /// Of the hash of a key's value.
    #[inline]
    pub fn of(hash: u32) -> KeyHash {
        KeyHash(murmur_hash(hash))
    }
}

/// A group of keys that moves as one when a job is rescaled.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct KeyGroup(pub u16);

impl KeyGroup {
    /// The group of a key with this hash.
    #[inline]
    pub fn of(KeyHash(murmur): KeyHash, max: MaxParallelism) -> KeyGroup {
        // A power of two, the usual case, needs no division.
        let group = if max.0.is_power_of_two() { murmur & (max.0 - 1) } else { murmur % max.0 };
        KeyGroup(group as u16)
    }

    /// The subtask that owns this group.
    #[inline]
    pub fn subtask(self, max: MaxParallelism, parallelism: u32) -> u32 {
        u32::from(self.0) * parallelism / max.0
    }

    /// The groups that subtask `index` of `parallelism` owns; contiguous, and disjoint from those of the others.
    pub fn range(max: MaxParallelism, parallelism: u32, index: u32) -> Range<u16> {
        let start = (index * max.0).div_ceil(parallelism);
        let end = ((index + 1) * max.0).div_ceil(parallelism);
        start as u16..end as u16
    }
}

/// Flink's `MathUtils.murmurHash`: Murmur3 of one 32-bit word, made non-negative as Java's `int` demands.
#[inline]
fn murmur_hash(code: u32) -> u32 {
    let mut code = code.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    code = code.rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64) ^ 4;
    code = (code ^ (code >> 16)).wrapping_mul(0x85eb_ca6b);
    code = (code ^ (code >> 13)).wrapping_mul(0xc2b2_ae35);
    code ^= code >> 16;
    match code as i32 {
        code if code >= 0 => code as u32,
        i32::MIN => 0,
        code => -code as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_has_exactly_the_owner_whose_range_holds_it() {
        for max in [1, 2, 7, 128, 130, 1 << 15].map(MaxParallelism) {
            for parallelism in [1, 2, 3, 5, 64, 127, 128].into_iter().filter(|p| *p <= max.0) {
                for group in (0..max.0 as u16).map(KeyGroup) {
                    let owner = group.subtask(max, parallelism);
                    let range = KeyGroup::range(max, parallelism, owner);
                    assert!(range.contains(&group.0), "{group:?} of {max:?} at {parallelism}");
                }
                let owned: usize = (0..parallelism).map(|i| KeyGroup::range(max, parallelism, i).len()).sum();
                assert_eq!(owned as u32, max.0);
            }
        }
    }

    #[test]
    fn the_default_follows_flinks_rule() {
        let defaults = [(1, 128), (85, 128), (86, 256), (200, 512), (30_000, 32_768)];
        for (parallelism, max) in defaults {
            assert_eq!(MaxParallelism::default_for(parallelism), MaxParallelism(max));
        }
    }

    #[test]
    fn hashes_are_never_negative() {
        for code in (0..1_000_000u32).map(|i| i.wrapping_mul(0x9E37_79B9)) {
            assert!(murmur_hash(code) <= i32::MAX as u32);
        }
    }

    #[test]
    fn hashes_are_murmur3_of_four_bytes() {
        // MurmurHash3_x86_32 with seed 0 of the four little-endian bytes 21 43 65 87 is f55b516b (the published test
        // vector); as a Java int it is negative, so its absolute value is taken.
        assert_eq!(murmur_hash(0x8765_4321), (0xf55b_516b_u32 as i32).unsigned_abs());
        assert_eq!(murmur_hash(0), 0x2362_f9de);
        assert_eq!(murmur_hash(0xffff_ffff), 0x7629_3b50);
    }
}
