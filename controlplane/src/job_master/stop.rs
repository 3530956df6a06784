//! How a job's tasks are brought to their end, and how the job ends after them.

use std::collections::BTreeMap;

use millstream_model::{
    config::CheckpointRetention,
    fault::Failure,
    message::Command,
    state::{ExecutionState, JobStatus},
};

use super::{
    JobMaster,
    checkpointing::answer_to,
    handle::CheckpointRefused,
    outcome::{JobOutcome, JobTimings},
    phase::{AfterStop, Phase},
};
use crate::{
    cause::with_causes,
    clock::Moment,
    execution_graph::Execution,
    store::{JobResult, StoreError},
};

impl JobMaster {
    pub(super) fn on_cancel(&mut self, now: Moment) {
        match self.phase {
            Phase::Running(_) => {
                self.execution.become_status(JobStatus::Cancelling, now);
                self.stop_tasks(AfterStop::Cancel, now);
            }
            Phase::Adopting(_) => {
                self.execution.become_status(JobStatus::Created, now);
                self.execution.become_status(JobStatus::Cancelling, now);
                self.end(JobStatus::Canceled, None, now);
            }
            // A job that fails anyway keeps its failure.
            Phase::Prepared | Phase::Stopping { .. } | Phase::Ended => {}
        }
    }

    /// The job has failed, and ends when its tasks have.
    pub(super) fn fail_job(&mut self, failure: Failure, now: Moment) {
        if !self.has_run() {
            return self.cannot_start(failure, now);
        }
        self.execution.become_status(JobStatus::Failing, now);
        self.view.lock().metrics.last_failure = Some(failure.clone());
        self.stop_tasks(AfterStop::Fail(failure), now);
    }

    /// Tells all tasks to end, and their checkpoints with them.
    pub(super) fn stop_tasks(&mut self, then: AfterStop, now: Moment) {
        let aborts = self.checkpoints.stop();
        self.apply(aborts, now);
        self.refuse_asked();
        for region in self.regions.all() {
            self.execution.cancel(self.regions.subtasks(region).iter().copied(), now);
        }
        self.send_cancel();
        self.phase = Phase::Stopping { then, ending: self.cancellation.begin(now) };
    }

    /// Tells those once more that have not ended.
    pub(super) fn send_cancel(&self) {
        for region in self.regions.all() {
            let mut executions = self.execution.executions_of(self.regions.subtasks(region));
            if executions.any(|execution| !execution.state().is_terminal()) {
                self.send_to_region(region, |generation| Command::Cancel { generation });
            }
        }
    }

    /// Some tasks did not end when they were told to. Nothing may be deployed beside them.
    pub(super) fn on_stuck(&mut self, now: Moment) {
        let timeout = self.cancellation.timeout.unwrap_or_default();
        let stuck = format!(
            "these tasks have not ended within {timeout:?} (task.cancellation.timeout), most likely because a function \
             blocks: {}",
            self.names_of_leaving().join(", ")
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

    pub(super) fn on_stopped(&mut self, now: Moment) {
        let Phase::Stopping { then, .. } = &self.phase else { unreachable!("only called while stopping") };
        match then.clone() {
            AfterStop::Fail(failure) => self.fail(failure, now),
            AfterStop::Cancel => self.end(JobStatus::Canceled, None, now),
        }
    }

    /// Those that were told to end and have not, by name.
    fn names_of_leaving(&self) -> Vec<String> {
        let is_leaving = |execution: &Execution| execution.state() == ExecutionState::Canceling;
        let vertices = self.execution.vertices().iter();
        let leaving = vertices.filter(|vertex| vertex.current.as_ref().is_some_and(is_leaving));
        leaving.map(|vertex| format!("{} ({})", vertex.name, vertex.subtask.index)).collect()
    }

    /// It did not run, so there is no result to store and nothing of it to delete: it may be tried again.
    pub(super) fn cannot_start(&mut self, failure: Failure, now: Moment) {
        tracing::warn!(job = %self.graph.job_id, %failure, "the job cannot start");
        if self.execution.status() == JobStatus::Created {
            self.execution.become_status(JobStatus::Failing, now);
        }
        self.execution.become_status(JobStatus::Failed, now);
        self.workers.send_to_all(self.epoch, &Command::Shutdown);
        self.show_end(JobStatus::Failed, Some(failure), now);
    }

    /// The job has failed, and ends at once.
    fn fail(&mut self, failure: Failure, now: Moment) {
        if self.execution.status() != JobStatus::Failing {
            self.execution.become_status(JobStatus::Failing, now);
        }
        self.end(JobStatus::Failed, Some(failure), now);
    }

    /// Ends the job for good: the result is stored before anything is deleted.
    pub(super) fn end(&mut self, status: JobStatus, failure: Option<Failure>, now: Moment) {
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
        self.workers.send_to_all(self.epoch, &Command::Shutdown);
        self.show_end(status, failure, now);
    }

    /// Another coordinator leads the job: whatever this one did now would be refused, so it does nothing more.
    pub(super) fn on_leadership_lost(&mut self, error: &StoreError, now: Moment) {
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
}

pub(super) fn not_leading(error: &StoreError) -> Failure {
    Failure::new(format!("this coordinator does not lead the job any more: {}", with_causes(error)))
}
