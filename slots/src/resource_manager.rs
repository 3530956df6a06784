//! Which worker of which job holds which slots, and what a worker's end leads to: Flink's `ResourceManager`, as a decider
//! over the [`SlotManager`].
//!
//! ```text
//!  submit(job) ─────────────┐                           ┌──► WorkerRequest ──► TaskManager (slot_table)
//!  on_registered ───────────┼──► ResourceManager ───────┤
//!  on_gone, on_freed ───────┘          │                └──► LostWorker ──► the JobMaster of its job
//!                                      └──pause over──► require_again(job)
//! ```
//! A job whose worker ends before it was ready most likely cannot have one: its artifact does not start. It gets the next
//! one after a pause, which doubles.
//!
//! **Invariant:** within a job no number of a worker is used twice, so that nothing late of a dead worker is taken for its
//! successor's; and a job that is over gets no worker.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use millstream_model::id::{AllocationId, JobId, TaskManagerId, WorkerId};

use crate::{Allocation, SlotCount, SlotManager, SlotRequest, Spread};

/// After the first worker of a job that ended before it was ready.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The decider.
#[derive(Clone, Debug)]
pub struct ResourceManager {
    slots: SlotManager,
    jobs: BTreeMap<JobId, Job>,
    workers: BTreeMap<AllocationId, Worker>,
    /// The keys of `workers` by job, so that the end of one does not look at all.
    by_job: BTreeSet<(JobId, AllocationId)>,
}

#[derive(Clone, Debug)]
struct Job {
    required_slots: u32,
    next_worker: u32,
    /// Workers in a row that ended before they were ready.
    still_births: u32,
    /// Whether its workers were told to end: then none is replaced.
    is_over: bool,
}

/// What holds slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Worker {
    pub job: JobId,
    pub worker: WorkerId,
    pub task_manager: TaskManagerId,
    pub slots: u32,
    /// Whether it has registered with its job.
    pub is_ready: bool,
}

/// A worker that a TaskManager is to start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WorkerRequest {
    pub task_manager: TaskManagerId,
    pub id: AllocationId,
    pub allocation: Allocation,
    pub worker: WorkerId,
}

/// A worker that is gone; its job is to hear of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LostWorker {
    pub job: JobId,
    pub worker: WorkerId,
    /// How long the job gets no other, after which [`require_again`](ResourceManager::require_again) is to be called: the
    /// reason seems to be its own.
    pub pause: Option<Duration>,
}

/// Why a worker's registration is not passed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReportRefused {
    #[error("allocation {0} is not known: its worker has ended")]
    Unknown(AllocationId),
    #[error("allocation {id} has another worker or is of another TaskManager")]
    OfAnother { id: AllocationId },
    #[error("the worker of allocation {0} has registered before")]
    Again(AllocationId),
}

impl ResourceManager {
    pub fn new(spread: Spread) -> ResourceManager {
        ResourceManager {
            slots: SlotManager::new(spread),
            jobs: BTreeMap::new(),
            workers: BTreeMap::new(),
            by_job: BTreeSet::new(),
        }
    }

    /// A job has come that needs this many slots.
    ///
    /// # Panics
    /// If it was there before and has not ended.
    pub fn submit(&mut self, job: JobId, required_slots: u32) {
        let before = self.jobs.insert(job, Job { required_slots, next_worker: 0, still_births: 0, is_over: false });
        assert!(before.is_none(), "job {job} was submitted twice");
        self.slots.require(job, required_slots);
    }

    /// A job's workers were told to end. None is replaced from now on.
    pub fn on_over(&mut self, job: JobId) {
        if let Some(job) = self.jobs.get_mut(&job) {
            job.is_over = true;
        }
    }

    /// A job has ended. What it holds is to be released, and is free when the TaskManagers say so.
    pub fn on_ended(&mut self, job: JobId) -> Vec<(TaskManagerId, AllocationId)> {
        self.slots.require(job, 0);
        self.jobs.remove(&job);
        let held = self.by_job.range((job, AllocationId(0))..=(job, AllocationId(u128::MAX)));
        held.map(|(_, allocation)| (self.workers[allocation].task_manager, *allocation)).collect()
    }

    /// A TaskManager is there, with all its slots free.
    ///
    /// # Panics
    /// If it was there before.
    pub fn on_registered(&mut self, task_manager: TaskManagerId, slots: u32) {
        self.slots.on_registered(task_manager, slots);
    }

    /// A TaskManager is gone, and all that it ran. No pause: that is no job's fault.
    pub fn on_gone(&mut self, task_manager: TaskManagerId) -> Vec<LostWorker> {
        let held = self.slots.on_gone(task_manager);
        let lost = held.into_iter().filter_map(|(allocation, _)| self.lose(allocation));
        lost.map(|lost| LostWorker { pause: None, ..lost }).collect()
    }

    /// An allocation holds nothing any more; what was lost with it. Late and repeated news are none.
    pub fn on_freed(&mut self, task_manager: TaskManagerId, id: AllocationId) -> Option<LostWorker> {
        self.slots.on_freed(task_manager, id)?;
        let lost = self.lose(id)?;
        if lost.pause.is_some() {
            // Nothing is asked for it meanwhile; others are not kept waiting.
            self.slots.require(lost.job, 0);
        }
        Some(lost)
    }

    /// The pause of a job is over.
    pub fn require_again(&mut self, job: JobId) {
        if let Some(Job { required_slots, is_over: false, .. }) = self.jobs.get(&job) {
            self.slots.require(job, *required_slots);
        }
    }

    /// Whose report it is that came from there, if it may be passed on.
    ///
    /// # Errors
    /// If no such worker runs there.
    pub fn sender(&self, from: TaskManagerId, id: AllocationId, worker: WorkerId) -> Result<Worker, ReportRefused> {
        let known = self.workers.get(&id).ok_or(ReportRefused::Unknown(id))?;
        if known.task_manager != from || known.worker != worker {
            return Err(ReportRefused::OfAnother { id });
        }
        Ok(*known)
    }

    /// A worker says that it is ready; its job may use it from now on.
    ///
    /// # Errors
    /// If no such worker runs there, or it has said so before.
    pub fn on_ready(
        &mut self,
        from: TaskManagerId,
        id: AllocationId,
        worker: WorkerId,
    ) -> Result<Worker, ReportRefused> {
        let known = self.sender(from, id, worker)?;
        if known.is_ready {
            return Err(ReportRefused::Again(id));
        }
        self.workers.entry(id).and_modify(|worker| worker.is_ready = true);
        if let Some(job) = self.jobs.get_mut(&known.job) {
            job.still_births = 0;
        }
        Ok(known)
    }

    /// Gives free slots to jobs that miss some. `new_id` makes ids that were never used.
    pub fn allocate(&mut self, new_id: impl FnMut() -> AllocationId) -> Vec<WorkerRequest> {
        let mut requests = Vec::new();
        for SlotRequest { task_manager, id, allocation } in self.slots.allocate(new_id) {
            let job = self.jobs.get_mut(&allocation.job).expect("only jobs that are there require slots");
            let worker = WorkerId(job.next_worker);
            job.next_worker += 1;
            let Allocation { job, slots } = allocation;
            self.workers.insert(id, Worker { job, worker, task_manager, slots, is_ready: false });
            self.by_job.insert((job, id));
            requests.push(WorkerRequest { task_manager, id, allocation, worker });
        }
        requests
    }

    /// What each job still misses.
    pub fn missing(&self) -> impl Iterator<Item = (JobId, u32)> {
        self.slots.missing()
    }

    pub fn task_managers(&self) -> impl Iterator<Item = (TaskManagerId, SlotCount)> {
        self.slots.task_managers()
    }

    /// All workers that hold slots.
    pub fn workers(&self) -> impl Iterator<Item = (AllocationId, &Worker)> {
        self.workers.iter().map(|(id, worker)| (*id, worker))
    }

    fn lose(&mut self, id: AllocationId) -> Option<LostWorker> {
        let Worker { job: id_of_job, worker, is_ready, .. } = self.workers.remove(&id)?;
        self.by_job.remove(&(id_of_job, id));
        let job = self.jobs.get_mut(&id_of_job)?;
        let mut lost = LostWorker { job: id_of_job, worker, pause: None };
        if job.is_over {
            // Its end comes by another way, and may be late.
            self.slots.require(id_of_job, 0);
        } else if !is_ready {
            lost.pause = Some(FIRST_PAUSE.saturating_mul(1 << job.still_births.min(16)).min(LONGEST_PAUSE));
            job.still_births += 1;
        }
        Some(lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: JobId = JobId(1);
    const HERE: TaskManagerId = TaskManagerId(1);

    fn manager() -> ResourceManager {
        let mut manager = ResourceManager::new(Spread::Pack);
        manager.submit(JOB, 2);
        manager.on_registered(HERE, 2);
        manager
    }

    fn request(manager: &mut ResourceManager, id: u128) -> WorkerRequest {
        manager.allocate(|| AllocationId(id))[0]
    }

    #[test]
    fn a_worker_that_was_never_ready_is_replaced_after_a_pause_that_doubles_and_under_another_number() {
        let mut manager = manager();
        for (number, pause) in [100, 200, 400].into_iter().enumerate() {
            let request = request(&mut manager, number as u128 + 1);
            assert_eq!(request.worker, WorkerId(number as u32));
            let lost = manager.on_freed(HERE, request.id).unwrap();
            assert_eq!(lost.pause, Some(Duration::from_millis(pause)));
            assert!(manager.allocate(|| AllocationId(99)).is_empty(), "it pauses");
            manager.require_again(JOB);
        }
    }

    #[test]
    fn a_worker_that_was_ready_is_replaced_at_once() {
        let mut manager = manager();
        let first = request(&mut manager, 1);
        manager.on_ready(HERE, first.id, first.worker).unwrap();
        assert_eq!(manager.on_freed(HERE, first.id).unwrap().pause, None);
        assert_eq!(manager.on_freed(HERE, first.id), None);
        assert_eq!(request(&mut manager, 2).worker, WorkerId(1));
    }

    #[test]
    fn a_worker_is_ready_once_and_nobody_speaks_for_another() {
        let mut manager = manager();
        let first = request(&mut manager, 1);
        let other = manager.on_ready(TaskManagerId(2), first.id, first.worker);
        assert_eq!(other, Err(ReportRefused::OfAnother { id: first.id }));
        manager.on_ready(HERE, first.id, first.worker).unwrap();
        assert_eq!(manager.on_ready(HERE, first.id, first.worker), Err(ReportRefused::Again(first.id)));
    }

    #[test]
    fn a_job_that_is_over_gets_no_worker_and_its_end_names_what_it_holds() {
        let mut manager = manager();
        let first = request(&mut manager, 1);
        manager.on_over(JOB);
        assert_eq!(manager.on_ended(JOB), [(HERE, first.id)]);
        assert_eq!(manager.on_freed(HERE, first.id), None, "nobody is to be told");
        assert!(manager.allocate(|| AllocationId(2)).is_empty());
        assert_eq!(manager.task_managers().next().unwrap().1.free, 2);
    }
}
