//! What clients may ask.

use std::{pin::Pin, sync::Arc, time::Duration};

use millstream::artifact::ENGINE_VERSION;
use millstream_client::proto::v1::{self, job_submission_server::JobSubmission};
use millstream_model::{id::JobId, job_graph::JobGraph};
use tokio::{sync::mpsc, time::interval};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use super::{
    cluster::{Cluster, SubmissionRefused},
    ended::EndedJob,
    explain::explain,
    job::Job,
};
use crate::artifacts::{ArtifactError, Artifacts};

const WATCH_INTERVAL: Duration = Duration::from_secs(1);
const WATCH_INTERVAL_MIN: Duration = Duration::from_millis(50);

/// The service.
pub(super) struct Submission {
    pub(super) cluster: Cluster,
    pub(super) artifacts: Arc<Artifacts>,
    /// What the cluster is for, if it takes no jobs of others.
    pub(super) only_for: Option<&'static str>,
}

#[tonic::async_trait]
impl JobSubmission for Submission {
    async fn has_artifact(
        &self,
        request: Request<v1::HasArtifactRequest>,
    ) -> Result<Response<v1::HasArtifactResponse>, Status> {
        let is_there = self.artifacts.find(&request.into_inner().sha256).is_some();
        Ok(Response::new(v1::HasArtifactResponse { is_there }))
    }

    async fn upload_artifact(
        &self,
        request: Request<Streaming<v1::UploadArtifactRequest>>,
    ) -> Result<Response<v1::UploadArtifactResponse>, Status> {
        let mut messages = request.into_inner();
        let first = messages.message().await?;
        let v1::UploadArtifactRequest { sha256, chunk } =
            first.ok_or_else(|| Status::invalid_argument("an upload without a message"))?;
        let mut incoming = self.artifacts.begin(&sha256).await.map_err(refused)?;
        incoming.write(&chunk).await.map_err(refused)?;
        while let Some(message) = messages.message().await? {
            incoming.write(&message.chunk).await.map_err(refused)?;
        }
        let bytes = incoming.finish().await.map_err(refused)?;
        tracing::info!(sha256, bytes, "an artifact is stored");
        Ok(Response::new(v1::UploadArtifactResponse { bytes }))
    }

    async fn submit_job(
        &self,
        request: Request<v1::SubmitJobRequest>,
    ) -> Result<Response<v1::SubmitJobResponse>, Status> {
        if let Some(what) = self.only_for {
            return Err(Status::failed_precondition(format!(
                "this cluster is for one {what}, and takes no other jobs: start another cluster for them"
            )));
        }
        let graph: JobGraph = serde_json::from_slice(&request.into_inner().job_graph)
            .map_err(|cause| Status::invalid_argument(format!("the job graph cannot be read: {cause}")))?;
        let job_id = accept(&self.cluster, &self.artifacts, graph).await?.to_string();
        Ok(Response::new(v1::SubmitJobResponse { job_id }))
    }

    async fn list_jobs(
        &self,
        _request: Request<v1::ListJobsRequest>,
    ) -> Result<Response<v1::ListJobsResponse>, Status> {
        Ok(Response::new(v1::ListJobsResponse { jobs: self.cluster.jobs() }))
    }

    async fn get_job(&self, request: Request<v1::GetJobRequest>) -> Result<Response<v1::GetJobResponse>, Status> {
        let job_id = request.into_inner().job_id;
        if let Some(EndedJob { job, result }) = self.of_earlier(&job_id)? {
            return Ok(Response::new(v1::GetJobResponse { job: Some(job), result: Some(result) }));
        }
        let (job, result) = self.of_job(&job_id, |job| (job.describe(), job.result()))?;
        Ok(Response::new(v1::GetJobResponse { job: Some(job), result }))
    }

    type WatchJobStream = Pin<Box<dyn Stream<Item = Result<v1::WatchJobResponse, Status>> + Send>>;

    async fn watch_job(&self, request: Request<v1::WatchJobRequest>) -> Result<Response<Self::WatchJobStream>, Status> {
        let v1::WatchJobRequest { job_id, interval_millis } = request.into_inner();
        let every = match interval_millis {
            0 => WATCH_INTERVAL,
            millis => Duration::from_millis(millis.into()).max(WATCH_INTERVAL_MIN),
        };
        if let Some(EndedJob { job, result }) = self.of_earlier(&job_id)? {
            let answer = v1::WatchJobResponse { job: Some(job), result: Some(result) };
            return Ok(Response::new(Box::pin(tokio_stream::once(Ok(answer)))));
        }
        let id = parse(&job_id)?;
        let mut ended = self.of_job(&job_id, |job| job.ended.subscribe())?;
        let cluster = self.cluster.clone();
        let (answers, stream) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut ticks = interval(every);
            loop {
                tokio::select! {
                    _ = ticks.tick() => {}
                    // Its sender is with the job, which may have been forgotten.
                    _ = ended.wait_for(|ended| *ended) => {}
                }
                let answer = cluster
                    .with_job(id, |job| v1::WatchJobResponse { job: Some(job.describe()), result: job.result() });
                let Some(answer) = answer else { return };
                let is_last = answer.result.is_some();
                if answers.send(Ok(answer)).await.is_err() || is_last {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn cancel_job(
        &self,
        request: Request<v1::CancelJobRequest>,
    ) -> Result<Response<v1::CancelJobResponse>, Status> {
        let job_id = request.into_inner().job_id;
        if self.of_earlier(&job_id)?.is_some() {
            return Ok(Response::new(v1::CancelJobResponse {}));
        }
        let handle = self.of_job(&job_id, |job| job.handle.clone())?;
        // It waits if the JobMaster has very many requests.
        blocking(move || handle.cancel()).await?;
        Ok(Response::new(v1::CancelJobResponse {}))
    }

    async fn trigger_checkpoint(
        &self,
        request: Request<v1::TriggerCheckpointRequest>,
    ) -> Result<Response<v1::TriggerCheckpointResponse>, Status> {
        let job_id = request.into_inner().job_id;
        if let Some(ended) = self.of_earlier(&job_id)? {
            let status = ended.result.status().as_str_name();
            return Err(Status::failed_precondition(format!(
                "the job has ended ({status}), before this JobManager began"
            )));
        }
        let handle = self.of_job(&job_id, |job| job.handle.clone())?;
        let taken = blocking(move || handle.trigger_checkpoint()).await?;
        let checkpoint = taken.map_err(|refused| Status::failed_precondition(refused.to_string()))?;
        Ok(Response::new(v1::TriggerCheckpointResponse { checkpoint_id: checkpoint.0 }))
    }

    async fn explain_job(
        &self,
        request: Request<v1::ExplainJobRequest>,
    ) -> Result<Response<v1::ExplainJobResponse>, Status> {
        let id = parse(&request.into_inner().job_id)?;
        explain(&self.cluster, id).await.map(Response::new)
    }

    async fn get_cluster(
        &self,
        _request: Request<v1::GetClusterRequest>,
    ) -> Result<Response<v1::GetClusterResponse>, Status> {
        let task_managers = self.cluster.task_managers();
        Ok(Response::new(v1::GetClusterResponse { version: ENGINE_VERSION.to_owned(), task_managers }))
    }
}

/// Why a job graph is not accepted.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotAccepted {
    #[error("the job graph names no artifact")]
    NoArtifact,
    #[error("the artifact is of Millstream {0} and this cluster of {version}: build it with that version", version = ENGINE_VERSION)]
    OtherEngine(String),
    #[error("the artifact {0} was not uploaded")]
    NotUploaded(String),
    #[error(transparent)]
    Refused(#[from] SubmissionRefused),
    #[error("the call has failed: {0}")]
    Broken(String),
}

impl From<NotAccepted> for Status {
    fn from(error: NotAccepted) -> Status {
        let message = error.to_string();
        match error {
            NotAccepted::NotUploaded(_) => Status::failed_precondition(message),
            NotAccepted::Refused(SubmissionRefused::Known(_)) => Status::already_exists(message),
            NotAccepted::Broken(_) => Status::internal(message),
            NotAccepted::NoArtifact | NotAccepted::OtherEngine(_) | NotAccepted::Refused(_) => {
                Status::invalid_argument(message)
            }
        }
    }
}

/// Has a job run whose artifact is there.
///
/// # Errors
/// If it is not accepted; then nothing runs.
pub(super) async fn accept(cluster: &Cluster, artifacts: &Artifacts, graph: JobGraph) -> Result<JobId, NotAccepted> {
    let artifact = graph.artifact.as_ref().ok_or(NotAccepted::NoArtifact)?;
    if artifact.engine_version != ENGINE_VERSION {
        return Err(NotAccepted::OtherEngine(artifact.engine_version.clone()));
    }
    let sha256 = artifact.sha256.clone();
    if artifacts.find(&sha256).is_none() {
        return Err(NotAccepted::NotUploaded(sha256));
    }
    let id = graph.job_id;
    let cluster = cluster.clone();
    let submitted = tokio::task::spawn_blocking(move || cluster.submit(graph, sha256)).await;
    submitted.map_err(|cause| NotAccepted::Broken(cause.to_string()))??;
    Ok(id)
}

impl Submission {
    /// What is left of a job, if it has ended with an earlier JobManager and is not known anew.
    fn of_earlier(&self, job_id: &str) -> Result<Option<EndedJob>, Status> {
        let id = parse(job_id)?;
        let is_new = self.cluster.with_job(id, |_| ()).is_some();
        Ok(if is_new { None } else { self.cluster.earlier(id) })
    }

    fn of_job<R>(&self, job_id: &str, ask: impl FnOnce(&Job) -> R) -> Result<R, Status> {
        let id = parse(job_id)?;
        self.cluster.with_job(id, ask).ok_or_else(|| Status::not_found(format!("there is no job {id}")))
    }
}

fn parse(job_id: &str) -> Result<JobId, Status> {
    job_id.parse().map_err(|cause| Status::invalid_argument(format!("job_id: {cause}")))
}

async fn blocking<R: Send + 'static>(call: impl FnOnce() -> R + Send + 'static) -> Result<R, Status> {
    tokio::task::spawn_blocking(call).await.map_err(|cause| Status::internal(format!("the call has failed: {cause}")))
}

fn refused(error: ArtifactError) -> Status {
    match error {
        ArtifactError::BadHash(_) | ArtifactError::Damaged { .. } => Status::invalid_argument(error.to_string()),
        ArtifactError::TooLarge => Status::out_of_range(error.to_string()),
        ArtifactError::Io { .. } | ArtifactError::Unreadable { .. } => Status::resource_exhausted(error.to_string()),
    }
}
