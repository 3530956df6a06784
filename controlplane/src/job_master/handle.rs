//! What others hold of a job that runs: questions, requests, and the wait for its end.

use std::{
    convert::Infallible,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crossbeam_channel::{Receiver, SendTimeoutError, Sender, bounded, select};
use millstream_model::{
    id::{CheckpointId, JobId},
    state::JobStatus,
};

use super::{
    outcome::{JobMetrics, JobOutcome},
    snapshot::ExecutionSnapshot,
};

/// Requests that may wait for the JobMaster; whoever makes one more waits, too.
const REQUESTS_MAX: usize = 16;

/// A job that runs or has ended. Clones are handles to the same job; dropping them does not end it.
#[derive(Clone, Debug)]
pub struct JobHandle {
    job: JobId,
    requests: Sender<Request>,
    view: Arc<View>,
    /// Disconnected when nobody answers requests any more.
    ended: Receiver<Infallible>,
}

/// The JobMaster's side of its handles.
#[derive(Debug)]
pub(super) struct HandleSide {
    pub(super) requests: Receiver<Request>,
    pub(super) view: Arc<View>,
    /// To be dropped when no request is answered any more. A request may be left in the channel then, and would keep
    /// whoever made it waiting.
    pub(super) alive: Sender<Infallible>,
}

/// What a handle asks of the JobMaster's loop.
#[derive(Debug)]
pub(super) enum Request {
    Cancel,
    /// The answer comes when the checkpoint is durable or given up.
    Checkpoint(Sender<Result<CheckpointId, CheckpointRefused>>),
    Snapshot(Sender<ExecutionSnapshot>),
}

/// The JobMaster has not answered in time: it is busy, with a slow disk most likely.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the JobMaster of job {job} is busy and has not answered within {waited:?}")]
pub struct Busy {
    pub job: JobId,
    pub waited: Duration,
}

/// No checkpoint was taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CheckpointRefused {
    #[error("job {job} has no directory for checkpoints: set execution.checkpointing.dir")]
    NoDirectory { job: JobId },
    #[error("not all tasks of job {job} run, or they have read all of their input; its status is {status:?}")]
    NotRunning { job: JobId, status: JobStatus },
    #[error("checkpoint {checkpoint} was given up: {reason}")]
    GivenUp { checkpoint: CheckpointId, reason: String },
    #[error("job {job} has ended")]
    Ended { job: JobId },
}

impl JobHandle {
    pub(super) fn new(job: JobId) -> (JobHandle, HandleSide) {
        let (sender, requests) = bounded(REQUESTS_MAX);
        let (alive, ended) = bounded(0);
        let view = Arc::new(View::default());
        (JobHandle { job, requests: sender, view: view.clone(), ended }, HandleSide { requests, view, alive })
    }

    pub fn job(&self) -> JobId {
        self.job
    }

    pub fn status(&self) -> JobStatus {
        self.view.lock().status
    }

    /// Asks for the end of the job and returns at once. A job that has ended stays as it is.
    pub fn cancel(&self) {
        // If nobody receives it, the job has ended.
        let _ = self.requests.send(Request::Cancel);
    }

    /// Waits until the job has ended.
    pub fn wait(&self) -> JobOutcome {
        let mut state = self.view.lock();
        loop {
            match &state.outcome {
                Some(outcome) => return outcome.clone(),
                None => state = self.view.ended.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// How the job ended, if it has.
    pub fn outcome(&self) -> Option<JobOutcome> {
        self.view.lock().outcome.clone()
    }

    /// The newest numbers. They stay when the job has ended.
    pub fn metrics(&self) -> JobMetrics {
        self.view.lock().metrics.clone()
    }

    /// All tasks as they are now, or were when the job ended; `None` if it ended before there were any. Waits for the
    /// JobMaster, twice `limit` at most.
    ///
    /// # Errors
    /// If it takes longer.
    pub fn execution(&self, limit: Duration) -> Result<Option<ExecutionSnapshot>, Busy> {
        let busy = Busy { job: self.job, waited: limit };
        let (sender, receiver) = bounded(1);
        match self.requests.send_timeout(Request::Snapshot(sender), limit) {
            Ok(()) => select! {
                recv(receiver) -> answer => if let Ok(snapshot) = answer {
                    return Ok(Some(snapshot));
                },
                recv(self.ended) -> _ => {}
                default(limit) => return Err(busy),
            },
            Err(SendTimeoutError::Timeout(_)) => return Err(busy),
            Err(SendTimeoutError::Disconnected(_)) => {}
        }
        // Nobody answers any more, so the last one is there.
        Ok(self.view.lock().last_snapshot.clone())
    }

    /// Takes a checkpoint now, and waits until it is durable.
    pub fn trigger_checkpoint(&self) -> Result<CheckpointId, CheckpointRefused> {
        let (sender, receiver) = bounded(1);
        let ended = CheckpointRefused::Ended { job: self.job };
        self.requests.send(Request::Checkpoint(sender)).map_err(|_| ended.clone())?;
        select! {
            recv(receiver) -> answer => answer.unwrap_or(Err(ended)),
            // The answer may have come just before the end.
            recv(self.ended) -> _ => receiver.try_recv().unwrap_or(Err(ended)),
        }
    }
}

/// What the JobMaster shows to its handles.
#[derive(Debug, Default)]
pub(super) struct View {
    state: Mutex<ViewState>,
    ended: Condvar,
}

#[derive(Debug)]
pub(super) struct ViewState {
    pub(super) status: JobStatus,
    pub(super) metrics: JobMetrics,
    /// There once no request is answered any more.
    pub(super) last_snapshot: Option<ExecutionSnapshot>,
    outcome: Option<JobOutcome>,
}

impl Default for ViewState {
    fn default() -> ViewState {
        let (status, metrics) = (JobStatus::Initializing, JobMetrics::default());
        ViewState { status, metrics, last_snapshot: None, outcome: None }
    }
}

impl View {
    pub(super) fn lock(&self) -> MutexGuard<'_, ViewState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows the end of the job. The first one counts.
    pub(super) fn end(&self, outcome: JobOutcome) {
        let mut state = self.lock();
        state.status = outcome.status;
        state.outcome.get_or_insert(outcome);
        self.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_is_still_in_the_channel_at_the_end_is_answered() {
        let (handle, side) = JobHandle::new(JobId(1));
        let asking = std::thread::spawn(move || handle.trigger_checkpoint());
        while side.requests.is_empty() {
            std::thread::yield_now();
        }
        drop(side);
        assert_eq!(asking.join().unwrap(), Err(CheckpointRefused::Ended { job: JobId(1) }));
    }

    #[test]
    fn a_jobmaster_that_is_busy_is_not_waited_for_and_one_that_has_ended_is_not_missed() {
        let (handle, side) = JobHandle::new(JobId(1));
        let limit = Duration::from_millis(1);
        assert_eq!(handle.execution(limit), Err(Busy { job: JobId(1), waited: limit }));
        let last = ExecutionSnapshot::default();
        side.view.lock().last_snapshot = Some(last.clone());
        drop(side);
        assert_eq!(handle.execution(Duration::from_secs(60)), Ok(Some(last)));
    }
}
