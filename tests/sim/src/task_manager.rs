//! A simulated TaskManager: the real slot table, and workers.

use std::collections::{BTreeMap, BTreeSet};

use millstream_controlplane::clock::Moment;
use millstream_model::{
    id::{AllocationId, JobId, LeaderEpoch, ResourceId, TaskManagerId},
    message::{FromWorker, Report},
};
use millstream_slots::{Allocation, SlotTable};

use crate::{network::Time, worker::Worker};

/// What a TaskManager does when its JobManager is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnJobManagerLost {
    /// Workers that are ready run on, and the next JobManager hears of them.
    KeepWorkers,
    /// Nobody takes them over: jobs start again from their checkpoints.
    EndWorkers,
}

/// A host with its TaskManager.
#[derive(Clone, Debug)]
pub struct Host {
    pub is_up: bool,
    /// Of the session with one JobManager; the next one has another.
    pub id: TaskManagerId,
    /// Of its process.
    pub resource: ResourceId,
    pub connection: Option<u64>,
    /// Whether the JobManager there has answered.
    pub is_registered: bool,
    pub table: SlotTable,
    pub workers: BTreeMap<AllocationId, Running>,
    pub partitioned_until: Time,
    pub slow_until: Time,
    pub slowness: u64,
    pub still_births_until: Time,
    pub pause: Time,
    pub on_lost: OnJobManagerLost,
    /// The highest leader that it has served.
    pub epoch: Option<LeaderEpoch>,
    /// Since when it has no JobManager, though it had one.
    pub lost_at: Option<Time>,
}

/// What a TaskManager that registers holds from before: slots, and the first report of their worker.
#[derive(Clone, Debug)]
pub struct Held {
    pub id: AllocationId,
    pub allocation: Allocation,
    pub registered: FromWorker,
}

/// A worker's process.
#[derive(Clone, Debug)]
pub struct Running {
    pub worker: Worker,
    pub is_ready: bool,
    /// Whether it was told to end, or ends by itself.
    pub is_ending: bool,
    /// Whether its TaskManager passes nothing on to it any more.
    pub is_cut_off: bool,
}

pub const FIRST_PAUSE: Time = 50_000;
pub const LONGEST_PAUSE: Time = 5_000_000;
/// The longest while workers run on.
pub const LONGEST_PAUSE_OF_WORKERS: Time = 200_000;
/// How long a worker of a job that has ended may take to end.
pub const GRACE: Time = 5_000_000;
const SLOWEST: Time = 2_500_000;

impl Host {
    pub fn new(resource: ResourceId, slots: u32, on_lost: OnJobManagerLost) -> Host {
        Host {
            is_up: true,
            id: TaskManagerId(0),
            resource,
            connection: None,
            is_registered: false,
            table: SlotTable::new(slots),
            workers: BTreeMap::new(),
            partitioned_until: 0,
            slow_until: 0,
            slowness: 1,
            still_births_until: 0,
            pause: FIRST_PAUSE,
            on_lost,
            epoch: None,
            lost_at: None,
        }
    }

    /// What it holds of workers that are ready; of others there is nothing to tell.
    pub fn holdings(&self) -> Vec<Held> {
        let ready = |(id, allocation): (AllocationId, Allocation)| {
            let running = self.workers.get(&id).filter(|running| running.is_ready)?;
            let report = Report::Registered { slots: allocation.slots, shuffle_address: None };
            Some(Held { id, allocation, registered: FromWorker { worker: running.worker.id(), report } })
        };
        self.table.held().filter_map(ready).collect()
    }

    /// Between two tries to reach a JobManager.
    pub fn next_pause(&mut self) -> Time {
        let longest = if self.lost_at.is_some() { LONGEST_PAUSE_OF_WORKERS } else { LONGEST_PAUSE };
        let pause = self.pause;
        self.pause = (pause * 2).min(longest);
        pause
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
        let jobs: BTreeSet<JobId> = held.iter().map(|(_, held)| held.job).collect();
        if jobs.len() < held.len() {
            return Err(format!("a job has more than one worker: {held:?}"));
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
