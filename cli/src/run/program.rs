//! What `millstream run` does with the calls of the program that it has started.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use millstream::{
    job::{FinishedJob, JobProgress},
    model::{fault::Failure, id::JobId, job_graph::JobGraph, state::JobStatus},
};
use millstream_client::{Client, ClientError, convert::Misunderstood, proto::v1};
use millstream_cluster::{job_line::JobCluster, program::ProgramCalls};
use tokio::sync::OnceCell;

use super::{
    clusters::{Clusters, Place, failure},
    progress::Progress,
};
use crate::Form;

const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// A program that runs, and what it has submitted.
pub(super) struct Program {
    pub(super) clusters: Clusters,
    /// Absolute.
    pub(super) artifact: PathBuf,
    pub(super) is_detached: bool,
    pub(super) form: Form,
    /// In the order of their submission.
    pub(super) jobs: Mutex<Vec<Submitted>>,
}

/// A job that the program has submitted.
pub(super) struct Submitted {
    pub(super) job: JobId,
    pub(super) client: Client,
    /// A cluster that is its own, and stays until the job's result was fetched.
    cluster: Option<JobCluster>,
    /// What is left of it, once somebody has waited for its end.
    end: Arc<OnceCell<End>>,
}

/// What is left of a job.
#[derive(Clone)]
struct End {
    finished: FinishedJob,
    progress: JobProgress,
}

impl Submitted {
    /// How it ended, as far as anybody has waited for that.
    pub(super) fn ended_as(&self) -> Option<JobStatus> {
        self.end.get().map(|end| end.finished.status)
    }
}

impl ProgramCalls for Program {
    async fn submit(&self, graph: JobGraph) -> Result<(), Failure> {
        let job = graph.job_id;
        let Place { client, cluster } = self.clusters.submit(&graph, &self.artifact).await?;
        match self.form {
            Form::Text => println!("Job has been submitted with JobID {job}"),
            Form::Json => {
                let (job, at) = (job.to_string(), client.address());
                println!("{}", serde_json::json!({ "job": job, "name": graph.name, "jobmanager": at }));
            }
        }
        // Nobody will fetch the result of a job that is not waited for.
        let (kept, left) = if self.is_detached { (None, cluster) } else { (cluster, None) };
        self.jobs().push(Submitted { job, client, cluster: kept, end: Arc::default() });
        if let Some(cluster) = left {
            cluster.let_go().await;
        }
        Ok(())
    }

    async fn status(&self, job: JobId) -> Result<JobStatus, Failure> {
        let (mut client, end) = self.of(job)?;
        if let Some(end) = end.get() {
            return Ok(end.finished.status);
        }
        let (job, _) = client.job(job).await.map_err(failure)?;
        status_of(&job).map_err(|error| failure(error.into()))
    }

    async fn progress(&self, job: JobId) -> Result<JobProgress, Failure> {
        let (mut client, end) = self.of(job)?;
        if let Some(end) = end.get() {
            return Ok(end.progress.clone());
        }
        let (job, _) = client.job(job).await.map_err(failure)?;
        Ok(progress_of(&job))
    }

    async fn cancel(&self, job: JobId) -> Result<(), Failure> {
        let (mut client, end) = self.of(job)?;
        if end.get().is_some() {
            return Ok(());
        }
        client.cancel(job).await.map_err(failure)
    }

    async fn wait(&self, job: JobId) -> Result<FinishedJob, Failure> {
        if self.is_detached {
            return Ok(FinishedJob::detached());
        }
        let (client, end) = self.of(job)?;
        // Of several who wait, one watches.
        let end = end.get_or_try_init(|| self.watch(client, job)).await.map_err(failure)?;
        let cluster = self.jobs().iter_mut().find(|known| known.job == job).and_then(|known| known.cluster.take());
        if let Some(cluster) = cluster {
            cluster.let_go().await;
        }
        Ok(end.finished.clone())
    }
}

impl Program {
    pub(super) fn jobs(&self) -> MutexGuard<'_, Vec<Submitted>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who to ask about a job, and what is left of it.
    fn of(&self, job: JobId) -> Result<(Client, Arc<OnceCell<End>>), Failure> {
        let jobs = self.jobs();
        let known = jobs.iter().find(|known| known.job == job);
        let known = known.ok_or_else(|| Failure::fatal(format!("this program has submitted no job {job}")))?;
        Ok((known.client.clone(), known.end.clone()))
    }

    /// Lets go of the clusters that are still kept: nobody will ask any more.
    pub(super) async fn let_go(&self) {
        let kept: Vec<JobCluster> = self.jobs().iter_mut().filter_map(|job| job.cluster.take()).collect();
        for cluster in kept {
            cluster.let_go().await;
        }
    }

    /// Shows how a job goes until its end.
    async fn watch(&self, client: Client, job: JobId) -> Result<End, ClientError> {
        let mut watch = client.clone().watch(job, PROGRESS_INTERVAL).await?;
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
            return Ok(End { finished, progress: progress_of(&described) });
        }
    }
}

fn status_of(job: &v1::Job) -> Result<JobStatus, Misunderstood> {
    job.status().try_into()
}

fn progress_of(job: &v1::Job) -> JobProgress {
    JobProgress { records_read: job.records_read, checkpoints: job.completed_checkpoints }
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
