//! An application: a program that a cluster is for. Its `main()` runs beside the JobManager, in a process of its own; the
//! cluster begins with it and ends with it.
//!
//! ```text
//!   main() ──execute()──► job ──┐
//!     │    ──execute_async()──► job ──┤   all of them finished, and main() ended well ──► succeeded
//!     └ ended ─────────────────┘      ├── one was cancelled: the others are, too ───────► cancelled
//!                                     └── main() ended badly, or one failed after it ───► failed
//! ```
//! Nothing of that depends on where `main()` runs: a blocking execution waits for its job, so the order of jobs is that of
//! the calls.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use millstream::job::{FinishedJob, JobProgress};
use millstream_controlplane::JobHandle;
use millstream_model::{config::PIPELINE_JOB_ID, fault::Failure, id::JobId, job_graph::JobGraph, state::JobStatus};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    calls,
    cluster::{Cluster, SubmissionRefused},
    job::Job,
    submission::{NotAccepted, accept},
};
use crate::{
    artifacts::Artifacts,
    program::{NoJob, ProgramCalls, ProgramLine, process::ProgramProcess},
};

/// How long jobs that are cancelled with their application, and TaskManagers that are not needed any more, are waited for.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);
/// The id of the one job that an application has whose jobs outlive its JobManager, so that it is found again. Flink's is the
/// same.
const THE_JOB: JobId = JobId(0);

/// A program and what it gets.
#[derive(Debug)]
pub struct Application {
    pub artifact: PathBuf,
    pub arguments: Vec<String>,
}

/// How an application ended: Flink's `ApplicationStatus`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ApplicationStatus {
    Succeeded,
    Canceled,
}

/// What runs an application.
pub(super) struct ApplicationRunner {
    pub(super) cluster: Cluster,
    pub(super) artifacts: Arc<Artifacts>,
}

impl ApplicationRunner {
    /// Runs an application to its end, and ends what is left of its jobs, and all TaskManagers.
    ///
    /// # Errors
    /// Why it has failed.
    pub(super) async fn run(&self, application: Application) -> Result<ApplicationStatus, Failure> {
        let ended = self.run_program(application).await;
        match &ended {
            Ok(status) => tracing::info!(?status, "the application has ended"),
            Err(failure) => tracing::error!(%failure, "the application has failed"),
        }
        self.cancel_all().await;
        self.cluster.dismiss_task_managers();
        let gone = async {
            while !self.cluster.task_managers().is_empty() {
                sleep(PAUSE).await;
            }
        };
        if timeout(PATIENCE, gone).await.is_err() {
            tracing::warn!("not all TaskManagers have ended with the application");
        }
        ended
    }

    async fn run_program(&self, application: Application) -> Result<ApplicationStatus, Failure> {
        let fatal = |what: &dyn std::fmt::Display| Failure::fatal(format!("the application cannot be started: {what}"));
        // Where TaskManagers get it from that do not have it in place.
        let (stored, _) = self.artifacts.import(&application.artifact).await.map_err(|cause| fatal(&cause))?;
        let line = ProgramLine::open().map_err(|cause| fatal(&cause))?;
        let (submitted, jobs) = unbounded_channel();
        let calls = Arc::new(ApplicationCalls {
            cluster: self.cluster.clone(),
            artifacts: self.artifacts.clone(),
            submitted,
            has_executed: AtomicBool::new(false),
        });
        let mut command = line.command(&stored);
        if self.cluster.jobs_are_kept() {
            command.arg(format!("-D{}={THE_JOB}", PIPELINE_JOB_ID.name()));
        }
        command.args(&application.arguments);
        let process = ProgramProcess::start(command).await.map_err(|cause| fatal(&cause))?;
        tracing::info!(artifact = %application.artifact.display(), process = process.id(), "the application is started");
        let serving = tokio::spawn(line.serve(calls));
        let (cluster, waits) = (self.cluster.clone(), JoinSet::new());
        let mut running = Running { cluster, process, jobs, waits, failed: None, executed: Vec::new() };
        let ended = running.until_all_have_ended().await;
        // If it still runs, its jobs are about to be cancelled.
        let _ = running.process.kill().await;
        serving.abort();
        ended
    }

    async fn cancel_all(&self) {
        let left = self.cluster.each_job(|job| (!job.has_ended()).then(|| (job.handle.clone(), job.ended.subscribe())));
        let left: Vec<_> = left.into_iter().flatten().collect();
        for (handle, _) in &left {
            let handle: JobHandle = handle.clone();
            let _ = tokio::task::spawn_blocking(move || handle.cancel()).await;
        }
        for (handle, mut ended) in left {
            if timeout(PATIENCE, ended.wait_for(|ended| *ended)).await.is_err() {
                tracing::warn!(job = %handle.job(), "a job has not ended with its application");
            }
        }
    }
}

/// A program that runs, and its jobs.
struct Running {
    cluster: Cluster,
    process: ProgramProcess,
    jobs: UnboundedReceiver<JobId>,
    waits: JoinSet<(JobId, Result<FinishedJob, Failure>)>,
    /// The first job that has failed.
    failed: Option<Failure>,
    executed: Vec<JobId>,
}

impl Running {
    async fn until_all_have_ended(&mut self) -> Result<ApplicationStatus, Failure> {
        let mut main_has_ended = false;
        loop {
            tokio::select! {
                // A program may have ended right after a submission, or because of a job's end, so its own end is looked
                // at last.
                biased;
                Some(job) = self.jobs.recv() => {
                    self.executed.push(job);
                    let cluster = self.cluster.clone();
                    self.waits.spawn(async move { (job, wait(&cluster, job).await) });
                }
                Some(Ok((job, finished))) = self.waits.join_next() => match end_of(job, finished?) {
                    Ok(JobStatus::Canceled) => return Ok(ApplicationStatus::Canceled),
                    Ok(_) => {}
                    // While `main()` runs it is told, and may know what to do.
                    Err(failure) => drop(self.failed.get_or_insert(failure)),
                },
                ended = self.process.wait(), if !main_has_ended => {
                    let status =
                        ended.map_err(|cause| Failure::fatal(format!("the program cannot be waited for: {cause}")))?;
                    if self.executed.is_empty() {
                        return Err(Failure::fatal(NoJob::of(status, self.process.last_words().await).to_string()));
                    }
                    // It may have heard of a job's end a moment before this has.
                    if self.was_one_cancelled() {
                        return Ok(ApplicationStatus::Canceled);
                    }
                    if !status.success() {
                        let why = format!("main() has ended with {status}{}", self.process.last_words().await);
                        return Err(self.failed.take().unwrap_or_else(|| Failure::fatal(why)));
                    }
                    main_has_ended = true;
                }
            }
            if !main_has_ended {
                continue;
            }
            if let Some(failure) = self.failed.take() {
                return Err(failure);
            }
            if self.waits.is_empty() && self.jobs.is_empty() {
                return Ok(ApplicationStatus::Succeeded);
            }
        }
    }
}

impl Running {
    fn was_one_cancelled(&self) -> bool {
        let is = |job: &JobId| self.cluster.with_job(*job, |job| job.handle.status()) == Some(JobStatus::Canceled);
        self.executed.iter().any(is)
    }
}

/// What a job's end is to its application.
pub(super) fn end_of(job: JobId, finished: FinishedJob) -> Result<JobStatus, Failure> {
    match finished.status {
        JobStatus::Finished | JobStatus::Canceled => Ok(finished.status),
        _ => {
            let why = finished.failure.map(|failure| format!(": {failure}")).unwrap_or_default();
            Err(Failure::fatal(format!("job {job} has failed{why}")))
        }
    }
}

/// Waits for a job's end.
pub(super) async fn wait(cluster: &Cluster, job: JobId) -> Result<FinishedJob, Failure> {
    let ended = cluster.with_job(job, |job| job.ended.subscribe());
    let mut ended = ended.ok_or_else(|| calls::unknown(job))?;
    // Its sender is with the job, which may have been forgotten.
    let _ = ended.wait_for(|ended| *ended).await;
    cluster.with_job(job, Job::finished).flatten().ok_or_else(|| calls::unknown(job))
}

/// The calls of an application's program.
struct ApplicationCalls {
    cluster: Cluster,
    artifacts: Arc<Artifacts>,
    submitted: UnboundedSender<JobId>,
    has_executed: AtomicBool,
}

impl ProgramCalls for ApplicationCalls {
    async fn submit(&self, graph: JobGraph) -> Result<(), Failure> {
        let id = graph.job_id;
        let is_first = !self.has_executed.swap(true, Ordering::SeqCst);
        if self.cluster.jobs_are_kept() && !is_first {
            return Err(Failure::fatal(
                "with high-availability.type an application can execute one job, since main() runs again after the \
                 JobManager has failed, and this is its second; without it, it can execute as many as it likes",
            ));
        }
        match accept(&self.cluster, &self.artifacts, graph).await {
            Ok(_) => {}
            // An earlier JobManager has accepted it, and it was taken up: this is that job.
            Err(NotAccepted::Refused(SubmissionRefused::Known(_))) if self.cluster.jobs_are_kept() => {}
            Err(error) => return Err(Failure::fatal(error.to_string())),
        }
        let _ = self.submitted.send(id);
        Ok(())
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

    async fn wait(&self, job: JobId) -> Result<FinishedJob, Failure> {
        wait(&self.cluster, job).await
    }
}
