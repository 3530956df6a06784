//! What every program may ask of this cluster about its jobs.

use millstream::job::JobProgress;
use millstream_model::{fault::Failure, id::JobId, state::JobStatus};

use super::{cluster::Cluster, job::Job};

fn of_job<R>(cluster: &Cluster, id: JobId, ask: impl FnOnce(&Job) -> R) -> Result<R, Failure> {
    cluster.with_job(id, ask).ok_or_else(|| unknown(id))
}

pub(super) fn unknown(id: JobId) -> Failure {
    Failure::fatal(format!("there is no job {id} on this cluster"))
}

pub(super) fn status(cluster: &Cluster, job: JobId) -> Result<JobStatus, Failure> {
    of_job(cluster, job, |job| job.handle.status())
}

pub(super) fn progress(cluster: &Cluster, job: JobId) -> Result<JobProgress, Failure> {
    let job = of_job(cluster, job, Job::describe)?;
    Ok(JobProgress { records_read: job.records_read, checkpoints: job.completed_checkpoints })
}

/// Asks a job to end.
pub(super) async fn cancel(cluster: &Cluster, job: JobId) -> Result<(), Failure> {
    let handle = of_job(cluster, job, |job| job.handle.clone())?;
    // It waits if the JobMaster has very many requests.
    let cancelled = tokio::task::spawn_blocking(move || handle.cancel()).await;
    cancelled.map_err(|cause| Failure::new(cause.to_string()))
}
