//! The control thread of a worker: obeys the JobMaster, and passes on what tasks, coordinators and peers say.
//!
//! | Look here for | module |
//! |---|---|
//! | a region that runs: its barriers, and the events of coordinators | `region` |
//! | how a deployment becomes one | `deploy` |
//! | what the JobMaster is told without being told to do anything | `reports` |

mod deploy;
mod region;
mod reports;

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender, select, tick, unbounded};
use millstream_api::signal::Barrier;
use millstream_model::{
    deployment::{CoordinatorState, Deployment, Placement},
    fault::Failure,
    id::{CheckpointId, ExecutionAttemptId, Generation, LeaderEpoch, WorkerId},
    memory::SlotMemory,
    message::{CheckpointKind, Command, FromWorker, Report, ToWorker},
    state::ExecutionState,
};
use millstream_shuffle::exchange::{Exchange, ExchangeEvent};
use tokio::runtime::Runtime;

use self::region::RunningRegion;
use crate::{
    coordinator::{CoordinatorMail, CoordinatorSnapshot},
    memory::WorkerMemory,
    network::Network,
    report::Reporter,
    restore::RestoredState,
    slot_threads::SlotThreads,
    task::TaskMail,
    wiring::Origin,
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

    /// Ends the deployment of this region before, if it was here. Its tasks have ended, or the JobMaster thinks so.
    fn end_earlier(&mut self, deployment: &Deployment) {
        let is_of =
            |region: &RunningRegion| deployment.placements.iter().any(|it| region.workers.contains_key(&it.subtask));
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
}
