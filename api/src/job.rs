//! From a planned job to a running one: executors, clients, results. What runs the job is supplied by the facade.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use millstream_model::{
    config::Configuration,
    fault::Failure,
    id::{JobId, OperatorId},
    job_graph::JobGraph,
    state::JobStatus,
};
use serde::{Deserialize, Serialize};

use crate::{
    graph::InvalidGraph,
    record::{
        Record,
        archive::{self, Aligned, Trust},
    },
};

/// Why a job did not start or did not finish.
#[derive(Clone, thiserror::Error)]
pub enum JobError {
    #[error("the job cannot be planned: {0}")]
    Invalid(#[from] InvalidGraph),
    #[error(
        "no executor: mark main() with #[millstream::main], or make the environment with \
         StreamExecutionEnvironment::local()"
    )]
    NoExecutor,
    #[error("the job could not be submitted: {0}")]
    Submission(Failure),
    #[error("job failed: {0}")]
    Failed(Failure),
    #[error("the job was cancelled")]
    Cancelled,
}

/// As `Display`: what `main` returns is shown with `Debug`, and that should be for people, too.
impl fmt::Debug for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Takes job graphs and runs them. Flink's `PipelineExecutor`.
pub trait PipelineExecutor: Send + Sync {
    /// What jobs are configured with unless the program says otherwise.
    fn configuration(&self) -> Configuration;

    /// Returns once the job is accepted.
    ///
    /// # Errors
    /// If it is refused; then nothing runs.
    fn submit(&self, graph: JobGraph) -> Result<Arc<dyn RunningJob>, JobError>;
}

/// A job that was accepted.
pub trait RunningJob: Send + Sync {
    fn status(&self) -> JobStatus;
    /// Asks the job to stop; `wait` tells when it has.
    fn cancel(&self);
    /// Blocks until the job has ended, or returns at once if it was submitted detached.
    fn wait(&self) -> FinishedJob;
    /// Sums over all running tasks since they started.
    fn progress(&self) -> JobProgress;
}

/// How far a running job has come.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct JobProgress {
    /// Records that sources have emitted.
    pub records_read: u64,
    /// Completed checkpoints.
    pub checkpoints: u64,
}

/// What is left of a job that has ended, or as much as can be known of one that was submitted detached.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FinishedJob {
    /// Not terminal if the job was submitted detached: then the rest is empty.
    pub status: JobStatus,
    pub failure: Option<Failure>,
    pub runtime: Duration,
    pub restarts: u64,
    pub checkpoints: u64,
    pub accumulators: BTreeMap<String, i64>,
    pub collected: Vec<(OperatorId, Vec<u8>)>,
}

impl FinishedJob {
    /// Of a job that was submitted detached: it runs, and nobody will tell more.
    pub fn detached() -> FinishedJob {
        FinishedJob::without_numbers(JobStatus::Running, None)
    }

    /// Of a job of which nothing is known any more but why.
    pub fn lost(failure: Failure) -> FinishedJob {
        FinishedJob::without_numbers(JobStatus::Failed, Some(failure))
    }

    fn without_numbers(status: JobStatus, failure: Option<Failure>) -> FinishedJob {
        FinishedJob {
            status,
            failure,
            runtime: Duration::ZERO,
            restarts: 0,
            checkpoints: 0,
            accumulators: BTreeMap::new(),
            collected: Vec::new(),
        }
    }
}

static DEFAULT_EXECUTOR: OnceLock<Arc<dyn PipelineExecutor>> = OnceLock::new();

/// Sets what runs the jobs of environments that were not made for another executor. The first call counts.
pub fn set_default_executor(executor: Arc<dyn PipelineExecutor>) {
    let _ = DEFAULT_EXECUTOR.set(executor);
}

pub(crate) fn default_executor() -> Option<Arc<dyn PipelineExecutor>> {
    DEFAULT_EXECUTOR.get().cloned()
}

/// A client's hold on a job that runs beside it, for as long as the process does. Dropping it does not end the job.
#[derive(Clone)]
pub struct JobClient {
    pub(crate) job_id: JobId,
    pub(crate) job: Arc<dyn RunningJob>,
}

impl JobClient {
    pub fn job_id(&self) -> JobId {
        self.job_id
    }

    pub fn status(&self) -> JobStatus {
        self.job.status()
    }

    pub fn progress(&self) -> JobProgress {
        self.job.progress()
    }

    /// Asks the job to stop; [`JobClient::result`] tells when it has.
    pub fn cancel(&self) {
        self.job.cancel();
    }

    /// Blocks until the job has ended. Of one that was submitted detached (`millstream run -d`) nothing is waited for.
    ///
    /// # Errors
    /// If it failed or was cancelled.
    pub fn result(&self) -> Result<JobExecutionResult, JobError> {
        let finished = self.job.wait();
        match (finished.status, finished.failure.clone()) {
            (JobStatus::Finished, _) => Ok(JobExecutionResult { job_id: self.job_id, finished }),
            (status, None) if !status.is_terminal() => Ok(JobExecutionResult { job_id: self.job_id, finished }),
            (JobStatus::Canceled, None) => Err(JobError::Cancelled),
            (_, failure) => {
                Err(JobError::Failed(failure.unwrap_or_else(|| Failure::new("the job ended without a cause"))))
            }
        }
    }
}

/// The result of a job that has finished.
#[derive(Clone, Debug)]
pub struct JobExecutionResult {
    job_id: JobId,
    finished: FinishedJob,
}

impl JobExecutionResult {
    pub fn job_id(&self) -> JobId {
        self.job_id
    }

    /// Whether nobody waits for the job, which runs or has ended: then there are no numbers and no records of it. Flink's
    /// `DetachedJobExecutionResult`.
    pub fn is_detached(&self) -> bool {
        !self.finished.status.is_terminal()
    }

    /// From acceptance to the end, restarts included.
    pub fn net_runtime(&self) -> Duration {
        self.finished.runtime
    }

    pub fn restarts(&self) -> u64 {
        self.finished.restarts
    }

    /// Completed checkpoints.
    pub fn checkpoints(&self) -> u64 {
        self.finished.checkpoints
    }

    /// The sum of an accumulator over all subtasks; 0 if nobody made it.
    pub fn accumulator(&self, name: &str) -> i64 {
        self.finished.accumulators.get(name).copied().unwrap_or(0)
    }

    pub fn accumulators(&self) -> &BTreeMap<String, i64> {
        &self.finished.accumulators
    }

    /// The records that a collecting sink has kept, subtask by subtask.
    ///
    /// # Panics
    /// If `collected` is of another job, or the job was submitted detached.
    pub fn collected<T: Record>(&self, collected: &Collected<T>) -> Vec<T> {
        assert!(!self.is_detached(), "the job was submitted detached: nobody waits for its records");
        let mut records = Vec::new();
        for (_, bytes) in self.finished.collected.iter().filter(|(operator, _)| *operator == collected.operator()) {
            let aligned = Aligned::copy_of(bytes);
            let mut rest = aligned.as_slice();
            while let Some((length, after)) = rest.split_first_chunk::<8>() {
                let (archive, after) = after.split_at(u64::from_le_bytes(*length) as usize);
                let record = archive::read::<T>(archive, Trust::VALIDATE);
                records.push(T::own(record.expect("the sink has written records of this type")));
                rest = &after[archive.len().next_multiple_of(8) - archive.len()..];
            }
        }
        records
    }
}

/// Names the records that a collecting sink keeps: see [`DataStream::collect`](crate::stream::DataStream::collect).
pub struct Collected<T> {
    pub(crate) operator: OperatorId,
    pub(crate) of: std::marker::PhantomData<fn() -> T>,
}

impl<T> Collected<T> {
    pub(crate) fn operator(&self) -> OperatorId {
        self.operator
    }
}
