//! The control thread of a worker: obeys the JobMaster, starts and stops tasks, and reports.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    convert::Infallible,
    io::{self, Write as _},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender, select, tick, unbounded};
use millstream_api::{metrics::MetricRegistry, signal::Barrier};
use millstream_model::{
    config,
    deployment::{CompletedCheckpoint, CoordinatorState, Deployment, Placement},
    fault::Failure,
    id::{
        CheckpointId, ExecutionAttemptId, Generation, JobVertexId, LeaderEpoch, OperatorId, SlotIndex, Subtask,
        WorkerId,
    },
    job_graph::JobGraph,
    memory::SlotMemory,
    message::{CheckpointKind, Command, FromWorker, Report, TaskName, TaskStatus, ToWorker},
    state::ExecutionState,
};
use millstream_shuffle::{
    exchange::{Exchange, ExchangeEvent, PeerLine},
    wire::message::{CoordinatorEvent, Direction},
};
use millstream_storage::{CheckpointDirectory, local_path};
use tokio::runtime::Runtime;

use crate::{
    clock,
    coordinator::{self, CoordinatorLine, CoordinatorMail, CoordinatorParts, CoordinatorSnapshot, SubtaskLine},
    memory::WorkerMemory,
    metrics::TaskCounters,
    network::Network,
    output::Limits,
    processors::{Processors, neighbours},
    report::Reporter,
    restore::RestoredState,
    slot_thread::{Blueprint, LifeSign, Mail, Settings},
    slot_threads::{RegionThreads, SlotThreads, unknown_vertex},
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
    /// What each of its slots has; without it nothing is limited.
    pub memory: Option<SlotMemory>,
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
        let WorkerConfig { worker, slots, artifact, network, memory } = config;
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
            memory: WorkerMemory::new(slots, memory),
            exchange,
            from_exchange,
            runtime,
            epoch: LeaderEpoch::default(),
            newest: Generation::default(),
            regions: BTreeMap::new(),
            threads: SlotThreads::default(),
            snapshots: unbounded(),
            restored: None,
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
    memory: WorkerMemory,
    exchange: Option<(Exchange, Origin)>,
    from_exchange: Receiver<ExchangeEvent>,
    reporter: Reporter,
    runtime: Runtime,
    /// The highest that a message has carried; lower ones are refused.
    epoch: LeaderEpoch,
    /// The newest deployment that was obeyed. They come in their order, and each once.
    newest: Generation,
    /// The regions that have tasks here.
    regions: BTreeMap<Generation, RunningRegion>,
    /// Of the slots, which regions share.
    threads: SlotThreads,
    snapshots: (Sender<CoordinatorSnapshot>, Receiver<CoordinatorSnapshot>),
    /// What the deployment before started from, and its directory: regions that are deployed together start from the same.
    restored: Option<(String, Arc<RestoredState>)>,
}

/// One deployment of a region.
struct RunningRegion {
    generation: Generation,
    /// Of all its subtasks, wherever they are.
    subtasks: BTreeSet<Subtask>,
    /// Of the tasks here.
    placements: Vec<Placement>,
    /// Whether its tasks were told to end: no leader may take them for ones that go on.
    is_ending: bool,
    threads: RegionThreads,
    /// Says that the last task has gone.
    gone: Receiver<Infallible>,
    /// Slots of other workers of this host that its tasks are in.
    neighbours: BTreeSet<(WorkerId, SlotIndex)>,
    /// For its channels here, at most.
    network_bytes: u64,
    sources: Vec<Subtask>,
    counters: Vec<(ExecutionAttemptId, Arc<TaskCounters>, MetricRegistry)>,
    coordinators: HashMap<OperatorId, CoordinatorLine>,
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
                recv(self.snapshots.1) -> snapshot => if let Ok(snapshot) = snapshot {
                    self.on_coordinator_snapshot(snapshot);
                },
                recv(from_exchange) -> event => if let Ok(event) = event {
                    self.on_exchange_event(event);
                },
                recv(metrics_due) -> _ => {
                    self.restored = None;
                    self.report_metrics();
                }
            }
        }
        self.stop_all();
        // With it ends the last thread that reads or writes segments.
        self.exchange = None;
        self.check_segments();
        self.runtime.shutdown_background();
    }

    /// What is held now is held for ever: it is a leak. Where bugs are looked for, the process ends, for nobody would look
    /// at a thread that ends with a panic.
    fn check_segments(&self) {
        let held = self.memory.segments_in_use();
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
                if generation <= self.newest {
                    return; // repeated
                }
                self.newest = generation;
                self.end_earlier(&deployment);
                let graph = Arc::new(*graph);
                if let Err(failure) = self.deploy(&graph, &deployment) {
                    self.stop(generation);
                    for placement in self.own(&deployment) {
                        let attempt = ExecutionAttemptId { subtask: placement.subtask, generation };
                        self.reporter.state(attempt, ExecutionState::Deploying);
                        self.reporter.failed(attempt, failure.clone());
                    }
                }
            }
            Command::Cancel { generation } => {
                if let Some(region) = self.regions.get_mut(&generation) {
                    region.is_ending = true;
                    region.tell_all(|| TaskMail::Cancel);
                }
            }
            Command::SnapshotCoordinators { generation, checkpoint } => {
                self.snapshot_coordinators(generation, checkpoint);
            }
            Command::TriggerCheckpoint { generation, checkpoint, kind } => self.trigger(generation, checkpoint, kind),
            Command::CheckpointComplete { generation, checkpoint } => {
                self.tell_region(generation, || TaskMail::Complete(checkpoint));
            }
            Command::CheckpointAborted { generation, checkpoint } => {
                if let Some(region) = self.regions.get_mut(&generation) {
                    region.triggered.take_if(|barrier| barrier.checkpoint == checkpoint);
                    region.release(checkpoint);
                }
                self.tell_region(generation, || TaskMail::Aborted(checkpoint));
            }
            Command::Finish { generation } => {
                self.report_tasks(self.regions.get(&generation).into_iter());
                self.report_memory_and_shuffle();
                if let Some(region) = self.regions.get_mut(&generation) {
                    region.is_ending = true;
                }
                self.tell_region(generation, || TaskMail::Finish);
            }
            Command::ReportStatus => self.report_status(),
            // Of the process, and of the loop above.
            Command::SetLogLevels { .. } | Command::Shutdown => {}
        }
    }

    /// What a new leader adopts, or does not. It has spoken with its own epoch, so that from here on nobody hears the old
    /// one.
    fn report_status(&self) {
        let regions = self.regions.values();
        let placements = regions.flat_map(|region| region.placements.iter().map(move |own| (region, own)));
        self.reporter.send_status(|last| {
            let status = |(region, placement): (&RunningRegion, &Placement)| {
                let attempt = ExecutionAttemptId { subtask: placement.subtask, generation: region.generation };
                let last = last.get(&attempt);
                let state = last.map_or(ExecutionState::Deploying, |last| last.state);
                let is_leaving = region.is_ending && !state.is_terminal();
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

    fn tell_region(&self, generation: Generation, mail: impl Fn() -> TaskMail) {
        self.regions.get(&generation).into_iter().for_each(|region| region.tell_all(&mail));
    }

    fn snapshot_coordinators(&mut self, generation: Generation, checkpoint: CheckpointId) {
        let Some(region) = self.regions.get_mut(&generation) else { return };
        region.holding = Some(checkpoint);
        region.coordinators.values().for_each(|line| line.mail(CoordinatorMail::Snapshot(checkpoint)));
    }

    /// What a coordinator has sent since its snapshot goes after the barriers.
    fn trigger(&mut self, generation: Generation, checkpoint: CheckpointId, kind: CheckpointKind) {
        let Some(region) = self.regions.get_mut(&generation) else { return };
        region.triggered = Some(Barrier { checkpoint, kind });
        region.inject_if_ready();
    }

    fn on_exchange_event(&mut self, event: ExchangeEvent) {
        match event {
            ExchangeEvent::Lost { peer, generations, failure } => {
                let regions = generations.iter().filter_map(|generation| self.regions.get(generation));
                regions.for_each(|region| region.fail_tasks_of(peer, &failure));
            }
            ExchangeEvent::Refused { peer, generation, failure } => {
                if let Some(region) = self.regions.get(&generation) {
                    region.fail_tasks_of(peer, &failure);
                }
            }
            ExchangeEvent::Coordinator { event } => {
                if let Some(region) = self.regions.get_mut(&event.generation) {
                    region.on_event(event);
                }
            }
        }
    }

    /// Whether the checkpoint goes on is for the JobMaster to say: it triggers or aborts it, which releases what is held.
    fn on_coordinator_snapshot(&mut self, snapshot: CoordinatorSnapshot) {
        let CoordinatorSnapshot { generation, operator, checkpoint, state } = snapshot;
        if self.regions.get(&generation).is_none_or(|region| region.holding != Some(checkpoint)) {
            return;
        }
        self.reporter.send(match state {
            Ok(bytes) => Report::CoordinatorAck { generation, checkpoint, state: CoordinatorState { operator, bytes } },
            Err(failure) => Report::CheckpointDeclined { generation, checkpoint, failure },
        });
    }

    fn report_metrics(&self) {
        self.report_tasks(self.regions.values());
        self.report_memory_and_shuffle();
    }

    fn report_memory_and_shuffle(&self) {
        if !self.regions.is_empty() {
            self.reporter.send(Report::Memory { memory: self.memory.metrics() });
        }
        let peers = self.exchange.as_ref().map(|(exchange, _)| exchange.metrics()).unwrap_or_default();
        if !peers.is_empty() {
            self.reporter.send(Report::Shuffle { peers });
        }
    }

    fn report_tasks<'a>(&self, regions: impl Iterator<Item = &'a RunningRegion> + Clone) {
        let now = clock::now();
        let all = regions.flat_map(|region| &region.counters);
        let tasks: Vec<_> = all.clone().map(|(attempt, counters, _)| (*attempt, counters.report(now))).collect();
        if !tasks.is_empty() {
            self.reporter.send(Report::Metrics { tasks });
        }
        let tasks = all.map(|(attempt, _, metrics)| (*attempt, metrics.report()));
        let tasks: Vec<_> = tasks.filter(|(_, metrics)| !metrics.is_empty()).collect();
        if !tasks.is_empty() {
            self.reporter.send(Report::OperatorMetrics { tasks });
        }
    }

    /// Ends the deployment of this region before, if it was here. Its tasks have ended, or the JobMaster thinks so.
    fn end_earlier(&mut self, deployment: &Deployment) {
        let is_of =
            |region: &RunningRegion| deployment.placements.iter().any(|it| region.subtasks.contains(&it.subtask));
        let earlier: Vec<_> =
            self.regions.values().filter(|region| is_of(region)).map(|region| region.generation).collect();
        for generation in earlier {
            self.stop(generation);
            self.reporter.forget_tasks(generation);
        }
    }

    fn stop_all(&mut self) {
        self.regions.values().for_each(|region| region.tell_all(|| TaskMail::Cancel));
        let all: Vec<_> = self.regions.keys().copied().collect();
        all.into_iter().for_each(|generation| self.stop(generation));
    }

    /// Ends a deployment and waits for its tasks. Those that do not end keep the worker waiting; the JobMaster's watchdog
    /// deals with that.
    fn stop(&mut self, generation: Generation) {
        let Some(region) = self.regions.remove(&generation) else { return };
        region.tell_all(|| TaskMail::Cancel);
        let RunningRegion { threads, coordinators, gone, .. } = region;
        drop(coordinators);
        if let Some((exchange, _)) = &self.exchange {
            exchange.detach(generation);
        }
        self.threads.leave(threads);
        // On threads that others go on using. Nothing is ever sent: it ends when the last task has.
        let _ = gone.recv();
    }

    fn deploy(&mut self, graph: &Arc<JobGraph>, deployment: &Deployment) -> Result<(), Failure> {
        self.check_artifact(graph)?;
        let restored = deployment.restore.as_ref().map(|checkpoint| self.read_restored(checkpoint)).transpose()?;
        let processors = Processors::find(&graph.configuration.get(&config::AFFINITY)?);
        let placements: Vec<_> = self.own(deployment).copied().collect();
        let threads = self.threads.enter(graph, &placements, &processors, self.runtime.handle())?;
        let (sign, gone) = LifeSign::new();
        let region = RunningRegion::new(deployment, placements, threads, gone, neighbours(deployment, self.worker));
        // From here on it is the region that is stopped, whatever goes wrong.
        self.regions.insert(deployment.generation, region);
        self.set_spin(graph, &processors)?;
        self.start_tasks(graph, deployment, restored.as_deref(), sign)
    }

    fn read_restored(&mut self, checkpoint: &CompletedCheckpoint) -> Result<Arc<RestoredState>, Failure> {
        if let Some((directory, state)) = &self.restored
            && *directory == checkpoint.directory
        {
            return Ok(state.clone());
        }
        let state = Arc::new(RestoredState::read(checkpoint)?);
        self.restored = Some((checkpoint.directory.clone(), state.clone()));
        Ok(state)
    }

    /// Threads may spin while there is a processor for each of them, and for those of the workers beside this one.
    fn set_spin(&self, graph: &JobGraph, processors: &Processors) -> Result<(), Failure> {
        let regions = || self.regions.values();
        let neighbours: BTreeSet<_> = regions().flat_map(|region| &region.neighbours).collect();
        let own: usize = regions().map(|region| region.threads.own()).sum();
        let may_spin = processors.may_spin(self.threads.shared() + own + neighbours.len());
        let spin = if may_spin { graph.configuration.get(&config::TASK_SPIN)? } else { Duration::ZERO };
        regions().for_each(|region| region.threads.set_spin(spin));
        Ok(())
    }

    fn start_tasks(
        &mut self,
        graph: &Arc<JobGraph>,
        deployment: &Deployment,
        restored: Option<&RestoredState>,
        sign: LifeSign,
    ) -> Result<(), Failure> {
        let generation = deployment.generation;
        let region = self.regions.get(&generation).expect("it was just made");
        let mailboxes = region.threads.mailboxes.clone();
        let layout = Layout::new(graph)?;
        let settings = self.settings(graph, &layout)?;
        let exchange = self.exchange.as_ref().map(|(exchange, origin)| (exchange, *origin));
        let network_max = self.memory.network_max().map(|max| {
            let taken: u64 = self.regions.values().map(|region| region.network_bytes).sum();
            max.saturating_sub(taken)
        });
        let mut wiring = Wiring::new(graph, deployment, &layout, self.worker, &mailboxes, exchange, network_max)?;
        let network_bytes = wiring.bytes;
        self.memory.note_segments(wiring.segments.clone(), layout.segment_bytes);
        let directory = graph.configuration.get(&config::CHECKPOINTING_DIR)?;
        let directory = directory.as_deref().map(local_path).transpose();
        let directory = directory.map_err(|cause| Failure::fatal(with_causes(&cause)))?;
        let uploader = Uploader {
            runtime: self.runtime.handle().clone(),
            directory: directory.map(|root| CheckpointDirectory::new(&root, graph.job_id)),
            reporter: self.reporter.clone(),
        };

        let mut coordinators = HashMap::new();
        let mut starting = Vec::new();
        for (vertex, operator) in coordinated(graph) {
            let job_vertex = &graph.vertices[vertex];
            let id = job_vertex.operators[operator].id;
            if !deployment.placements.iter().any(|placement| placement.subtask.vertex == job_vertex.id) {
                continue; // of another region
            }
            let host = wiring.worker_of(Subtask { vertex: job_vertex.id, index: 0 })?;
            if host != self.worker {
                let peer = self.line(host)?;
                coordinators.insert(id, CoordinatorLine::There { peer, generation, operator: id });
                continue;
            }
            let subtasks = (0..job_vertex.parallelism).map(|index| {
                let subtask = Subtask { vertex: job_vertex.id, index };
                Ok::<_, Failure>(match mailboxes.get(&subtask) {
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
                generation,
                restored: restored.and_then(|state| state.coordinator(id).cloned()),
                subtasks,
                reporter: self.reporter.clone(),
                snapshots: self.snapshots.0.clone(),
            };
            starting.push((parts, mails));
        }

        let snapshotted = wiring.coordinators_elsewhere(graph, self.worker).map(|id| (id, CheckpointId(0))).collect();
        let has_peers = !wiring.peers.is_empty();
        let drive = self.exchange.as_ref().filter(|_| has_peers).map(|(exchange, _)| exchange.slot_drive());
        for (peer, (address, channels)) in std::mem::take(&mut wiring.peers) {
            if let Some((exchange, _)) = &self.exchange {
                exchange.attach(peer, address, channels);
            }
        }
        self.report_names(graph, deployment);
        let (mut sources, mut all_counters) = (Vec::new(), Vec::new());
        for placement in self.own(deployment) {
            let subtask = placement.subtask;
            let attempt = ExecutionAttemptId { subtask, generation };
            let vertex = graph.vertex_index(subtask.vertex).ok_or_else(|| unknown_vertex(subtask))?;
            let job_vertex = &graph.vertices[vertex];
            let gate = wiring.gate(vertex, subtask.index);
            if gate.is_none() {
                sources.push(subtask);
            }
            let counters = Arc::new(TaskCounters::new(clock::now()));
            let metrics = MetricRegistry::default();
            all_counters.push((attempt, counters.clone(), metrics.clone()));
            let restored = restored.map(|state| {
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
                coordinators: coordinators.clone(),
                counters,
                metrics,
                reporter: self.reporter.clone(),
                uploader: uploader.clone(),
                drive: drive.clone(),
                account: self.memory.account(placement.slot),
                settings,
                attempt_number: deployment.attempt,
                sign: sign.clone(),
            };
            mailboxes[&subtask].send(Mail::Start(Box::new(blueprint)));
        }
        let region = self.regions.get_mut(&generation).expect("it was there above");
        region.network_bytes = network_bytes;
        region.sources = sources;
        region.counters = all_counters;
        region.coordinators = coordinators;
        region.snapshotted = snapshotted;
        region.tasks_of_peer = std::mem::take(&mut wiring.tasks_of_peer);
        region.coordinated = coordinated(graph)
            .map(|(vertex, operator)| (graph.vertices[vertex].operators[operator].id, graph.vertices[vertex].id))
            .collect();
        // After the tasks, whose mailboxes keep order: a coordinator's first event must find its subtask.
        starting.into_iter().try_for_each(|(parts, mails)| coordinator::start(parts, mails))
    }

    fn report_names(&self, graph: &JobGraph, deployment: &Deployment) {
        let name_of = |placement: &Placement| {
            let Placement { subtask, .. } = *placement;
            let vertex = &graph.vertices[graph.vertex_index(subtask.vertex)?];
            let attempt = ExecutionAttemptId { subtask, generation: deployment.generation };
            Some(TaskName { attempt, attempt_number: deployment.attempt, name: vertex.name.clone() })
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

    fn settings(&self, graph: &JobGraph, layout: &Layout) -> Result<Settings, Failure> {
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
        })
    }
}

impl RunningRegion {
    /// One whose tasks are about to be started.
    fn new(
        deployment: &Deployment,
        placements: Vec<Placement>,
        threads: RegionThreads,
        gone: Receiver<Infallible>,
        neighbours: BTreeSet<(WorkerId, SlotIndex)>,
    ) -> RunningRegion {
        RunningRegion {
            generation: deployment.generation,
            subtasks: deployment.placements.iter().map(|placement| placement.subtask).collect(),
            placements,
            is_ending: false,
            threads,
            gone,
            neighbours,
            network_bytes: 0,
            sources: Vec::new(),
            counters: Vec::new(),
            coordinators: HashMap::new(),
            holding: None,
            triggered: None,
            snapshotted: HashMap::new(),
            passed: CheckpointId(0),
            early: Vec::new(),
            coordinated: HashMap::new(),
            tasks_of_peer: BTreeMap::new(),
        }
    }

    fn tell(&self, subtask: Subtask, mail: TaskMail) {
        if let Some(mailbox) = self.threads.mailboxes.get(&subtask) {
            mailbox.send(Mail::Task(subtask, mail));
        }
    }

    fn tell_all(&self, mail: impl Fn() -> TaskMail) {
        self.threads.mailboxes.keys().for_each(|subtask| self.tell(*subtask, mail()));
    }

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
            self.tell(*subtask, TaskMail::Trigger(barrier));
        }
    }

    fn fail_tasks_of(&self, peer: WorkerId, failure: &Failure) {
        for subtask in self.tasks_of_peer.get(&peer).into_iter().flatten() {
            self.tell(*subtask, TaskMail::Fail(failure.clone()));
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
        self.tell(subtask, TaskMail::Event(event));
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

/// Operators with a coordinator: vertex and index.
fn coordinated(graph: &JobGraph) -> impl Iterator<Item = (usize, usize)> {
    graph.vertices.iter().enumerate().flat_map(|(vertex, job_vertex)| {
        let operators = job_vertex.operators.iter().enumerate();
        operators.filter(|(_, operator)| operator.coordinator.is_some()).map(move |(index, _)| (vertex, index))
    })
}
