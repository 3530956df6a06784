//! Runs one job: the driver of the deciders around it.
//!
//! ```text
//!            ┌─► Running ──all finished──────────────────────────────────────────► Ended
//!  deploy ───┤      │ failure, cancel                                                ▲
//!            │   Stopping ──all tasks have ended──► failed or cancelled for good ────┤
//!            │      └───────────────► BackingOff ──pause over──┐                     │
//!            └─────────────────────────────────────────────────┘   watchdog ─────────┘
//! ```
//! One loop over one closed enum of events, on a thread of its own. It owns the clock, the files and the store, does what
//! the deciders say, and has no policy of its own.
//!
//! All regions of a job share one generation for now, so a failure restarts all of them, whatever
//! [`Failover`] says of the region: a job's unconnected parts are few.
//!
//! Invariants: a generation is stored before its first message is sent, and sinks hear of a checkpoint after the pointer
//! has moved to it. `keeper` has the order of everything that is stored.

mod event;
#[cfg(test)]
pub(crate) mod fixture;
mod handle;
mod keeper;
mod outcome;
mod record;
mod restore;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    fs::File,
    hash::{BuildHasher, Hasher, RandomState},
    io::{self, Read},
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender};
use millstream_model::{
    config::{self, BadValue, CheckpointRetention},
    deployment::{ChannelToken, CompletedCheckpoint, Deployment, Peer},
    fault::{Failure, Remedy},
    id::{CheckpointId, Generation, JobId, JobVertexId, LeaderEpoch, WorkerId},
    job_graph::JobGraph,
    message::{Command, FromWorker, Report, ToWorker},
    state::{ExecutionState, JobStatus},
};

use self::{
    event::{Event, Events},
    handle::{HandleSide, Request, View},
    keeper::{Keeper, Setback},
};
use crate::{
    cause::with_causes,
    checkpoint::{Action, CheckpointConfig, CheckpointCoordinator},
    clock::{Clock, Moment},
    execution_graph::{Effect, ExecutionGraph},
    failover::{Failover, Verdict},
    scheduler::{self, WorkerSlots},
    store::{JobResult, Store, StoreError},
};

pub use self::{
    handle::{CheckpointRefused, JobHandle},
    outcome::{JobMetrics, JobOutcome, JobTimings},
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
    /// The workers whose slots the job may use.
    pub workers: Vec<Box<dyn WorkerLink>>,
    /// What those workers report, each in order. The job fails when all senders are gone.
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
    workers: Vec<Box<dyn WorkerLink>>,
    epoch: LeaderEpoch,
    keeper: Keeper,
    retention: CheckpointRetention,
    /// Whether a checkpoint is taken at the end of all data.
    takes_final_checkpoint: bool,
    checkpoints: CheckpointCoordinator,
    failover: Failover,
    execution: ExecutionGraph,
    cancellation: Cancellation,
    phase: Phase,
    view: Arc<View>,
    /// Those who asked for a checkpoint that has not been triggered yet, and those who wait for one that has.
    asked: Vec<Sender<Result<CheckpointId, CheckpointRefused>>>,
    waiting: Vec<(CheckpointId, Sender<Result<CheckpointId, CheckpointRefused>>)>,
    started: Moment,
    restarts: u32,
}

/// How tasks that do not end are dealt with.
#[derive(Clone, Copy, Debug)]
struct Cancellation {
    /// Between two messages that tell them to.
    interval: Duration,
    /// Until the job is given up.
    timeout: Option<Duration>,
}

/// Where in its life the job is. The execution graph knows its status, which is what others see of this.
#[derive(Debug)]
enum Phase {
    /// Nothing was deployed yet.
    Prepared,
    Running {
        /// Whether all tasks run, so that checkpoints are taken.
        is_ready: bool,
        /// Whether all data was read and the tasks were led to their end.
        is_ending: bool,
    },
    /// Tasks were told to end, and are waited for.
    Stopping {
        then: AfterStop,
        resend_at: Moment,
        give_up_at: Option<Moment>,
    },
    /// Nothing runs until this time.
    BackingOff {
        until: Moment,
    },
    Ended,
}

#[derive(Clone, Debug)]
enum AfterStop {
    Restart { after: Duration },
    Fail(Failure),
    Cancel,
}

impl JobMaster {
    /// Starts the job on a thread of its own and returns at once. Whatever goes wrong shows in the outcome.
    pub fn start(config: JobMasterConfig) -> JobHandle {
        let clock = Clock::start();
        let job = config.graph.job_id;
        let (handle, HandleSide { requests, view, alive }) = JobHandle::new(job);
        let events = Events { reports: config.reports.clone(), requests, clock };
        let shown = view.clone();
        let run = move || {
            let master_view = view.clone();
            let ran = catch_unwind(AssertUnwindSafe(|| match JobMaster::prepare(config, master_view, clock.now()) {
                Ok(master) => master.run(events),
                Err(Setback::Failed(failure)) => view.end(ended_early(job, JobStatus::Failed, failure)),
                Err(Setback::LeadershipLost(error)) => {
                    view.end(ended_early(job, JobStatus::Initializing, not_leading(&error)));
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
    fn prepare(config: JobMasterConfig, view: Arc<View>, now: Moment) -> Result<JobMaster, Setback> {
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
            graph,
            workers,
            epoch,
            keeper,
            takes_final_checkpoint,
            phase: Phase::Prepared,
            view,
            asked: Vec::new(),
            waiting: Vec::new(),
            started: now,
            restarts: 0,
        })
    }

    fn run(mut self, mut events: Events) {
        self.begin(events.clock.now());
        while !matches!(self.phase, Phase::Ended) {
            let event = events.next(self.next_deadline());
            self.handle(event, events.clock.now());
        }
    }

    /// Deploys the job for the first time.
    fn begin(&mut self, now: Moment) {
        self.started = now;
        match self.first_restore().map_err(Setback::from).and_then(|restore| self.deploy(restore, now)) {
            Ok(()) => {}
            Err(Setback::LeadershipLost(error)) => self.on_leadership_lost(&error, now),
            Err(Setback::Failed(failure)) => {
                // It did not run, so there is no result to store and nothing of it to delete: it may be tried again.
                tracing::warn!(job = %self.graph.job_id, %failure, "the job cannot start");
                self.execution.become_status(JobStatus::Failed, now);
                self.send_to_all(Command::Shutdown);
                self.show_end(JobStatus::Failed, Some(failure), now);
            }
        }
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
            Phase::BackingOff { until } => Some(*until),
            Phase::Prepared | Phase::Ended => None,
        }
    }

    fn handle(&mut self, event: Event, now: Moment) {
        match event {
            Event::Report(FromWorker { worker, report }) => self.on_report(worker, report, now),
            Event::Request(Request::Cancel) => self.on_cancel(now),
            Event::Request(Request::Checkpoint(answer)) => self.on_checkpoint_request(answer, now),
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
            // What it offers is known from its link.
            Report::Registered { .. } => {}
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
            Report::EndOfData { attempt } => {
                self.execution.on_end_of_data(attempt);
            }
            Report::CheckpointAck { attempt, checkpoint, state, stats } => {
                let actions = self.checkpoints.on_ack(attempt, checkpoint, state, stats);
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
                        self.view.lock().metrics.tasks.insert(attempt.subtask, metrics);
                    }
                }
            }
            Report::WorkerFailed { failure } => {
                self.execution.on_worker_failed(worker, &failure, now);
                self.on_failure(None, failure, now);
            }
        }
    }

    fn on_workers_gone(&mut self, now: Moment) {
        let failure = Failure::fatal("all workers of the job are gone");
        let workers: Vec<_> = self.workers.iter().map(|worker| worker.worker()).collect();
        for worker in workers {
            self.execution.on_worker_failed(worker, &failure, now);
        }
        match self.phase {
            Phase::BackingOff { .. } => self.fail(failure, now),
            _ => self.on_failure(None, failure, now),
        }
    }

    fn on_cancel(&mut self, now: Moment) {
        match self.phase {
            Phase::Running { .. } => {
                self.execution.become_status(JobStatus::Cancelling, now);
                self.stop_tasks(AfterStop::Cancel, now);
            }
            Phase::Stopping { then: AfterStop::Restart { .. }, .. } => {
                self.execution.become_status(JobStatus::Cancelling, now);
                self.after_stop(AfterStop::Cancel);
            }
            Phase::BackingOff { .. } => {
                self.execution.become_status(JobStatus::Cancelling, now);
                self.end(JobStatus::Canceled, None, now);
            }
            // A job that fails anyway keeps its failure.
            Phase::Prepared | Phase::Stopping { .. } | Phase::Ended => {}
        }
    }

    fn on_checkpoint_request(&mut self, answer: Sender<Result<CheckpointId, CheckpointRefused>>, now: Moment) {
        let job = self.graph.job_id;
        if !self.keeper.has_directory() {
            return answer_to(answer, Err(CheckpointRefused::NoDirectory { job }));
        }
        let (is_accepted, actions) = self.checkpoints.request(now);
        if is_accepted {
            self.asked.push(answer);
        } else {
            answer_to(answer, Err(CheckpointRefused::NotRunning { job, status: self.execution.status() }));
        }
        self.apply(actions, now);
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
                let (then, status) = match self.failover.on_failure(vertex, failure, now, random()) {
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
            Phase::Prepared | Phase::Stopping { .. } | Phase::BackingOff { .. } | Phase::Ended => {
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
                match self.keeper.latest(&self.graph).map_err(Setback::from).and_then(|latest| self.deploy(latest, now))
                {
                    Ok(()) => {}
                    Err(Setback::Failed(failure)) => self.fail(failure, now),
                    Err(Setback::LeadershipLost(error)) => self.on_leadership_lost(&error, now),
                }
            }
            Phase::Prepared | Phase::Stopping { .. } | Phase::BackingOff { .. } | Phase::Ended => {}
        }
    }

    /// Some tasks did not end when they were told to. Nothing may be deployed beside them.
    fn on_stuck(&mut self, now: Moment) {
        let vertices = self.execution.vertices().iter();
        let is_alive = |execution: &crate::execution_graph::Execution| !execution.state().is_terminal();
        let stuck = vertices.filter(|vertex| vertex.current.as_ref().is_some_and(is_alive));
        let names: Vec<_> = stuck.map(|vertex| format!("{} ({})", vertex.name, vertex.subtask.index)).collect();
        let timeout = self.cancellation.timeout.unwrap_or_default();
        let stuck = format!(
            "these tasks have not ended within {timeout:?} (task.cancellation.timeout), most likely because a function \
             blocks: {}",
            names.join(", ")
        );
        let failure = match &self.phase {
            // What they were stopped for comes first.
            Phase::Stopping { then: AfterStop::Fail(failure), .. } => {
                Failure { message: format!("{}; then {stuck}", failure.message), ..failure.clone() }
            }
            _ => Failure::fatal(stuck),
        };
        self.fail(failure, now);
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

    fn on_stopped(&mut self, now: Moment) {
        let Phase::Stopping { then, .. } = &self.phase else { unreachable!("only called while stopping") };
        match then.clone() {
            AfterStop::Restart { after } => {
                tracing::info!(job = %self.graph.job_id, ?after, "the job restarts");
                self.phase = Phase::BackingOff { until: now + after };
            }
            AfterStop::Fail(failure) => self.fail(failure, now),
            AfterStop::Cancel => self.end(JobStatus::Canceled, None, now),
        }
    }

    /// What the first deployment starts from: what the user named, or for an old job its own latest.
    fn first_restore(&mut self) -> Result<Option<CompletedCheckpoint>, Failure> {
        if !self.keeper.is_new() {
            return self.keeper.latest(&self.graph);
        }
        let location = self.graph.configuration.get(&config::STATE_RECOVERY_PATH)?;
        let Some(location) = location else { return Ok(None) };
        let checkpoint = restore::named(&self.graph, &location)?;
        self.checkpoints.continue_after(checkpoint.id);
        Ok(Some(checkpoint))
    }

    /// Starts all tasks at the next generation.
    fn deploy(&mut self, restore: Option<CompletedCheckpoint>, now: Moment) -> Result<(), Setback> {
        let offers = self.workers.iter().map(|link| WorkerSlots { worker: link.worker(), slots: link.slots() });
        let offers: Vec<_> = offers.collect();
        let placements = scheduler::place(&self.graph, &offers).map_err(Failure::from)?;
        let token = random_token()
            .map_err(|cause| Failure::new(format!("the system gives no randomness (/dev/urandom): {cause}")))?;
        let generation = self.keeper.next_generation(restore.as_ref())?;
        if let Some(checkpoint) = restore.as_ref().filter(|checkpoint| self.keeper.is_own(checkpoint)) {
            self.checkpoints.on_restored(checkpoint.id);
        }
        let restored_from = restore.as_ref().map(|checkpoint| &checkpoint.directory);
        tracing::info!(job = %self.graph.job_id, generation = generation.0, ?restored_from, "the job is deployed");

        if self.execution.status() == JobStatus::Initializing {
            self.execution.become_status(JobStatus::Created, now);
        }
        self.execution.become_status(JobStatus::Running, now);
        self.execution.deploy(generation, &placements, now);
        self.phase = Phase::Running { is_ready: false, is_ending: false };
        self.view.lock().metrics.tasks.clear();
        let placed: BTreeSet<WorkerId> = placements.iter().map(|placement| placement.worker).collect();
        let taking_part: Vec<_> = self.workers.iter().filter(|link| placed.contains(&link.worker())).collect();
        let peers = taking_part
            .iter()
            .map(|link| Peer { worker: link.worker(), shuffle_address: link.shuffle_address() })
            .collect();
        let deployment = Deployment { generation, token, placements, peers, restore };
        for link in taking_part {
            let (graph, deployment) = (Box::new(self.graph.clone()), Box::new(deployment.clone()));
            link.send(ToWorker { epoch: self.epoch, command: Command::Deploy { graph, deployment } });
        }
        Ok(())
    }

    /// Tells all tasks to end, and their checkpoints with them.
    fn stop_tasks(&mut self, then: AfterStop, now: Moment) {
        let aborts = self.checkpoints.stop();
        self.apply(aborts, now);
        self.refuse_asked();
        self.execution.cancel(now);
        self.send_to_all(Command::Cancel { generation: self.generation() });
        self.phase = Phase::Stopping {
            then,
            resend_at: now + self.cancellation.interval,
            give_up_at: self.cancellation.timeout.map(|timeout| now + timeout),
        };
    }

    /// Changes what happens when the tasks have ended.
    fn after_stop(&mut self, next: AfterStop) {
        if let Phase::Stopping { then, .. } = &mut self.phase {
            *then = next;
        }
    }

    /// Does what the checkpoint coordinator says, and what it says to the results of that.
    fn apply(&mut self, actions: Vec<Action>, now: Moment) {
        let mut actions = VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            match action {
                Action::Begin { checkpoint } => {
                    // Before what follows, which may be the end of the job.
                    let begun = self.begin_checkpoint(checkpoint, now);
                    begun.into_iter().rev().for_each(|action| actions.push_front(action));
                }
                Action::SnapshotCoordinators { checkpoint } => {
                    self.send_to_all(Command::SnapshotCoordinators { generation: self.generation(), checkpoint });
                }
                Action::Trigger { checkpoint, kind } => {
                    self.send_to_all(Command::TriggerCheckpoint { generation: self.generation(), checkpoint, kind });
                }
                Action::Complete(collected) => {
                    let checkpoint = collected.id;
                    match self.keeper.complete(&self.graph, collected) {
                        Ok(()) => actions.extend(self.checkpoints.on_durable(checkpoint, now)),
                        Err(Setback::Failed(failure)) => {
                            actions.extend(self.checkpoints.on_not_durable(checkpoint, failure, now));
                        }
                        Err(Setback::LeadershipLost(error)) => return self.on_leadership_lost(&error, now),
                    }
                }
                Action::Notify { checkpoint } => {
                    tracing::info!(job = %self.graph.job_id, %checkpoint, "checkpoint complete");
                    self.send_to_all(Command::CheckpointComplete { generation: self.generation(), checkpoint });
                    self.answer_waiting(checkpoint, &Ok(checkpoint));
                }
                Action::Abort { checkpoint, reason } => {
                    tracing::warn!(job = %self.graph.job_id, %checkpoint, %reason, "checkpoint given up");
                    self.send_to_all(Command::CheckpointAborted { generation: self.generation(), checkpoint });
                    let refused = CheckpointRefused::GivenUp { checkpoint, reason: reason.to_string() };
                    self.answer_waiting(checkpoint, &Err(refused));
                }
                Action::Delete { checkpoints } => {
                    if let Err(error) = self.keeper.delete(&checkpoints) {
                        return self.on_leadership_lost(&error, now);
                    }
                }
                Action::Finish => {
                    let aborts = self.checkpoints.stop();
                    actions.extend(aborts);
                    self.refuse_asked();
                    self.send_to_all(Command::Finish { generation: self.generation() });
                }
                Action::FailJob { failure } => return self.on_failure(None, failure, now),
            }
        }
    }

    fn begin_checkpoint(&mut self, checkpoint: CheckpointId, now: Moment) -> Vec<Action> {
        self.waiting.extend(self.asked.drain(..).map(|asked| (checkpoint, asked)));
        match self.keeper.begin(checkpoint) {
            Ok(()) => self.checkpoints.on_begun(checkpoint, now),
            Err(failure) => self.checkpoints.on_not_begun(checkpoint, failure, now),
        }
    }

    fn fail(&mut self, failure: Failure, now: Moment) {
        if self.execution.status() != JobStatus::Failing {
            self.execution.become_status(JobStatus::Failing, now);
        }
        self.end(JobStatus::Failed, Some(failure), now);
    }

    /// Ends the job for good: the result is stored before anything is deleted.
    fn end(&mut self, status: JobStatus, failure: Option<Failure>, now: Moment) {
        let aborts = self.checkpoints.stop();
        self.apply(aborts, now);
        self.execution.become_status(status, now);
        let keeps_checkpoints = match self.retention {
            CheckpointRetention::RetainOnCancellation => true,
            CheckpointRetention::DeleteOnCancellation => status == JobStatus::Failed,
            CheckpointRetention::Never => false,
        };
        let own = self.checkpoints.retained().chain(self.checkpoints.given_up());
        let doomed = (!keeps_checkpoints).then(|| own.collect::<Vec<_>>());
        let result = JobResult { status, failure: failure.clone() };
        if let Err(error) = self.keeper.end(&result, doomed.as_deref()) {
            return self.on_leadership_lost(&error, now);
        }
        tracing::info!(job = %self.graph.job_id, ?status, "the job has ended");
        self.send_to_all(Command::Shutdown);
        self.show_end(status, failure, now);
    }

    /// Another coordinator leads the job: whatever this one did now would be refused, so it does nothing more.
    fn on_leadership_lost(&mut self, error: &StoreError, now: Moment) {
        tracing::warn!(job = %self.graph.job_id, problem = with_causes(error), "this JobMaster is replaced");
        self.show_end(self.execution.status(), Some(not_leading(error)), now);
    }

    fn show_end(&mut self, status: JobStatus, failure: Option<Failure>, now: Moment) {
        self.phase = Phase::Ended;
        let ended = CheckpointRefused::Ended { job: self.graph.job_id };
        let waiting = self.waiting.drain(..).map(|(_, waiting)| waiting).chain(self.asked.drain(..));
        waiting.for_each(|waiting| answer_to(waiting, Err(ended.clone())));
        self.show();
        let mut accumulators = BTreeMap::<String, i64>::new();
        let mut collected = Vec::new();
        for result in self.execution.executions().filter_map(|execution| execution.result.as_ref()) {
            for (name, value) in &result.accumulators {
                let sum = accumulators.entry(name.clone()).or_default();
                *sum = sum.wrapping_add(*value);
            }
            collected.extend(result.collected.iter().cloned());
        }
        let timings = JobTimings {
            net_runtime: now.since(self.started),
            restarts: self.restarts,
            checkpoints: self.checkpoints.stats(),
        };
        self.view.end(JobOutcome { job: self.graph.job_id, status, failure, accumulators, collected, timings });
    }

    /// Lets handles see what has changed.
    fn show(&self) {
        let running = self.execution.executions().filter(|execution| execution.state() == ExecutionState::Running);
        let mut view = self.view.lock();
        view.metrics.tasks_total = self.execution.vertices().len() as u32;
        view.metrics.tasks_running = running.count() as u32;
        view.metrics.checkpoints = self.checkpoints.stats();
        view.metrics.restarts = self.restarts;
        view.status = self.execution.status();
    }

    fn generation(&self) -> Generation {
        self.keeper.generation()
    }

    fn send_to_all(&self, command: Command) {
        for worker in &self.workers {
            worker.send(ToWorker { epoch: self.epoch, command: command.clone() });
        }
    }

    fn answer_waiting(&mut self, checkpoint: CheckpointId, answer: &Result<CheckpointId, CheckpointRefused>) {
        for (_, waiting) in self.waiting.extract_if(.., |(awaited, _)| *awaited == checkpoint) {
            answer_to(waiting, answer.clone());
        }
    }

    /// No checkpoint will be triggered for those who asked.
    fn refuse_asked(&mut self) {
        let refused = CheckpointRefused::NotRunning { job: self.graph.job_id, status: self.execution.status() };
        self.asked.drain(..).for_each(|asked| answer_to(asked, Err(refused.clone())));
    }
}

/// Whoever asked may have gone.
fn answer_to(
    waiting: Sender<Result<CheckpointId, CheckpointRefused>>,
    answer: Result<CheckpointId, CheckpointRefused>,
) {
    let _ = waiting.send(answer);
}

fn not_leading(error: &StoreError) -> Failure {
    Failure::new(format!("this coordinator does not lead the job any more: {}", with_causes(error)))
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

/// A secret that nobody can guess, whatever they know of others.
fn random_token() -> io::Result<ChannelToken> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(ChannelToken(u128::from_ne_bytes(bytes)))
}

/// A number in 0..1, for jitter: the standard library seeds its hashers from the system's randomness.
fn random() -> f64 {
    RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64
}
