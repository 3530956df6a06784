//! Runs one job: the driver of the deciders around it.
//!
//! ```text
//!            ┌─► Running ──all finished──────────────────────────────────────────► Ended
//!  deploy ───┤      │ failure, cancel                                                ▲
//!    ▲  ▲    │   Stopping ──all tasks have ended──► failed or cancelled for good ────┤
//!    │  │    │      └───────────────► BackingOff ──pause over──┐     ▲               │
//!    │  └────│─────────────────────────────────────────────────┘   watchdog ─────────┤
//!    │       └─► WaitingForSlots ──none come in time, cancel─────────────────────────┘
//!    └──a worker joins────┘
//! ```
//! One loop over one closed enum of events, on a thread of its own. It owns the clock, the files and the store, does what
//! the deciders say, and has no policy of its own.
//!
//! All regions of a job share one generation for now, so a failure restarts all of them, whatever
//! [`Failover`] says of the region: a job's unconnected parts are few.
//!
//! Invariants: a generation is stored before its first message is sent, and sinks hear of a checkpoint after the pointer
//! has moved to it. `keeper` has the order of everything that is stored. Nobody waits for a worker that is gone, and none
//! comes back under its old id.
//!
//! | Look here for | module |
//! |---|---|
//! | where in its life a job is | `phase` |
//! | slots, what tasks start from, deployments | `deploy` |
//! | workers that come and go | `workers` |
//! | checkpoints, and who asked for them | `checkpointing` |
//! | attempts of an earlier leader that run on | `adoption` |
//! | cancelling, failing, the watchdog, the end | `stop` |
//! | what others are shown of all tasks | `snapshot` |
//! | the same without a thread and a clock, for the simulation | `stepped` |

mod adoption;
mod checkpointing;
mod deploy;
mod event;
#[cfg(test)]
pub(crate) mod fixture;
mod handle;
mod keeper;
mod outcome;
mod phase;
mod record;
mod restore;
mod snapshot;
mod stepped;
mod stop;
#[cfg(test)]
mod tests;
mod workers;

use std::{
    collections::BTreeMap,
    fmt,
    hash::{BuildHasher, Hasher, RandomState},
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender};
use millstream_model::{
    config::{self, BadValue, CheckpointRetention},
    fault::{Failure, Remedy},
    id::{CheckpointId, Generation, JobId, JobVertexId, LeaderEpoch, Subtask, WorkerId},
    job_graph::JobGraph,
    message::{Command, FromWorker, Report, ToWorker},
    rates::RateWindow,
    state::{ExecutionState, JobStatus},
};

use self::{
    adoption::Verdict as AdoptionVerdict,
    event::{Event, Events},
    handle::{HandleSide, Request, View},
    keeper::{Keeper, Setback},
    phase::{AfterStop, Cancellation, Phase},
    stop::not_leading,
    workers::Workers,
};
use crate::{
    checkpoint::{Action, CheckpointConfig, CheckpointCoordinator},
    clock::{Clock, Moment},
    execution_graph::{Effect, ExecutionGraph},
    failover::{Failover, Verdict},
    store::Store,
};

pub use self::{
    adoption::AdoptionConfig,
    handle::{Busy, CheckpointRefused, JobHandle},
    outcome::{JobMetrics, JobOutcome, JobTimings},
    snapshot::{ExecutionSnapshot, TaskCounts, TaskSnapshot},
    stepped::SteppedJobMaster,
};
pub use crate::checkpoint::CheckpointStats;

/// The way to one worker. Its reports come back through the channel in [`JobMasterConfig`].
pub trait WorkerLink: Send {
    /// Hands over a message, without waiting for what it does. A worker that is gone reports itself as failed.
    fn send(&self, message: ToWorker);

    fn worker(&self) -> WorkerId;

    fn slots(&self) -> u32;

    /// Where it takes connections of other workers; `None` if it takes none.
    fn shuffle_address(&self) -> Option<SocketAddr>;
}

/// What a JobMaster starts with.
pub struct JobMasterConfig {
    pub graph: JobGraph,
    /// The workers whose slots the job may use from the start.
    pub workers: Vec<Box<dyn WorkerLink>>,
    /// Those that join while it runs, each with an id of its own. A worker leaves with [`Report::WorkerFailed`]. When
    /// all senders are gone, none can join, and a job with too few slots does not wait for more.
    pub joining: Receiver<Box<dyn WorkerLink>>,
    /// What all those workers report, each in order. The job fails when all senders are gone.
    pub reports: Receiver<FromWorker>,
    pub store: Arc<dyn Store>,
    /// The value of `execution.checkpointing.dir` as a path; the job's directory is below it. Workers use the same.
    pub checkpoint_dir: Option<PathBuf>,
    /// The token of the leader that this JobMaster belongs to.
    pub epoch: LeaderEpoch,
}

impl fmt::Debug for JobMasterConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let JobMasterConfig { graph, checkpoint_dir, epoch, .. } = self;
        f.debug_struct("JobMasterConfig")
            .field("job", &graph.job_id)
            .field("checkpoint_dir", checkpoint_dir)
            .field("epoch", epoch)
            .finish_non_exhaustive()
    }
}

/// The driver of one job.
pub struct JobMaster {
    graph: JobGraph,
    workers: Workers,
    epoch: LeaderEpoch,
    keeper: Keeper,
    retention: CheckpointRetention,
    /// Whether a checkpoint is taken at the end of all data.
    takes_final_checkpoint: bool,
    checkpoints: CheckpointCoordinator,
    failover: Failover,
    execution: ExecutionGraph,
    cancellation: Cancellation,
    /// How long the job waits for slots.
    slot_timeout: Duration,
    phase: Phase,
    view: Arc<View>,
    /// Those who asked for a checkpoint that has not been triggered yet, and those who wait for one that has.
    asked: Vec<Sender<Result<CheckpointId, CheckpointRefused>>>,
    waiting: Vec<(CheckpointId, Sender<Result<CheckpointId, CheckpointRefused>>)>,
    started: Moment,
    restarts: u32,
    rates: BTreeMap<Subtask, RateWindow>,
    jitter: Jitter,
    /// Of a job that was taken up, until it is decided.
    adoption: Option<AdoptionConfig>,
}

/// Gives numbers in 0..1, by which jobs that failed together do not restart together.
pub type Jitter = Box<dyn FnMut() -> f64 + Send>;

impl JobMaster {
    /// Starts the job on a thread of its own and returns at once. Whatever goes wrong shows in the outcome.
    pub fn start(config: JobMasterConfig) -> JobHandle {
        JobMaster::launch(config, None)
    }

    /// The same for a job that an earlier leader may have left running: its attempts are adopted, if all of them run.
    pub fn take_up(config: JobMasterConfig, adoption: AdoptionConfig) -> JobHandle {
        JobMaster::launch(config, Some(adoption))
    }

    fn launch(config: JobMasterConfig, adoption: Option<AdoptionConfig>) -> JobHandle {
        let clock = Clock::start();
        let job = config.graph.job_id;
        let (handle, HandleSide { requests, view, alive }) = JobHandle::new(job);
        let (reports, joining) = (config.reports.clone(), config.joining.clone());
        let events = Events { reports, joining, requests, clock };
        let shown = view.clone();
        let run = move || {
            let master_view = view.clone();
            let ran = catch_unwind(AssertUnwindSafe(|| {
                match JobMaster::prepare(config, master_view, Box::new(random), clock.now()) {
                    Ok(master) => JobMaster { adoption, ..master }.run(events),
                    Err(setback) => view.end(setback.outcome_of(job)),
                }
            }));
            if ran.is_err() {
                let failure = Failure::fatal("the JobMaster has panicked: a bug of the engine; see the log");
                view.end(ended_early(job, JobStatus::Failed, failure));
            }
            drop(alive);
        };
        if let Err(error) = std::thread::Builder::new().name("job-master".to_owned()).spawn(run) {
            let failure = Failure::fatal(format!("no thread for the JobMaster could be started: {error}"));
            shown.end(ended_early(job, JobStatus::Failed, failure));
        }
        handle
    }

    /// Reads what is stored of the job and what it is to start from. Deploys nothing.
    fn prepare(config: JobMasterConfig, view: Arc<View>, jitter: Jitter, now: Moment) -> Result<JobMaster, Setback> {
        let JobMasterConfig { graph, workers, store, checkpoint_dir, epoch, .. } = config;
        let configuration = &graph.configuration;
        let bad_value = |error: BadValue| Setback::Failed(error.into());
        let checkpoint_config = CheckpointConfig::from_configuration(configuration).map_err(bad_value)?;
        let takes_final_checkpoint = checkpoint_config.interval.is_some();
        if takes_final_checkpoint && checkpoint_dir.is_none() {
            return Err(Setback::Failed(Failure::fatal(
                "execution.checkpointing.interval is set and execution.checkpointing.dir is not: there is no place for \
                 checkpoints",
            )));
        }
        let keeper = Keeper::open(store, epoch, graph.job_id, checkpoint_dir)?;
        if let Some(result) = keeper.result() {
            return Err(Setback::Failed(Failure::fatal(format!(
                "job {} has ended before, as {:?}, and never runs again; give the new run another pipeline.jobid",
                graph.job_id, result.status
            ))));
        }
        let tolerance: Duration = configuration.get(&config::TASK_CANCELLATION_TIMEOUT).map_err(bad_value)?;
        Ok(JobMaster {
            checkpoints: CheckpointCoordinator::new(checkpoint_config, &graph, keeper.found()?),
            failover: Failover::new(&graph).map_err(bad_value)?,
            execution: ExecutionGraph::new(&graph, now),
            retention: configuration.get(&config::CHECKPOINT_RETENTION).map_err(bad_value)?,
            cancellation: Cancellation {
                interval: configuration.get(&config::TASK_CANCELLATION_INTERVAL).map_err(bad_value)?,
                timeout: Some(tolerance).filter(|timeout| !timeout.is_zero()),
            },
            slot_timeout: configuration.get(&config::SLOT_REQUEST_TIMEOUT).map_err(bad_value)?,
            graph,
            workers: Workers::new(workers),
            epoch,
            keeper,
            takes_final_checkpoint,
            phase: Phase::Prepared,
            view,
            asked: Vec::new(),
            waiting: Vec::new(),
            started: now,
            restarts: 0,
            rates: BTreeMap::new(),
            jitter,
            adoption: None,
        })
    }

    fn run(mut self, mut events: Events) {
        self.begin(events.clock.now());
        while !matches!(self.phase, Phase::Ended) {
            let event = events.next(self.next_deadline());
            self.handle(event, events.clock.now());
        }
        let last = self.snapshot(events.clock.now());
        self.view.lock().last_snapshot = Some(last);
        // Whoever asks from now on is told so at once.
        drop(events);
    }

    /// Deploys the job for the first time.
    fn begin(&mut self, now: Moment) {
        self.started = now;
        let timeout = self.adoption.as_ref().map(|adoption| adoption.timeout);
        if let Some(timeout) = timeout.filter(|_| !self.keeper.is_new()) {
            self.begin_adoption(timeout, now);
            return self.show();
        }
        let deployed = self.restore_point().map_err(Setback::from).and_then(|restore| self.deploy(restore, now));
        self.unless_set_back(deployed, now);
        self.decide(false);
        self.settle(now);
        self.show();
    }

    /// When something is to be done without any event.
    fn next_deadline(&self) -> Option<Moment> {
        match &self.phase {
            Phase::Running { .. } => self.checkpoints.next_deadline(),
            Phase::Stopping { resend_at, give_up_at, .. } => {
                Some(give_up_at.map_or(*resend_at, |give_up_at| give_up_at.min(*resend_at)))
            }
            Phase::WaitingForSlots(waiting) => Some(waiting.give_up_at),
            Phase::Adopting(adoption) => Some(adoption.give_up_at),
            Phase::BackingOff { until } => Some(*until),
            Phase::Prepared | Phase::Ended => None,
        }
    }

    fn handle(&mut self, event: Event, now: Moment) {
        match event {
            Event::Report(FromWorker { worker, report }) => self.on_report(worker, report, now),
            Event::Request(Request::Cancel) => self.on_cancel(now),
            Event::Request(Request::Checkpoint(answer)) => self.on_checkpoint_request(answer, now),
            // Whoever has asked may be gone.
            Event::Request(Request::Snapshot(answer)) => drop(answer.send(self.snapshot(now))),
            Event::Joined(link) => self.on_joined(link, now),
            Event::NoMoreWorkers => self.on_no_more_workers(now),
            Event::WorkersGone => self.on_workers_gone(now),
            Event::Timer => {}
        }
        // Not only with `Timer`: under a stream of reports the timer would never get its turn.
        self.on_time(now);
        self.settle(now);
        self.show();
    }

    fn on_report(&mut self, worker: WorkerId, report: Report, now: Moment) {
        match report {
            // What it offers is known from its link; names are in the graph; and functions speak to those who watch.
            Report::Registered { .. } | Report::Deployed { .. } | Report::OperatorMetrics { .. } => {}
            Report::Status { tasks } => {
                if let Phase::Adopting(adoption) = &mut self.phase {
                    let verdict = adoption.on_status(worker, &tasks);
                    self.on_verdict(verdict, now);
                }
            }
            Report::Task { attempt, state, .. } if matches!(self.phase, Phase::Adopting(_)) => {
                if let Phase::Adopting(adoption) = &self.phase {
                    let verdict = adoption.on_task(attempt, state);
                    self.on_verdict(verdict, now);
                }
            }
            Report::Task { attempt, state, failure } => {
                match self.execution.on_report(attempt, state, failure.clone(), now) {
                    Ok(Effect::Changed(ExecutionState::Failed)) => {
                        let failure = failure.unwrap_or_else(|| Failure::new("the task failed and did not say why"));
                        self.on_failure(Some(attempt.subtask.vertex), failure, now);
                    }
                    Ok(Effect::Changed(ExecutionState::Canceled)) if matches!(self.phase, Phase::Running { .. }) => {
                        self.on_failure(Some(attempt.subtask.vertex), Failure::new("the task ended unasked"), now);
                    }
                    Ok(Effect::Changed(_) | Effect::Ignored) => {}
                    Err(illegal) => {
                        self.on_failure(Some(attempt.subtask.vertex), Failure::new(illegal.to_string()), now)
                    }
                }
            }
            Report::EndOfData { attempt } => match &mut self.phase {
                Phase::Adopting(adoption) => adoption.on_end_of_data(attempt),
                _ => drop(self.execution.on_end_of_data(attempt)),
            },
            Report::CheckpointAck { attempt, checkpoint, state, stats } => {
                let actions = self.checkpoints.on_ack(attempt, checkpoint, state, stats, now);
                self.apply(actions, now);
            }
            Report::CoordinatorAck { generation, checkpoint, state } => {
                let actions = self.checkpoints.on_coordinator_ack(generation, checkpoint, state, now);
                self.apply(actions, now);
            }
            Report::CheckpointDeclined { generation, checkpoint, failure } => {
                let actions = self.checkpoints.on_decline(generation, checkpoint, failure, now);
                self.apply(actions, now);
            }
            Report::Result { attempt, result } => self.execution.on_result(attempt, result),
            Report::Metrics { tasks } => {
                for (attempt, metrics) in tasks {
                    if self.execution.on_metrics(attempt, metrics) {
                        let window = self.rates.entry(attempt.subtask).or_default();
                        window.push(metrics);
                        let rates = window.rates();
                        let mut view = self.view.lock();
                        view.metrics.tasks.insert(attempt.subtask, metrics);
                        view.metrics.rates.extend(rates.map(|rates| (attempt.subtask, rates)));
                    }
                }
            }
            Report::Shuffle { peers } => {
                let mut view = self.view.lock();
                view.metrics.shuffle.extend(peers.into_iter().map(|(peer, metrics)| ((worker, peer), metrics)));
            }
            Report::WorkerFailed { failure } => {
                tracing::warn!(job = %self.graph.job_id, worker = worker.0, %failure, "a worker is gone");
                self.workers.leave(worker);
                if matches!(self.phase, Phase::Adopting(_)) {
                    let why = format!("worker {} is gone: {failure}", worker.0);
                    return self.on_verdict(AdoptionVerdict::Restart(why), now);
                }
                // A worker that has nothing to do for the job, or nothing any more, is no loss.
                if self.execution.on_worker_failed(worker, &failure, now) {
                    self.on_failure(None, failure, now);
                }
            }
        }
    }

    fn on_workers_gone(&mut self, now: Moment) {
        let failure = Failure::fatal("all workers of the job are gone");
        for worker in self.workers.leave_all() {
            self.execution.on_worker_failed(worker, &failure, now);
        }
        match self.phase {
            Phase::Adopting(_) | Phase::BackingOff { .. } | Phase::WaitingForSlots(_) => {
                self.unless_set_back(Err(failure.into()), now)
            }
            _ => self.on_failure(None, failure, now),
        }
    }

    fn on_failure(&mut self, vertex: Option<JobVertexId>, failure: Failure, now: Moment) {
        let failure = match vertex.and_then(|id| self.graph.vertices.iter().find(|vertex| vertex.id == id)) {
            Some(vertex) => failure.in_operator(&vertex.name),
            None => failure,
        };
        match &self.phase {
            Phase::Running { .. } => {
                tracing::warn!(job = %self.graph.job_id, %failure, "the job has failed");
                self.view.lock().metrics.last_failure = Some(failure.clone());
                let jitter = (self.jitter)();
                let (then, status) = match self.failover.on_failure(vertex, failure, now, jitter) {
                    Verdict::Restart { after, .. } => (AfterStop::Restart { after }, JobStatus::Restarting),
                    Verdict::Fail { failure } => (AfterStop::Fail(failure), JobStatus::Failing),
                };
                self.execution.become_status(status, now);
                self.stop_tasks(then, now);
            }
            // Others fail because the first one did; only what no restart can mend changes anything.
            Phase::Stopping { then: AfterStop::Restart { .. }, .. } if failure.remedy == Remedy::FailJob => {
                self.execution.become_status(JobStatus::Failing, now);
                self.view.lock().metrics.last_failure = Some(failure.clone());
                self.after_stop(AfterStop::Fail(failure));
            }
            Phase::Prepared
            | Phase::Adopting(_)
            | Phase::Stopping { .. }
            | Phase::BackingOff { .. }
            | Phase::WaitingForSlots(_)
            | Phase::Ended => {
                tracing::debug!(job = %self.graph.job_id, %failure, "a further failure");
            }
        }
    }

    /// Does what is due by now.
    fn on_time(&mut self, now: Moment) {
        match &self.phase {
            Phase::Running { .. } => {
                let actions = self.checkpoints.on_tick(now);
                self.apply(actions, now);
            }
            Phase::Stopping { give_up_at: Some(give_up_at), .. } if *give_up_at <= now => self.on_stuck(now),
            Phase::Stopping { resend_at, .. } if *resend_at <= now => {
                self.send_to_all(Command::Cancel { generation: self.generation() });
                let next = now + self.cancellation.interval;
                if let Phase::Stopping { resend_at, .. } = &mut self.phase {
                    *resend_at = next;
                }
            }
            Phase::BackingOff { until } if *until <= now => {
                self.restarts += 1;
                let latest = self.keeper.latest(&self.graph).map_err(Setback::from);
                let deployed = latest.and_then(|latest| self.deploy(latest, now));
                self.unless_set_back(deployed, now);
            }
            Phase::Adopting(adoption) if adoption.give_up_at <= now => self.on_adoption_overdue(now),
            Phase::WaitingForSlots(waiting) if waiting.give_up_at <= now => self.on_no_slots(now),
            Phase::Prepared
            | Phase::Adopting(_)
            | Phase::Stopping { .. }
            | Phase::BackingOff { .. }
            | Phase::WaitingForSlots(_)
            | Phase::Ended => {}
        }
    }

    /// Goes on to what the tasks' states allow.
    fn settle(&mut self, now: Moment) {
        match self.phase {
            Phase::Running { .. } if self.execution.all_are(ExecutionState::Finished) => {
                self.end(JobStatus::Finished, None, now);
            }
            Phase::Running { is_ready: false, is_ending } if self.execution.all_are(ExecutionState::Running) => {
                self.phase = Phase::Running { is_ready: true, is_ending };
                self.checkpoints.start(self.generation(), now);
                self.settle(now);
            }
            Phase::Running { is_ready: true, is_ending: false } if self.execution.all_at_end_of_data() => {
                self.phase = Phase::Running { is_ready: true, is_ending: true };
                if self.takes_final_checkpoint {
                    let actions = self.checkpoints.on_end_of_data(now);
                    self.apply(actions, now);
                } else {
                    self.apply(vec![Action::Finish], now);
                }
            }
            Phase::Stopping { .. } if self.execution.all_terminal() => self.on_stopped(now),
            _ => {}
        }
    }

    /// Lets handles see what has changed.
    fn show(&self) {
        let (counts, last_modification) = snapshot::count(&self.execution);
        let mut view = self.view.lock();
        view.metrics.tasks_total = counts.total();
        view.metrics.tasks_running = counts.of(ExecutionState::Running);
        view.metrics.tasks_by_state = counts;
        view.metrics.status_since = self.execution.history().last().map(|(_, at)| *at).unwrap_or_default();
        view.metrics.last_modification = last_modification;
        view.metrics.checkpoints = self.checkpoints.stats();
        view.metrics.restarts = self.restarts;
        view.status = self.execution.status();
    }

    fn generation(&self) -> Generation {
        self.keeper.generation()
    }

    /// Whether this JobMaster has deployed the job.
    fn has_run(&self) -> bool {
        self.execution.executions().next().is_some()
    }

    fn send_to_all(&self, command: Command) {
        self.workers.send_to_all(self.epoch, &command);
    }
}

impl Setback {
    /// How a job ended that could not even be prepared.
    fn outcome_of(self, job: JobId) -> JobOutcome {
        match self {
            Setback::Failed(failure) => ended_early(job, JobStatus::Failed, failure),
            // It runs elsewhere.
            Setback::LeadershipLost(error) => ended_early(job, JobStatus::Initializing, not_leading(&error)),
        }
    }
}

/// The outcome of a job that this JobMaster did nothing for.
fn ended_early(job: JobId, status: JobStatus, failure: Failure) -> JobOutcome {
    JobOutcome {
        job,
        status,
        failure: Some(failure),
        accumulators: BTreeMap::new(),
        collected: Vec::new(),
        timings: JobTimings::default(),
    }
}

/// A number in 0..1, for jitter: the standard library seeds its hashers from the system's randomness.
fn random() -> f64 {
    RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64
}
