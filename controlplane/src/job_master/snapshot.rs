//! A job's execution graph at one moment, for those who look at it from outside.

use millstream_model::{
    id::{SlotIndex, Subtask, WorkerId},
    message::TaskMetrics,
    rates::TaskRates,
    state::{ExecutionState, JobStatus},
};

use super::{JobMaster, outcome::JobMetrics};
use crate::{
    checkpoint::PendingStats,
    clock::Moment,
    execution_graph::{ExecutionGraph, ExecutionVertex},
};

/// A job and all of its tasks.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ExecutionSnapshot {
    pub taken_at: Moment,
    /// When the job entered each state so far, in order.
    pub history: Vec<(JobStatus, Moment)>,
    /// In the order of the job graph's vertices, and by index within each.
    pub tasks: Vec<TaskSnapshot>,
    /// The oldest checkpoint that is not complete.
    pub checkpoint_under_way: Option<PendingStats>,
}

/// The newest attempt of a subtask.
#[derive(Clone, PartialEq, Debug)]
pub struct TaskSnapshot {
    pub subtask: Subtask,
    /// Where it runs or has run; `None` before its first deployment.
    pub place: Option<(WorkerId, SlotIndex)>,
    /// Created, before its first deployment.
    pub state: ExecutionState,
    /// When it entered each state so far, in order.
    pub history: Vec<(ExecutionState, Moment)>,
    /// `None` before it has reported any.
    pub metrics: Option<TaskMetrics>,
    /// `None` before it has reported any twice.
    pub rates: Option<TaskRates>,
}

/// How many tasks are in each state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TaskCounts([u32; ExecutionState::ALL.len()]);

impl TaskCounts {
    /// Counts one more.
    pub fn add(&mut self, state: ExecutionState) {
        self.0[state as usize] += 1;
    }

    pub fn of(&self, state: ExecutionState) -> u32 {
        self.0[state as usize]
    }

    pub fn total(&self) -> u32 {
        self.0.iter().sum()
    }
}

impl TaskSnapshot {
    fn of(vertex: &ExecutionVertex, metrics: &JobMetrics) -> TaskSnapshot {
        let execution = vertex.current.as_ref();
        TaskSnapshot {
            subtask: vertex.subtask,
            place: execution.map(|execution| (execution.worker, execution.slot)),
            state: state_of(vertex),
            history: execution.map(|execution| execution.history().to_vec()).unwrap_or_default(),
            metrics: metrics.tasks.get(&vertex.subtask).copied(),
            rates: metrics.rates.get(&vertex.subtask).copied(),
        }
    }
}

impl JobMaster {
    pub(super) fn snapshot(&self, now: Moment) -> ExecutionSnapshot {
        let view = self.view.lock();
        let vertices = self.execution.vertices().iter();
        ExecutionSnapshot {
            taken_at: now,
            history: self.execution.history().to_vec(),
            tasks: vertices.map(|vertex| TaskSnapshot::of(vertex, &view.metrics)).collect(),
            checkpoint_under_way: self.checkpoints.under_way(),
        }
    }
}

/// How many tasks are in each state, and when any of them, or the job, last changed.
pub(super) fn count(execution: &ExecutionGraph) -> (TaskCounts, Moment) {
    let mut counts = TaskCounts::default();
    let mut changed = execution.history().last().map(|(_, at)| *at).unwrap_or_default();
    for vertex in execution.vertices() {
        counts.add(state_of(vertex));
        let last = vertex.current.as_ref().and_then(|execution| execution.history().last());
        changed = last.map_or(changed, |(_, at)| changed.max(*at));
    }
    (counts, changed)
}

/// One that was never deployed is created, as in Flink.
fn state_of(vertex: &ExecutionVertex) -> ExecutionState {
    vertex.current.as_ref().map_or(ExecutionState::Created, |execution| execution.state())
}
