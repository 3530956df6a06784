//! The parallel form of a job: every subtask, its current attempt, and the state of the job.
//!
//! A decider: it is told what workers report and answers what that changed. Legal changes are those of
//! [`model::state`](millstream_model::state).

use std::collections::{BTreeSet, HashMap};

use millstream_model::{
    deployment::Placement,
    fault::Failure,
    id::{ExecutionAttemptId, Generation, SlotIndex, Subtask, WorkerId},
    job_graph::JobGraph,
    message::{TaskMetrics, TaskResult},
    state::{ExecutionState, JobStatus},
};

use crate::clock::Moment;

/// All subtasks of a job.
#[derive(Debug)]
pub struct ExecutionGraph {
    vertices: Vec<ExecutionVertex>,
    index: HashMap<Subtask, usize>,
    status: JobStatus,
    /// When the job entered each state, in order; one entry per change.
    history: Vec<(JobStatus, Moment)>,
}

/// One subtask, across its attempts.
#[derive(Debug)]
pub struct ExecutionVertex {
    pub subtask: Subtask,
    /// The name of the vertex.
    pub name: String,
    /// The newest attempt; `None` before the first deployment.
    pub current: Option<Execution>,
}

/// One try of a subtask.
#[derive(Debug)]
pub struct Execution {
    pub attempt: ExecutionAttemptId,
    pub worker: WorkerId,
    /// Of the worker.
    pub slot: SlotIndex,
    state: ExecutionState,
    /// When it entered each state, in order.
    history: Vec<(ExecutionState, Moment)>,
    /// Whether it has read all of its bounded input.
    pub end_of_data: bool,
    pub failure: Option<Failure>,
    pub result: Option<TaskResult>,
    pub metrics: TaskMetrics,
}

/// What a report meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    Changed(ExecutionState),
    /// It was late, repeated, or of another generation.
    Ignored,
}

/// A worker reported a change that no attempt can make.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("task {subtask} was reported to be {to:?}, which cannot follow {from:?}: a bug of the worker", subtask = .attempt.subtask)]
pub struct IllegalChange {
    pub attempt: ExecutionAttemptId,
    pub from: ExecutionState,
    pub to: ExecutionState,
}

impl ExecutionGraph {
    pub fn new(graph: &JobGraph, now: Moment) -> ExecutionGraph {
        let subtasks = |vertex: &millstream_model::job_graph::JobVertex| {
            let (id, name) = (vertex.id, vertex.name.clone());
            (0..vertex.parallelism).map(move |index| ExecutionVertex {
                subtask: Subtask { vertex: id, index },
                name: name.clone(),
                current: None,
            })
        };
        let vertices: Vec<ExecutionVertex> = graph.vertices.iter().flat_map(subtasks).collect();
        let index = vertices.iter().enumerate().map(|(place, vertex)| (vertex.subtask, place)).collect();
        ExecutionGraph {
            vertices,
            index,
            status: JobStatus::Initializing,
            history: vec![(JobStatus::Initializing, now)],
        }
    }

    pub fn status(&self) -> JobStatus {
        self.status
    }

    /// When the job entered each state so far.
    pub fn history(&self) -> &[(JobStatus, Moment)] {
        &self.history
    }

    /// Changes the state of the job.
    ///
    /// # Panics
    /// If the table of legal changes does not have this one.
    pub fn become_status(&mut self, next: JobStatus, now: Moment) {
        assert!(self.status.may_become(next), "a job that is {:?} cannot become {next:?}", self.status);
        self.status = next;
        self.history.push((next, now));
    }

    /// Begins an attempt of every subtask that is placed. Its deployment is under way from now on.
    ///
    /// # Panics
    /// If the attempt before has not ended.
    pub fn deploy(&mut self, generation: Generation, placements: &[Placement], now: Moment) {
        for placement in placements {
            let vertex = &mut self.vertices[self.index[&placement.subtask]];
            let ended = vertex.current.as_ref().is_none_or(|execution| execution.state.is_terminal());
            assert!(ended, "{} is deployed again before it ended", placement.subtask);
            let attempt = ExecutionAttemptId { subtask: placement.subtask, generation };
            let mut execution = Execution::new(attempt, placement, now);
            execution.enter(ExecutionState::Scheduled, now);
            execution.enter(ExecutionState::Deploying, now);
            vertex.current = Some(execution);
        }
    }

    /// These attempts were deployed by an earlier leader, and run.
    pub fn adopt(&mut self, generation: Generation, placements: &[Placement], now: Moment) {
        self.deploy(generation, placements, now);
        for execution in self.executions_of_mut(placements.iter().map(|placement| placement.subtask)) {
            execution.enter(ExecutionState::Initializing, now);
            execution.enter(ExecutionState::Running, now);
        }
    }

    /// These attempts were deployed by an earlier leader, have not ended, and are told to.
    pub fn take_over_to_cancel(&mut self, generation: Generation, placements: &[Placement], now: Moment) {
        self.deploy(generation, placements, now);
        self.cancel(placements.iter().map(|placement| placement.subtask), now);
    }

    /// A worker has reported the state of an attempt.
    pub fn on_report(
        &mut self,
        attempt: ExecutionAttemptId,
        state: ExecutionState,
        failure: Option<Failure>,
        now: Moment,
    ) -> Result<Effect, IllegalChange> {
        let Some(execution) = self.execution_mut(attempt) else { return Ok(Effect::Ignored) };
        let next = match (execution.state, state) {
            // It finished before it heard that it was cancelled. Flink's `Execution.markFinished` does the same.
            (ExecutionState::Canceling, ExecutionState::Finished) => ExecutionState::Canceled,
            (from, to) if from.is_terminal() || order(to) <= order(from) => return Ok(Effect::Ignored),
            (_, to) => to,
        };
        if !execution.state.may_become(next) {
            return Err(IllegalChange { attempt, from: execution.state, to: state });
        }
        execution.enter(next, now);
        execution.failure = failure;
        Ok(Effect::Changed(next))
    }

    /// An attempt has read all of its input. Whether that is news.
    pub fn on_end_of_data(&mut self, attempt: ExecutionAttemptId) -> bool {
        self.execution_mut(attempt).is_some_and(|execution| !std::mem::replace(&mut execution.end_of_data, true))
    }

    pub fn on_result(&mut self, attempt: ExecutionAttemptId, result: TaskResult) {
        if let Some(execution) = self.execution_mut(attempt) {
            execution.result = Some(result);
        }
    }

    /// Whether the attempt is the current one, so that its numbers count.
    pub fn on_metrics(&mut self, attempt: ExecutionAttemptId, metrics: TaskMetrics) -> bool {
        self.execution_mut(attempt).map(|execution| execution.metrics = metrics).is_some()
    }

    /// The attempts of these subtasks that have not ended are told to; they end when their workers say so.
    pub fn cancel(&mut self, subtasks: impl IntoIterator<Item = Subtask>, now: Moment) {
        let alive =
            self.executions_of_mut(subtasks).filter(|execution| execution.state.may_become(ExecutionState::Canceling));
        alive.for_each(|execution| execution.enter(ExecutionState::Canceling, now));
    }

    /// A worker is gone, and its tasks with it. They are not waited for. Those that had not ended.
    pub fn on_worker_failed(&mut self, worker: WorkerId, failure: &Failure, now: Moment) -> Vec<Subtask> {
        let executions = self.vertices.iter_mut().filter_map(|vertex| vertex.current.as_mut());
        let lost = executions.filter(|execution| execution.worker == worker && !execution.state.is_terminal());
        let fail = |execution: &mut Execution| {
            execution.enter(ExecutionState::Failed, now);
            execution.failure = Some(failure.clone());
            execution.attempt.subtask
        };
        lost.map(fail).collect()
    }

    /// In topological order of the vertices, and by index within each.
    pub fn vertices(&self) -> &[ExecutionVertex] {
        &self.vertices
    }

    pub fn vertex(&self, subtask: Subtask) -> Option<&ExecutionVertex> {
        self.index.get(&subtask).map(|place| &self.vertices[*place])
    }

    /// The current attempts; none of a subtask that was never deployed.
    pub fn executions(&self) -> impl Iterator<Item = &Execution> {
        self.vertices.iter().filter_map(|vertex| vertex.current.as_ref())
    }

    /// Whether every subtask is in this state.
    pub fn all_are(&self, state: ExecutionState) -> bool {
        self.all(|execution| execution.state == state)
    }

    /// Whether every subtask has read all of its input.
    pub fn all_at_end_of_data(&self) -> bool {
        self.all(|execution| execution.end_of_data)
    }

    /// Whether no attempt can change any more; true before the first deployment.
    pub fn all_terminal(&self) -> bool {
        self.executions().all(|execution| execution.state.is_terminal())
    }

    /// The current attempts of these subtasks.
    pub fn executions_of<'a>(&'a self, subtasks: &'a [Subtask]) -> impl Iterator<Item = &'a Execution> {
        subtasks.iter().filter_map(|subtask| self.vertex(*subtask)?.current.as_ref())
    }

    fn all(&self, condition: impl Fn(&Execution) -> bool) -> bool {
        self.vertices.iter().all(|vertex| vertex.current.as_ref().is_some_and(&condition))
    }

    fn execution_mut(&mut self, attempt: ExecutionAttemptId) -> Option<&mut Execution> {
        let vertex = &mut self.vertices[*self.index.get(&attempt.subtask)?];
        vertex.current.as_mut().filter(|execution| execution.attempt == attempt)
    }

    fn executions_of_mut(
        &mut self,
        subtasks: impl IntoIterator<Item = Subtask>,
    ) -> impl Iterator<Item = &mut Execution> {
        let places: BTreeSet<usize> =
            subtasks.into_iter().filter_map(|subtask| self.index.get(&subtask).copied()).collect();
        let vertices = self.vertices.iter_mut().enumerate();
        vertices.filter(move |(place, _)| places.contains(place)).filter_map(|(_, vertex)| vertex.current.as_mut())
    }
}

impl Execution {
    fn new(attempt: ExecutionAttemptId, placement: &Placement, now: Moment) -> Execution {
        Execution {
            attempt,
            worker: placement.worker,
            slot: placement.slot,
            state: ExecutionState::Created,
            history: vec![(ExecutionState::Created, now)],
            end_of_data: false,
            failure: None,
            result: None,
            metrics: TaskMetrics::default(),
        }
    }

    pub fn state(&self) -> ExecutionState {
        self.state
    }

    /// When it entered each state so far.
    pub fn history(&self) -> &[(ExecutionState, Moment)] {
        &self.history
    }

    fn enter(&mut self, next: ExecutionState, now: Moment) {
        assert!(self.state.may_become(next), "{} is {:?} and cannot become {next:?}", self.attempt.subtask, self.state);
        self.state = next;
        self.history.push((next, now));
    }
}

/// States in the order in which an attempt passes them, to know a late report.
fn order(state: ExecutionState) -> u8 {
    match state {
        ExecutionState::Created => 0,
        ExecutionState::Scheduled => 1,
        ExecutionState::Deploying => 2,
        ExecutionState::Initializing => 3,
        ExecutionState::Running => 4,
        ExecutionState::Canceling => 5,
        ExecutionState::Finished | ExecutionState::Canceled | ExecutionState::Failed => 6,
    }
}

#[cfg(test)]
mod tests {
    use millstream_model::id::JobVertexId;

    use super::*;
    use crate::job_master::fixture::{graph, vertex};

    const NOW: Moment = Moment(std::time::Duration::ZERO);

    fn attempt(generation: u64, index: u32) -> ExecutionAttemptId {
        let subtask = Subtask { vertex: JobVertexId(1), index };
        ExecutionAttemptId { subtask, generation: Generation(generation) }
    }

    fn deployed(generation: u64) -> ExecutionGraph {
        let mut execution = ExecutionGraph::new(&graph(&[vertex(1, 2)], &[]), NOW);
        deploy(&mut execution, generation);
        execution
    }

    fn deploy(execution: &mut ExecutionGraph, generation: u64) {
        let placement = |index| Placement {
            subtask: attempt(generation, index).subtask,
            worker: WorkerId(index),
            slot: SlotIndex(0),
        };
        execution.deploy(Generation(generation), &[placement(0), placement(1)], NOW);
    }

    fn report(execution: &mut ExecutionGraph, attempt: ExecutionAttemptId, state: ExecutionState) -> Effect {
        execution.on_report(attempt, state, None, NOW).unwrap()
    }

    #[test]
    fn a_task_passes_its_states_in_order_and_late_reports_change_nothing() {
        use ExecutionState::*;
        let mut execution = deployed(1);
        assert_eq!(report(&mut execution, attempt(1, 0), Deploying), Effect::Ignored);
        for state in [Initializing, Running, Finished] {
            assert_eq!(report(&mut execution, attempt(1, 0), state), Effect::Changed(state));
            assert_eq!(report(&mut execution, attempt(1, 0), state), Effect::Ignored);
        }
        assert_eq!(report(&mut execution, attempt(1, 0), Failed), Effect::Ignored);
        let states: Vec<_> = execution.executions().next().unwrap().history().iter().map(|(state, _)| *state).collect();
        assert_eq!(states, [Created, Scheduled, Deploying, Initializing, Running, Finished]);
    }

    #[test]
    fn an_older_generations_report_changes_nothing() {
        use ExecutionState::*;
        let mut execution = deployed(1);
        execution.cancel([attempt(1, 0).subtask, attempt(1, 1).subtask], NOW);
        report(&mut execution, attempt(1, 0), Canceled);
        report(&mut execution, attempt(1, 1), Failed);
        deploy(&mut execution, 2);
        assert_eq!(report(&mut execution, attempt(1, 0), Failed), Effect::Ignored);
        assert!(!execution.on_end_of_data(attempt(1, 0)));
        assert!(execution.all_are(Deploying));
    }

    #[test]
    fn a_task_that_finished_before_it_heard_of_its_end_counts_as_cancelled() {
        use ExecutionState::*;
        let mut execution = deployed(1);
        report(&mut execution, attempt(1, 0), Initializing);
        report(&mut execution, attempt(1, 0), Running);
        execution.cancel([attempt(1, 0).subtask, attempt(1, 1).subtask], NOW);
        assert_eq!(report(&mut execution, attempt(1, 0), Finished), Effect::Changed(Canceled));
    }

    #[test]
    fn an_impossible_change_is_an_error_that_names_both_states() {
        let mut execution = deployed(1);
        let error = execution.on_report(attempt(1, 0), ExecutionState::Running, None, NOW).unwrap_err();
        assert_eq!((error.from, error.to), (ExecutionState::Deploying, ExecutionState::Running));
    }

    #[test]
    fn the_tasks_of_a_lost_worker_are_not_waited_for() {
        let mut execution = deployed(1);
        execution.on_worker_failed(WorkerId(1), &Failure::new("gone"), NOW);
        assert!(!execution.all_terminal());
        execution.on_worker_failed(WorkerId(0), &Failure::new("gone"), NOW);
        assert!(execution.all_terminal());
    }

    #[test]
    #[should_panic(expected = "cannot become")]
    fn a_job_never_makes_an_illegal_change() {
        ExecutionGraph::new(&graph(&[vertex(1, 1)], &[]), NOW).become_status(JobStatus::Finished, NOW);
    }
}
