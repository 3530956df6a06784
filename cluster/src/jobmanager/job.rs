//! One job of the cluster: its JobMaster, and the ways of its workers' reports and of messages to them.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crossbeam_channel::Sender;
use millstream::{embedded_job::finished, job::FinishedJob, worker_network::JobNetwork};
use millstream_client::proto::v1::{self, ToTaskManager, to_task_manager::Body};
use millstream_controlplane::{JobHandle, JobOutcome, WorkerLink, why::JobShape};
use millstream_model::{
    config::CHECKPOINTING_INTERVAL,
    fault::Failure,
    id::{AllocationId, JobId, JobVertexId, WorkerId},
    job_graph::JobGraph,
    message::{Command, FromWorker, ToWorker},
};
use tokio::sync::{mpsc::UnboundedSender, watch};

use super::rest::Plan;

/// The way to a TaskManager. What is sent to one that is gone is lost; that it is gone is told by another way.
pub(super) type Outbox = UnboundedSender<Result<ToTaskManager, tonic::Status>>;

/// A job that runs or has ended.
pub(super) struct Job {
    pub(super) name: String,
    /// What REST shows of its graph.
    pub(super) plan: Arc<Plan>,
    pub(super) handle: JobHandle,
    /// What of its graph says who waits for whom.
    pub(super) shape: Arc<JobShape>,
    /// Between two checkpoints.
    pub(super) checkpoint_interval: Option<Duration>,
    /// Where the JobMaster hears of its workers.
    pub(super) reports: Sender<FromWorker>,
    pub(super) joining: Sender<Box<dyn WorkerLink>>,
    pub(super) network: JobNetwork,
    /// Of its artifact.
    pub(super) sha256: String,
    /// Why its workers do not come up, while they do not.
    pub(super) trouble: Option<String>,
    pub(super) start_time_millis: i64,
    pub(super) end_time_millis: i64,
    /// Whether its workers were told to end: then none is replaced.
    pub(super) is_over: Arc<AtomicBool>,
    /// Becomes true when the job has ended.
    pub(super) ended: watch::Sender<bool>,
    sources: Vec<JobVertexId>,
}

impl Job {
    pub(super) fn new(
        graph: &JobGraph,
        handle: JobHandle,
        reports: Sender<FromWorker>,
        joining: Sender<Box<dyn WorkerLink>>,
        network: JobNetwork,
        sha256: String,
        start_time_millis: i64,
    ) -> Job {
        Job {
            name: graph.name.clone(),
            plan: Arc::new(Plan::of(graph)),
            shape: Arc::new(JobShape::of(graph)),
            // A bad value has failed the job already.
            checkpoint_interval: graph.configuration.get(&CHECKPOINTING_INTERVAL).unwrap_or_default(),
            handle,
            reports,
            joining,
            network,
            sha256,
            trouble: None,
            start_time_millis,
            end_time_millis: 0,
            is_over: Arc::default(),
            ended: watch::Sender::new(false),
            sources: graph.sources().collect(),
        }
    }

    /// The job has ended. The first time counts.
    pub(super) fn note_end(&mut self, at_millis: i64) {
        self.is_over.store(true, Ordering::SeqCst);
        self.trouble = None;
        if self.end_time_millis == 0 {
            self.end_time_millis = at_millis;
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.end_time_millis != 0
    }

    /// How the job is doing, as clients are told.
    pub(super) fn describe(&self) -> v1::Job {
        let metrics = self.handle.metrics();
        let trouble = self.trouble.as_ref().map(Failure::new);
        v1::Job {
            job_id: self.handle.job().to_string(),
            name: self.name.clone(),
            status: v1::JobStatus::from(self.handle.status()).into(),
            start_time_millis: self.start_time_millis,
            end_time_millis: self.end_time_millis,
            restarts: metrics.restarts,
            tasks: metrics.tasks_total,
            running_tasks: metrics.tasks_running,
            records_read: metrics.records_read(&self.sources),
            completed_checkpoints: metrics.checkpoints.completed,
            last_failure: trouble.or(metrics.last_failure).map(v1::Failure::from),
        }
    }

    /// What a program is told that has waited for it, once it has ended.
    pub(super) fn finished(&self) -> Option<FinishedJob> {
        self.has_ended().then(|| self.handle.outcome().map(finished)).flatten()
    }

    /// What is left of it, once it has ended.
    pub(super) fn result(&self) -> Option<v1::JobResult> {
        self.has_ended().then(|| self.handle.outcome().map(result_of)).flatten()
    }
}

fn result_of(outcome: JobOutcome) -> v1::JobResult {
    let JobOutcome { status, failure, accumulators, collected, timings, .. } = outcome;
    v1::JobResult {
        status: v1::JobStatus::from(status).into(),
        failure: failure.map(v1::Failure::from),
        net_runtime_millis: timings.net_runtime.as_millis() as u64,
        accumulators: accumulators.into_iter().collect(),
        collected: collected.into_iter().map(v1::Collected::of).collect(),
    }
}

/// The way of a JobMaster to a worker: through the TaskManager that has started it.
pub(super) struct Link {
    pub(super) job: JobId,
    pub(super) worker: WorkerId,
    pub(super) slots: u32,
    pub(super) shuffle_address: Option<SocketAddr>,
    pub(super) allocation: AllocationId,
    pub(super) outbox: Outbox,
    pub(super) is_over: Arc<AtomicBool>,
}

impl WorkerLink for Link {
    fn send(&self, message: ToWorker) {
        if matches!(message.command, Command::Shutdown) {
            // Before the worker hears of it, or its end would have it replaced.
            self.is_over.store(true, Ordering::SeqCst);
        }
        let line = serde_json::to_vec(&message).expect("messages have a form in JSON");
        let line = v1::WorkerLine { allocation_id: self.allocation.to_string(), line };
        if self.outbox.send(Ok(ToTaskManager { body: Some(Body::Command(line)) })).is_err() {
            tracing::debug!(job = %self.job, worker = self.worker.0, "a message to a TaskManager that is gone");
        }
    }

    fn worker(&self) -> WorkerId {
        self.worker
    }

    fn slots(&self) -> u32 {
        self.slots
    }

    fn shuffle_address(&self) -> Option<SocketAddr> {
        self.shuffle_address
    }
}

/// Where others reach a worker that listens at `address`: on all addresses of its machine it is the one that its TaskManager
/// has come `from`.
pub(super) fn as_others_reach(address: SocketAddr, from: Option<IpAddr>) -> SocketAddr {
    match from {
        Some(from) if address.ip().is_unspecified() => SocketAddr::new(from.to_canonical(), address.port()),
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_on_all_addresses_is_where_its_task_manager_is() {
        let reached = |address: &str, from: &str| {
            as_others_reach(address.parse().unwrap(), Some(from.parse().unwrap())).to_string()
        };
        assert_eq!(reached("0.0.0.0:7", "10.0.0.1"), "10.0.0.1:7");
        assert_eq!(reached("[::]:7", "::ffff:10.0.0.1"), "10.0.0.1:7");
        assert_eq!(reached("10.0.0.2:7", "10.0.0.1"), "10.0.0.2:7");
        assert_eq!(as_others_reach("0.0.0.0:7".parse().unwrap(), None).to_string(), "0.0.0.0:7");
    }
}
