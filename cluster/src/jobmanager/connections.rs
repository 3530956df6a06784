//! The calls of TaskManagers: each has one for as long as it lives.

use std::{
    collections::BTreeSet,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use millstream::artifact::ENGINE_VERSION;
use millstream_client::proto::v1::{
    self, FromTaskManager, ToTaskManager, from_task_manager, task_managers_server::TaskManagers, to_task_manager,
};
use millstream_model::{
    config::SECURITY_JOIN_TOKEN_FILE,
    fault::Failure,
    id::{AllocationId, ResourceId, TaskManagerId},
    message::{FromWorker, Report},
};
use millstream_slots::Allocation;
use tokio::{
    fs::File,
    io::AsyncReadExt,
    sync::mpsc,
    time::{interval, timeout},
};
use tokio_stream::{
    Stream,
    wrappers::{ReceiverStream, UnboundedReceiverStream},
};
use tonic::{Request, Response, Status, Streaming};

use super::{
    cluster::{Cluster, Held},
    job::Outbox,
    members::Members,
};
use crate::{artifacts::Artifacts, security::Peer};

/// Of an artifact in one message.
const CHUNK_BYTES: usize = 512 * 1024;
/// No TaskManager has more slots: those of `taskmanager.numberOfTaskSlots`.
const SLOTS_MAX: u32 = 32_768;

/// The service.
pub(super) struct Connections {
    pub(super) cluster: Cluster,
    pub(super) artifacts: Arc<Artifacts>,
    /// `None` if nothing is asked of TaskManagers.
    pub(super) members: Option<Members>,
    pub(super) heartbeat_interval: Duration,
    pub(super) heartbeat_timeout: Duration,
}

#[tonic::async_trait]
impl TaskManagers for Connections {
    async fn join(&self, request: Request<v1::JoinRequest>) -> Result<Response<v1::JoinResponse>, Status> {
        let from = request.extensions().get::<Peer>().map_or_else(String::new, |peer| peer.address.to_string());
        let Some(members) = &self.members else {
            return Err(Status::failed_precondition(format!(
                "this JobManager takes TaskManagers without a join token: {} is not set for it",
                SECURITY_JOIN_TOKEN_FILE.name()
            )));
        };
        let id = crate::random_id();
        match members.join(id, request.get_ref(), wall_clock()) {
            Ok(response) => {
                tracing::info!(from, member = %TaskManagerId(id), "a TaskManager has joined, and has a certificate");
                Ok(Response::new(response))
            }
            Err(status) => {
                tracing::warn!(from, why = status.message(), "a TaskManager may not join");
                Err(status)
            }
        }
    }

    type AttachStream = UnboundedReceiverStream<Result<ToTaskManager, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<FromTaskManager>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let from = request.extensions().get::<Peer>().map(|peer| peer.address.ip());
        let mut messages = request.into_inner();
        let first = timeout(self.heartbeat_timeout, messages.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no registration has come"))??;
        let Some(FromTaskManager { body: Some(from_task_manager::Body::Registration(registration)) }) = first else {
            return Err(Status::invalid_argument("the first message of a TaskManager is its registration"));
        };
        let (id, resource) = check(&registration)?;
        let held = held(&registration)?;
        let epoch = self.cluster.epoch();
        let (outbox, messages_out) = mpsc::unbounded_channel();
        let registered = v1::Registered {
            heartbeat_interval_millis: self.heartbeat_interval.as_millis() as u64,
            heartbeat_timeout_millis: self.heartbeat_timeout.as_millis() as u64,
            jobs_are_kept: self.cluster.jobs_are_kept(),
            epoch_incarnation: epoch.incarnation,
            epoch_revision: epoch.revision,
        };
        // Before anything that registering leads to.
        let _ = outbox.send(Ok(ToTaskManager { body: Some(to_task_manager::Body::Registered(registered)) }));
        if !self.cluster.on_registered((id, resource), from, registration, held, outbox.clone()) {
            return Err(Status::already_exists(format!("there is a TaskManager {id} already")));
        }
        let attached = Attached { cluster: self.cluster.clone(), id, silence_max: self.heartbeat_timeout };
        tokio::spawn(attached.hear(messages));
        tokio::spawn(beat(outbox, self.heartbeat_interval));
        Ok(Response::new(UnboundedReceiverStream::new(messages_out)))
    }

    type DownloadArtifactStream = Pin<Box<dyn Stream<Item = Result<v1::DownloadArtifactResponse, Status>> + Send>>;

    async fn download_artifact(
        &self,
        request: Request<v1::DownloadArtifactRequest>,
    ) -> Result<Response<Self::DownloadArtifactStream>, Status> {
        let sha256 = request.into_inner().sha256;
        let path = self.artifacts.find(&sha256);
        let path = path.ok_or_else(|| Status::not_found(format!("there is no artifact {sha256}")))?;
        let unreadable = |cause| Status::internal(format!("artifact {sha256} cannot be read: {cause}"));
        let mut file = File::open(path).await.map_err(unreadable)?;
        let (chunks, stream) = mpsc::channel(4);
        tokio::spawn(async move {
            loop {
                let mut chunk = vec![0; CHUNK_BYTES];
                let message = match file.read(&mut chunk).await {
                    Ok(0) => return,
                    Ok(length) => {
                        chunk.truncate(length);
                        Ok(v1::DownloadArtifactResponse { chunk })
                    }
                    Err(cause) => Err(Status::internal(format!("the artifact cannot be read: {cause}"))),
                };
                if chunks.send(message).await.is_err() {
                    return; // nobody wants it any more
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

#[expect(clippy::disallowed_methods, reason = "certificates are good from now on")]
pub(super) fn wall_clock() -> SystemTime {
    SystemTime::now()
}

fn check(registration: &v1::Registration) -> Result<(TaskManagerId, ResourceId), Status> {
    let v1::Registration { task_manager_id, resource_id, slots, version, .. } = registration;
    let id = task_manager_id.parse().map_err(|cause| Status::invalid_argument(format!("task_manager_id: {cause}")))?;
    let resource = resource_id.parse().map_err(|cause| Status::invalid_argument(format!("resource_id: {cause}")))?;
    if !(1..=SLOTS_MAX).contains(slots) {
        return Err(Status::invalid_argument(format!(
            "a TaskManager with {slots} slots: 1 to {SLOTS_MAX} are possible"
        )));
    }
    if version != ENGINE_VERSION {
        return Err(Status::failed_precondition(format!(
            "the TaskManager is of Millstream {version} and the JobManager of {ENGINE_VERSION}: use one version"
        )));
    }
    Ok((id, resource))
}

/// What a TaskManager says that it holds from before.
fn held(registration: &v1::Registration) -> Result<Vec<Held>, Status> {
    let nonsense = |what: &dyn std::fmt::Display| Status::invalid_argument(format!("held: {what}"));
    let mut free = registration.slots;
    let mut ids = BTreeSet::new();
    let held = registration.held.iter().map(|held| {
        let id: AllocationId = held.allocation_id.parse().map_err(|cause| nonsense(&cause))?;
        let job = held.job_id.parse().map_err(|cause| nonsense(&cause))?;
        if held.slots == 0 || !ids.insert(id) {
            return Err(nonsense(&format!("allocation {id} is there twice or has no slots")));
        }
        free = free.checked_sub(held.slots).ok_or_else(|| nonsense(&"these are more slots than there are"))?;
        let registered: FromWorker = serde_json::from_slice(&held.registered).map_err(|cause| nonsense(&cause))?;
        if !matches!(registered.report, Report::Registered { .. }) {
            return Err(nonsense(&"the first line of a worker says that it is there"));
        }
        Ok(Held { id, allocation: Allocation { job, slots: held.slots }, registered })
    });
    held.collect()
}

/// Shows a TaskManager that this process lives.
async fn beat(outbox: Outbox, every: Duration) {
    let mut beats = interval(every);
    loop {
        beats.tick().await;
        let beat = to_task_manager::Body::Heartbeat(v1::Heartbeat { memory: None });
        if outbox.send(Ok(ToTaskManager { body: Some(beat) })).is_err() {
            return;
        }
    }
}

/// A TaskManager that has registered.
struct Attached {
    cluster: Cluster,
    id: TaskManagerId,
    silence_max: Duration,
}

impl Attached {
    /// Listens until it is gone.
    async fn hear(self, mut messages: Streaming<FromTaskManager>) {
        let why = loop {
            match timeout(self.silence_max, messages.message()).await {
                Ok(Ok(Some(FromTaskManager { body }))) => match body.map_or(Ok(()), |body| self.on_message(body)) {
                    Ok(()) => {}
                    Err(malformed) => break malformed,
                },
                Ok(Ok(None)) => break "it has ended".to_owned(),
                Ok(Err(status)) => break format!("its connection was lost: {}", status.message()),
                Err(_) => break format!("it has been silent for {:?} (heartbeat.timeout)", self.silence_max),
            }
        };
        self.cluster.on_gone(self.id, &why);
    }

    fn on_message(&self, body: from_task_manager::Body) -> Result<(), String> {
        let allocation =
            |text: &str| text.parse::<AllocationId>().map_err(|cause| format!("it sends nonsense: {cause}"));
        match body {
            from_task_manager::Body::Heartbeat(beat) => self.cluster.on_heartbeat(self.id, beat.memory),
            from_task_manager::Body::Registration(_) => return Err("it has registered twice".to_owned()),
            from_task_manager::Body::Report(line) => {
                let message: FromWorker = serde_json::from_slice(&line.line)
                    .map_err(|cause| format!("it passes on a report that cannot be read: {cause}"))?;
                self.cluster.on_report(self.id, allocation(&line.allocation_id)?, message);
            }
            from_task_manager::Body::LogAnswer(answer) => self.cluster.log_calls().on_answer(self.id, answer),
            from_task_manager::Body::Freed(freed) => {
                let mut failure = Failure::new(freed.why);
                failure.operator = freed.operator;
                self.cluster.on_freed(self.id, allocation(&freed.allocation_id)?, failure);
            }
        }
        Ok(())
    }
}
