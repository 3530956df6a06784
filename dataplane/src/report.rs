//! How everything in a worker speaks to the JobMaster.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crossbeam_channel::Sender;
use millstream_model::{
    fault::Failure,
    id::{ExecutionAttemptId, Generation, WorkerId},
    message::{FromWorker, Report},
    state::ExecutionState,
};

/// A way to the JobMaster; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Reporter {
    worker: WorkerId,
    reports: Sender<FromWorker>,
    tasks: Arc<Mutex<BTreeMap<ExecutionAttemptId, LastReported>>>,
}

/// What was last reported of a task.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LastReported {
    pub(crate) state: ExecutionState,
    pub(crate) end_of_data: bool,
}

impl Reporter {
    pub(crate) fn new(worker: WorkerId, reports: Sender<FromWorker>) -> Reporter {
        Reporter { worker, reports, tasks: Arc::default() }
    }

    pub(crate) fn send(&self, report: Report) {
        // Held until the report is on its way: a new leader never hears of a change before the state that it follows.
        let mut tasks = self.lock();
        match &report {
            Report::Task { attempt, state, .. } => {
                tasks.entry(*attempt).or_insert(LastReported { state: *state, end_of_data: false }).state = *state;
            }
            Report::EndOfData { attempt } => {
                tasks.entry(*attempt).and_modify(|task| task.end_of_data = true);
            }
            _ => {}
        }
        self.pass_on(report);
    }

    /// Sends a report about what was last reported of the tasks.
    pub(crate) fn send_status(&self, report: impl FnOnce(&BTreeMap<ExecutionAttemptId, LastReported>) -> Report) {
        let tasks = self.lock();
        self.pass_on(report(&tasks));
    }

    /// Tasks of an earlier deployment are of no interest any more.
    pub(crate) fn forget_tasks(&self, generation: Generation) {
        self.lock().retain(|attempt, _| attempt.generation != generation);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ExecutionAttemptId, LastReported>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass_on(&self, report: Report) {
        // If nobody listens, the job has ended and its worker is about to.
        let _ = self.reports.send(FromWorker { worker: self.worker, report });
    }

    pub(crate) fn state(&self, attempt: ExecutionAttemptId, state: ExecutionState) {
        self.send(Report::Task { attempt, state, failure: None });
    }

    pub(crate) fn failed(&self, attempt: ExecutionAttemptId, failure: Failure) {
        self.send(Report::Task { attempt, state: ExecutionState::Failed, failure: Some(failure) });
    }
}
