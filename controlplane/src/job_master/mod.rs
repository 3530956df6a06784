//! Runs one job: the driver of the deciders around it.
//!
//! ```text
//!  take_up ──► Adopting ──some run──┐
//!                  │ none           ▼
//!  start ──────────┴──────────► Running ──all finished──────────────────────────► Ended
//!                                   │ cancel, a failure that no restart mends       ▲
//!                                   └──► Stopping ──all tasks have ended, watchdog──┘
//! ```
//! While it is running each of its regions is stopped and deployed again by itself: `regional` has their stages.
//!
//! One loop over one closed enum of events, on a thread of its own. It owns the clock, the files and the store, does what
//! the deciders say, and has no policy of its own.
//!
//! Invariants: a generation is stored before its first message is sent, and sinks hear of a checkpoint after the pointer
//! has moved to it. `keeper` has the order of everything that is stored. Nobody waits for a worker that is gone, and none
//! comes back under its old id.
//!
//! | Look here for | module |
//! |---|---|
//! | where in its life a job is | `phase` |
//! | what restarts beside what runs on | `regional` |
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
mod regional;
mod restore;
mod snapshot;
mod stepped;
mod stop;
#[cfg(test)]
mod tests;
mod workers;

use std::{
    collections::{BTreeMap, BTreeSet},
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
    deployment::CompletedCheckpoint,
    fault::{Failure, Remedy},
    id::{CheckpointId, JobId, LeaderEpoch, Subtask, WorkerId},
    job_graph::JobGraph,
    message::{FromWorker, Report, ToWorker},
    rates::RateWindow,
    state::{ExecutionState, JobStatus},
};

use self::{
    event::{Event, Events},
    handle::{HandleSide, Request, View},
    keeper::{Keeper, Setback},
    phase::{Cancellation, Ending, Phase, Progress},
    regional::Stage,
    stop::not_leading,
    workers::Workers,
};
use crate::{
    checkpoint::{Action, CheckpointConfig, CheckpointCoordinator},
    clock::{Clock, Moment},
    execution_graph::{Effect, ExecutionGraph},
    failover::{Failover, Verdict},
    regions::{RegionIndex, Regions},
    scheduler::SlotAssignment,
    store::Store,
};

pub use self::{
    adoption::{AdoptionConfig, OnDecided},
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
    regions: Regions,
    /// Of each region.
    stages: Vec<Stage>,
    slots: SlotAssignment,
    /// What the first deployment starts from.
    start_from: Option<CompletedCheckpoint>,
    view: Arc<View>,
    /// Those who asked for a checkpoint that has not been triggered yet, and those who wait for one that has.
    asked: Vec<Sender<Result<CheckpointId, CheckpointRefused>>>,
    waiting: Vec<(CheckpointId, Sender<Result<CheckpointId, CheckpointRefused>>)>,
    started: Moment,
    restarts: u32,
    /// Those that are decided on and have not taken place.
    restarts_under_way: u32,
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
        let regions = Regions::of(&graph);
        let tolerance: Duration = configuration.get(&config::TASK_CANCELLATION_TIMEOUT).map_err(bad_value)?;
        Ok(JobMaster {
            checkpoints: CheckpointCoordinator::new(checkpoint_config, &graph, keeper.found()?),
            failover: Failover::new(&graph, &regions).map_err(bad_value)?,
            execution: ExecutionGraph::new(&graph, now),
            retention: configuration.get(&config::CHECKPOINT_RETENTION).map_err(bad_value)?,
            cancellation: Cancellation {
                interval: configuration.get(&config::TASK_CANCELLATION_INTERVAL).map_err(bad_value)?,
                timeout: Some(tolerance).filter(|timeout| !timeout.is_zero()),
            },
            slot_timeout: configuration.get(&config::SLOT_REQUEST_TIMEOUT).map_err(bad_value)?,
            stages: vec![Stage::BackingOff { until: now }; regions.count()],
            regions,
            slots: SlotAssignment::of(&graph),
            start_from: None,
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
            restarts_under_way: 0,
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
            self.settle(now);
            return self.show();
        }
        let deployed = self.deploy_all(now);
        self.unless_set_back(deployed, now);
        self.decide(&BTreeSet::new());
        self.settle(now);
        self.show();
    }

    /// When something is to be done without any event.
    fn next_deadline(&self) -> Option<Moment> {
        match &self.phase {
            Phase::Running(_) => {
                [self.checkpoints.next_deadline(), self.next_regional_deadline()].into_iter().flatten().min()
            }
            Phase::Stopping { ending, .. } => Some(ending.next_deadline()),
            Phase::Adopting(adoption) => Some(adoption.give_up_at),
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
            Report::Registered { .. }
            | Report::Deployed { .. }
            | Report::OperatorMetrics { .. }
            | Report::Memory { .. } => {}
            Report::Status { tasks } => {
                if let Phase::Adopting(adoption) = &mut self.phase {
                    let verdict = adoption.on_status(worker, &tasks);
                    self.on_verdict(verdict, now);
                }
            }
            Report::Task { attempt, state, .. } if matches!(self.phase, Phase::Adopting(_)) => {
                if let Phase::Adopting(adoption) = &mut self.phase {
                    let verdict = adoption.on_task(attempt, state);
                    self.on_verdict(verdict, now);
                }
            }
            Report::Task { attempt, state, failure } => {
                let subtask = attempt.subtask;
                match self.execution.on_report(attempt, state, failure.clone(), now) {
                    Ok(Effect::Changed(ExecutionState::Failed)) => {
                        let failure = failure.unwrap_or_else(|| Failure::new("the task failed and did not say why"));
                        self.on_task_failure(subtask, failure, now);
                    }
                    Ok(Effect::Changed(ExecutionState::Canceled)) if self.is_to_run(subtask) => {
                        self.on_task_failure(subtask, Failure::new("the task ended unasked"), now);
                    }
                    Ok(Effect::Changed(_) | Effect::Ignored) => {}
                    Err(illegal) => self.on_task_failure(subtask, Failure::new(illegal.to_string()), now),
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
                if let Phase::Adopting(adoption) = &mut self.phase {
                    let verdict = adoption.on_worker_failed(worker, &failure);
                    return self.on_verdict(verdict, now);
                }
                // A worker that has nothing to do for the job, or nothing any more, is no loss.
                let lost = self.execution.on_worker_failed(worker, &failure, now);
                if !lost.is_empty() {
                    self.on_failure(self.regions_of(&lost), failure, now);
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
            Phase::Adopting(_) | Phase::Running(_) => self.fail_job(failure, now),
            Phase::Prepared | Phase::Stopping { .. } | Phase::Ended => {}
        }
    }

    /// Whether the subtask is deployed and was not told to end.
    fn is_to_run(&self, subtask: Subtask) -> bool {
        let region = self.regions.region_of(subtask);
        matches!(self.phase, Phase::Running(_)) && region.is_some_and(|region| self.is_deployed(region))
    }

    fn on_task_failure(&mut self, subtask: Subtask, failure: Failure, now: Moment) {
        let failure = match self.graph.vertices.iter().find(|vertex| vertex.id == subtask.vertex) {
            Some(vertex) => failure.in_operator(&vertex.name),
            None => failure,
        };
        self.on_failure(self.regions_of(&[subtask]), failure, now);
    }

    /// Something has failed that these regions cannot do without.
    fn on_failure(&mut self, touched: BTreeSet<RegionIndex>, failure: Failure, now: Moment) {
        let Phase::Running(Progress { is_finishing, .. }) = self.phase else {
            return tracing::debug!(job = %self.graph.job_id, %failure, "a further failure");
        };
        // Tasks that have finished are never deployed beside others that run: their commits are for the end of the job.
        let touched = if is_finishing { self.regions.all().collect() } else { touched };
        let deployed: BTreeSet<_> = touched.into_iter().filter(|region| self.is_deployed(*region)).collect();
        // Others fail because the first one did; only what no restart can mend changes anything.
        if deployed.is_empty() && failure.remedy != Remedy::FailJob {
            return tracing::debug!(job = %self.graph.job_id, %failure, "a further failure");
        }
        tracing::warn!(job = %self.graph.job_id, %failure, "the job has failed");
        self.view.lock().metrics.last_failure = Some(failure.clone());
        let jitter = (self.jitter)();
        match self.failover.on_failure(deployed, failure, now, jitter) {
            Verdict::Restart { regions, after, is_new } => {
                self.restarts_under_way += u32::from(is_new);
                self.restart(regions, after, now);
            }
            Verdict::Fail { failure } => self.fail_job(failure, now),
        }
    }

    /// Does what is due by now.
    fn on_time(&mut self, now: Moment) {
        match &self.phase {
            Phase::Running(_) => {
                let actions = self.checkpoints.on_tick(now);
                self.apply(actions, now);
                if matches!(self.phase, Phase::Running(_)) {
                    self.on_regional_time(now);
                }
            }
            Phase::Stopping { ending, .. } if ending.is_given_up(now) => self.on_stuck(now),
            Phase::Stopping { ending, .. } if ending.resend_at <= now => {
                self.send_cancel();
                let next = now + self.cancellation.interval;
                if let Phase::Stopping { ending, .. } = &mut self.phase {
                    *ending = Ending { resend_at: next, ..*ending };
                }
            }
            Phase::Adopting(adoption) if adoption.give_up_at <= now => self.on_adoption_overdue(now),
            Phase::Prepared | Phase::Adopting(_) | Phase::Stopping { .. } | Phase::Ended => {}
        }
    }

    /// Goes on to what the tasks' states allow.
    fn settle(&mut self, now: Moment) {
        match self.phase {
            Phase::Running(progress) => {
                self.settle_stopped(now);
                if self.all_deployed() {
                    self.settle_running(progress, now);
                }
            }
            Phase::Stopping { .. } if self.execution.all_terminal() => self.on_stopped(now),
            _ => {}
        }
    }

    fn settle_running(&mut self, progress: Progress, now: Moment) {
        if self.execution.all_are(ExecutionState::Finished) {
            return self.end(JobStatus::Finished, None, now);
        }
        if !progress.is_ready && self.execution.all_are(ExecutionState::Running) {
            self.phase = Phase::Running(Progress { is_ready: true, ..progress });
            self.checkpoints.start(self.generations(), now);
            return self.settle(now);
        }
        if progress.is_ready && !progress.is_ending && self.execution.all_at_end_of_data() {
            self.phase = Phase::Running(Progress { is_ending: true, ..progress });
            if self.takes_final_checkpoint {
                let actions = self.checkpoints.on_end_of_data(now);
                self.apply(actions, now);
            } else {
                self.apply(vec![Action::Finish], now);
            }
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

    /// Whether this JobMaster has deployed or adopted anything of the job.
    fn has_run(&self) -> bool {
        self.execution.executions().next().is_some()
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
