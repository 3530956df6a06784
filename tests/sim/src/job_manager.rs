//! A simulated JobManager: the real ResourceManager and a real JobMaster for each job, and what `cluster` has around them.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use crossbeam_channel::never;
use millstream_controlplane::{AdoptionConfig, JobMasterConfig, SteppedJobMaster, WorkerLink};
use millstream_model::{
    fault::Failure,
    id::{AllocationId, JobId, LeaderEpoch, TaskManagerId, WorkerId},
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
    Registration(TaskManagerId, u32, Vec<Held>),
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
    pub resources: ResourceManager,
    pub masters: BTreeMap<JobId, Master>,
    pub connections: BTreeMap<TaskManagerId, u64>,
    /// Workers of an earlier JobManager that are to end, and hold their slots until they have.
    pub doomed: BTreeMap<AllocationId, (TaskManagerId, u32)>,
    outbox: Outbox,
    decided: Decided,
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
            doomed: BTreeMap::new(),
            outbox: Outbox::default(),
            decided: Decided::default(),
            store,
            checkpoints,
            random,
        }
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
                self.resources.submit(job.id, job.required_slots());
                SteppedJobMaster::begin(config, jitter, moment(now))
            }
            Some(timeout) => {
                self.resources.take_up(job.id, job.required_slots());
                let (decided, id) = (self.decided.clone(), job.id);
                let note =
                    move |is_adopted| decided.lock().expect("nothing panics while it is held").push((id, is_adopted));
                let adoption = AdoptionConfig { timeout, decided: Box::new(note) };
                SteppedJobMaster::take_up(config, adoption, jitter, moment(now))
            }
        };
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
            FromTaskManager::Registration(id, slots, held) => {
                if self.connections.insert(id, connection).is_none() {
                    self.send(id, ToTaskManager::Registered(self.epoch));
                    self.resources.on_registered(id, slots);
                    held.into_iter().for_each(|held| self.on_held(id, held, now));
                }
            }
            FromTaskManager::Report(allocation, message) => self.on_report(from, allocation, *message, now),
            FromTaskManager::Freed(allocation) => {
                self.doomed.remove(&allocation);
                if let Some(lost) = self.resources.on_freed(from, allocation) {
                    self.tell_lost(lost, "its process has ended", now);
                    let pause = lost.pause.map(|pause| now + pause.as_micros() as Time);
                    wishes.extend(pause.map(|until| Wish::RequireAgain(lost.job, until)));
                }
            }
        }
        wishes
    }

    fn on_held(&mut self, from: TaskManagerId, held: Held, now: Time) {
        let Held { id, allocation, registered } = held;
        if self.resources.on_held(from, id, allocation, registered.worker) {
            self.on_report(from, id, registered, now);
        } else {
            self.end_worker(from, id, allocation.slots);
        }
    }

    /// Kills a worker that knows nothing of it.
    fn end_worker(&mut self, task_manager: TaskManagerId, id: AllocationId, slots: u32) {
        self.doomed.insert(id, (task_manager, slots));
        self.send(task_manager, ToTaskManager::Release(id, true));
    }

    fn send(&self, to: TaskManagerId, message: ToTaskManager) {
        self.outbox.lock().expect("nothing panics while it is held").push((to, message));
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
        self.doomed.retain(|_, (of, _)| *of != id);
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
        let decided = std::mem::take(&mut *self.decided.lock().expect("nothing panics while it is held"));
        let mut sent = std::mem::take(&mut *self.outbox.lock().expect("nothing panics while it is held"));
        for (job, is_adopted) in decided {
            let has_deployed = sent.iter().any(|(_, message)| is_deployment_of(message, job));
            for (id, worker) in self.resources.on_adoption_decided(job, is_adopted) {
                self.end_worker(worker.task_manager, id, worker.slots);
            }
            wishes.push(Wish::Decided { job, is_adopted, has_deployed });
        }
        sent.append(&mut self.outbox.lock().expect("nothing panics while it is held"));
        for (to, message) in sent {
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
            messages.extend(held.into_iter().map(|(to, allocation)| (to, ToTaskManager::Release(allocation, false))));
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

fn is_deployment_of(message: &ToTaskManager, job: JobId) -> bool {
    let ToTaskManager::Command(_, command) = message else { return false };
    matches!(&command.command, Command::Deploy { graph, .. } if graph.job_id == job)
}
