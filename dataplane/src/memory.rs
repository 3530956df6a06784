//! What the slots of a worker have: an account for the state of each, and the memory for buffers of all.

use std::sync::Arc;

use millstream_api::state::account::SlotAccount;
use millstream_model::{id::SlotIndex, memory::SlotMemory, message::MemoryMetrics};
use millstream_shuffle::segment::Census;

/// A worker's, for its life.
#[derive(Debug)]
pub(crate) struct WorkerMemory {
    slots: Vec<Arc<SlotAccount>>,
    /// For buffers; `None` if nothing is limited.
    network_max: Option<u64>,
    /// Segments of each deployment that runs or has not given back all of them, as far as is known, and how large they are.
    segments: Vec<(Census, u64)>,
}

impl WorkerMemory {
    /// Of a worker that has so many slots, each with this.
    pub(crate) fn new(slots: u32, of_each: Option<SlotMemory>) -> WorkerMemory {
        let account = || of_each.map_or_else(SlotAccount::unlimited, |memory| SlotAccount::new(memory.managed));
        let network_max = of_each.map(|memory| memory.network.saturating_mul(slots.into()));
        WorkerMemory { slots: (0..slots).map(|_| Arc::new(account())).collect(), network_max, segments: Vec::new() }
    }

    /// Of the state in a slot. A slot that the worker does not have keeps none that anybody would limit.
    pub(crate) fn account(&self, slot: SlotIndex) -> Arc<SlotAccount> {
        self.slots.get(slot.0 as usize).cloned().unwrap_or_else(|| Arc::new(SlotAccount::unlimited()))
    }

    pub(crate) fn slots(&self) -> u32 {
        self.slots.len() as u32
    }

    /// What there is for buffers, if that is limited.
    pub(crate) fn network_max(&self) -> Option<u64> {
        self.network_max
    }

    /// A deployment has segments of this size.
    pub(crate) fn note_segments(&mut self, segments: Census, segment_bytes: u64) {
        self.segments.retain(|(segments, _)| !segments.is_over());
        self.segments.push((segments, segment_bytes));
    }

    /// How many segments are held by somebody.
    pub(crate) fn segments_in_use(&self) -> usize {
        self.segments.iter().map(|(segments, _)| segments.in_use()).sum()
    }

    /// What is in use of it now.
    pub(crate) fn metrics(&self) -> MemoryMetrics {
        let of = |(segments, bytes): &(Census, u64)| segments.in_use() as u64 * bytes;
        let sum = |of: fn(&SlotAccount) -> u64| self.slots.iter().map(|slot| of(slot)).fold(0, u64::saturating_add);
        MemoryMetrics {
            managed_used: sum(SlotAccount::used_bytes),
            managed_max: sum(SlotAccount::limit_bytes),
            network_used: self.segments.iter().map(of).sum(),
            network_max: self.network_max.unwrap_or(u64::MAX),
            segment_bytes: self.segments.last().map_or(0, |(_, bytes)| *bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use millstream_shuffle::segment::SegmentPool;

    use super::*;

    #[test]
    fn a_worker_has_what_its_slots_have_and_shows_what_it_uses() {
        let mut memory = WorkerMemory::new(3, Some(SlotMemory { managed: 100, network: 1000, total: 5000 }));
        assert_eq!((memory.network_max(), memory.account(SlotIndex(2)).limit_bytes()), (Some(3000), 100));
        let pool = SegmentPool::new(128, 4);
        memory.note_segments(pool.census(), 128);
        let held = [pool.take(), pool.take()];
        let metrics = memory.metrics();
        assert_eq!((metrics.managed_max, metrics.network_max, metrics.network_used), (300, 3000, 256));
        drop(held);
        let other = SegmentPool::new(64, 1);
        memory.note_segments(other.census(), 64);
        assert_eq!((memory.metrics().network_used, memory.metrics().segment_bytes), (0, 64));
        assert_eq!(memory.segments.len(), 2, "another region may still use it");
        let held = pool.take();
        drop(pool);
        memory.note_segments(other.census(), 64);
        assert_eq!(memory.segments.len(), 3, "somebody has a segment");
        drop(held);
        memory.note_segments(other.census(), 64);
        assert_eq!(memory.segments.len(), 3, "what has come back is forgotten");
    }
}
