//! What `millstream run` does with the calls of the program that it has started.

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use millstream::{
    job::{FinishedJob, JobProgress},
    model::{fault::Failure, id::JobId, job_graph::JobGraph, state::JobStatus},
};
use millstream_client::{Client, ClientError, convert::Misunderstood, proto::v1};
use millstream_cluster::program::ProgramCalls;

use super::{Fate, progress::Progress};
use crate::Form;

const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// A program that runs, and what it has submitted.
pub(super) struct Program {
    pub(super) client: Client,
    pub(super) artifact: PathBuf,
    pub(super) is_detached: bool,
    pub(super) form: Form,
    /// In the order of their submission.
    pub(super) jobs: Mutex<Vec<(JobId, Fate)>>,
}

impl ProgramCalls for Program {
    async fn submit(&self, graph: JobGraph) -> Result<(), Failure> {
        self.send(graph).await.map_err(refused)
    }

    async fn status(&self, job: JobId) -> Result<JobStatus, Failure> {
        let (job, _) = self.client.clone().job(job).await.map_err(refused)?;
        status_of(&job).map_err(|error| refused(error.into()))
    }

    async fn progress(&self, job: JobId) -> Result<JobProgress, Failure> {
        let (job, _) = self.client.clone().job(job).await.map_err(refused)?;
        Ok(JobProgress { records_read: job.records_read, checkpoints: job.completed_checkpoints })
    }

    async fn cancel(&self, job: JobId) -> Result<(), Failure> {
        self.client.clone().cancel(job).await.map_err(refused)
    }

    async fn wait(&self, job: JobId) -> Result<FinishedJob, Failure> {
        if self.is_detached {
            return Ok(FinishedJob::detached());
        }
        self.watch(job).await.map_err(refused)
    }
}

impl Program {
    async fn send(&self, graph: JobGraph) -> Result<(), ClientError> {
        let mut client = self.client.clone();
        let job = graph.job_id;
        // What runs is what the program says that it is: the JobManager checks what is sent.
        let artifact =
            graph.artifact.as_ref().ok_or_else(|| Misunderstood("a job graph without an artifact".to_owned()))?;
        client.upload(&self.artifact, &artifact.sha256).await?;
        client.submit(&graph).await?;
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).push((job, Fate::Running));
        match self.form {
            Form::Text => println!("Job has been submitted with JobID {job}"),
            Form::Json => println!("{}", serde_json::json!({ "job": job.to_string(), "name": graph.name })),
        }
        Ok(())
    }

    /// Shows how a job goes until its end.
    async fn watch(&self, job: JobId) -> Result<FinishedJob, ClientError> {
        let mut watch = self.client.clone().watch(job, PROGRESS_INTERVAL).await?;
        let mut progress = Progress::new(self.form);
        loop {
            let answer = watch.next().await?;
            let described = answer.job.ok_or_else(|| Misunderstood("an answer about no job".to_owned()))?;
            let Some(result) = answer.result else {
                progress.show(&described);
                continue;
            };
            let finished = finished(&described, result)?;
            progress.end(job, &finished);
            let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, fate)) = jobs.iter_mut().find(|(known, _)| *known == job) {
                *fate = Fate::Ended(finished.status);
            }
            return Ok(finished);
        }
    }
}

fn refused(error: ClientError) -> Failure {
    Failure::fatal(format!("{:#}", anyhow::Error::from(error)))
}

fn status_of(job: &v1::Job) -> Result<JobStatus, Misunderstood> {
    job.status().try_into()
}

fn finished(job: &v1::Job, result: v1::JobResult) -> Result<FinishedJob, Misunderstood> {
    Ok(FinishedJob {
        status: result.status().try_into()?,
        failure: result.failure.map(Failure::from),
        runtime: Duration::from_millis(result.net_runtime_millis),
        restarts: job.restarts.into(),
        checkpoints: job.completed_checkpoints,
        accumulators: result.accumulators.into_iter().collect(),
        collected: result.collected.into_iter().map(v1::Collected::into_parts).collect::<Result<_, _>>()?,
    })
}
