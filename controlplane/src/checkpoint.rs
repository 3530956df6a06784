//! When a checkpoint starts, when it counts, when it is given up, and when it may be deleted.
//!
//! ```text
//!  on_tick ──► Begin(n) ──driver: room in storage──► on_begun(n)
//!                                                        └──► SnapshotCoordinators(n), if there are any
//!          ┌───────────────────────────all of them have acknowledged───────┘
//!          └──► Trigger(n) ──acks──► Complete(n) ──driver: metadata, then pointer──► on_durable(n) ──► Notify(n)
//!                                                                                       ├──► Delete(older)
//!                                                                                       └ Final: Finish
//!  at any stage: declined, expired, on_not_begun(n), on_not_durable(n) ──► Abort(n), and FailJob if too many in a row
//! ```
//! Coordinators come first, on all workers, before any source has a barrier: what a coordinator hands out after its
//! snapshot must not reach a reader before the barrier does, whichever worker the two are on.
//!
//! A decider; the names and the rules are those of Flink's `CheckpointCoordinator` and `CheckpointFailureManager`.
//!
//! Invariants:
//! - `Trigger(n)` is emitted only after every coordinator has acknowledged n, and the next checkpoint begins only after
//!   that, or after `Abort(n)`: no coordinator is between the snapshots of two checkpoints.
//! - `Complete(n)` is emitted only after every subtask and every coordinator of the current generations has acknowledged
//!   n, and numbers of durable checkpoints strictly increase: what is older than a durable one is given up.
//! - `Delete` names only checkpoints older than a durable one, so that the driver's tombstones are written after the
//!   pointer has moved past them.
//! - Late, repeated and foreign acknowledgements change nothing and are no error.

mod phases;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    time::Duration,
};

use millstream_model::{
    config::{self, BadValue, Configuration},
    deployment::{CoordinatorState, SubtaskState},
    fault::Failure,
    id::{CheckpointId, ExecutionAttemptId, Generation, OperatorId, Subtask},
    job_graph::JobGraph,
    message::{CheckpointKind, SnapshotStats},
};

pub use self::phases::{CheckpointPhases, PendingStats, Slowest};
use crate::clock::Moment;

/// The rules for a job's checkpoints.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CheckpointConfig {
    /// Between the starts of two checkpoints; `None` takes them on request only.
    pub interval: Option<Duration>,
    pub timeout: Duration,
    /// Between the end of one and the start of the next.
    pub min_pause: Duration,
    pub max_concurrent: u32,
    /// How many in a row may fail.
    pub tolerable_failures: u32,
    /// How many completed ones are kept, at least one.
    pub num_retained: u32,
}

impl CheckpointConfig {
    pub fn from_configuration(configuration: &Configuration) -> Result<CheckpointConfig, BadValue> {
        Ok(CheckpointConfig {
            interval: configuration.get(&config::CHECKPOINTING_INTERVAL)?,
            timeout: configuration.get(&config::CHECKPOINTING_TIMEOUT)?,
            min_pause: configuration.get(&config::CHECKPOINTING_MIN_PAUSE)?,
            max_concurrent: configuration.get(&config::CHECKPOINTING_MAX_CONCURRENT)?,
            tolerable_failures: configuration.get(&config::CHECKPOINTING_TOLERABLE_FAILURES)?,
            num_retained: configuration.get(&config::CHECKPOINTING_NUM_RETAINED)?,
        })
    }
}

/// What the driver has to do, in this order. Nothing follows [`FailJob`](Action::FailJob).
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// Make room in storage, and answer with [`on_begun`](CheckpointCoordinator::on_begun) or
    /// [`on_not_begun`](CheckpointCoordinator::on_not_begun).
    Begin { checkpoint: CheckpointId },
    /// Tell the workers to snapshot their coordinators.
    SnapshotCoordinators { checkpoint: CheckpointId },
    /// Tell the workers to put barriers into their sources.
    Trigger { checkpoint: CheckpointId, kind: CheckpointKind },
    /// All parts are stored: write the metadata, move the pointer, and answer with
    /// [`on_durable`](CheckpointCoordinator::on_durable) or
    /// [`on_not_durable`](CheckpointCoordinator::on_not_durable).
    Complete(CollectedCheckpoint),
    /// Tell the workers that the checkpoint is durable, so that sinks commit.
    Notify { checkpoint: CheckpointId },
    /// Tell the workers to forget the checkpoint. Its files may still be written to.
    Abort { checkpoint: CheckpointId, reason: AbortReason },
    /// Write tombstones for these, then delete them. Nothing can be restored from them any more.
    Delete { checkpoints: Vec<CheckpointId> },
    /// The final checkpoint is durable and its sinks have been told: the tasks may finish.
    Finish,
    /// Too many checkpoints in a row have failed.
    FailJob { failure: Failure },
}

/// A checkpoint whose every part is stored, but not yet its metadata.
#[derive(Clone, PartialEq, Debug)]
pub struct CollectedCheckpoint {
    pub id: CheckpointId,
    pub kind: CheckpointKind,
    /// In the order of their subtasks.
    pub subtasks: Vec<SubtaskState>,
    pub coordinators: Vec<CoordinatorState>,
}

/// Why a checkpoint was given up.
#[derive(Clone, PartialEq, Debug)]
pub enum AbortReason {
    /// Not all parts were there in time.
    Expired { missing: usize, timeout: Duration },
    /// A task could not store its part.
    Declined(Failure),
    /// Its metadata or the pointer could not be stored.
    NotStored(Failure),
    /// A later one is durable.
    Subsumed { by: CheckpointId },
    /// The tasks that would take part have failed or were cancelled.
    TasksEnded,
}

impl AbortReason {
    /// Whether it says that something is wrong with checkpoints.
    fn is_failure(&self) -> bool {
        matches!(self, Self::Expired { .. } | Self::Declined(_) | Self::NotStored(_))
    }
}

impl fmt::Display for AbortReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired { missing, timeout } => {
                write!(f, "{missing} parts were not stored within {timeout:?} (execution.checkpointing.timeout)")
            }
            Self::Declined(failure) => write!(f, "a task declined it: {failure}"),
            Self::NotStored(failure) => write!(f, "it could not be stored: {failure}"),
            Self::Subsumed { by } => write!(f, "checkpoint {by} is complete"),
            Self::TasksEnded => f.write_str("its tasks have ended"),
        }
    }
}

/// Counts of a job's checkpoints since its JobMaster started.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CheckpointStats {
    pub triggered: u64,
    pub completed: u64,
    /// Those that expired, were declined or could not be stored.
    pub failed: u64,
    pub in_progress: u64,
    pub last_completed: Option<CompletedStats>,
    /// Why the newest of the failed ones did.
    pub last_failure: Option<String>,
}

/// The newest checkpoint that completed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CompletedStats {
    pub id: CheckpointId,
    /// From the trigger until the pointer was moved.
    pub duration: Duration,
    /// Of the files of all subtasks.
    pub state_bytes: u64,
    pub phases: CheckpointPhases,
}

/// What is in storage when a coordinator starts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// The durable checkpoints of the job.
    pub retained: Vec<CheckpointId>,
    /// Those that began and will never be complete.
    pub given_up: Vec<CheckpointId>,
    /// Higher than the number of every checkpoint that ever began.
    pub next: CheckpointId,
}

/// The decider.
#[derive(Debug)]
pub struct CheckpointCoordinator {
    config: CheckpointConfig,
    /// Who has to contribute.
    subtasks: BTreeSet<Subtask>,
    coordinators: BTreeSet<OperatorId>,
    next: CheckpointId,
    /// The generations of the job's regions, whose tasks all run; none while some do not.
    running: BTreeSet<Generation>,
    pending: BTreeMap<CheckpointId, Pending>,
    /// Durable ones of this job that are kept, ascending.
    retained: VecDeque<CheckpointId>,
    /// Those that were given up and whose files are still there.
    given_up: BTreeSet<CheckpointId>,
    failures_in_a_row: u32,
    next_periodic: Option<Moment>,
    last_end: Option<Moment>,
    requested: bool,
    last_wish: LastWish,
    stats: CheckpointStats,
}

/// How far the final checkpoint is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum LastWish {
    /// Some task still reads.
    None,
    /// All data has been read; the final checkpoint starts at this time.
    Due(Moment),
    UnderWay,
    Durable,
}

#[derive(Debug)]
struct Pending {
    kind: CheckpointKind,
    stage: Stage,
    since: Moment,
    missing_subtasks: BTreeSet<Subtask>,
    missing_coordinators: BTreeSet<OperatorId>,
    subtasks: BTreeMap<Subtask, SubtaskState>,
    coordinators: BTreeMap<OperatorId, CoordinatorState>,
    state_bytes: u64,
    /// When the barriers could go; until then, when it began.
    triggered: Moment,
    phases: CheckpointPhases,
}

/// How far a checkpoint is, in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Stage {
    /// The driver makes room for it.
    Beginning,
    /// Coordinators are snapshotted, and hold back what they send.
    Coordinators,
    /// Barriers are under way.
    Triggered,
    /// Handed to the driver to be stored.
    Completing,
}

impl Pending {
    fn missing(&self) -> usize {
        self.missing_subtasks.len() + self.missing_coordinators.len()
    }
}

impl CheckpointCoordinator {
    /// A coordinator that goes on from what another has left in storage.
    pub fn new(config: CheckpointConfig, graph: &JobGraph, found: Found) -> CheckpointCoordinator {
        let Found { retained, given_up, next } = found;
        let subtasks = graph
            .vertices
            .iter()
            .flat_map(|vertex| (0..vertex.parallelism).map(|index| Subtask { vertex: vertex.id, index }));
        let operators = graph.vertices.iter().flat_map(|vertex| &vertex.operators);
        let coordinators = operators.filter(|operator| operator.coordinator.is_some()).map(|operator| operator.id);
        let mut retained = VecDeque::from(retained);
        retained.make_contiguous().sort_unstable();
        assert!(retained.back().is_none_or(|newest| *newest < next), "checkpoint {next} would not be the newest");
        CheckpointCoordinator {
            config,
            subtasks: subtasks.collect(),
            coordinators: coordinators.collect(),
            next,
            running: BTreeSet::new(),
            pending: BTreeMap::new(),
            retained,
            given_up: given_up.into_iter().collect(),
            failures_in_a_row: 0,
            next_periodic: None,
            last_end: None,
            requested: false,
            last_wish: LastWish::None,
            stats: CheckpointStats::default(),
        }
    }

    /// All tasks of the job run, its regions at these generations: checkpoints are taken from now on.
    pub fn start(&mut self, generations: BTreeSet<Generation>, now: Moment) {
        assert!(self.pending.is_empty(), "checkpoints of other generations are under way");
        self.running = generations;
        self.next_periodic = self.config.interval.map(|interval| now + interval);
        self.failures_in_a_row = 0;
        self.last_wish = LastWish::None;
    }

    /// Some tasks have failed, were cancelled, or finish: no checkpoint can complete any more.
    pub fn stop(&mut self) -> Vec<Action> {
        self.running.clear();
        self.requested = false;
        let pending: Vec<_> = self.pending.keys().copied().collect();
        pending.into_iter().map(|checkpoint| self.abort(checkpoint, AbortReason::TasksEnded)).collect()
    }

    /// The job was restored from this checkpoint because newer ones are damaged. They no longer count as retained.
    pub fn on_restored(&mut self, checkpoint: CheckpointId) {
        while let Some(damaged) = self.retained.pop_back_if(|retained| *retained > checkpoint) {
            self.given_up.insert(damaged);
        }
    }

    /// The job was restored from a checkpoint that is not its own: its numbers go on after that one.
    pub fn continue_after(&mut self, checkpoint: CheckpointId) {
        self.next = self.next.max(CheckpointId(checkpoint.0 + 1));
    }

    /// Somebody wants a checkpoint now. It is triggered when there is room; false if none can be taken.
    pub fn request(&mut self, now: Moment) -> (bool, Vec<Action>) {
        if self.running.is_empty() || self.last_wish != LastWish::None {
            return (false, Vec::new());
        }
        self.requested = true;
        (true, self.begin(now))
    }

    /// Every task has read all of its input: one final checkpoint is taken as soon as no other is pending.
    pub fn on_end_of_data(&mut self, now: Moment) -> Vec<Action> {
        if self.last_wish == LastWish::None {
            self.last_wish = LastWish::Due(now);
        }
        self.begin(now)
    }

    /// There is room for a checkpoint that was to begin.
    pub fn on_begun(&mut self, checkpoint: CheckpointId, now: Moment) -> Vec<Action> {
        let pending = self.pending.get_mut(&checkpoint).expect("only what is to begin has begun");
        assert_eq!(pending.stage, Stage::Beginning, "checkpoint {checkpoint} begins twice");
        pending.stage = Stage::Coordinators;
        if pending.missing_coordinators.is_empty() {
            return self.trigger(checkpoint, now);
        }
        vec![Action::SnapshotCoordinators { checkpoint }]
    }

    /// A subtask's part is stored.
    pub fn on_ack(
        &mut self,
        attempt: ExecutionAttemptId,
        checkpoint: CheckpointId,
        state: SubtaskState,
        stats: SnapshotStats,
        now: Moment,
    ) -> Vec<Action> {
        let Some(pending) = self.pending_of(attempt.generation, checkpoint) else { return Vec::new() };
        // Before its barriers there is nothing of it to acknowledge.
        if pending.stage < Stage::Triggered || !pending.missing_subtasks.remove(&attempt.subtask) {
            return Vec::new();
        }
        pending.state_bytes += state.file.as_ref().map_or(0, |file| file.bytes);
        pending.phases.on_ack(attempt.subtask, &stats, now.since(pending.triggered));
        pending.subtasks.insert(attempt.subtask, SubtaskState { subtask: attempt.subtask, ..state });
        self.complete()
    }

    /// A coordinator's part has arrived. The last one lets the barriers go.
    pub fn on_coordinator_ack(
        &mut self,
        generation: Generation,
        checkpoint: CheckpointId,
        state: CoordinatorState,
        now: Moment,
    ) -> Vec<Action> {
        let Some(pending) = self.pending_of(generation, checkpoint) else { return Vec::new() };
        if pending.stage != Stage::Coordinators || !pending.missing_coordinators.remove(&state.operator) {
            return Vec::new();
        }
        pending.coordinators.insert(state.operator, state);
        if pending.missing_coordinators.is_empty() { self.trigger(checkpoint, now) } else { Vec::new() }
    }

    /// A part could not be stored.
    pub fn on_decline(
        &mut self,
        generation: Generation,
        checkpoint: CheckpointId,
        failure: Failure,
        now: Moment,
    ) -> Vec<Action> {
        // What is completing has all its parts; a decline of it is a repeated message of some other part.
        if self.pending_of(generation, checkpoint).is_none_or(|pending| pending.stage == Stage::Completing) {
            return Vec::new();
        }
        self.give_up(checkpoint, AbortReason::Declined(failure), now)
    }

    /// Metadata and pointer of a checkpoint that was to be completed are durable.
    pub fn on_durable(&mut self, checkpoint: CheckpointId, now: Moment) -> Vec<Action> {
        let pending = self.pending.remove(&checkpoint).expect("only what is completing becomes durable");
        assert!(pending.stage == Stage::Completing && pending.missing() == 0, "checkpoint {checkpoint} lacks parts");
        assert!(self.retained.back().is_none_or(|newest| *newest < checkpoint), "checkpoint {checkpoint} is not newer");
        self.retained.push_back(checkpoint);
        self.failures_in_a_row = 0;
        self.last_end = Some(now);
        self.stats.completed += 1;
        self.stats.last_completed = Some(CompletedStats {
            id: checkpoint,
            duration: now.since(pending.since),
            state_bytes: pending.state_bytes,
            phases: pending.phases,
        });

        let mut actions = vec![Action::Notify { checkpoint }];
        let older: Vec<_> = self.pending.range(..checkpoint).map(|(id, _)| *id).collect();
        for id in older {
            actions.push(self.abort(id, AbortReason::Subsumed { by: checkpoint }));
        }
        let doomed = self.doomed(checkpoint);
        if !doomed.is_empty() {
            actions.push(Action::Delete { checkpoints: doomed });
        }
        if pending.kind == CheckpointKind::Final {
            self.last_wish = LastWish::Durable;
            actions.push(Action::Finish);
        }
        actions.extend(self.complete());
        actions.extend(self.begin(now));
        actions
    }

    /// A checkpoint that was to be completed could not be made durable, as far as the driver knows.
    pub fn on_not_durable(&mut self, checkpoint: CheckpointId, failure: Failure, now: Moment) -> Vec<Action> {
        let mut actions = self.give_up(checkpoint, AbortReason::NotStored(failure), now);
        if !ends_with_failure(&actions) {
            actions.extend(self.complete());
        }
        actions
    }

    /// Room for a checkpoint that was to begin could not be made.
    pub fn on_not_begun(&mut self, checkpoint: CheckpointId, failure: Failure, now: Moment) -> Vec<Action> {
        self.give_up(checkpoint, AbortReason::NotStored(failure), now)
    }

    /// The number of a checkpoint that was to begin is taken, by a coordinator that was replaced and went on for a while:
    /// it gets the next one. That is no failure of the checkpoint.
    pub fn on_number_taken(&mut self, checkpoint: CheckpointId) -> Vec<Action> {
        let Some(pending) = self.pending.remove(&checkpoint) else { return Vec::new() };
        let next = self.next;
        self.next = CheckpointId(next.0 + 1);
        self.pending.insert(next, pending);
        vec![Action::Begin { checkpoint: next }]
    }

    /// Time has passed. To be called at [`next_deadline`](Self::next_deadline), and harmless at any other time.
    pub fn on_tick(&mut self, now: Moment) -> Vec<Action> {
        let timeout = self.config.timeout;
        let is_expired = |pending: &Pending| pending.stage < Stage::Completing && pending.since + timeout <= now;
        let expired: Vec<_> =
            self.pending.iter().filter(|(_, pending)| is_expired(pending)).map(|(id, _)| *id).collect();
        let mut actions = Vec::new();
        for checkpoint in expired {
            let missing = self.pending[&checkpoint].missing();
            actions.extend(self.give_up(checkpoint, AbortReason::Expired { missing, timeout }, now));
            if ends_with_failure(&actions) {
                return actions;
            }
        }
        actions.extend(self.begin(now));
        actions
    }

    /// When something is to be done without any message; never before all tasks run.
    pub fn next_deadline(&self) -> Option<Moment> {
        let waiting = self.pending.values().filter(|pending| pending.stage < Stage::Completing);
        let expiry = waiting.map(|pending| pending.since + self.config.timeout).min();
        let start = match self.last_wish {
            _ if self.running.is_empty() => None,
            LastWish::None if self.has_room() => self.periodic_start(),
            LastWish::Due(due) if self.pending.is_empty() => Some(due),
            _ => None,
        };
        [expiry, start].into_iter().flatten().min()
    }

    pub fn stats(&self) -> CheckpointStats {
        CheckpointStats { in_progress: self.pending.len() as u64, ..self.stats.clone() }
    }

    /// The oldest checkpoint that is under way.
    pub fn under_way(&self) -> Option<PendingStats> {
        let (id, pending) = self.pending.first_key_value()?;
        Some(PendingStats {
            id: *id,
            since: pending.since,
            is_triggered: pending.stage >= Stage::Triggered,
            missing: pending.missing_subtasks.iter().copied().collect(),
        })
    }

    /// The durable checkpoints that are kept, ascending.
    pub fn retained(&self) -> impl DoubleEndedIterator<Item = CheckpointId> {
        self.retained.iter().copied()
    }

    /// Those that were given up and whose files are still there.
    pub fn given_up(&self) -> impl Iterator<Item = CheckpointId> {
        self.given_up.iter().copied()
    }

    fn pending_of(&mut self, generation: Generation, checkpoint: CheckpointId) -> Option<&mut Pending> {
        self.pending.get_mut(&checkpoint).filter(|_| self.running.contains(&generation))
    }

    fn periodic_start(&self) -> Option<Moment> {
        let after_pause = self.last_end.map(|end| end + self.config.min_pause);
        self.next_periodic.map(|due| after_pause.map_or(due, |pause| due.max(pause)))
    }

    /// Whether one more checkpoint may begin beside those under way.
    fn has_room(&self) -> bool {
        let is_before_barriers = |pending: &Pending| pending.stage < Stage::Triggered;
        (self.pending.len() as u32) < self.config.max_concurrent && !self.pending.values().any(is_before_barriers)
    }

    /// Begins as many checkpoints as are due and have room: at most one, since the next is due an interval later.
    fn begin(&mut self, now: Moment) -> Vec<Action> {
        if self.running.is_empty() {
            return Vec::new();
        }
        let kind = match self.last_wish {
            LastWish::Due(due) if due <= now && self.pending.is_empty() => CheckpointKind::Final,
            LastWish::None => {
                let is_due = self.requested || self.periodic_start().is_some_and(|start| start <= now);
                if !is_due || !self.has_room() {
                    return Vec::new();
                }
                CheckpointKind::Checkpoint
            }
            _ => return Vec::new(),
        };
        if kind == CheckpointKind::Final {
            self.last_wish = LastWish::UnderWay;
        }
        self.requested = false;
        self.next_periodic = self.config.interval.map(|interval| now + interval);
        let checkpoint = self.next;
        self.next = CheckpointId(checkpoint.0 + 1);
        self.stats.triggered += 1;
        self.pending.insert(
            checkpoint,
            Pending {
                kind,
                stage: Stage::Beginning,
                since: now,
                missing_subtasks: self.subtasks.clone(),
                missing_coordinators: self.coordinators.clone(),
                subtasks: BTreeMap::new(),
                coordinators: BTreeMap::new(),
                state_bytes: 0,
                triggered: now,
                phases: CheckpointPhases::default(),
            },
        );
        vec![Action::Begin { checkpoint }]
    }

    /// All coordinators have acknowledged: the barriers may go, and the next checkpoint may begin.
    fn trigger(&mut self, checkpoint: CheckpointId, now: Moment) -> Vec<Action> {
        let pending = self.pending.get_mut(&checkpoint).expect("only pending checkpoints are triggered");
        assert!(pending.missing_coordinators.is_empty(), "checkpoint {checkpoint} lacks coordinators");
        pending.stage = Stage::Triggered;
        pending.triggered = now;
        pending.phases.coordinators = now.since(pending.since);
        let mut actions = vec![Action::Trigger { checkpoint, kind: pending.kind }];
        actions.extend(self.begin(now));
        actions
    }

    /// Hands the newest checkpoint that lacks nothing to the driver, one at a time.
    fn complete(&mut self) -> Vec<Action> {
        if self.pending.values().any(|pending| pending.stage == Stage::Completing) {
            return Vec::new();
        }
        let Some((id, pending)) = self.pending.iter_mut().rev().find(|(_, pending)| pending.missing() == 0) else {
            return Vec::new();
        };
        pending.stage = Stage::Completing;
        vec![Action::Complete(CollectedCheckpoint {
            id: *id,
            kind: pending.kind,
            subtasks: pending.subtasks.values().cloned().collect(),
            coordinators: pending.coordinators.values().cloned().collect(),
        })]
    }

    /// Gives up a checkpoint because of a failure, and the job after too many.
    fn give_up(&mut self, checkpoint: CheckpointId, reason: AbortReason, now: Moment) -> Vec<Action> {
        let failure = Failure::new(format!(
            "checkpoint {checkpoint} failed and {} in a row may \
             (execution.checkpointing.tolerable-failed-checkpoints): {reason}",
            self.config.tolerable_failures
        ));
        let failure = match &reason {
            AbortReason::Declined(cause) | AbortReason::NotStored(cause) => {
                Failure { message: failure.message, ..cause.clone() }
            }
            _ => failure,
        };
        self.last_end = Some(now);
        let mut actions = vec![self.abort(checkpoint, reason)];
        self.failures_in_a_row += 1;
        if self.failures_in_a_row > self.config.tolerable_failures {
            self.failures_in_a_row = 0;
            // The job's failure stops the coordinator; nothing is triggered until it is started again.
            actions.push(Action::FailJob { failure });
            return actions;
        }
        actions.extend(self.begin(now));
        actions
    }

    fn abort(&mut self, checkpoint: CheckpointId, reason: AbortReason) -> Action {
        let pending = self.pending.remove(&checkpoint).expect("only pending checkpoints are given up");
        self.given_up.insert(checkpoint);
        if pending.kind == CheckpointKind::Final {
            // Not at once: what failed would most likely fail again.
            let pause = self.config.interval.unwrap_or(self.config.min_pause);
            self.last_wish = LastWish::Due(self.last_end.unwrap_or(pending.since) + pause);
        }
        if reason.is_failure() {
            self.stats.failed += 1;
            self.stats.last_failure = Some(format!("checkpoint {checkpoint}: {reason}"));
        }
        Action::Abort { checkpoint, reason }
    }

    /// What may go now that `durable` is durable.
    fn doomed(&mut self, durable: CheckpointId) -> Vec<CheckpointId> {
        let newer = self.given_up.split_off(&durable);
        let mut doomed: Vec<_> = std::mem::replace(&mut self.given_up, newer).into_iter().collect();
        let excess = self.retained.len().saturating_sub(self.config.num_retained.max(1) as usize);
        doomed.extend(self.retained.drain(..excess));
        doomed.sort_unstable();
        doomed
    }
}

fn ends_with_failure(actions: &[Action]) -> bool {
    matches!(actions.last(), Some(Action::FailJob { .. }))
}

#[cfg(test)]
mod tests;
