//! Programs that run beside the JobManager: an artifact's `main()`, in a process of its own in the role `plan`, whose
//! job runs on this cluster.
//!
//! ```text
//!   run_detached ──► the process ──┬─ its execute() ──► accept ──► the job's id; main() goes on
//!                                  ├─ its end ────────► how it ended, and its last words
//!                                  └─ the time-out ───► it is killed
//! ```
//! It ends with this process at the latest.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use millstream::job::{FinishedJob, JobProgress};
use millstream_model::{
    config::{Configuration, WEB_TIMEOUT},
    fault::Failure,
    id::JobId,
    job_graph::JobGraph,
    state::JobStatus,
};
use tokio::{
    sync::{Semaphore, oneshot},
    task::JoinHandle,
    time::sleep,
};

use super::{calls, cluster::Cluster, submission::accept};
use crate::{
    artifacts::Artifacts,
    program::{LastWords, NoJob, ProgramCalls, ProgramLine, process::ProgramProcess},
};

/// Programs that have not executed anything yet.
const STARTING_MAX: usize = 16;
/// Starts programs.
#[derive(Clone)]
pub(super) struct Programs {
    cluster: Cluster,
    artifacts: Arc<Artifacts>,
    /// Until a program executes its job.
    limit: Duration,
    room: Arc<Semaphore>,
}

/// A program and what it gets.
#[derive(Debug)]
pub(super) struct Invocation {
    pub(super) artifact: PathBuf,
    pub(super) arguments: Vec<String>,
}

/// Why a program has executed no job.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotExecuted {
    #[error("{} programs are being started already; try again", STARTING_MAX)]
    Busy,
    #[error("the program cannot be started: {0}")]
    Unstartable(#[from] io::Error),
    #[error("main() has not called execute() within {limit:?} ({}) and was ended{last_words}", WEB_TIMEOUT.name())]
    Hangs { limit: Duration, last_words: LastWords },
    #[error("its job was not accepted: {0}")]
    NotAccepted(Failure),
    #[error(transparent)]
    NoJob(#[from] NoJob),
}

impl Programs {
    /// # Errors
    /// If the configuration has a bad value.
    pub(super) fn new(
        configuration: &Configuration,
        cluster: Cluster,
        artifacts: Arc<Artifacts>,
    ) -> Result<Programs, Failure> {
        let limit = configuration.get(&WEB_TIMEOUT)?;
        Ok(Programs { cluster, artifacts, limit, room: Arc::new(Semaphore::new(STARTING_MAX)) })
    }

    /// Runs a program until it has executed its one job, and lets it go on: nobody waits for the job, so `execute()`
    /// comes back with no more than its id. The program is ended as it is said here also if nobody waits for this.
    pub(super) async fn run_detached(&self, invocation: Invocation) -> Result<JobId, NotExecuted> {
        let permit = self.room.clone().try_acquire_owned().map_err(|_| NotExecuted::Busy)?;
        let line = ProgramLine::open()?;
        let (submitted, job) = oneshot::channel();
        let calls = Arc::new(DetachedCalls {
            cluster: self.cluster.clone(),
            artifacts: self.artifacts.clone(),
            submitted: Mutex::new(Some(submitted)),
            refused: Mutex::default(),
        });
        let mut command = line.command(&invocation.artifact);
        command.args(&invocation.arguments);
        let process = ProgramProcess::start(command).await?;
        let name = invocation.artifact.file_name().unwrap_or_default().to_string_lossy().into_owned();
        tracing::info!(artifact = name, process = process.id(), "a program is started beside the JobManager");
        let serving = tokio::spawn(line.serve(calls.clone()));
        let mut program = Program { process, serving, calls, name };
        let (answer, answered) = oneshot::channel();
        let limit = self.limit;
        tokio::spawn(async move {
            let executed = program.executed(job, limit).await;
            drop(permit);
            let goes_on = executed.is_ok();
            // Whoever has asked may be gone; what was submitted runs all the same.
            let _ = answer.send(executed);
            if goes_on {
                program.end().await;
            }
        });
        answered.await.unwrap_or_else(|_| Err(io::Error::other("the JobManager is ending").into()))
    }
}

/// A program that runs. It is killed when this is dropped.
struct Program {
    process: ProgramProcess,
    serving: JoinHandle<()>,
    calls: Arc<DetachedCalls>,
    /// For the log.
    name: String,
}

impl Drop for Program {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Program {
    /// Waits until it has executed its job.
    async fn executed(&mut self, job: oneshot::Receiver<JobId>, limit: Duration) -> Result<JobId, NotExecuted> {
        let ended = tokio::select! {
            // It may have ended right after that, so this is looked at first.
            biased;
            Ok(job) = job => return Ok(job),
            ended = self.process.wait() => Some(ended?),
            () = sleep(limit) => None,
        };
        let Some(status) = ended else {
            self.process.kill().await?;
            return Err(NotExecuted::Hangs { limit, last_words: self.process.last_words().await });
        };
        // What it made of a refusal says less than the refusal.
        if let Some(failure) = locked(&self.calls.refused).take() {
            return Err(NotExecuted::NotAccepted(failure));
        }
        Err(NoJob::of(status, self.process.last_words().await).into())
    }

    /// Waits for its end.
    async fn end(mut self) {
        match self.process.wait().await {
            Ok(status) if status.success() => tracing::info!(artifact = self.name, "a program has ended"),
            Ok(status) => {
                tracing::warn!(artifact = self.name, %status, "a program has ended after it executed its job")
            }
            Err(cause) => tracing::warn!(artifact = self.name, %cause, "a program cannot be waited for"),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The calls of a program that nobody waits for.
struct DetachedCalls {
    cluster: Cluster,
    artifacts: Arc<Artifacts>,
    /// Told of the job that was accepted; taken while one is, and after it was.
    submitted: Mutex<Option<oneshot::Sender<JobId>>>,
    /// Why the last one was not.
    refused: Mutex<Option<Failure>>,
}

impl ProgramCalls for DetachedCalls {
    async fn submit(&self, graph: JobGraph) -> Result<(), Failure> {
        let submitted = locked(&self.submitted).take();
        let Some(submitted) = submitted else {
            return Err(Failure::fatal(
                "a program that was started by REST can execute one job, as with Flink, and this is its second: run it \
                 with `millstream run`",
            ));
        };
        match accept(&self.cluster, &self.artifacts, graph).await {
            Ok(job) => {
                let _ = submitted.send(job);
                Ok(())
            }
            Err(error) => {
                let failure = Failure::fatal(error.to_string());
                *locked(&self.submitted) = Some(submitted);
                *locked(&self.refused) = Some(failure.clone());
                Err(failure)
            }
        }
    }

    async fn status(&self, job: JobId) -> Result<JobStatus, Failure> {
        calls::status(&self.cluster, job)
    }

    async fn progress(&self, job: JobId) -> Result<JobProgress, Failure> {
        calls::progress(&self.cluster, job)
    }

    async fn cancel(&self, job: JobId) -> Result<(), Failure> {
        calls::cancel(&self.cluster, job).await
    }

    async fn wait(&self, _job: JobId) -> Result<FinishedJob, Failure> {
        Ok(FinishedJob::detached())
    }
}
