//! A connection to a JobManager.

use std::{io, path::Path, time::Duration};

use millstream_model::{id::JobId, job_graph::JobGraph};
use tokio::{fs::File, io::AsyncReadExt};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{
    Code, Status, Streaming,
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint},
};

use crate::{
    access::Access,
    cause::{cause_of, root_cause},
    convert::Misunderstood,
    proto::v1::{self, job_submission_client::JobSubmissionClient, logs_client::LogsClient},
    tls::{self, Refusal},
};

/// Of an artifact in one message.
const CHUNK_BYTES: usize = 512 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Collected records of a job travel in one message.
const LARGEST_ANSWER: usize = 256 << 20;

/// Speaks with one JobManager. Clones share the connection.
#[derive(Clone, Debug)]
pub struct Client {
    address: String,
    calls: JobSubmissionClient<InterceptedService<Channel, Access>>,
    pub(crate) logs: LogsClient<InterceptedService<Channel, Access>>,
    refusal: Refusal,
}

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("'{0}' is no address of a JobManager: host:port is expected")]
    BadAddress(String),
    #[error(
        "no JobManager can be reached at {address}: {cause}; is one running there (bin/start-cluster.sh), and is the \
         address right (-m host:port, or rest.address and rest.port)?"
    )]
    Unreachable { address: String, cause: String },
    #[error("the JobManager at {address} does not let this client in: {why}")]
    NotLetIn { address: String, why: String },
    #[error("{0}")]
    Refused(String),
    #[error("there is no job {0} on this cluster")]
    UnknownJob(JobId),
    #[error("the connection to the JobManager at {address} was lost: {cause}")]
    Lost { address: String, cause: String },
    #[error("the artifact {path} cannot be read")]
    Artifact { path: String, source: io::Error },
    #[error(transparent)]
    Misunderstood(#[from] Misunderstood),
}

impl Client {
    /// Connects to `host:port`, where nothing is asked of clients.
    ///
    /// # Errors
    /// If nobody answers there.
    pub async fn connect(address: &str) -> Result<Client, ClientError> {
        Client::connect_with(address, &Access::default()).await
    }

    /// Connects to `host:port`.
    ///
    /// # Errors
    /// If nobody answers there. Whether the JobManager lets this client in, its first call shows.
    pub async fn connect_with(address: &str, access: &Access) -> Result<Client, ClientError> {
        let bad = || ClientError::BadAddress(address.to_owned());
        let (host, port) = address.rsplit_once(':').ok_or_else(bad)?;
        let port: u16 = port.parse().map_err(|_| bad())?;
        if host.is_empty() {
            return Err(bad());
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|_| bad())?;
        let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true);
        let refusal = Refusal::default();
        let channel = match &access.tls {
            Some(config) => tls::connect(&endpoint, (host, port), None, config.clone(), &refusal).await,
            None => endpoint.connect().await,
        };
        let channel = channel
            .map_err(|error| ClientError::Unreachable { address: address.to_owned(), cause: root_cause(&error) })?;
        let calls = JobSubmissionClient::with_interceptor(channel.clone(), access.clone())
            .max_decoding_message_size(LARGEST_ANSWER);
        let logs = LogsClient::with_interceptor(channel, access.clone()).max_decoding_message_size(LARGEST_ANSWER);
        Ok(Client { address: address.to_owned(), calls, logs, refusal })
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// Sends an artifact, unless it is there. How many bytes went over.
    ///
    /// # Errors
    /// If the file cannot be read, or is not what its hash says.
    pub async fn upload(&mut self, path: &Path, sha256: &str) -> Result<u64, ClientError> {
        let has = v1::HasArtifactRequest { sha256: sha256.to_owned() };
        if self.calls.has_artifact(has).await.map_err(|status| self.error(&status))?.into_inner().is_there {
            return Ok(0);
        }
        let unreadable = |source| ClientError::Artifact { path: path.display().to_string(), source };
        let mut file = File::open(path).await.map_err(unreadable)?;
        let (chunks, stream) = tokio::sync::mpsc::channel(4);
        let mut sha256 = Some(sha256.to_owned());
        let read = async move {
            loop {
                let mut chunk = vec![0; CHUNK_BYTES];
                let length = file.read(&mut chunk).await?;
                chunk.truncate(length);
                let message = v1::UploadArtifactRequest { sha256: sha256.take().unwrap_or_default(), chunk };
                // Whoever does not take it any more has answered why.
                if length == 0 || chunks.send(message).await.is_err() {
                    return Ok::<_, io::Error>(());
                }
            }
        };
        let mut calls = self.calls.clone();
        let (read, answer) = tokio::join!(read, calls.upload_artifact(ReceiverStream::new(stream)));
        read.map_err(unreadable)?;
        Ok(answer.map_err(|status| self.error(&status))?.into_inner().bytes)
    }

    /// Has a job run. Its artifact must be there.
    ///
    /// # Errors
    /// If it is refused; then nothing runs.
    pub async fn submit(&mut self, graph: &JobGraph) -> Result<(), ClientError> {
        let job_graph = serde_json::to_vec(graph).expect("graphs have a form in JSON");
        let submitted = self.calls.submit_job(v1::SubmitJobRequest { job_graph }).await;
        submitted.map(drop).map_err(|status| self.error(&status))
    }

    /// All jobs that the JobManager knows, oldest first.
    ///
    /// # Errors
    /// If the connection is lost.
    pub async fn jobs(&mut self) -> Result<Vec<v1::Job>, ClientError> {
        let jobs = self.calls.list_jobs(v1::ListJobsRequest {}).await;
        Ok(jobs.map_err(|status| self.error(&status))?.into_inner().jobs)
    }

    /// How a job is doing, and its result if it has ended.
    ///
    /// # Errors
    /// If there is no such job.
    pub async fn job(&mut self, job: JobId) -> Result<(v1::Job, Option<v1::JobResult>), ClientError> {
        let answer = self.calls.get_job(v1::GetJobRequest { job_id: job.to_string() }).await;
        let v1::GetJobResponse { job: found, result } =
            answer.map_err(|status| self.of_job(job, &status))?.into_inner();
        Ok((found.ok_or_else(|| Misunderstood("an answer about no job".to_owned()))?, result))
    }

    /// How a job goes, until its end.
    ///
    /// # Errors
    /// If there is no such job.
    pub async fn watch(&mut self, job: JobId, interval: Duration) -> Result<Watch, ClientError> {
        let interval_millis = u32::try_from(interval.as_millis()).unwrap_or(u32::MAX);
        let request = v1::WatchJobRequest { job_id: job.to_string(), interval_millis };
        let answers = self.calls.watch_job(request).await.map_err(|status| self.of_job(job, &status))?.into_inner();
        Ok(Watch { answers, client: self.clone() })
    }

    /// Asks a job to end.
    ///
    /// # Errors
    /// If there is no such job.
    pub async fn cancel(&mut self, job: JobId) -> Result<(), ClientError> {
        let asked = self.calls.cancel_job(v1::CancelJobRequest { job_id: job.to_string() }).await;
        asked.map(drop).map_err(|status| self.of_job(job, &status))
    }

    /// Takes a checkpoint; its number when it is durable.
    ///
    /// # Errors
    /// If none can be taken.
    pub async fn checkpoint(&mut self, job: JobId) -> Result<u64, ClientError> {
        let taken = self.calls.trigger_checkpoint(v1::TriggerCheckpointRequest { job_id: job.to_string() }).await;
        Ok(taken.map_err(|status| self.of_job(job, &status))?.into_inner().checkpoint_id)
    }

    /// What holds a job back now, the most important first.
    ///
    /// # Errors
    /// If there is no such job.
    pub async fn why(&mut self, job: JobId) -> Result<Vec<v1::Finding>, ClientError> {
        let explained = self.calls.explain_job(v1::ExplainJobRequest { job_id: job.to_string() }).await;
        Ok(explained.map_err(|status| self.of_job(job, &status))?.into_inner().findings)
    }

    /// The TaskManagers.
    ///
    /// # Errors
    /// If the connection is lost.
    pub async fn cluster(&mut self) -> Result<v1::GetClusterResponse, ClientError> {
        let cluster = self.calls.get_cluster(v1::GetClusterRequest {}).await;
        Ok(cluster.map_err(|status| self.error(&status))?.into_inner())
    }

    fn of_job(&self, job: JobId, status: &Status) -> ClientError {
        if status.code() == Code::NotFound { ClientError::UnknownJob(job) } else { self.error(status) }
    }

    pub(crate) fn error(&self, status: &Status) -> ClientError {
        let refused = self.refusal.said().filter(|_| std::error::Error::source(status).is_some());
        if let Some(alert) = refused {
            let why = format!("it does not believe what was shown to it (security.ssl.rest.keystore): {alert}");
            return ClientError::NotLetIn { address: self.address.clone(), why };
        }
        match status.code() {
            Code::Unavailable | Code::Unknown | Code::Cancelled => {
                ClientError::Lost { address: self.address.clone(), cause: cause_of(status) }
            }
            Code::Unauthenticated | Code::PermissionDenied => {
                ClientError::NotLetIn { address: self.address.clone(), why: status.message().to_owned() }
            }
            Code::Unimplemented => {
                let what = format!("it does not know a call of this version ({})", status.message());
                ClientError::Misunderstood(Misunderstood(what))
            }
            _ => ClientError::Refused(status.message().to_owned()),
        }
    }
}

/// The answers about a job as it goes.
#[derive(Debug)]
pub struct Watch {
    answers: Streaming<v1::WatchJobResponse>,
    client: Client,
}

impl Watch {
    /// The next answer; the one with a result is the last.
    ///
    /// # Errors
    /// If the connection is lost before the job has ended.
    pub async fn next(&mut self) -> Result<v1::WatchJobResponse, ClientError> {
        match self.answers.next().await {
            Some(answer) => answer.map_err(|status| self.client.error(&status)),
            None => Err(ClientError::Lost {
                address: self.client.address.clone(),
                cause: "it ended before the job".to_owned(),
            }),
        }
    }
}
