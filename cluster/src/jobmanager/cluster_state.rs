//! What changes of a cluster, in one piece: its jobs, its TaskManagers and their slots; and what follows for workers.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::atomic::Ordering,
};

use millstream::{
    logging::WorkerLog,
    worker_process::{WorkerMemory, WorkerSetup},
};
use millstream_client::proto::v1::{self, ToTaskManager, to_task_manager::Body};
use millstream_model::{
    fault::Failure,
    id::{AllocationId, JobId, TaskManagerId},
    message::{FromWorker, Report},
};
use millstream_slots::{LostWorker, ReportRefused, ResourceManager, Worker, WorkerRequest};

use super::job::{Job, Link, Outbox, as_others_reach};
use crate::random_id;

/// One thread at a time has it.
pub(super) struct State {
    pub(super) jobs: BTreeMap<JobId, Job>,
    /// Those that are being stored.
    pub(super) arriving: BTreeSet<JobId>,
    pub(super) task_managers: BTreeMap<TaskManagerId, Connected>,
    pub(super) resources: ResourceManager,
}

/// A TaskManager that is there.
pub(super) struct Connected {
    pub(super) address: String,
    /// Where it has connected from.
    pub(super) from: Option<IpAddr>,
    pub(super) cpu_cores: u32,
    pub(super) physical_memory_bytes: u64,
    pub(super) memory: Option<v1::MemoryShares>,
    pub(super) memory_in_use: Option<v1::MemoryInUse>,
    pub(super) outbox: Outbox,
    /// When it was last heard of: milliseconds since 1970.
    pub(super) heard_millis: i64,
}

impl State {
    /// Kills a worker that knows nothing of it.
    pub(super) fn end_worker(&self, task_manager: TaskManagerId, id: AllocationId) {
        let release = v1::SlotRelease { allocation_id: id.to_string(), at_once: true };
        self.send(task_manager, Body::Release(release));
    }

    pub(super) fn on_report(&mut self, from: TaskManagerId, allocation: AllocationId, message: FromWorker) {
        let is_registration = matches!(message.report, Report::Registered { .. });
        let sender = match is_registration {
            true => self.resources.on_ready(from, allocation, message.worker),
            false => self.resources.sender(from, allocation, message.worker),
        };
        let worker = match sender {
            Ok(worker) => worker,
            Err(ReportRefused::Unknown(_)) => return,
            Err(refused) => {
                tracing::warn!(task_manager = %from, %refused, "a report of a worker is dropped");
                return;
            }
        };
        let Some(job) = self.jobs.get_mut(&worker.job) else { return };
        if let Report::Registered { slots, shuffle_address } = message.report {
            let Some(connected) = self.task_managers.get(&from) else { return };
            job.trouble = None;
            let link = Link {
                job: worker.job,
                worker: worker.worker,
                slots: slots.min(worker.slots),
                shuffle_address: shuffle_address.map(|address| as_others_reach(address, connected.from)),
                allocation,
                outbox: connected.outbox.clone(),
                is_over: job.is_over.clone(),
            };
            // A job that has ended does not take it, and its slots are released.
            let _ = job.joining.send(Box::new(link));
        }
        let _ = job.reports.send(message);
    }

    pub(super) fn send(&self, task_manager: TaskManagerId, body: Body) {
        if let Some(connected) = self.task_managers.get(&task_manager) {
            // One that is gone has its end told by its connection.
            let _ = connected.outbox.send(Ok(ToTaskManager { body: Some(body) }));
        }
    }

    /// Gives free slots to jobs that miss some.
    pub(super) fn match_slots(&mut self) {
        for WorkerRequest { task_manager, id, allocation, worker } in self.resources.allocate(new_id) {
            let Some(job) = self.jobs.get_mut(&allocation.job) else { continue };
            let network = match job.network.setup(worker) {
                Ok(network) => network,
                Err(failure) => {
                    tracing::error!(job = %allocation.job, %failure, "a worker cannot be set up");
                    job.trouble = Some(failure.to_string());
                    self.resources.on_freed(task_manager, id);
                    // No worker has failed, so nothing is waited for.
                    self.resources.require_again(allocation.job);
                    continue;
                }
            };
            // What concerns its machine is for the TaskManager to say.
            let (log, memory, artifact) = (WorkerLog::default(), WorkerMemory::default(), None);
            let setup = WorkerSetup { worker, slots: allocation.slots, network: Some(network), log, memory, artifact };
            let request = v1::SlotRequest {
                allocation_id: id.to_string(),
                job_id: allocation.job.to_string(),
                slots: allocation.slots,
                sha256: job.sha256.clone(),
                setup: setup.to_line(),
            };
            self.send(task_manager, Body::Request(request));
        }
        for (id, worker) in self.resources.retire() {
            let Worker { job, worker, task_manager, slots, .. } = worker;
            tracing::info!(%job, worker = worker.0, slots, "a worker is ended, for its job gets more slots of its TaskManager");
            self.end_worker(task_manager, id);
            let failure = Failure::new("it was ended, since its job gets one with more slots of its TaskManager");
            self.tell_lost(LostWorker { job, worker, pause: None }, failure);
        }
        for (job, missing) in self.resources.missing() {
            tracing::info!(%job, missing, "a job waits for slots");
        }
    }

    /// Jobs end on threads of their own; what they have told their workers shows in a flag of theirs.
    pub(super) fn note_what_is_over(&mut self) {
        for (id, _) in self.jobs.iter().filter(|(_, job)| !job.has_ended() && job.is_over.load(Ordering::SeqCst)) {
            self.resources.on_over(*id);
        }
    }

    /// Tells a job that a worker of it is gone.
    pub(super) fn tell_lost(&mut self, lost: LostWorker, failure: Failure) {
        let Some(job) = self.jobs.get_mut(&lost.job) else { return };
        let why = failure.message.clone();
        // A job that has ended does not hear it.
        let _ = job.reports.send(FromWorker { worker: lost.worker, report: Report::WorkerFailed { failure } });
        if lost.pause.is_some() {
            job.trouble = Some(format!("a worker could not be started: {why}"));
        }
    }
}

/// An id that nobody has used.
fn new_id() -> AllocationId {
    AllocationId(random_id())
}
