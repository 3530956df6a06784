//! Timers of one operator: per key and moment at most one, fired in the order of their moments.

use std::collections::BTreeMap;

use hashbrown::HashTable;
use millstream_model::{
    fault::Failure,
    id::OperatorId,
    key_group::{KeyGroup, KeyHash, MaxParallelism},
};

use super::{
    account::StateAccount,
    snapshot::{Section, SectionKind, Snapshot},
    table::spread,
};
use crate::record::{
    Key, Record,
    archive::{self, Aligned, Trust},
    fingerprint_of,
};

/// Timers in one domain of time.
pub struct Timers<K> {
    name: &'static str,
    moments: BTreeMap<i64, HashTable<(KeyHash, K)>>,
    /// Those that are due now and have not fired yet.
    due: Vec<(KeyHash, K)>,
    due_at: i64,
    account: StateAccount,
}

/// What a moment takes besides its timers, about: a place in the tree of moments.
const MOMENT_BYTES: usize = 96;

/// What the timers of a moment take, with all that they hold on the heap.
fn taken<K: Record>(timers: &HashTable<(KeyHash, K)>) -> usize {
    let held = if K::HAS_HEAP { timers.iter().map(|(_, key)| key.heap_bytes()).sum() } else { 0 };
    MOMENT_BYTES + timers.allocation_size() + held
}

impl<K: Key> Timers<K> {
    /// `name` is that of the domain, unique within the operator.
    pub fn new(name: &'static str, account: StateAccount) -> Self {
        Timers { name, moments: BTreeMap::new(), due: Vec::new(), due_at: i64::MIN, account }
    }

    /// Sets a timer. A second one for the same key and moment changes nothing.
    pub fn register(&mut self, at: i64, hash: KeyHash, key: K::Ref<'_>) {
        let mut bytes = 0;
        let timers = self.moments.entry(at).or_insert_with(|| {
            bytes = MOMENT_BYTES;
            HashTable::new()
        });
        let same = |timer: &(KeyHash, K)| timer.0 == hash && K::same(timer.1.handle(), key);
        if timers.find(spread(hash), same).is_none() {
            let before = timers.allocation_size();
            let key = K::own(key);
            bytes += key.heap_bytes();
            timers.insert_unique(spread(hash), (hash, key), |timer| spread(timer.0));
            self.account.charge(bytes + timers.allocation_size() - before);
        }
    }

    pub fn delete(&mut self, at: i64, hash: KeyHash, key: K::Ref<'_>) {
        let Some(timers) = self.moments.get_mut(&at) else { return };
        let same = |timer: &(KeyHash, K)| timer.0 == hash && K::same(timer.1.handle(), key);
        if let Ok(timer) = timers.find_entry(spread(hash), same) {
            let ((_, key), _) = timer.remove();
            self.account.release(key.heap_bytes());
        }
        if timers.is_empty() {
            self.account.release(taken(timers));
            self.moments.remove(&at);
        }
    }

    /// The next timer that is due at `now`: its moment, hash and key. It is gone then.
    pub fn next_due(&mut self, now: i64) -> Option<(i64, KeyHash, K)> {
        while self.due.is_empty() {
            let moment = self.moments.first_entry().filter(|moment| *moment.key() <= now)?;
            self.due_at = *moment.key();
            self.account.release(taken(moment.get()));
            self.due.extend(moment.remove());
        }
        self.due.pop().map(|(hash, key)| (self.due_at, hash, key))
    }

    /// When the earliest timer is due.
    pub fn earliest(&self) -> Option<i64> {
        if self.due.is_empty() { self.moments.keys().next().copied() } else { Some(self.due_at) }
    }

    /// Adds all timers to a snapshot, by key group.
    pub fn snapshot(&self, operator: OperatorId, max: MaxParallelism, snapshot: &mut Snapshot) {
        let mut groups = BTreeMap::<KeyGroup, Vec<u8>>::new();
        let due = self.due.iter().map(|timer| (self.due_at, timer));
        let later = self.moments.iter().flat_map(|(at, timers)| timers.iter().map(|timer| (*at, timer)));
        for (at, (hash, key)) in due.chain(later) {
            let bytes = groups.entry(KeyGroup::of(*hash, max)).or_default();
            let archive = archive::write_alone::<(i64, K)>((at, key.handle()));
            bytes.extend_from_slice(&(archive.as_slice().len() as u64).to_le_bytes());
            bytes.extend_from_slice(archive.as_slice());
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        }
        snapshot.sections.extend(groups.into_iter().map(|(group, bytes)| Section {
            operator,
            kind: SectionKind::Keyed(group),
            name: self.name.to_owned(),
            fingerprint: Self::fingerprint(),
            bytes,
        }));
    }

    /// Takes the timers of this domain out of a section, if they are in it.
    ///
    /// # Errors
    /// If they are damaged, or were set for keys of another type.
    pub fn restore(&mut self, section: &Section) -> Result<(), Failure> {
        if section.name != self.name {
            return Ok(());
        }
        let damaged = || Failure::fatal(format!("the {} in the checkpoint cannot be read", self.name));
        if section.fingerprint != Self::fingerprint() {
            return Err(damaged());
        }
        let aligned = Aligned::copy_of(&section.bytes);
        let mut rest = aligned.as_slice();
        let mut found = Vec::new();
        while let Some((length, after)) = rest.split_first_chunk::<8>() {
            let length = u64::from_le_bytes(*length) as usize;
            let archive = after.get(..length).ok_or_else(damaged)?;
            let (at, key) = archive::read::<(i64, K)>(archive, Trust::VALIDATE).map_err(|_| damaged())?;
            found.push((at, K::own(key)));
            rest = after.get(length.next_multiple_of(8)..).unwrap_or(&[]);
        }
        for (at, key) in found {
            self.register(at, K::key_hash(key.handle()), key.handle());
        }
        Ok(())
    }

    fn fingerprint() -> u64 {
        fingerprint_of("timers", &[K::fingerprint()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn register(timers: &mut Timers<String>, at: i64, key: &str) {
        timers.register(at, <String as Key>::key_hash(key), key);
    }

    #[test]
    fn timers_fire_in_order_once_and_only_when_due() {
        let account = StateAccount::unlimited();
        let mut timers = Timers::<String>::new("event-time timers", account.clone());
        register(&mut timers, 30, "c");
        register(&mut timers, 10, "a");
        register(&mut timers, 10, "a");
        register(&mut timers, 20, "b");
        timers.delete(30, <String as Key>::key_hash("c"), "c");
        register(&mut timers, 25, "d");
        assert_ne!(account.used_bytes(), 0);
        let mut fired = Vec::new();
        while let Some((at, _, key)) = timers.next_due(20) {
            fired.push((at, key));
        }
        assert_eq!(fired, [(10, "a".to_owned()), (20, "b".to_owned())]);
        assert_eq!(timers.earliest(), Some(25));
        timers.delete(25, <String as Key>::key_hash("d"), "d");
        assert_eq!((timers.earliest(), account.used_bytes()), (None, 0));
    }
}
