//! How everything in a worker speaks to the JobMaster.

use crossbeam_channel::Sender;
use millstream_model::{
    fault::Failure,
    id::{ExecutionAttemptId, WorkerId},
    message::{FromWorker, Report},
    state::ExecutionState,
};

/// A way to the JobMaster; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Reporter {
    pub(crate) worker: WorkerId,
    pub(crate) reports: Sender<FromWorker>,
}

impl Reporter {
    pub(crate) fn send(&self, report: Report) {
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
