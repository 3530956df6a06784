//! The table of one keyed state: a hash map for each key group of the subtask.
//!
//! Entries are reached through closures, by hash and borrowed key, so that the table behind can be exchanged for one
//! that pages, copies on write or moves entries.

use std::ops::Range;

use hashbrown::HashTable;
use millstream_model::{
    fault::Failure,
    id::OperatorId,
    key_group::{KeyGroup, KeyHash, MaxParallelism},
};

use super::{
    account::StateAccount,
    prefetch::prefetch,
    snapshot::{Section, SectionKind, Snapshot},
};
use crate::record::{
    Key, Record,
    archive::{self, Aligned, Trust},
    fingerprint_of,
};

/// A value that a state holds.
pub trait StateValue: Sized + 'static {
    /// The record it is stored as.
    type Stored: Record;
    /// See [`Record::HAS_HEAP`].
    const HAS_HEAP: bool;

    /// See [`Record::heap_bytes`].
    fn heap_bytes(&self) -> usize;

    fn stored(&self) -> Self::Stored;
    fn restored(stored: Self::Stored) -> Self;

    /// The archive of `(key, value)`.
    fn write<'a, K: Key>(key: &'a K, value: &'a Self) -> Aligned {
        let stored = value.stored();
        archive::write_alone::<(K, Self::Stored)>((key.handle(), stored.handle()))
    }
}

impl<T: Record> StateValue for T {
    type Stored = T;
    const HAS_HEAP: bool = T::HAS_HEAP;

    #[inline]
    fn heap_bytes(&self) -> usize {
        Record::heap_bytes(self)
    }

    fn stored(&self) -> T {
        T::own(self.handle())
    }

    fn restored(stored: T) -> T {
        stored
    }

    fn write<'a, K: Key>(key: &'a K, value: &'a T) -> Aligned {
        archive::write_alone::<(K, T)>((key.handle(), value.handle()))
    }
}

/// Tables smaller than this are near by themselves.
const NEAR_BYTES: usize = 4 << 20;

struct Entry<K, V> {
    key: K,
    value: V,
}

/// All entries of one state in one subtask.
pub struct Table<K, V> {
    name: String,
    max_parallelism: MaxParallelism,
    first_group: u16,
    groups: Vec<HashTable<Entry<K, V>>>,
    /// In all groups.
    entries: usize,
    /// What the table of each group takes without what its entries hold on the heap; charged.
    sizes: Vec<usize>,
    account: StateAccount,
}

/// What an entry holds on the heap.
#[inline]
fn held<K: Key, V: StateValue>(entry: &Entry<K, V>) -> usize {
    let key = if K::HAS_HEAP { entry.key.heap_bytes() } else { 0 };
    key + if V::HAS_HEAP { entry.value.heap_bytes() } else { 0 }
}

/// Shows a value to be changed, and charges what it has become larger by.
#[inline]
fn change<V: StateValue, R>(account: &StateAccount, value: &mut V, show: impl FnOnce(&mut V) -> R) -> R {
    if !V::HAS_HEAP {
        return show(value);
    }
    let before = value.heap_bytes();
    let shown = show(value);
    account.change(before, value.heap_bytes());
    shown
}

/// A key's hash is spent on its key group: in one group its low bits are all the same. This spreads it over 64 bits, with
/// all of it in the low ones, by which a table finds the place, and in the high ones, which it remembers.
#[inline]
pub(super) fn spread(hash: KeyHash) -> u64 {
    let product = u64::from(hash.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ (product >> 32)
}

impl<K: Key, V: StateValue> Table<K, V> {
    pub fn new(name: &str, max_parallelism: MaxParallelism, groups: Range<u16>, account: StateAccount) -> Self {
        Table {
            name: name.to_owned(),
            max_parallelism,
            first_group: groups.start,
            sizes: vec![0; groups.len()],
            groups: groups.map(|_| HashTable::new()).collect(),
            entries: 0,
            account,
        }
    }

    #[inline]
    fn group_index(&self, hash: KeyHash) -> u16 {
        KeyGroup::of(hash, self.max_parallelism).0 - self.first_group
    }

    /// Shows the value of a key, if it has one.
    #[inline]
    pub fn with<R>(&self, hash: KeyHash, key: K::Ref<'_>, show: impl FnOnce(Option<&V>) -> R) -> R {
        let group = usize::from(self.group_index(hash));
        let entry = self.groups[group].find(spread(hash), |entry| K::same(entry.key.handle(), key));
        show(entry.map(|entry| &entry.value))
    }

    /// Shows the value of a key, if it has one, to be changed.
    #[inline]
    pub fn change<R>(&mut self, hash: KeyHash, key: K::Ref<'_>, show: impl FnOnce(Option<&mut V>) -> R) -> R {
        let group = usize::from(self.group_index(hash));
        let entry = self.groups[group].find_mut(spread(hash), |entry| K::same(entry.key.handle(), key));
        match entry {
            Some(entry) => change(&self.account, &mut entry.value, |value| show(Some(value))),
            None => show(None),
        }
    }

    /// Shows the value of a key, which is made first if there is none. Fails the record if there is no memory for it: see
    /// [`StateAccount::charge`].
    #[inline]
    pub fn upsert<R>(
        &mut self,
        hash: KeyHash,
        key: K::Ref<'_>,
        make: impl FnOnce() -> V,
        show: impl FnOnce(&mut V) -> R,
    ) -> R {
        let group = usize::from(self.group_index(hash));
        let table = &mut self.groups[group];
        // Nearly always there is one, and to look for it alone costs less than to look for a place as well.
        if let Some(entry) = table.find_mut(spread(hash), |entry| K::same(entry.key.handle(), key)) {
            return change(&self.account, &mut entry.value, show);
        }
        let fresh = Entry { key: K::own(key), value: make() };
        let mut entry = table.insert_unique(spread(hash), fresh, |entry| spread(K::key_hash(entry.key.handle())));
        self.entries += 1;
        let shown = show(&mut entry.get_mut().value);
        let held = held(entry.get());
        let (before, after) = (self.sizes[group], table.allocation_size());
        self.sizes[group] = after;
        self.account.charge(after - before + held);
        shown
    }

    fn is_near(&self) -> bool {
        self.entries * size_of::<Entry<K, V>>() < NEAR_BYTES
    }

    /// Asks for the memory that lookups of these hashes will read, without waiting for it: the lookups that follow do
    /// not depend on each other, so the processor waits once for all of them.
    fn touch(&self, hashes: &[KeyHash]) {
        for hash in hashes {
            let table = &self.groups[usize::from(self.group_index(*hash))];
            // Any entry with the tag of this hash: it nearly always is the one.
            if let Some(entry) = table.find(spread(*hash), |_| true) {
                prefetch(entry);
            }
        }
    }

    /// Removes the value of a key and returns it.
    pub fn remove(&mut self, hash: KeyHash, key: K::Ref<'_>) -> Option<V> {
        let same = |entry: &Entry<K, V>| K::same(entry.key.handle(), key);
        let group = usize::from(self.group_index(hash));
        let (entry, _) = self.groups[group].find_entry(spread(hash), same).ok()?.remove();
        self.entries -= 1;
        // The table keeps its size.
        self.account.release(held(&entry));
        Some(entry.value)
    }

    /// The number of keys that have a value.
    pub fn len(&self) -> usize {
        self.entries
    }

    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Shows every entry, in no order.
    pub fn for_each(&self, mut show: impl FnMut(KeyHash, K::Ref<'_>, &V)) {
        self.groups.iter().flatten().for_each(|entry| {
            let key = entry.key.handle();
            show(K::key_hash(key), key, &entry.value);
        });
    }

    fn fingerprint() -> u64 {
        fingerprint_of("keyed", &[K::fingerprint(), V::Stored::fingerprint()])
    }
}

/// A table whose types only its function knows, for snapshots.
pub trait AnyTable {
    fn snapshot(&self, operator: OperatorId, snapshot: &mut Snapshot);
    /// # Errors
    /// If the section is damaged, or was written for other types.
    fn restore(&mut self, section: &Section) -> Result<(), Failure>;
    fn name(&self) -> &str;
    /// See [`Push::can_warm`](crate::push::Push::can_warm).
    fn can_warm(&self) -> bool;
    /// See [`Push::warm`](crate::push::Push::warm).
    fn warm(&self, key_hashes: &[KeyHash]);
}

impl<K: Key, V: StateValue> AnyTable for Table<K, V> {
    fn snapshot(&self, operator: OperatorId, snapshot: &mut Snapshot) {
        for (group, table) in (self.first_group..).zip(&self.groups).filter(|(_, table)| !table.is_empty()) {
            let mut bytes = Vec::new();
            for entry in table {
                let archive = V::write::<K>(&entry.key, &entry.value);
                let archive = archive.as_slice();
                bytes.extend_from_slice(&(archive.len() as u64).to_le_bytes());
                bytes.extend_from_slice(archive);
                bytes.resize(bytes.len().next_multiple_of(8), 0);
            }
            snapshot.sections.push(Section {
                operator,
                kind: SectionKind::Keyed(KeyGroup(group)),
                name: self.name.clone(),
                fingerprint: Self::fingerprint(),
                bytes,
            });
        }
    }

    fn restore(&mut self, section: &Section) -> Result<(), Failure> {
        if section.fingerprint != Self::fingerprint() {
            return Err(Failure::fatal(format!(
                "state '{}' was stored with other types than ({}, {}); give the state another name, or restore with \
                 the program that wrote it",
                self.name,
                std::any::type_name::<K>(),
                std::any::type_name::<V>()
            )));
        }
        let name = self.name.clone();
        let damaged = |cause: &dyn std::fmt::Display| {
            Failure::fatal(format!("state '{name}' cannot be read from the checkpoint: {cause}"))
        };
        // Section bytes may lie anywhere in a file; archives need alignment.
        let aligned = Aligned::copy_of(&section.bytes);
        let mut rest = aligned.as_slice();
        while let Some((length, after)) = rest.split_first_chunk::<8>() {
            let length = u64::from_le_bytes(*length) as usize;
            let archive = after.get(..length).ok_or_else(|| damaged(&"an entry is cut off"))?;
            let (key, value) =
                archive::read::<(K, V::Stored)>(archive, Trust::VALIDATE).map_err(|cause| damaged(&cause))?;
            let hash = K::key_hash(key);
            let group = KeyGroup::of(hash, self.max_parallelism);
            if !matches!(group.0.checked_sub(self.first_group), Some(at) if usize::from(at) < self.groups.len()) {
                return Err(damaged(&"a key belongs to another subtask"));
            }
            self.upsert(hash, key, || V::restored(<V::Stored as Record>::own(value)), |_| ());
            rest = after.get(length.next_multiple_of(8)..).unwrap_or(&[]);
        }
        if rest.is_empty() { Ok(()) } else { Err(damaged(&"bytes are left over")) }
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn can_warm(&self) -> bool {
        !self.is_near()
    }

    fn warm(&self, key_hashes: &[KeyHash]) {
        if !self.is_near() {
            self.touch(key_hashes);
        }
    }
}

#[cfg(test)]
mod tests {
    use millstream_model::{id::CheckpointId, message::CheckpointKind};

    use super::*;
    use crate::signal::Barrier;

    const MAX: MaxParallelism = MaxParallelism(128);
    const KEYS: u64 = if cfg!(miri) { 300 } else { 5_000 };

    fn filled(range: Range<u16>) -> Table<String, u64> {
        let mut table = Table::new("count", MAX, range.clone(), StateAccount::unlimited());
        for number in 0..KEYS {
            let key = format!("key number {number}");
            let hash = <String as Key>::key_hash(&key);
            if range.contains(&KeyGroup::of(hash, MAX).0) {
                table.upsert(hash, key.as_str(), || 0, |value| *value += number);
            }
        }
        table
    }

    fn snapshot_of(table: &Table<String, u64>) -> Vec<Section> {
        let barrier = Barrier { checkpoint: CheckpointId(1), kind: CheckpointKind::Checkpoint };
        let mut snapshot = Snapshot::new(barrier);
        table.snapshot(OperatorId(1), &mut snapshot);
        snapshot.sections
    }

    #[test]
    fn two_halves_restore_what_the_whole_has_written() {
        let whole = filled(0..128);
        let half = |groups| Table::<String, u64>::new("count", MAX, groups, StateAccount::unlimited());
        let mut halves = [half(0..64), half(64..128)];
        for section in snapshot_of(&whole) {
            let SectionKind::Keyed(group) = section.kind else { panic!("keyed state is keyed") };
            halves[usize::from(group.0 >= 64)].restore(&section).unwrap();
        }
        assert_eq!(halves[0].len() + halves[1].len(), whole.len());
        assert!(halves.iter().all(|half| !half.is_empty()));
        whole.for_each(|hash, key, value| {
            let half = &halves[usize::from(KeyGroup::of(hash, MAX).0 >= 64)];
            assert_eq!(half.with(hash, key, |found| found.copied()), Some(*value));
        });
    }

    #[test]
    fn other_types_and_damaged_bytes_are_refused() {
        let sections = snapshot_of(&filled(0..128));
        let mut other = Table::<String, i64>::new("count", MAX, 0..128, StateAccount::unlimited());
        assert!(other.restore(&sections[0]).unwrap_err().message.contains("other types"));
        for cut in [1, 7, 9, 20] {
            let mut section = sections[0].clone();
            section.bytes.truncate(section.bytes.len() - cut);
            let mut table = Table::<String, u64>::new("count", MAX, 0..128, StateAccount::unlimited());
            assert!(table.restore(&section).is_err(), "{cut} bytes cut off");
        }
    }

    /// What an account would have to show.
    fn taken<K: Key, V: StateValue>(table: &Table<K, V>) -> usize {
        let tables: usize = table.groups.iter().map(HashTable::allocation_size).sum();
        tables + table.groups.iter().flatten().map(held).sum::<usize>()
    }

    #[test]
    fn the_account_shows_what_a_table_takes_whatever_happens_to_it() {
        let account = StateAccount::unlimited();
        let mut table = Table::<String, Vec<String>>::new("texts", MAX, 0..128, account.clone());
        // In no order, and the same each time.
        let mut state = 7_u64;
        let mut random = move |below: u64| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (state >> 33) % below
        };
        let (operations, keys) = if cfg!(miri) { (300, 400) } else { (20_000, 500) };
        for _ in 0..operations {
            let key = format!("key number {}", random(keys));
            let hash = <String as Key>::key_hash(&key);
            match random(10) {
                0 => drop(table.remove(hash, &key)),
                1 => table.change(hash, &key, |list| list.into_iter().for_each(|list| drop(list.pop()))),
                2 => table.change(hash, &key, |list| list.into_iter().for_each(|list| *list = Vec::new())),
                _ => table.upsert(hash, &key, Vec::new, |list| list.push("x".repeat(random(100) as usize))),
            }
        }
        assert!(table.len() > 100);
        assert_eq!(account.used_bytes(), taken(&table) as u64);
        let mut copy = Table::<String, Vec<String>>::new("texts", MAX, 0..128, account.clone());
        let before = account.used_bytes();
        let mut snapshot = Snapshot::new(Barrier { checkpoint: CheckpointId(1), kind: CheckpointKind::Checkpoint });
        table.snapshot(OperatorId(1), &mut snapshot);
        snapshot.sections.iter().for_each(|section| copy.restore(section).unwrap());
        assert_eq!(account.used_bytes() - before, taken(&copy) as u64, "what is restored counts, too");
    }

    #[test]
    fn a_removed_key_is_gone() {
        let mut table = filled(0..128);
        let hash = <String as Key>::key_hash("key number 7");
        assert_eq!(table.remove(hash, "key number 7"), Some(7));
        assert_eq!(table.with(hash, "key number 7", |found| found.copied()), None);
        assert_eq!(table.len() as u64, KEYS - 1);
    }

    #[test]
    fn asking_for_what_will_be_looked_up_changes_nothing() {
        let mut table = filled(0..128);
        let there = <String as Key>::key_hash("key number 7");
        table.touch(&[there, <String as Key>::key_hash("a key that is not there")]);
        assert_eq!(table.remove(there, "key number 7"), Some(7));
        table.touch(&[there]);
        assert_eq!(table.len() as u64, KEYS - 1);
    }
}
