//! Which worker of which job holds which slots, and what a worker's end leads to: Flink's `ResourceManager`, as a decider
//! over the [`SlotManager`].
//!
//! ```text
//!  submit(job) ─────────────┐                           ┌──► WorkerRequest ──► TaskManager (slot_table)
//!  on_registered ───────────┼──► ResourceManager ───────┤
//!  on_gone, on_freed ───────┘          │                └──► LostWorker ──► the JobMaster of its job
//!                                      └──pause over──► require_again(job)
//!  take_up(job) ──on_held (workers of an earlier JobManager)──► on_adoption_decided: some stay, the others end
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

use millstream_model::id::{AllocationId, JobId, ResourceId, TaskManagerId, WorkerId};

use crate::{Allocation, SlotCount, SlotManager, SlotRequest, Spread};

/// After the first worker of a job that ended before it was ready.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The decider.
#[derive(Clone, Debug)]
pub struct ResourceManager {
    slots: SlotManager,
    /// Under which id each TaskManager is there.
    instances: BTreeMap<ResourceId, TaskManagerId>,
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
    /// Whether its JobMaster waits for workers that an earlier one has left running. Until that is decided, none is started.
    is_adopting: bool,
    /// The numbers of those that were found. One that was lost since, for its TaskManager had lost its connection, is not
    /// taken again: its job would hear of its loss and of its return by two ways, in any order.
    found: BTreeSet<WorkerId>,
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
            instances: BTreeMap::new(),
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
        self.add(job, required_slots, false);
        self.slots.require(job, required_slots);
    }

    /// A job has come that an earlier JobManager may have left running: it waits for what TaskManagers hold of it.
    ///
    /// # Panics
    /// If it was there before and has not ended.
    pub fn take_up(&mut self, job: JobId, required_slots: u32) {
        self.add(job, required_slots, true);
    }

    fn add(&mut self, job: JobId, required_slots: u32, is_adopting: bool) {
        let found = BTreeSet::new();
        let new = Job { required_slots, next_worker: 0, still_births: 0, is_over: false, is_adopting, found };
        let before = self.jobs.insert(job, new);
        assert!(before.is_none(), "job {job} was submitted twice");
    }

    /// The ids under which a TaskManager is still there that is about to register: it has lost its connection, and that was
    /// not noticed here. They are to be taken for gone ([`on_gone`](Self::on_gone)) before it is registered, or its slots would
    /// count twice, and the end of a worker for both. Who holds what it says that it holds cannot be another either.
    pub fn instances_before(&self, resource: ResourceId, held: &[AllocationId]) -> BTreeSet<TaskManagerId> {
        self.slots.holders(held).into_iter().chain(self.instances.get(&resource).copied()).collect()
    }

    /// A TaskManager that has just registered holds this from the time of an earlier JobManager, or of an earlier connection.
    /// Returns whether its job waits for it; then it is to register with it once more ([`on_ready`](Self::on_ready)). If not, it is to be ended, and
    /// its slots are free when the TaskManager says so.
    ///
    /// # Panics
    /// If the TaskManager is not there, or has not so many slots, or is still there [as another](Self::instances_before).
    pub fn on_held(
        &mut self,
        task_manager: TaskManagerId,
        id: AllocationId,
        allocation: Allocation,
        worker: WorkerId,
    ) -> bool {
        self.slots.on_held(task_manager, id, allocation);
        let Allocation { job: id_of_job, slots } = allocation;
        let Some(job) = self.jobs.get_mut(&id_of_job).filter(|job| job.is_adopting) else { return false };
        if !job.found.insert(worker) {
            return false;
        }
        job.next_worker = job.next_worker.max(worker.0.saturating_add(1));
        self.workers.insert(id, Worker { job: id_of_job, worker, task_manager, slots, is_ready: false });
        self.by_job.insert((id_of_job, id));
        true
    }

    /// A job that was taken up goes on with these of the workers that were found. The others are returned and are to be
    /// ended. From now on it gets what it misses.
    pub fn on_adoption_decided(&mut self, job: JobId, kept: &BTreeSet<WorkerId>) -> Vec<(AllocationId, Worker)> {
        let Some(known) = self.jobs.get_mut(&job) else { return Vec::new() };
        known.is_adopting = false;
        let replaced = self.of_job(job).filter(|(_, worker)| !kept.contains(&worker.worker));
        let ended: Vec<_> = replaced.map(|(id, worker)| (id, *worker)).collect();
        for (id, _) in &ended {
            self.workers.remove(id);
            self.by_job.remove(&(job, *id));
        }
        self.require_again(job);
        ended
    }

    fn of_job(&self, job: JobId) -> impl Iterator<Item = (AllocationId, &Worker)> {
        let ids = self.by_job.range((job, AllocationId(0))..=(job, AllocationId(u128::MAX)));
        ids.map(|(_, id)| (*id, &self.workers[id]))
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
        self.of_job(job).map(|(id, worker)| (worker.task_manager, id)).collect()
    }

    /// A TaskManager is there, with all its slots free.
    ///
    /// # Panics
    /// If it was there before.
    pub fn on_registered(&mut self, task_manager: TaskManagerId, resource: ResourceId, slots: u32) {
        self.slots.on_registered(task_manager, slots);
        self.instances.insert(resource, task_manager);
    }

    /// A TaskManager is gone, and all that it ran. No pause: that is no job's fault.
    pub fn on_gone(&mut self, task_manager: TaskManagerId) -> Vec<LostWorker> {
        self.instances.retain(|_, instance| *instance != task_manager);
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
        if let Some(Job { required_slots, is_over: false, is_adopting: false, .. }) = self.jobs.get(&job) {
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

    /// Gives up workers of jobs that miss slots which are only to be had of the same TaskManagers: they are to be ended, and
    /// their jobs are to hear that they are lost. To be asked for when [`ResourceManager::allocate`] has given what it can.
    pub fn retire(&mut self) -> Vec<(AllocationId, Worker)> {
        let retired = self.slots.retire();
        let known = retired.into_iter().filter_map(|(_, id)| {
            // Of one that was told to end already nobody has to hear.
            let worker = self.workers.remove(&id)?;
            self.by_job.remove(&(worker.job, id));
            Some((id, worker))
        });
        known.collect()
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
        manager.on_registered(HERE, ResourceId(HERE.0), 2);
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

    #[test]
    fn a_job_that_can_only_have_more_where_it_has_a_worker_gets_one_for_all() {
        let mut manager = ResourceManager::new(Spread::Pack);
        manager.on_registered(HERE, ResourceId(HERE.0), 1);
        manager.on_registered(TaskManagerId(2), ResourceId(2), 1);
        manager.submit(JOB, 2);
        let mut ids = 0;
        let mut new_id = || {
            ids += 1;
            AllocationId(ids)
        };
        let first = manager.allocate(&mut new_id);
        for request in &first {
            manager.on_ready(request.task_manager, request.id, request.worker).unwrap();
        }
        // A TaskManager with room for both comes, and one that has one of its slots goes.
        manager.on_registered(TaskManagerId(3), ResourceId(3), 1);
        assert_eq!(manager.on_gone(TaskManagerId(2)).len(), 1);
        let third = manager.allocate(&mut new_id);
        assert_eq!((third[0].task_manager, third[0].worker), (TaskManagerId(3), WorkerId(2)));
        assert!(manager.retire().is_empty());
        manager.on_gone(TaskManagerId(3));
        manager.on_gone(HERE);
        manager.on_registered(TaskManagerId(4), ResourceId(4), 2);
        manager.slots.require(JOB, 1);
        let alone = manager.allocate(&mut new_id);
        manager.require_again(JOB);
        assert!(manager.allocate(&mut new_id).is_empty());
        let retired = manager.retire();
        assert_eq!(
            retired.iter().map(|(id, worker)| (*id, worker.worker)).collect::<Vec<_>>(),
            [(alone[0].id, WorkerId(3))]
        );
        assert_eq!(manager.on_freed(TaskManagerId(4), alone[0].id), None, "its job has heard of it");
        let both = manager.allocate(&mut new_id);
        assert_eq!((both[0].allocation.slots, both[0].worker), (2, WorkerId(4)));
    }

    /// A job of two slots that was taken up, and a TaskManager that holds both for its worker 4.
    fn taken_up() -> ResourceManager {
        let mut manager = ResourceManager::new(Spread::Pack);
        manager.take_up(JOB, 2);
        manager.on_registered(HERE, ResourceId(HERE.0), 2);
        assert!(manager.on_held(HERE, AllocationId(7), Allocation { job: JOB, slots: 2 }, WorkerId(4)));
        manager.on_ready(HERE, AllocationId(7), WorkerId(4)).unwrap();
        manager
    }

    #[test]
    fn a_job_that_is_taken_up_gets_no_worker_before_it_is_decided_and_an_adopted_one_only_what_it_misses() {
        let mut manager = taken_up();
        manager.on_registered(TaskManagerId(2), ResourceId(2), 2);
        manager.require_again(JOB);
        assert!(manager.allocate(|| AllocationId(8)).is_empty(), "it is not decided");
        assert!(manager.on_adoption_decided(JOB, &BTreeSet::from([WorkerId(4)])).is_empty());
        assert!(manager.allocate(|| AllocationId(8)).is_empty(), "it has what it needs");
        assert_eq!(
            manager.on_freed(HERE, AllocationId(7)).map(|lost| (lost.worker, lost.pause)),
            Some((WorkerId(4), None))
        );
        assert_eq!(request(&mut manager, 9).worker, WorkerId(5), "no number is used twice");
    }

    #[test]
    fn of_a_job_that_is_not_adopted_all_workers_are_ended_and_hold_their_slots_until_they_are_gone() {
        let mut manager = taken_up();
        let ended = manager.on_adoption_decided(JOB, &BTreeSet::new());
        assert_eq!(
            ended.iter().map(|(id, worker)| (*id, worker.worker)).collect::<Vec<_>>(),
            [(AllocationId(7), WorkerId(4))]
        );
        assert_eq!(manager.task_managers().next().unwrap().1.free, 0);
        assert_eq!(manager.on_freed(HERE, AllocationId(7)), None, "nobody is to be told");
        assert_eq!(request(&mut manager, 8).worker, WorkerId(5));
    }

    #[test]
    fn of_a_job_that_is_adopted_in_part_the_workers_end_that_it_does_not_go_on_with() {
        let mut manager = taken_up();
        manager.on_registered(TaskManagerId(2), ResourceId(2), 1);
        let one = Allocation { job: JOB, slots: 1 };
        assert!(manager.on_held(TaskManagerId(2), AllocationId(8), one, WorkerId(5)));
        let ended = manager.on_adoption_decided(JOB, &BTreeSet::from([WorkerId(4)]));
        assert_eq!(
            ended.iter().map(|(id, worker)| (*id, worker.worker)).collect::<Vec<_>>(),
            [(AllocationId(8), WorkerId(5))]
        );
        let kept: Vec<_> = manager.workers().map(|(_, worker)| worker.worker).collect();
        assert_eq!(kept, [WorkerId(4)]);
    }

    #[test]
    fn a_task_manager_that_registers_again_before_its_loss_was_noticed_is_counted_once() {
        let mut manager = manager();
        manager.on_registered(TaskManagerId(2), ResourceId(2), 1);
        let first = request(&mut manager, 1);
        manager.on_ready(HERE, first.id, first.worker).unwrap();
        // Its connection is lost, and it has another before anybody here knows.
        let again = TaskManagerId(3);
        let before = |resource, held: &[AllocationId]| Vec::from_iter(manager.instances_before(resource, held));
        assert_eq!(before(ResourceId(99), &[AllocationId(99)]), []);
        assert_eq!(before(ResourceId(99), &[first.id]), [HERE]);
        assert_eq!(before(ResourceId(HERE.0), &[]), [HERE], "also if it holds nothing");
        assert_eq!(before(ResourceId(HERE.0), &[first.id]), [HERE]);
        let lost: Vec<_> = manager.on_gone(HERE).into_iter().map(|lost| (lost.job, lost.worker)).collect();
        assert_eq!(lost, [(JOB, first.worker)], "its job hears of it now, and not when a heartbeat is missed");
        manager.on_registered(again, ResourceId(HERE.0), 2);
        assert!(!manager.on_held(again, first.id, first.allocation, first.worker), "its job does not wait for it");
        let free = |manager: &ResourceManager| manager.task_managers().map(|(id, count)| (id.0, count.free)).collect();
        let counted: Vec<(u128, u32)> = free(&manager);
        assert_eq!(counted, [(2, 1), (3, 0)]);
        assert!(manager.allocate(|| AllocationId(2)).is_empty(), "the slots are held until the worker has gone");
        assert_eq!(manager.on_gone(HERE), [], "that was known");
        assert_eq!(manager.on_freed(again, first.id), None, "its job has heard of it");
        let replaced = request(&mut manager, 2);
        assert_eq!((replaced.task_manager, replaced.worker, replaced.allocation.slots), (again, WorkerId(1), 2));
    }

    #[test]
    fn a_worker_that_was_found_and_lost_does_not_come_back_under_its_number() {
        let mut manager = taken_up();
        let lost: Vec<_> = manager.on_gone(HERE).into_iter().map(|lost| lost.worker).collect();
        assert_eq!(lost, [WorkerId(4)]);
        let again = TaskManagerId(2);
        manager.on_registered(again, ResourceId(HERE.0), 2);
        let held = Allocation { job: JOB, slots: 2 };
        assert!(
            !manager.on_held(again, AllocationId(7), held, WorkerId(4)),
            "its job may not know yet that it was lost"
        );
        assert!(manager.on_adoption_decided(JOB, &BTreeSet::new()).is_empty());
        assert_eq!(manager.on_freed(again, AllocationId(7)), None);
        assert_eq!(request(&mut manager, 8).worker, WorkerId(5));
    }

    #[test]
    fn a_held_worker_that_nobody_waits_for_is_not_taken() {
        let mut manager = taken_up();
        manager.on_registered(TaskManagerId(2), ResourceId(2), 2);
        let one = |job| Allocation { job, slots: 1 };
        assert!(!manager.on_held(TaskManagerId(2), AllocationId(8), one(JOB), WorkerId(4)), "its number is taken");
        assert!(
            !manager.on_held(TaskManagerId(2), AllocationId(9), one(JobId(5)), WorkerId(0)),
            "there is no such job"
        );
        manager.on_adoption_decided(JOB, &BTreeSet::from([WorkerId(4)]));
        manager.on_registered(TaskManagerId(3), ResourceId(3), 2);
        assert!(!manager.on_held(TaskManagerId(3), AllocationId(10), one(JOB), WorkerId(5)), "it is late");
    }
}
