//! A simulated JobManager: the real ResourceManager and a real JobMaster for each job, and what `cluster` has around them.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use crossbeam_channel::never;
use millstream_controlplane::{AdoptionConfig, JobMasterConfig, SteppedJobMaster, WorkerLink};
use millstream_model::{
    fault::Failure,
    id::{AllocationId, JobId, LeaderEpoch, ResourceId, TaskManagerId, WorkerId},
    message::{Command, FromWorker, Report, ToWorker},
};
use millstream_slots::{LostWorker, ResourceManager, Spread, WorkerRequest};

use crate::{
    job::JobSpec,
    network::Time,
    store::SimStore,
    task_manager::{Held, moment},
};

/// To a TaskManager.
#[derive(Clone, Debug)]
pub enum ToTaskManager {
    /// The answer to a registration, before all else.
    Registered(LeaderEpoch),
    Request(WorkerRequest),
    Command(AllocationId, Box<ToWorker>),
    /// To end a worker, at once or after a while.
    Release(AllocationId, bool),
}

/// From a TaskManager that has registered.
#[derive(Clone, Debug)]
pub enum FromTaskManager {
    Registration(TaskManagerId, ResourceId, u32, Vec<Held>),
    Report(AllocationId, Box<FromWorker>),
    Freed(AllocationId),
}

/// Messages of this turn: where to, and what.
type Outbox = Arc<Mutex<Vec<(TaskManagerId, ToTaskManager)>>>;
/// Jobs that were taken up and are decided, and whether they were adopted.
type Decided = Arc<Mutex<Vec<(JobId, bool)>>>;

pub struct JobManager {
    /// None is used twice.
    pub number: u64,
    pub epoch: LeaderEpoch,
    pub frozen_until: Time,
    slots: Arc<Mutex<Slots>>,
    pub masters: BTreeMap<JobId, Master>,
    pub connections: BTreeMap<TaskManagerId, u64>,
    outbox: Outbox,
    decided: Decided,
    store: Arc<SimStore>,
    checkpoints: PathBuf,
    random: fastrand::Rng,
}

/// What JobMasters reach, too, when they decide whether they adopt.
pub struct Slots {
    pub resources: ResourceManager,
    /// Workers of an earlier JobManager that are to end, and hold their slots until they have.
    pub doomed: BTreeMap<AllocationId, (TaskManagerId, u32)>,
}

impl Slots {
    /// Kills a worker that knows nothing of it.
    fn end_worker(&mut self, task_manager: TaskManagerId, id: AllocationId, slots: u32, outbox: &Outbox) {
        self.doomed.insert(id, (task_manager, slots));
        send(outbox, task_manager, ToTaskManager::Release(id, true));
    }
}

pub struct Master {
    pub stepped: SteppedJobMaster,
    pub has_ended: bool,
    /// When the world will wake it.
    pub wakes_at: Option<Time>,
    /// Workers that join and reports wait in a channel each, as its thread takes them from either.
    joining: VecDeque<Box<dyn WorkerLink>>,
    reports: VecDeque<(WorkerId, Report)>,
    /// When it will look at them.
    turn_at: Option<Time>,
}

/// A wish that comes of a turn.
#[derive(Clone, Copy, Debug)]
pub enum Wish {
    /// A job's pause is over then.
    RequireAgain(JobId, Time),
    Wake(JobId, Time),
    /// Something waits in a job's channels.
    Turn(JobId, Time),
    /// A job has ended for this JobManager; whether for good.
    Ended(JobId, bool),
    /// A job that was taken up was adopted, or not. Whether anything was deployed in that turn.
    Decided {
        job: JobId,
        is_adopted: bool,
        has_deployed: bool,
    },
}

struct Link {
    job: JobId,
    worker: WorkerId,
    slots: u32,
    to: (TaskManagerId, AllocationId),
    outbox: Outbox,
}

impl WorkerLink for Link {
    fn send(&self, message: ToWorker) {
        let (task_manager, allocation) = self.to;
        send(&self.outbox, task_manager, ToTaskManager::Command(allocation, Box::new(message)));
    }

    fn worker(&self) -> WorkerId {
        self.worker
    }

    fn slots(&self) -> u32 {
        self.slots
    }

    fn shuffle_address(&self) -> Option<SocketAddr> {
        None
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "worker {} of job {:x}", self.worker.0, self.job.0)
    }
}

impl JobManager {
    pub fn new(
        number: u64,
        epoch: LeaderEpoch,
        spread: Spread,
        store: Arc<SimStore>,
        checkpoints: PathBuf,
        random: fastrand::Rng,
    ) -> JobManager {
        JobManager {
            number,
            epoch,
            frozen_until: 0,
            slots: Arc::new(Mutex::new(Slots { resources: ResourceManager::new(spread), doomed: BTreeMap::new() })),
            masters: BTreeMap::new(),
            connections: BTreeMap::new(),
            outbox: Outbox::default(),
            decided: Decided::default(),
            store,
            checkpoints,
            random,
        }
    }

    pub fn slots(&self) -> MutexGuard<'_, Slots> {
        locked(&self.slots)
    }

    /// Starts a job; `adopt` is how long to wait for workers of an earlier JobManager that may run it still.
    pub fn start_job(&mut self, job: &JobSpec, adopt: Option<Duration>, now: Time) {
        let config = JobMasterConfig {
            graph: job.graph(),
            workers: Vec::new(),
            joining: never(),
            reports: never(),
            store: self.store.clone(),
            checkpoint_dir: Some(self.checkpoints.clone()),
            epoch: self.epoch,
        };
        let mut random = self.random.fork();
        let jitter = Box::new(move || random.f64());
        let stepped = match adopt {
            None => {
                self.slots().resources.submit(job.id, job.required_slots());
                SteppedJobMaster::begin(config, jitter, moment(now))
            }
            Some(timeout) => {
                self.slots().resources.take_up(job.id, job.required_slots());
                let (slots, outbox, decided) = (self.slots.clone(), self.outbox.clone(), self.decided.clone());
                let id = job.id;
                let decide = move |kept: &BTreeSet<WorkerId>| {
                    locked(&decided).push((id, !kept.is_empty()));
                    let ended = locked(&slots).resources.on_adoption_decided(id, kept);
                    for (id, worker) in &ended {
                        locked(&slots).end_worker(worker.task_manager, *id, worker.slots, &outbox);
                    }
                    ended.into_iter().map(|(_, worker)| worker.worker).collect()
                };
                let adoption = AdoptionConfig { timeout, decided: Box::new(decide) };
                SteppedJobMaster::take_up(config, adoption, jitter, moment(now))
            }
        };
        let (joining, reports) = (VecDeque::new(), VecDeque::new());
        let master = Master { stepped, has_ended: false, wakes_at: None, joining, reports, turn_at: None };
        self.masters.insert(job.id, master);
    }

    /// A message has come by a connection. `false` if the connection is to be cut.
    pub fn on_message(
        &mut self,
        connection: u64,
        from: TaskManagerId,
        message: FromTaskManager,
        now: Time,
    ) -> Vec<Wish> {
        let mut wishes = Vec::new();
        match message {
            FromTaskManager::Registration(id, resource, slots, held) => {
                let ids: Vec<_> = held.iter().map(|held| held.id).collect();
                let before = self.slots().resources.instances_before(resource, &ids);
                before.into_iter().for_each(|before| self.on_gone(before));
                if self.connections.insert(id, connection).is_none() {
                    send(&self.outbox, id, ToTaskManager::Registered(self.epoch));
                    self.slots().resources.on_registered(id, resource, slots);
                    held.into_iter().for_each(|held| self.on_held(id, held));
                }
            }
            FromTaskManager::Report(allocation, message) => self.on_report(from, allocation, *message),
            FromTaskManager::Freed(allocation) => {
                self.slots().doomed.remove(&allocation);
                let lost = self.slots().resources.on_freed(from, allocation);
                if let Some(lost) = lost {
                    self.tell_lost(lost, "its process has ended");
                    let pause = lost.pause.map(|pause| now + pause.as_micros() as Time);
                    wishes.extend(pause.map(|until| Wish::RequireAgain(lost.job, until)));
                }
            }
        }
        wishes
    }

    fn on_held(&mut self, from: TaskManagerId, held: Held) {
        let Held { id, allocation, registered } = held;
        let is_taken = self.slots().resources.on_held(from, id, allocation, registered.worker);
        if is_taken {
            self.on_report(from, id, registered);
        } else {
            self.slots().end_worker(from, id, allocation.slots, &self.outbox);
        }
    }

    fn on_report(&mut self, from: TaskManagerId, allocation: AllocationId, message: FromWorker) {
        let FromWorker { worker, report } = message;
        let is_registration = matches!(report, Report::Registered { .. });
        let sender = match is_registration {
            true => self.slots().resources.on_ready(from, allocation, worker),
            false => self.slots().resources.sender(from, allocation, worker),
        };
        let Ok(known) = sender else { return };
        let Some(master) = self.masters.get_mut(&known.job) else { return };
        if let Report::Registered { slots, .. } = report {
            let (slots, to) = (slots.min(known.slots), (from, allocation));
            let link = Link { job: known.job, worker, slots, to, outbox: self.outbox.clone() };
            master.joining.push_back(Box::new(link));
        }
        master.reports.push_back((worker, report));
    }

    /// A TaskManager's connection is gone.
    pub fn on_gone(&mut self, id: TaskManagerId) {
        self.connections.remove(&id);
        self.slots().doomed.retain(|_, (of, _)| *of != id);
        let all = self.slots().resources.on_gone(id);
        for lost in all {
            self.tell_lost(lost, "its TaskManager is gone");
        }
    }

    fn tell_lost(&mut self, lost: LostWorker, why: &str) {
        if let Some(master) = self.masters.get_mut(&lost.job) {
            let failure = Failure::new(why);
            master.reports.push_back((lost.worker, Report::WorkerFailed { failure }));
        }
    }

    /// A job's thread looks at its channels, and takes one thing.
    pub fn on_turn(&mut self, job: JobId, at: Time, now: Time) {
        let Some(master) = self.masters.get_mut(&job).filter(|master| master.turn_at == Some(at)) else { return };
        master.turn_at = None;
        let takes_report = match (master.reports.is_empty(), master.joining.is_empty()) {
            (false, false) => self.random.bool(),
            (no_report, _) => !no_report,
        };
        if takes_report {
            let taken = master.reports.pop_front();
            taken.into_iter().for_each(|(worker, report)| master.stepped.on_report(worker, report, moment(now)));
        } else {
            let taken = master.joining.pop_front();
            taken.into_iter().for_each(|link| master.stepped.on_joined(link, moment(now)));
        }
    }

    /// What comes of a turn: messages out, slots matched, ends noticed, the next wake-ups.
    pub fn conclude(&mut self, now: Time, new_id: &mut u128) -> (Vec<(TaskManagerId, ToTaskManager)>, Vec<Wish>) {
        let mut wishes = Vec::new();
        let mut messages = Vec::new();
        let decided = std::mem::take(&mut *locked(&self.decided));
        let sent = std::mem::take(&mut *locked(&self.outbox));
        for (job, is_adopted) in decided {
            let has_deployed = sent.iter().any(|(_, message)| is_deployment_of(message, job));
            wishes.push(Wish::Decided { job, is_adopted, has_deployed });
        }
        for (to, message) in sent {
            if let ToTaskManager::Command(allocation, command) = &message
                && matches!(command.command, Command::Shutdown)
            {
                let mut slots = self.slots();
                let job = slots.resources.workers().find(|(id, _)| id == allocation).map(|(_, worker)| worker.job);
                job.into_iter().for_each(|job| slots.resources.on_over(job));
            }
            messages.push((to, message));
        }
        for (id, master) in &mut self.masters {
            let Some(outcome) = master.stepped.outcome().filter(|_| !master.has_ended) else { continue };
            master.has_ended = true;
            wishes.push(Wish::Ended(*id, outcome.status.is_terminal()));
            let held = locked(&self.slots).resources.on_ended(*id);
            messages.extend(held.into_iter().map(|(to, allocation)| (to, ToTaskManager::Release(allocation, false))));
        }
        let requests = self.slots().resources.allocate(|| {
            *new_id += 1;
            AllocationId(*new_id)
        });
        messages.extend(requests.into_iter().map(|request| (request.task_manager, ToTaskManager::Request(request))));
        let retired = self.slots().resources.retire();
        for (id, worker) in retired {
            self.slots().doomed.insert(id, (worker.task_manager, worker.slots));
            messages.push((worker.task_manager, ToTaskManager::Release(id, true)));
            let lost = LostWorker { job: worker.job, worker: worker.worker, pause: None };
            self.tell_lost(lost, "its job gets one with more slots");
        }
        for (id, master) in &mut self.masters {
            if master.turn_at.is_none() && !(master.reports.is_empty() && master.joining.is_empty()) {
                // Threads are not always at once on a processor.
                let delay =
                    if self.random.u32(0..100) == 0 { self.random.u64(0..50_000) } else { self.random.u64(0..50) };
                master.turn_at = Some(now + delay);
                wishes.push(Wish::Turn(*id, now + delay));
            }
            let Some(deadline) = master.stepped.next_deadline() else { continue };
            // Rounded up: woken a moment early it would be woken without end.
            let at = (deadline.0.as_nanos().div_ceil(1000) as Time).max(now);
            if master.wakes_at.is_none_or(|planned| at < planned) {
                master.wakes_at = Some(at);
                wishes.push(Wish::Wake(*id, at));
            }
        }
        (messages, wishes)
    }

    /// A job's time has come, unless it was changed since.
    pub fn on_wake(&mut self, job: JobId, at: Time, now: Time) {
        let Some(master) = self.masters.get_mut(&job).filter(|master| master.wakes_at == Some(at)) else { return };
        master.wakes_at = None;
        master.stepped.on_time(moment(now));
    }
}

fn is_deployment_of(message: &ToTaskManager, job: JobId) -> bool {
    let ToTaskManager::Command(_, command) = message else { return false };
    matches!(&command.command, Command::Deploy { graph, .. } if graph.job_id == job)
}

fn send(outbox: &Outbox, to: TaskManagerId, message: ToTaskManager) {
    locked(outbox).push((to, message));
}

fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().expect("nothing panics while it is held")
}
