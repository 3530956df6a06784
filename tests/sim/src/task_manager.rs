//! A simulated TaskManager: the real slot table, and workers.

use std::collections::BTreeMap;

use millstream_controlplane::clock::Moment;
use millstream_model::id::{AllocationId, TaskManagerId};
use millstream_slots::{Allocation, SlotTable};

use crate::{network::Time, worker::Worker};

/// What a TaskManager does when its JobManager is gone. Workers that survive it, and are adopted, will be another way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnJobManagerLost {
    #[default]
    EndWorkers,
}

/// A host with its TaskManager.
#[derive(Clone, Debug)]
pub struct Host {
    pub is_up: bool,
    /// Of the session with one JobManager; the next one has another.
    pub id: TaskManagerId,
    pub connection: Option<u64>,
    pub table: SlotTable,
    pub workers: BTreeMap<AllocationId, Running>,
    pub partitioned_until: Time,
    pub slow_until: Time,
    pub slowness: u64,
    pub still_births_until: Time,
    pub pause: Time,
    pub on_lost: OnJobManagerLost,
}

/// A worker's process.
#[derive(Clone, Debug)]
pub struct Running {
    pub worker: Worker,
    pub is_ready: bool,
    /// Whether it was told to end.
    pub is_ending: bool,
}

pub const FIRST_PAUSE: Time = 50_000;
pub const LONGEST_PAUSE: Time = 5_000_000;
const SLOWEST: Time = 2_500_000;

impl Host {
    pub fn new(slots: u32) -> Host {
        Host {
            is_up: true,
            id: TaskManagerId(0),
            connection: None,
            table: SlotTable::new(slots),
            workers: BTreeMap::new(),
            partitioned_until: 0,
            slow_until: 0,
            slowness: 1,
            still_births_until: 0,
            pause: FIRST_PAUSE,
            on_lost: OnJobManagerLost::default(),
        }
    }

    pub fn is_partitioned(&self, now: Time) -> bool {
        now < self.partitioned_until
    }

    /// How long something takes here. Never so long that heartbeats would be missed: that is another fault.
    pub fn slowed(&self, now: Time, delay: Time) -> Time {
        if now < self.slow_until { (delay * self.slowness).min(SLOWEST.max(delay)) } else { delay }
    }

    /// The truth about its slots agrees with its workers.
    ///
    /// # Errors
    /// If not.
    pub fn check(&self) -> Result<(), String> {
        let held: Vec<(AllocationId, Allocation)> = self.table.held().collect();
        if held.iter().map(|(_, held)| held.slots).sum::<u32>() > self.table.total() {
            return Err(format!("more slots are held than there are: {held:?}"));
        }
        for (id, running) in &self.workers {
            let job = running.worker.job().id;
            if !held.iter().any(|(known, allocation)| known == id && allocation.job == job) {
                return Err(format!("the worker of allocation {} of {} holds no slot", id.0, crate::store::short(job)));
            }
        }
        if held.len() != self.workers.len() {
            return Err(format!("{} allocations are held by {} workers", held.len(), self.workers.len()));
        }
        Ok(())
    }
}

pub fn moment(now: Time) -> Moment {
    Moment(std::time::Duration::from_micros(now))
}
