//! A TaskManager's slots, and which jobs hold them: Flink's `TaskSlotTable`. It is the truth; what the ResourceManager
//! knows follows it.
//!
//! **Invariant:** a job holds at most one allocation, for an allocation is a worker process, and a job has one here.

use std::collections::BTreeMap;

use millstream_model::id::AllocationId;

use crate::slot_manager::Allocation;

/// The decider.
#[derive(Clone, Debug)]
pub struct SlotTable {
    total: u32,
    held: BTreeMap<AllocationId, Allocation>,
}

/// What an accepted request changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Accepted {
    /// A worker is to be started.
    New,
    /// The request was repeated.
    Already,
}

/// A request that cannot be met.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RequestRefused {
    #[error("{asked} slots were asked for and {free} of {total} are free")]
    TooFewSlots { asked: u32, free: u32, total: u32 },
    #[error("no slots were asked for")]
    NoSlots,
    #[error("job {job} has slots here already, and a worker that has them: allocation {id}")]
    HasWorker { job: millstream_model::id::JobId, id: AllocationId },
    #[error("allocation {id} is of job {holder} with {slots} slots")]
    OfAnother { id: AllocationId, holder: millstream_model::id::JobId, slots: u32 },
}

impl SlotTable {
    pub fn new(total: u32) -> SlotTable {
        SlotTable { total, held: BTreeMap::new() }
    }

    pub fn total(&self) -> u32 {
        self.total
    }

    pub fn free(&self) -> u32 {
        self.total - self.held.values().map(|held| held.slots).sum::<u32>()
    }

    /// Gives slots to a job.
    ///
    /// # Errors
    /// If there are not so many; then nothing has changed.
    pub fn request(&mut self, id: AllocationId, allocation: Allocation) -> Result<Accepted, RequestRefused> {
        if let Some(held) = self.held.get(&id) {
            if *held == allocation {
                return Ok(Accepted::Already);
            }
            return Err(RequestRefused::OfAnother { id, holder: held.job, slots: held.slots });
        }
        if allocation.slots == 0 {
            return Err(RequestRefused::NoSlots);
        }
        if let Some((id, held)) = self.held().find(|(_, held)| held.job == allocation.job) {
            return Err(RequestRefused::HasWorker { job: held.job, id });
        }
        let free = self.free();
        if allocation.slots > free {
            return Err(RequestRefused::TooFewSlots { asked: allocation.slots, free, total: self.total });
        }
        self.held.insert(id, allocation);
        Ok(Accepted::New)
    }

    /// Takes slots back. What they were of, unless nobody held them.
    pub fn free_up(&mut self, id: AllocationId) -> Option<Allocation> {
        self.held.remove(&id)
    }

    pub fn held(&self) -> impl Iterator<Item = (AllocationId, Allocation)> {
        self.held.iter().map(|(id, allocation)| (*id, *allocation))
    }
}

#[cfg(test)]
mod tests {
    use millstream_model::id::JobId;

    use super::*;

    fn of(job: u128, slots: u32) -> Allocation {
        Allocation { job: JobId(job), slots }
    }

    #[test]
    fn requests_are_idempotent_and_never_exceed_the_slots() {
        let mut table = SlotTable::new(3);
        assert_eq!(table.request(AllocationId(1), of(1, 2)), Ok(Accepted::New));
        assert_eq!(table.request(AllocationId(1), of(1, 2)), Ok(Accepted::Already));
        assert_eq!(
            table.request(AllocationId(2), of(2, 2)),
            Err(RequestRefused::TooFewSlots { asked: 2, free: 1, total: 3 })
        );
        assert_eq!(table.request(AllocationId(3), of(2, 0)), Err(RequestRefused::NoSlots));
        assert_eq!(table.request(AllocationId(2), of(2, 1)), Ok(Accepted::New));
        assert_eq!((table.free(), table.held().count()), (0, 2));
    }

    #[test]
    fn an_allocation_never_changes_its_job() {
        let mut table = SlotTable::new(3);
        table.request(AllocationId(1), of(1, 2)).unwrap();
        let refused = table.request(AllocationId(1), of(2, 2));
        assert_eq!(refused, Err(RequestRefused::OfAnother { id: AllocationId(1), holder: JobId(1), slots: 2 }));
    }

    #[test]
    fn a_job_gets_no_second_worker_until_its_first_has_gone() {
        let mut table = SlotTable::new(3);
        table.request(AllocationId(1), of(1, 1)).unwrap();
        let refused = table.request(AllocationId(2), of(1, 1));
        assert_eq!(refused, Err(RequestRefused::HasWorker { job: JobId(1), id: AllocationId(1) }));
        table.free_up(AllocationId(1));
        assert_eq!(table.request(AllocationId(2), of(1, 2)), Ok(Accepted::New));
    }

    #[test]
    fn what_is_freed_can_be_given_again() {
        let mut table = SlotTable::new(2);
        table.request(AllocationId(1), of(1, 2)).unwrap();
        assert_eq!(table.free_up(AllocationId(1)), Some(of(1, 2)));
        assert_eq!(table.free_up(AllocationId(1)), None);
        assert_eq!(table.request(AllocationId(2), of(2, 2)), Ok(Accepted::New));
    }
}
