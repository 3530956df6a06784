//! Per-job mode: a job that a cluster is for, which its client has started with it. `main()` runs at the client; the
//! cluster takes no other job, has TaskManagers of its own, and ends with the job.
//!
//! ```text
//!  accepted ──► TaskManagers ──► the job has ended ──► TaskManagers end ──► the client has its result, or is gone ──► end
//! ```

use std::{net::SocketAddr, sync::Arc};

use millstream_model::{
    config::{Configuration, TASK_SLOTS},
    fault::Failure,
    id::JobId,
    state::JobStatus,
};

use super::{
    application::{ApplicationStatus, end_of, wait},
    calls,
    cluster::Cluster,
    own_task_managers::{OwnTaskManagers, TaskManagerCommand},
    submission::accept,
};
use crate::{
    artifacts::Artifacts,
    job_line::{ClientEnd, ClusterRequest, ClusterResponse, Left},
};

/// A job, its client, and how TaskManagers are started for it.
pub struct OneJob {
    pub request: ClusterRequest,
    pub client: ClientEnd,
    /// Given where they find the JobManager.
    pub task_managers: Box<dyn FnOnce(SocketAddr) -> TaskManagerCommand + Send>,
}

/// What runs it.
pub(super) struct OneJobRunner {
    cluster: Cluster,
    artifacts: Arc<Artifacts>,
    configuration: Configuration,
    request: ClusterRequest,
    client: ClientEnd,
    /// Where clients find this process.
    clients: SocketAddr,
    task_managers: OwnTaskManagers,
}

impl OneJobRunner {
    pub(super) fn new(
        job: OneJob,
        configuration: Configuration,
        cluster: Cluster,
        artifacts: Arc<Artifacts>,
        addresses: super::Addresses,
    ) -> OneJobRunner {
        let task_managers = OwnTaskManagers::new((job.task_managers)(addresses.task_managers));
        let (request, client, clients) = (job.request, job.client, addresses.clients);
        OneJobRunner { cluster, artifacts, configuration, request, client, clients, task_managers }
    }

    /// Runs the job until it has ended and nobody waits for it.
    ///
    /// # Errors
    /// Why it was not accepted, or has failed.
    pub(super) async fn run(&mut self) -> Result<ApplicationStatus, Failure> {
        let accepted = tokio::select! {
            // One that has left already has nobody who would know of the job.
            biased;
            _ = self.client.left() => return Err(Failure::fatal("the client was lost before its job was accepted")),
            accepted = accept_of(&self.cluster, &self.artifacts, &self.request) => accepted,
        };
        let job = accepted?;
        ClientEnd::answer(&ClusterResponse::Runs { clients: self.clients });
        let ended = self.until_it_ends(job).await;
        self.task_managers.end().await;
        let (finished, left) = ended?;
        tracing::info!(%job, status = ?finished.status, "the job of this cluster has ended");
        if left.is_none() {
            self.client.left().await;
        }
        match end_of(job, finished)? {
            JobStatus::Canceled => Ok(ApplicationStatus::Canceled),
            _ => Ok(ApplicationStatus::Succeeded),
        }
    }

    /// How the job ended, and how its client has left if it has not waited.
    async fn until_it_ends(&mut self, job: JobId) -> Result<(millstream::job::FinishedJob, Option<Left>), Failure> {
        let slots = self.configuration.get(&TASK_SLOTS)?;
        let count = self.request.graph.required_slots().div_ceil(slots);
        let cluster = self.cluster.clone();
        let ended = wait(&self.cluster, job);
        let keep = self.task_managers.keep(count, |what| cluster.note_trouble(job, what));
        tokio::pin!(ended, keep);
        let mut left = None;
        loop {
            tokio::select! {
                ended = &mut ended => return Ok((ended?, left)),
                failure = &mut keep => {
                    calls::cancel(&self.cluster, job).await?;
                    return Err(failure);
                }
                how = self.client.left(), if left.is_none() => {
                    left = Some(how);
                    if how == Left::Lost && self.request.ends_with_client {
                        tracing::warn!(%job, "the client is lost: its job is cancelled");
                        calls::cancel(&self.cluster, job).await?;
                    }
                }
            }
        }
    }

    /// Ends what is left of it, also if it was told to end before the job has.
    pub(super) async fn end(&mut self) {
        self.task_managers.end().await;
    }
}

/// Has the job run.
async fn accept_of(cluster: &Cluster, artifacts: &Artifacts, request: &ClusterRequest) -> Result<JobId, Failure> {
    let refused = |what: &dyn std::fmt::Display| Failure::fatal(what.to_string());
    artifacts.import(&request.artifact).await.map_err(|cause| refused(&cause))?;
    accept(cluster, artifacts, request.graph.clone()).await.map_err(|cause| refused(&cause))
}
