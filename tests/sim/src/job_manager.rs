//! A simulated JobManager: the real ResourceManager and a real JobMaster for each job, and what `cluster` has around them.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use crossbeam_channel::never;
use millstream_controlplane::{JobMasterConfig, SteppedJobMaster, WorkerLink};
use millstream_model::{
    fault::Failure,
    id::{AllocationId, JobId, LeaderEpoch, TaskManagerId, WorkerId},
    message::{Command, FromWorker, Report, ToWorker},
};
use millstream_slots::{LostWorker, ResourceManager, Spread, WorkerRequest};

use crate::{job::JobSpec, network::Time, store::SimStore, task_manager::moment};

/// To a TaskManager.
#[derive(Clone, Debug)]
pub enum ToTaskManager {
    Request(WorkerRequest),
    Command(AllocationId, Box<ToWorker>),
    Release(AllocationId),
}

/// From a TaskManager that has registered.
#[derive(Clone, Debug)]
pub enum FromTaskManager {
    Registration(TaskManagerId, u32),
    Report(AllocationId, Box<FromWorker>),
    Freed(AllocationId),
}

/// Messages of this turn: where to, and what.
type Outbox = Arc<Mutex<Vec<(TaskManagerId, ToTaskManager)>>>;

pub struct JobManager {
    /// None is used twice.
    pub number: u64,
    pub epoch: LeaderEpoch,
    pub frozen_until: Time,
    pub resources: ResourceManager,
    pub masters: BTreeMap<JobId, Master>,
    pub connections: BTreeMap<TaskManagerId, u64>,
    outbox: Outbox,
    store: Arc<SimStore>,
    checkpoints: PathBuf,
    random: fastrand::Rng,
}

pub struct Master {
    pub stepped: SteppedJobMaster,
    pub has_ended: bool,
    /// When the world will wake it.
    pub wakes_at: Option<Time>,
}

/// A wish that comes of a turn.
#[derive(Clone, Copy, Debug)]
pub enum Wish {
    /// A job's pause is over then.
    RequireAgain(JobId, Time),
    Wake(JobId, Time),
    /// A job has ended for this JobManager; whether for good.
    Ended(JobId, bool),
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
        let command = ToTaskManager::Command(allocation, Box::new(message));
        self.outbox.lock().expect("nothing panics while it is held").push((task_manager, command));
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
            resources: ResourceManager::new(spread),
            masters: BTreeMap::new(),
            connections: BTreeMap::new(),
            outbox: Outbox::default(),
            store,
            checkpoints,
            random,
        }
    }

    /// Starts a job, new or of an earlier JobManager.
    pub fn start_job(&mut self, job: &JobSpec, now: Time) {
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
        let stepped = SteppedJobMaster::begin(config, Box::new(move || random.f64()), moment(now));
        self.resources.submit(job.id, job.required_slots());
        self.masters.insert(job.id, Master { stepped, has_ended: false, wakes_at: None });
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
            FromTaskManager::Registration(id, slots) => {
                if self.connections.insert(id, connection).is_none() {
                    self.resources.on_registered(id, slots);
                }
            }
            FromTaskManager::Report(allocation, message) => self.on_report(from, allocation, *message, now),
            FromTaskManager::Freed(allocation) => {
                if let Some(lost) = self.resources.on_freed(from, allocation) {
                    self.tell_lost(lost, "its process has ended", now);
                    let pause = lost.pause.map(|pause| now + pause.as_micros() as Time);
                    wishes.extend(pause.map(|until| Wish::RequireAgain(lost.job, until)));
                }
            }
        }
        wishes
    }

    fn on_report(&mut self, from: TaskManagerId, allocation: AllocationId, message: FromWorker, now: Time) {
        let FromWorker { worker, report } = message;
        let is_registration = matches!(report, Report::Registered { .. });
        let sender = match is_registration {
            true => self.resources.on_ready(from, allocation, worker),
            false => self.resources.sender(from, allocation, worker),
        };
        let Ok(known) = sender else { return };
        let Some(master) = self.masters.get_mut(&known.job) else { return };
        if let Report::Registered { slots, .. } = report {
            let (slots, to) = (slots.min(known.slots), (from, allocation));
            let link = Link { job: known.job, worker, slots, to, outbox: self.outbox.clone() };
            master.stepped.on_joined(Box::new(link), moment(now));
        }
        master.stepped.on_report(worker, report, moment(now));
    }

    /// A TaskManager's connection is gone.
    pub fn on_gone(&mut self, id: TaskManagerId, now: Time) {
        self.connections.remove(&id);
        for lost in self.resources.on_gone(id) {
            self.tell_lost(lost, "its TaskManager is gone", now);
        }
    }

    fn tell_lost(&mut self, lost: LostWorker, why: &str, now: Time) {
        if let Some(master) = self.masters.get_mut(&lost.job) {
            let failure = Failure::new(why);
            master.stepped.on_report(lost.worker, Report::WorkerFailed { failure }, moment(now));
        }
    }

    /// What comes of a turn: messages out, slots matched, ends noticed, the next wake-ups.
    pub fn conclude(&mut self, now: Time, new_id: &mut u128) -> (Vec<(TaskManagerId, ToTaskManager)>, Vec<Wish>) {
        let mut wishes = Vec::new();
        let mut messages = Vec::new();
        let take = |outbox: &Outbox| std::mem::take(&mut *outbox.lock().expect("nothing panics while it is held"));
        for (to, message) in take(&self.outbox) {
            if let ToTaskManager::Command(allocation, command) = &message
                && matches!(command.command, Command::Shutdown)
            {
                let job = self.resources.workers().find(|(id, _)| id == allocation).map(|(_, worker)| worker.job);
                job.into_iter().for_each(|job| self.resources.on_over(job));
            }
            messages.push((to, message));
        }
        for (id, master) in &mut self.masters {
            let Some(outcome) = master.stepped.outcome().filter(|_| !master.has_ended) else { continue };
            master.has_ended = true;
            wishes.push(Wish::Ended(*id, outcome.status.is_terminal()));
            let held = self.resources.on_ended(*id);
            messages.extend(held.into_iter().map(|(to, allocation)| (to, ToTaskManager::Release(allocation))));
        }
        let requests = self.resources.allocate(|| {
            *new_id += 1;
            AllocationId(*new_id)
        });
        messages.extend(requests.into_iter().map(|request| (request.task_manager, ToTaskManager::Request(request))));
        for (id, master) in &mut self.masters {
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
