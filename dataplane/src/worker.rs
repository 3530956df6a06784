//! The control thread of a worker: obeys the JobMaster, starts and stops tasks, and reports.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, Write as _},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender, select, tick, unbounded};
use millstream_api::{metrics::MetricRegistry, signal::Barrier};
use millstream_model::{
    config::{self, Threading},
    deployment::{CoordinatorState, Deployment, Placement},
    fault::Failure,
    id::{CheckpointId, ExecutionAttemptId, Generation, JobVertexId, LeaderEpoch, OperatorId, Subtask, WorkerId},
    job_graph::JobGraph,
    message::{CheckpointKind, Command, FromWorker, Report, TaskName, TaskStatus, ToWorker},
    state::ExecutionState,
};
use millstream_shuffle::{
    exchange::{Exchange, ExchangeEvent, PeerLine},
    segment::Census,
    wire::message::{CoordinatorEvent, Direction},
};
use millstream_storage::{CheckpointDirectory, local_path};
use tokio::runtime::Runtime;

use crate::{
    clock,
    coordinator::{self, CoordinatorLine, CoordinatorMail, CoordinatorParts, CoordinatorSnapshot, SubtaskLine},
    metrics::TaskCounters,
    network::Network,
    output::Limits,
    processors::{Processors, neighbours},
    report::Reporter,
    restore::RestoredState,
    slot_thread::{self, Blueprint, Mail, Settings, SlotMailbox},
    snapshot::{Uploader, with_causes},
    task::TaskMail,
    wiring::{Layout, Origin, Wiring},
};

/// Between two reports of counters.
const METRICS_INTERVAL: Duration = Duration::from_millis(500);

/// What a worker is.
#[derive(Debug)]
pub struct WorkerConfig {
    pub worker: WorkerId,
    /// How many it offers.
    pub slots: u32,
    /// The SHA-256 of this executable in hexadecimal digits; job graphs of other executables are refused. `None` if it
    /// runs only what this process has planned.
    pub artifact: Option<String>,
    /// `None` for a worker whose jobs never leave it.
    pub network: Option<Network>,
}

/// The start of the message; tests look for it in the logs of worker processes.
pub const SEGMENTS_LEAKED: &str = "the worker has ended, and segments are still held";

/// A worker that runs; it ends with [`Command::Shutdown`] or when this is dropped.
pub struct Worker {
    commands: Sender<ToWorker>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts a worker in this process. Its reports go to `reports`.
    ///
    /// # Errors
    /// If its threads cannot be started.
    pub fn start(config: WorkerConfig, reports: Sender<FromWorker>) -> Result<Worker, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("io")
            .enable_all()
            .build()
            .map_err(|cause| Failure::new(format!("the I/O runtime could not be started: {cause}")))?;
        let (commands, receiver) = unbounded();
        let (exchange_events, from_exchange) = unbounded();
        let WorkerConfig { worker, slots, artifact, network } = config;
        let exchange = network.map(|Network { exchange, listen, is_authenticated }| {
            // The worker outlives its exchange but for the moment in which it ends.
            let on_event = move |event| drop(exchange_events.send(event));
            let exchange = Exchange::start(exchange, listen, on_event)
                .map_err(|cause| Failure::new(format!("the network of worker {} cannot start: {cause}", worker.0)))?;
            let origin = if is_authenticated { Origin::Network } else { Origin::Unproved };
            Ok::<_, Failure>((exchange, origin))
        });
        let exchange = exchange.transpose()?;
        let shuffle_address = exchange.as_ref().map(|(exchange, _)| exchange.address());
        let reporter = Reporter::new(worker, reports);
        reporter.send(Report::Registered { slots, shuffle_address });
        let control = Control {
            reporter,
            worker,
            artifact,
            exchange,
            from_exchange,
            runtime,
            epoch: LeaderEpoch::default(),
            job: None,
            segments: Vec::new(),
        };
        let thread = thread::Builder::new().name("worker".to_owned()).spawn(move || control.run(&receiver));
        let thread =
            thread.map_err(|cause| Failure::new(format!("no thread for a worker could be started: {cause}")))?;
        Ok(Worker { commands, thread: Some(thread) })
    }

    /// Hands over a message, without waiting for what it does.
    pub fn send(&self, message: ToWorker) {
        // A worker that has ended has said so.
        let _ = self.commands.send(message);
    }

    /// How to send messages from elsewhere.
    pub fn sender(&self) -> Sender<ToWorker> {
        self.commands.clone()
    }

    /// Blocks until the worker has ended.
    pub fn join(mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let epoch = LeaderEpoch { incarnation: u64::MAX, revision: u64::MAX };
        let _ = self.commands.send(ToWorker { epoch, command: Command::Shutdown });
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Control {
    worker: WorkerId,
    artifact: Option<String>,
    exchange: Option<(Exchange, Origin)>,
    from_exchange: Receiver<ExchangeEvent>,
    reporter: Reporter,
    runtime: Runtime,
    /// The highest that a message has carried; lower ones are refused.
    epoch: LeaderEpoch,
    job: Option<RunningJob>,
    /// Of each deployment that has not given back all of its segments, as far as is known.
    segments: Vec<Census>,
}

/// One deployment.
struct RunningJob {
    generation: Generation,
    /// Of the tasks here.
    placements: Vec<Placement>,
    /// Whether its tasks were told to end: no leader may take them for ones that go on.
    is_ending: bool,
    /// The mailbox of each subtask's thread.
    tasks: BTreeMap<Subtask, SlotMailbox>,
    sources: Vec<Subtask>,
    counters: Vec<(ExecutionAttemptId, Arc<TaskCounters>, MetricRegistry)>,
    threads: Vec<JoinHandle<()>>,
    coordinators: HashMap<OperatorId, CoordinatorLine>,
    snapshots: Receiver<CoordinatorSnapshot>,
    /// The checkpoint that coordinators were snapshotted for and whose barriers are not in the sources yet: they hold
    /// back what they send.
    holding: Option<CheckpointId>,
    /// A checkpoint whose barriers wait for what coordinators elsewhere have sent before it.
    triggered: Option<Barrier>,
    /// The newest checkpoint that each coordinator elsewhere has contributed to; all that it sent before is here.
    snapshotted: HashMap<OperatorId, CheckpointId>,
    /// The newest checkpoint whose barriers are in the sources here, or never will be.
    passed: CheckpointId,
    /// What coordinators elsewhere have sent and sources here may see only behind barriers that are still to come.
    early: Vec<(CheckpointId, Subtask, Vec<u8>)>,
    /// The vertex of each operator with a coordinator.
    coordinated: HashMap<OperatorId, JobVertexId>,
    /// The tasks here that have channels to each peer.
    tasks_of_peer: BTreeMap<WorkerId, Vec<Subtask>>,
}

impl Control {
    fn run(mut self, commands: &Receiver<ToWorker>) {
        // Not a time from the last message on: where checkpoints are frequent, it would never be over.
        let metrics_due = tick(METRICS_INTERVAL);
        loop {
            let never = crossbeam_channel::never();
            let snapshots = self.job.as_ref().map_or(never, |job| job.snapshots.clone());
            // Without an exchange nobody holds the other end.
            let from_exchange =
                if self.exchange.is_some() { self.from_exchange.clone() } else { crossbeam_channel::never() };
            select! {
                recv(commands) -> message => match message {
                    Ok(ToWorker { epoch, command }) if epoch >= self.epoch => {
                        self.epoch = epoch;
                        if matches!(command, Command::Shutdown) {
                            break;
                        }
                        self.obey(command);
                    }
                    Ok(ToWorker { epoch, .. }) => {
                        tracing::warn!(?epoch, known = ?self.epoch, "a message of an earlier leader is refused");
                    }
                    Err(_) => break,
                },
                recv(snapshots) -> snapshot => if let Ok(snapshot) = snapshot {
                    self.on_coordinator_snapshot(snapshot);
                } else {
                    // All coordinators have ended.
                    self.job.iter_mut().for_each(|job| job.snapshots = crossbeam_channel::never());
                },
                recv(from_exchange) -> event => if let Ok(event) = event {
                    self.on_exchange_event(event);
                },
                recv(metrics_due) -> _ => self.report_metrics(),
            }
        }
        self.stop();
        // With it ends the last thread that reads or writes segments.
        self.exchange = None;
        self.check_segments();
        self.runtime.shutdown_background();
    }

    /// What is held now is held for ever: it is a leak. Where bugs are looked for, the process ends, for nobody would look
    /// at a thread that ends with a panic.
    fn check_segments(&self) {
        let held: usize = self.segments.iter().map(Census::in_use).sum();
        if held > 0 {
            tracing::error!(worker = self.worker.0, held, "{}", SEGMENTS_LEAKED);
            if cfg!(debug_assertions) {
                // Not by `eprintln`, which a test's harness keeps to itself until the test has ended.
                let _ = writeln!(io::stderr(), "{SEGMENTS_LEAKED}: {held} of worker {}", self.worker.0);
                std::process::abort();
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Deploy { graph, deployment } => {
                let generation = deployment.generation;
                if self.job.as_ref().is_some_and(|job| job.generation >= generation) {
                    return; // repeated
                }
                self.stop();
                self.reporter.forget_tasks();
                let graph = Arc::new(*graph);
                if let Err(failure) = self.deploy(&graph, &deployment) {
                    self.stop();
                    for placement in self.own(&deployment) {
                        let attempt = ExecutionAttemptId { subtask: placement.subtask, generation };
                        self.reporter.state(attempt, ExecutionState::Deploying);
                        self.reporter.failed(attempt, failure.clone());
                    }
                }
            }
            Command::Cancel { generation } => {
                if let Some(job) = self.job.as_mut().filter(|job| job.generation <= generation) {
                    job.is_ending = true;
                    self.tell_all(|| TaskMail::Cancel);
                }
            }
            Command::SnapshotCoordinators { generation, checkpoint } => {
                self.snapshot_coordinators(generation, checkpoint);
            }
            Command::TriggerCheckpoint { generation, checkpoint, kind } => self.trigger(generation, checkpoint, kind),
            Command::CheckpointComplete { generation, checkpoint } => {
                self.tell_generation(generation, || TaskMail::Complete(checkpoint));
            }
            Command::CheckpointAborted { generation, checkpoint } => {
                if let Some(job) = self.job.as_mut().filter(|job| job.generation == generation) {
                    job.triggered.take_if(|barrier| barrier.checkpoint == checkpoint);
                    job.release(checkpoint);
                }
                self.tell_generation(generation, || TaskMail::Aborted(checkpoint));
            }
            Command::Finish { generation } => {
                self.report_metrics();
                self.job.iter_mut().filter(|job| job.generation == generation).for_each(|job| job.is_ending = true);
                self.tell_generation(generation, || TaskMail::Finish);
            }
            Command::ReportStatus => self.report_status(),
            // Of the process, and of the loop above.
            Command::SetLogLevels { .. } | Command::Shutdown => {}
        }
    }

    /// What a new leader adopts, or does not. It has spoken with its own epoch, so that from here on nobody hears the old
    /// one.
    fn report_status(&self) {
        let placements = self.job.iter().flat_map(|job| job.placements.iter().map(move |own| (job, own)));
        self.reporter.send_status(|last| {
            let status = |(job, placement): (&RunningJob, &Placement)| {
                let attempt = ExecutionAttemptId { subtask: placement.subtask, generation: job.generation };
                let last = last.get(&attempt);
                let state = last.map_or(ExecutionState::Deploying, |last| last.state);
                let is_leaving = job.is_ending && !state.is_terminal();
                TaskStatus {
                    attempt,
                    slot: placement.slot,
                    state: if is_leaving { ExecutionState::Canceling } else { state },
                    end_of_data: last.is_some_and(|last| last.end_of_data),
                }
            };
            Report::Status { tasks: placements.map(status).collect() }
        });
    }

    fn own<'a>(&self, deployment: &'a Deployment) -> impl Iterator<Item = &'a Placement> + use<'a> {
        let worker = self.worker;
        deployment.placements.iter().filter(move |placement| placement.worker == worker)
    }

    fn tell_generation(&self, generation: Generation, mail: impl Fn() -> TaskMail) {
        if self.job.as_ref().is_some_and(|job| job.generation == generation) {
            self.tell_all(mail);
        }
    }

    fn tell_all(&self, mail: impl Fn() -> TaskMail) {
        for (subtask, mailbox) in self.job.iter().flat_map(|job| &job.tasks) {
            mailbox.send(Mail::Task(*subtask, mail()));
        }
    }

    fn snapshot_coordinators(&mut self, generation: Generation, checkpoint: CheckpointId) {
        let Some(job) = self.job.as_mut().filter(|job| job.generation == generation) else { return };
        job.holding = Some(checkpoint);
        job.coordinators.values().for_each(|line| line.mail(CoordinatorMail::Snapshot(checkpoint)));
    }

    /// What a coordinator has sent since its snapshot goes after the barriers.
    fn trigger(&mut self, generation: Generation, checkpoint: CheckpointId, kind: CheckpointKind) {
        let Some(job) = self.job.as_mut().filter(|job| job.generation == generation) else { return };
        job.triggered = Some(Barrier { checkpoint, kind });
        job.inject_if_ready();
    }

    fn on_exchange_event(&mut self, event: ExchangeEvent) {
        let Some(job) = self.job.as_mut() else { return };
        match event {
            ExchangeEvent::Lost { peer, generations, failure } => {
                if generations.contains(&job.generation) {
                    job.fail_tasks_of(peer, &failure);
                }
            }
            ExchangeEvent::Refused { peer, generation, failure } => {
                if generation == job.generation {
                    job.fail_tasks_of(peer, &failure);
                }
            }
            ExchangeEvent::Coordinator { event } if event.generation == job.generation => job.on_event(event),
            ExchangeEvent::Coordinator { .. } => {}
        }
    }

    /// Whether the checkpoint goes on is for the JobMaster to say: it triggers or aborts it, which releases what is held.
    fn on_coordinator_snapshot(&mut self, snapshot: CoordinatorSnapshot) {
        let CoordinatorSnapshot { generation, operator, checkpoint, state } = snapshot;
        let is_held = |job: &RunningJob| job.generation == generation && job.holding == Some(checkpoint);
        if !self.job.as_ref().is_some_and(is_held) {
            return;
        }
        self.reporter.send(match state {
            Ok(bytes) => Report::CoordinatorAck { generation, checkpoint, state: CoordinatorState { operator, bytes } },
            Err(failure) => Report::CheckpointDeclined { generation, checkpoint, failure },
        });
    }

    fn report_metrics(&self) {
        let now = clock::now();
        let all = self.job.iter().flat_map(|job| &job.counters);
        let tasks: Vec<_> = all.clone().map(|(attempt, counters, _)| (*attempt, counters.report(now))).collect();
        if !tasks.is_empty() {
            self.reporter.send(Report::Metrics { tasks });
        }
        let tasks = all.map(|(attempt, _, metrics)| (*attempt, metrics.report()));
        let tasks: Vec<_> = tasks.filter(|(_, metrics)| !metrics.is_empty()).collect();
        if !tasks.is_empty() {
            self.reporter.send(Report::OperatorMetrics { tasks });
        }
        let peers = self.exchange.as_ref().map(|(exchange, _)| exchange.metrics()).unwrap_or_default();
        if !peers.is_empty() {
            self.reporter.send(Report::Shuffle { peers });
        }
    }

    /// Ends the current deployment and waits for its threads. Tasks that do not end keep their thread waiting; the
    /// JobMaster's watchdog deals with that.
    fn stop(&mut self) {
        self.tell_all(|| TaskMail::Cancel);
        if let Some(job) = self.job.take() {
            let RunningJob { generation, tasks, coordinators, threads, .. } = job;
            drop(coordinators);
            if let Some((exchange, _)) = &self.exchange {
                exchange.detach(generation);
            }
            tasks.values().for_each(|mailbox| mailbox.send(Mail::End));
            threads.into_iter().for_each(|thread| {
                let _ = thread.join();
            });
        }
    }

    fn deploy(&mut self, graph: &Arc<JobGraph>, deployment: &Deployment) -> Result<(), Failure> {
        self.check_artifact(graph)?;
        let restored = deployment.restore.as_ref().map(RestoredState::read).transpose()?;
        let mut threads = self.start_threads(graph, deployment)?;
        let layout = Layout::new(graph)?;
        let settings = self.settings(graph, &layout, &threads)?;
        let exchange = self.exchange.as_ref().map(|(exchange, origin)| (exchange, *origin));
        let mut wiring = Wiring::new(graph, deployment, &layout, self.worker, &threads.mailboxes, exchange)?;
        self.segments.retain(|segments| segments.in_use() > 0);
        self.segments.push(wiring.segments.clone());
        let directory = graph.configuration.get(&config::CHECKPOINTING_DIR)?;
        let directory = directory.as_deref().map(local_path).transpose();
        let directory = directory.map_err(|cause| Failure::fatal(with_causes(&cause)))?;
        let uploader = Uploader {
            runtime: self.runtime.handle().clone(),
            directory: directory.map(|root| CheckpointDirectory::new(&root, graph.job_id)),
            reporter: self.reporter.clone(),
        };

        let (snapshot_sender, snapshots) = unbounded();
        let mut coordinators = HashMap::new();
        let mut starting = Vec::new();
        for (vertex, operator) in coordinated(graph) {
            let job_vertex = &graph.vertices[vertex];
            let id = job_vertex.operators[operator].id;
            let host = wiring.worker_of(Subtask { vertex: job_vertex.id, index: 0 })?;
            if host != self.worker {
                let peer = self.line(host)?;
                let generation = deployment.generation;
                coordinators.insert(id, CoordinatorLine::There { peer, generation, operator: id });
                continue;
            }
            let subtasks = (0..job_vertex.parallelism).map(|index| {
                let subtask = Subtask { vertex: job_vertex.id, index };
                Ok::<_, Failure>(match threads.mailboxes.get(&subtask) {
                    Some(mailbox) => SubtaskLine::Here(mailbox.clone()),
                    None => SubtaskLine::There(self.line(wiring.worker_of(subtask)?)?),
                })
            });
            let subtasks = subtasks.collect::<Result<Vec<_>, _>>()?;
            let (line, mails) = coordinator::line();
            coordinators.insert(id, line);
            let parts = CoordinatorParts {
                graph: graph.clone(),
                vertex,
                operator,
                generation: deployment.generation,
                restored: restored.as_ref().and_then(|state| state.coordinator(id).cloned()),
                subtasks,
                reporter: self.reporter.clone(),
                snapshots: snapshot_sender.clone(),
            };
            starting.push((parts, mails));
        }

        let mut job = RunningJob {
            generation: deployment.generation,
            placements: self.own(deployment).copied().collect(),
            is_ending: false,
            tasks: threads.mailboxes.clone(),
            sources: Vec::new(),
            counters: Vec::new(),
            threads: std::mem::take(&mut threads.handles),
            coordinators,
            snapshots,
            holding: None,
            triggered: None,
            snapshotted: wiring.coordinators_elsewhere(graph, self.worker).map(|id| (id, CheckpointId(0))).collect(),
            passed: CheckpointId(0),
            early: Vec::new(),
            coordinated: coordinated(graph)
                .map(|(vertex, operator)| (graph.vertices[vertex].operators[operator].id, graph.vertices[vertex].id))
                .collect(),
            tasks_of_peer: std::mem::take(&mut wiring.tasks_of_peer),
        };
        let has_peers = !wiring.peers.is_empty();
        let drive = self.exchange.as_ref().filter(|_| has_peers).map(|(exchange, _)| exchange.slot_drive());
        for (peer, (address, channels)) in std::mem::take(&mut wiring.peers) {
            if let Some((exchange, _)) = &self.exchange {
                exchange.attach(peer, address, channels);
            }
        }
        self.report_names(graph, deployment);
        for placement in self.own(deployment) {
            let subtask = placement.subtask;
            let attempt = ExecutionAttemptId { subtask, generation: deployment.generation };
            let vertex = graph.vertex_index(subtask.vertex).ok_or_else(|| unknown_vertex(subtask))?;
            let job_vertex = &graph.vertices[vertex];
            let gate = wiring.gate(vertex, subtask.index);
            if gate.is_none() {
                job.sources.push(subtask);
            }
            let counters = Arc::new(TaskCounters::new(clock::now()));
            let metrics = MetricRegistry::default();
            job.counters.push((attempt, counters.clone(), metrics.clone()));
            let restored = restored.as_ref().map(|state| {
                let of = |operator: OperatorId| (operator, state.of(operator, job_vertex, subtask.index));
                job_vertex.operators.iter().map(|operator| of(operator.id)).collect()
            });
            self.reporter.state(attempt, ExecutionState::Deploying);
            let blueprint = Blueprint {
                graph: graph.clone(),
                vertex,
                attempt,
                senders: wiring.senders(vertex, subtask.index),
                gate,
                restored,
                coordinators: job.coordinators.clone(),
                counters,
                metrics,
                reporter: self.reporter.clone(),
                uploader: uploader.clone(),
                drive: drive.clone(),
                settings,
            };
            threads.mailboxes[&subtask].send(Mail::Start(Box::new(blueprint)));
        }
        // From here on the job ends them.
        threads.mailboxes.clear();
        self.job = Some(job);
        // After the tasks, whose mailboxes keep order: a coordinator's first event must find its subtask.
        starting.into_iter().try_for_each(|(parts, mails)| coordinator::start(parts, mails))
    }

    fn report_names(&self, graph: &JobGraph, deployment: &Deployment) {
        let name_of = |placement: &Placement| {
            let Placement { subtask, .. } = *placement;
            let vertex = &graph.vertices[graph.vertex_index(subtask.vertex)?];
            let attempt = ExecutionAttemptId { subtask, generation: deployment.generation };
            Some(TaskName { attempt, name: vertex.name.clone() })
        };
        let tasks = self.own(deployment).filter_map(name_of).collect();
        self.reporter.send(Report::Deployed { job_name: graph.name.clone(), tasks });
    }

    fn line(&self, peer: WorkerId) -> Result<PeerLine, Failure> {
        let (exchange, _) = self.exchange.as_ref().ok_or_else(|| {
            Failure::fatal(format!("a coordinator has to speak with worker {}, and this worker has no network", peer.0))
        })?;
        Ok(exchange.line(peer))
    }

    fn check_artifact(&self, graph: &JobGraph) -> Result<(), Failure> {
        let wanted = graph.artifact.as_ref().map(|artifact| artifact.sha256.as_str());
        match (wanted, self.artifact.as_deref()) {
            (None, None) => Ok(()),
            (Some(wanted), Some(own)) if wanted == own => Ok(()),
            (wanted, own) => Err(Failure::fatal(format!(
                "the job was planned by the executable with SHA-256 {}, this worker is {}; start the worker from the \
                 same file",
                wanted.unwrap_or("(not given)"),
                own.unwrap_or("(not given)")
            ))),
        }
    }

    fn settings(&self, graph: &JobGraph, layout: &Layout, threads: &Threads) -> Result<Settings, Failure> {
        let configuration = &graph.configuration;
        let limits = Limits {
            overdraft_segments: configuration.get(&config::MAX_OVERDRAFT_BUFFERS)? as usize,
            overflow_bytes: configuration.get(&config::OVERFLOW_MAX)?.bytes(),
            segment_bytes: layout.segment_bytes,
        };
        Ok(Settings {
            validation: configuration.get(&config::SHUFFLE_VALIDATE)?,
            limits,
            buffer_timeout: configuration.get(&config::BUFFER_TIMEOUT)?,
            step_warning: configuration.get(&config::TASK_STEP_WARNING)?,
            spin: if threads.may_spin { configuration.get(&config::TASK_SPIN)? } else { Duration::ZERO },
        })
    }

    /// A thread for each slot, or for each subtask that gets its own.
    fn start_threads(&self, graph: &JobGraph, deployment: &Deployment) -> Result<Threads, Failure> {
        let processors = Processors::find(&graph.configuration.get(&config::AFFINITY)?);
        let threading = graph.configuration.get(&config::TASK_THREADING)?;
        let mut by_slot = HashMap::new();
        let mut threads = Threads { mailboxes: BTreeMap::new(), handles: Vec::new(), may_spin: false };
        for placement in self.own(deployment) {
            let subtask = placement.subtask;
            let vertex = graph.vertex_index(subtask.vertex).ok_or_else(|| unknown_vertex(subtask))?;
            let own_thread = threading == Threading::Task || graph.vertices[vertex].on_own_thread;
            let existing = by_slot.get(&placement.slot).filter(|_| !own_thread).cloned();
            let mailbox: SlotMailbox = match existing {
                Some(mailbox) => mailbox,
                None => {
                    let name = format!("slot-{}", placement.slot.0);
                    let nth = placement.slot.0 as usize;
                    let (mailbox, handle) = slot_thread::start(&name, nth, &processors, self.runtime.handle().clone())?;
                    threads.handles.push(handle);
                    if !own_thread {
                        by_slot.insert(placement.slot, mailbox.clone());
                    }
                    mailbox
                }
            };
            threads.mailboxes.insert(subtask, mailbox);
        }
        threads.may_spin = processors.may_spin(threads.handles.len() + neighbours(deployment, self.worker));
        Ok(threads)
    }
}

impl RunningJob {
    /// Puts the barriers of a triggered checkpoint into the sources, once all is here that coordinators elsewhere have
    /// sent before their part in it.
    fn inject_if_ready(&mut self) {
        let is_ready = |barrier: &mut Barrier| self.snapshotted.values().all(|newest| *newest >= barrier.checkpoint);
        if let Some(barrier) = self.triggered.take_if(is_ready) {
            self.inject(barrier);
            self.release(barrier.checkpoint);
        }
    }

    fn inject(&self, barrier: Barrier) {
        for subtask in &self.sources {
            self.tasks[subtask].send(Mail::Task(*subtask, TaskMail::Trigger(barrier)));
        }
    }

    fn fail_tasks_of(&self, peer: WorkerId, failure: &Failure) {
        for subtask in self.tasks_of_peer.get(&peer).into_iter().flatten() {
            self.tasks[subtask].send(Mail::Task(*subtask, TaskMail::Fail(failure.clone())));
        }
    }

    /// An event from a coordinator, or for one, across the network.
    fn on_event(&mut self, event: CoordinatorEvent) {
        let CoordinatorEvent { operator, subtask, direction, bytes, .. } = event;
        match direction {
            Direction::ToCoordinator => match self.coordinators.get(&operator) {
                Some(line) if line.is_here() => line.send(subtask, bytes),
                _ => tracing::warn!(%operator, "an event for a coordinator that is not here is thrown away"),
            },
            Direction::Snapshotted { checkpoint } => {
                if let Some(newest) = self.snapshotted.get_mut(&operator) {
                    *newest = checkpoint.max(*newest);
                }
                self.inject_if_ready();
            }
            Direction::ToSubtask { after } => {
                let Some(vertex) = self.coordinated.get(&operator) else { return };
                let subtask = Subtask { vertex: *vertex, index: subtask };
                if after > self.passed {
                    self.early.push((after, subtask, bytes));
                } else {
                    self.deliver(subtask, bytes);
                }
            }
        }
    }

    fn deliver(&self, subtask: Subtask, event: Vec<u8>) {
        if let Some(mailbox) = self.tasks.get(&subtask) {
            mailbox.send(Mail::Task(subtask, TaskMail::Event(event)));
        }
    }

    /// The barriers of this checkpoint are in the sources, or never will be: what had to stay behind them may go.
    fn release(&mut self, checkpoint: CheckpointId) {
        self.passed = self.passed.max(checkpoint);
        let passed = self.passed;
        let due: Vec<_> = self.early.extract_if(.., |(after, ..)| *after <= passed).collect();
        due.into_iter().for_each(|(_, subtask, event)| self.deliver(subtask, event));
        if self.holding.take_if(|held| *held == checkpoint).is_some() {
            self.coordinators.values().for_each(|line| line.mail(CoordinatorMail::Release));
        }
    }
}

/// The threads of a deployment that is being made; without one, they end when this is dropped.
struct Threads {
    mailboxes: BTreeMap<Subtask, SlotMailbox>,
    handles: Vec<JoinHandle<()>>,
    /// Whether there is a processor for each of them.
    may_spin: bool,
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.mailboxes.values().for_each(|mailbox| mailbox.send(Mail::End));
    }
}

/// Operators with a coordinator: vertex and index.
fn coordinated(graph: &JobGraph) -> impl Iterator<Item = (usize, usize)> {
    graph.vertices.iter().enumerate().flat_map(|(vertex, job_vertex)| {
        let operators = job_vertex.operators.iter().enumerate();
        operators.filter(|(_, operator)| operator.coordinator.is_some()).map(move |(index, _)| (vertex, index))
    })
}

fn unknown_vertex(subtask: Subtask) -> Failure {
    Failure::fatal(format!("the deployment names vertex {}, which the job graph does not have", subtask.vertex))
}
