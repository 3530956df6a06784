//! A TaskManager: offers slots to a JobManager, and starts a worker process for each job that gets some.
//!
//! ```text
//!   attach ──► register, with what is held ──► serve ──the JobManager is gone──► workers run on ──pause──► attach …
//!                             │
//!                SlotRequest ─┼─► slot_table ──► artifact (downloaded once) ──► worker process
//!                lines        ┼─► its standard input
//!                SlotRelease  ┴─► a moment to end, then it is killed
//! ```
//! The TaskManager is the truth about its slots: an allocation holds them until the worker's process has gone. Where the
//! next JobManager takes up the jobs of the one that is gone, workers run on until it comes, and it says which of them go
//! on for good. If none comes in time, this process ends, and its workers with it. Where jobs end with their JobManager,
//! so do the workers.
//!
//! | Look here for | module |
//! |---|---|
//! | connections to the JobManager | `link` |
//! | artifacts from it | `download` |
//! | the worker processes | `workers` |
//! | how much memory each has, and what keeps it to that | `memory`, `cgroup` |
//! | whether the kernel has killed one for want of memory | `kernel_kills` |
//! | what outlives a JobManager | `holdings` |
//! | logs, for the JobManager | `log_calls` |

mod cgroup;
mod download;
mod holdings;
mod kernel_kills;
mod link;
mod log_calls;
mod memory;
mod workers;

use std::{pin::pin, process, sync::Arc, thread, time::Duration};

use millstream::{
    artifact::ENGINE_VERSION,
    memory::machine_bytes,
    worker_network::{bind_address, check_configured_exposure, check_exposure},
    worker_process::WorkerSetup,
};
use millstream_client::{
    cause::cause_of,
    proto::v1::{self, FromTaskManager, from_task_manager, task_managers_client::TaskManagersClient, to_task_manager},
};
use millstream_model::{
    config::{Configuration, REGISTRATION_TIMEOUT, TASK_SLOTS},
    fault::Failure,
    id::{AllocationId, JobId, LeaderEpoch, ResourceId, TaskManagerId},
};
use millstream_slots::{Accepted, Allocation};
use tokio::{
    sync::mpsc::{self, UnboundedSender},
    time::{Instant, Interval, interval, sleep, timeout, timeout_at},
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;

use self::{
    holdings::Holdings,
    link::{Link, NoLink, is_final},
    log_calls::LogCalls,
    memory::Memory,
    workers::WorkerEvent,
};
use crate::{
    artifacts::Artifacts,
    host_name,
    logs::store::JobLogs,
    metrics::{Reporters, TaskManagerMetrics, WorkerNumbers},
};

/// How long a JobManager may take to answer a registration.
const REGISTRATION_PATIENCE: Duration = Duration::from_secs(5);
/// Between two tries to reach the JobManager.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The longest while workers run on: the next JobManager waits for them `recovery.adopt-timeout`.
const LONGEST_PAUSE_OF_WORKERS: Duration = Duration::from_millis(200);
/// How long a worker of a job that has ended may take to end.
const GRACE: Duration = Duration::from_secs(5);

type Outbox = UnboundedSender<FromTaskManager>;

/// Runs a TaskManager until `stop` is there. Calls `ready` whenever it has registered.
///
/// # Errors
/// If it cannot start, or no JobManager takes it within `taskmanager.registration.timeout`.
pub async fn run(
    configuration: Configuration,
    mut ready: impl FnMut(&str),
    stop: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let task_manager = TaskManager {
        id: TaskManagerId(crate::random_id()),
        resource: ResourceId(crate::random_id()),
        link: Arc::new(Link::of(&configuration)?),
        slots: configuration.get(&TASK_SLOTS)?,
        patience: configuration.get(&REGISTRATION_TIMEOUT)?,
        epoch: None,
        artifacts: Arc::new(Artifacts::open(&configuration, &format!("taskmanager-{}", process::id()))?),
        numbers: WorkerNumbers::default(),
        logs: JobLogs::open(&configuration)?,
        memory: Memory::of(&configuration)?,
        configuration,
    };
    // Checked now, and not when the first job comes.
    check_configured_exposure(&task_manager.configuration)?;
    let (workers, host, id) = (task_manager.numbers.clone(), host_name(), process_name());
    let shares = task_manager.memory.numbers();
    let numbers = Arc::new(TaskManagerMetrics { workers, shares, host, id });
    let _reporters = Reporters::start(&task_manager.configuration, numbers).await?;
    tokio::select! {
        ended = task_manager.serve_forever(&mut ready) => ended,
        () = stop => Ok(()),
    }
}

struct TaskManager {
    /// With the JobManager of the moment.
    id: TaskManagerId,
    resource: ResourceId,
    link: Arc<Link>,
    slots: u32,
    /// How long it goes on without a JobManager.
    patience: Duration,
    /// The highest leader that it has served whose jobs outlive it.
    epoch: Option<LeaderEpoch>,
    artifacts: Arc<Artifacts>,
    numbers: WorkerNumbers,
    logs: JobLogs,
    memory: Memory,
    configuration: Configuration,
}

/// How one time with a JobManager ended.
enum Parted {
    /// It could not be reached.
    Unreachable(String),
    /// It was there, and is gone.
    Lost { why: String, jobs_are_kept: bool },
    /// It has ended, and everything with it.
    Dismissed,
    /// It does not want this TaskManager.
    Refused(Failure),
}

impl TaskManager {
    /// Serves one JobManager after the other, until one ends its cluster, or will have none of this TaskManager, or none
    /// comes any more.
    async fn serve_forever(mut self, ready: &mut impl FnMut(&str)) -> Result<(), Failure> {
        let mut pause = FIRST_PAUSE;
        let mut said = String::new();
        // Its workers are killed when it is dropped.
        let mut holdings = Holdings::new(self.slots, self.logs.clone(), self.numbers.clone());
        // Without a JobManager, or with one that does not take it.
        let mut alone_since = Instant::now();
        let mut was_registered = false;
        loop {
            let connect = self.connect(&mut holdings);
            let Ok(connected) = timeout_at(alone_since + self.patience, connect).await else {
                return Err(self.abandoned(was_registered));
            };
            let parted = match connected {
                Ok(connected) => {
                    was_registered = true;
                    let parted = self.serve(connected, &mut holdings, ready).await;
                    alone_since = Instant::now();
                    parted
                }
                Err(parted) => parted,
            };
            match parted {
                Parted::Refused(failure) => return Err(failure),
                Parted::Dismissed => {
                    tracing::info!(jobmanager = self.link.address, "the cluster has ended");
                    return Ok(());
                }
                Parted::Lost { why, jobs_are_kept: true } => {
                    holdings.keep_what_runs();
                    let workers = holdings.count();
                    tracing::warn!(
                        jobmanager = self.link.address,
                        why,
                        workers,
                        "the JobManager is gone, and workers run on"
                    );
                    pause = FIRST_PAUSE;
                    said.clear();
                }
                Parted::Lost { why, jobs_are_kept: false } => {
                    holdings = Holdings::new(self.slots, self.logs.clone(), self.numbers.clone());
                    tracing::warn!(
                        jobmanager = self.link.address,
                        why,
                        "the JobManager is gone, and all workers with it"
                    );
                    pause = FIRST_PAUSE;
                    said.clear();
                }
                Parted::Unreachable(why) if why != said => {
                    tracing::info!(jobmanager = self.link.address, why, "the JobManager cannot be reached yet");
                    said = why;
                }
                Parted::Unreachable(_) => {}
            }
            sleep(pause).await;
            let longest = if holdings.count() > 0 { LONGEST_PAUSE_OF_WORKERS } else { LONGEST_PAUSE };
            pause = (pause * 2).min(longest);
            // Whatever the last one may still say about it, the next one never confuses the two.
            self.id = TaskManagerId(crate::random_id());
        }
    }

    fn abandoned(&self, was_registered: bool) -> Failure {
        let what = if was_registered { "is gone and has not come back" } else { "has not taken this TaskManager" };
        Failure::fatal(format!(
            "the JobManager at {} {what} within {:?} ({})",
            self.link.address,
            self.patience,
            REGISTRATION_TIMEOUT.name()
        ))
    }

    /// Registers with a JobManager, if there is one.
    async fn connect(&self, holdings: &mut Holdings) -> Result<Connected, Parted> {
        // What has ended until now is not held any more. What ends from here on is told later. At each try, so that what
        // workers have to say does not pile up.
        holdings.catch_up();
        let channel = self.link.connect().await.map_err(|none| match none {
            NoLink::Yet(why) => Parted::Unreachable(why),
            NoLink::Refused(failure) => Parted::Refused(failure),
        })?;
        let (outbox, messages) = mpsc::unbounded_channel();
        let registration = v1::Registration {
            task_manager_id: self.id.to_string(),
            resource_id: self.resource.to_string(),
            address: process_name(),
            slots: self.slots,
            version: ENGINE_VERSION.to_owned(),
            cpu_cores: thread::available_parallelism().map_or(0, |count| count.get() as u32),
            physical_memory_bytes: machine_bytes().unwrap_or(0),
            held: holdings.describe(),
            memory: Some(self.memory.describe()),
        };
        let _ = outbox.send(FromTaskManager { body: Some(from_task_manager::Body::Registration(registration)) });
        let mut calls = TaskManagersClient::new(channel)
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX);
        let answers = calls.attach(UnboundedReceiverStream::new(messages)).await;
        let mut answers = answers.map_err(|status| parted_by(&status))?.into_inner();
        let registered = match timeout(REGISTRATION_PATIENCE, answers.message()).await {
            Ok(Ok(Some(v1::ToTaskManager { body: Some(to_task_manager::Body::Registered(registered)) }))) => registered,
            Ok(Err(status)) => return Err(parted_by(&status)),
            Ok(Ok(_)) => return Err(Parted::Unreachable("it does not answer as a JobManager does".to_owned())),
            Err(_) => return Err(Parted::Unreachable("it does not answer".to_owned())),
        };
        let epoch = LeaderEpoch { incarnation: registered.epoch_incarnation, revision: registered.epoch_revision };
        if registered.jobs_are_kept && self.epoch.is_some_and(|highest| epoch < highest) {
            return Err(Parted::Unreachable("it was replaced by another leader".to_owned()));
        }
        Ok(Connected { outbox, answers, registered, epoch })
    }

    async fn serve(&mut self, connected: Connected, holdings: &mut Holdings, ready: &mut impl FnMut(&str)) -> Parted {
        let Connected { outbox, answers, registered, epoch } = connected;
        if registered.jobs_are_kept {
            self.epoch = Some(epoch);
        }
        let workers = holdings.count();
        tracing::info!(jobmanager = self.link.address, task_manager = %self.id, slots = self.slots, workers, "registered");
        ready(&self.link.address);
        let session = Session {
            holdings,
            artifacts: self.artifacts.clone(),
            log_calls: LogCalls::new(self.logs.clone(), outbox.clone()),
            configuration: &self.configuration,
            memory: &self.memory,
            link: self.link.clone(),
            outbox,
            silence_max: Duration::from_millis(registered.heartbeat_timeout_millis.max(1)),
        };
        let beats = interval(Duration::from_millis(registered.heartbeat_interval_millis.max(1)));
        match session.run(answers, beats).await {
            Ended::Dismissed => Parted::Dismissed,
            Ended::Lost(why) => Parted::Lost { why, jobs_are_kept: registered.jobs_are_kept },
        }
    }
}

/// A JobManager that has taken this TaskManager.
struct Connected {
    outbox: Outbox,
    answers: Streaming<v1::ToTaskManager>,
    registered: v1::Registered,
    epoch: LeaderEpoch,
}

/// How the time with one JobManager ended.
enum Ended {
    Lost(String),
    Dismissed,
}

fn parted_by(status: &tonic::Status) -> Parted {
    let message = cause_of(status);
    if is_final(status) {
        Parted::Refused(Failure::fatal(format!("the JobManager refuses this TaskManager: {message}")))
    } else {
        Parted::Unreachable(message)
    }
}

/// The time with one JobManager.
struct Session<'a> {
    holdings: &'a mut Holdings,
    artifacts: Arc<Artifacts>,
    log_calls: LogCalls,
    configuration: &'a Configuration,
    memory: &'a Memory,
    link: Arc<Link>,
    outbox: Outbox,
    silence_max: Duration,
}

impl Session<'_> {
    async fn run(mut self, mut messages: Streaming<v1::ToTaskManager>, mut beats: Interval) -> Ended {
        let mut silent_until = pin!(sleep(self.silence_max));
        loop {
            tokio::select! {
                message = messages.message() => match message {
                    Ok(Some(v1::ToTaskManager { body: Some(to_task_manager::Body::Dismissed(_)) })) => {
                        return Ended::Dismissed;
                    }
                    Ok(Some(v1::ToTaskManager { body })) => {
                        silent_until.as_mut().reset(Instant::now() + self.silence_max);
                        if let Some(Err(malformed)) = body.map(|body| self.on_message(body)) {
                            return Ended::Lost(malformed);
                        }
                    }
                    Ok(None) => return Ended::Lost("it has ended".to_owned()),
                    Err(status) => return Ended::Lost(cause_of(&status)),
                },
                () = silent_until.as_mut() => {
                    return Ended::Lost(format!("it has been silent for {:?} (heartbeat.timeout)", self.silence_max));
                }
                event = self.holdings.next_event() => if let Some(event) = event {
                    self.on_event(event);
                },
                _ = beats.tick() => self.beat(),
            }
        }
    }

    fn say(&self, body: from_task_manager::Body) {
        // A JobManager that is gone is noticed by what comes from it, or does not.
        let _ = self.outbox.send(FromTaskManager { body: Some(body) });
    }

    /// Shows that this process lives, and what its workers use.
    fn beat(&self) {
        let used = self.holdings.memory_in_use();
        let memory = v1::MemoryInUse { managed_bytes: used.managed, network_bytes: used.network };
        self.say(from_task_manager::Body::Heartbeat(v1::Heartbeat { memory: Some(memory) }));
    }

    fn on_message(&mut self, body: to_task_manager::Body) -> Result<(), String> {
        let id = |text: &str| text.parse::<AllocationId>().map_err(|cause| format!("it sends nonsense: {cause}"));
        match body {
            to_task_manager::Body::Registered(_)
            | to_task_manager::Body::Heartbeat(_)
            | to_task_manager::Body::Dismissed(_) => {}
            to_task_manager::Body::Request(request) => {
                let id = id(&request.allocation_id)?;
                if let Err(why) = self.on_request(id, request) {
                    self.freed(id, why, None);
                }
            }
            to_task_manager::Body::Command(line) => {
                let text = String::from_utf8(line.line).ok().filter(|text| !text.contains('\n'));
                let text = text.ok_or_else(|| "it sends a line that is no line of text".to_owned())?;
                self.holdings.workers.send_line(id(&line.allocation_id)?, text);
            }
            to_task_manager::Body::LogCall(call) => self.log_calls.answer(call),
            to_task_manager::Body::LogLevels(v1::LogLevels { job_id, levels }) => {
                let nonsense = |cause: &dyn std::fmt::Display| format!("it sends nonsense: {cause}");
                let levels = levels.parse().map_err(|cause| nonsense(&cause))?;
                let job =
                    if job_id.is_empty() { None } else { Some(job_id.parse().map_err(|cause| nonsense(&cause))?) };
                self.holdings.workers.set_log_levels(job, &levels);
            }
            to_task_manager::Body::Release(release) if release.at_once => {
                self.holdings.workers.kill(id(&release.allocation_id)?);
            }
            to_task_manager::Body::Release(release) => self.holdings.workers.end(id(&release.allocation_id)?, GRACE),
        }
        Ok(())
    }

    /// Starts a worker; an error says why there will be none.
    fn on_request(&mut self, id: AllocationId, request: v1::SlotRequest) -> Result<(), String> {
        let job: JobId = request.job_id.parse().map_err(|cause| format!("{cause}"))?;
        match self.holdings.table.request(id, Allocation { job, slots: request.slots }) {
            Ok(Accepted::Already) => return Ok(()),
            Ok(Accepted::New) => {}
            Err(refused) => return Err(refused.to_string()),
        }
        let mut setup: WorkerSetup =
            serde_json::from_str(&request.setup).map_err(|cause| format!("its setup cannot be read: {cause}"))?;
        if let Some(network) = &mut setup.network {
            network.bind = bind_address(self.configuration).map_err(|failure| failure.to_string())?;
            // What carries the records is for the job to say, and who may reach this machine is not.
            check_exposure(network.bind, network.transport, self.configuration)
                .map_err(|failure| failure.to_string())?;
        }
        tracing::info!(%job, worker = setup.worker.0, slots = request.slots, "a job gets slots");
        let (artifacts, link, sha256) = (self.artifacts.clone(), self.link.clone(), request.sha256);
        let artifact = async move { download::artifact(&artifacts, &link, &sha256).await };
        let limit = self.memory.limit(id, request.slots);
        setup.memory = self.memory.of_worker(&limit);
        self.holdings.workers.start(id, job, setup, limit, artifact);
        Ok(())
    }

    fn on_event(&mut self, event: WorkerEvent) {
        match event {
            WorkerEvent::Line { allocation, line } => {
                self.holdings.note(allocation, &line);
                let line = v1::WorkerLine { allocation_id: allocation.to_string(), line };
                self.say(from_task_manager::Body::Report(line));
            }
            WorkerEvent::Ended { allocation, why, operator } => {
                self.holdings.forget(allocation);
                self.freed(allocation, why, operator);
            }
        }
    }

    /// Takes slots back, and says so: whether the worker has ended, or there never was one.
    fn freed(&mut self, id: AllocationId, why: String, operator: Option<String>) {
        if let Some(Allocation { job, slots }) = self.holdings.table.free_up(id) {
            // What the worker has said last is in its job's log.
            tracing::info!(%job, slots, why = why.lines().next(), "slots are free again");
        }
        let freed = v1::SlotsFreed { allocation_id: id.to_string(), why, operator };
        self.say(from_task_manager::Body::Freed(freed));
    }
}

/// What people know this process by.
fn process_name() -> String {
    format!("{}:{}", host_name(), process::id())
}
