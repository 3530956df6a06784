//! The client's end of the line to the program that it has started.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use millstream::{
    client_line::{ClientRequest, ClientResponse},
    job::{FinishedJob, JobProgress},
    model::{fault::Failure, id::JobId, job_graph::JobGraph, state::JobStatus},
};
use millstream_client::{Client, ClientError, convert::Misunderstood, proto::v1};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
};

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

impl Program {
    /// Answers the program's calls, each on its connection, for as long as it is not stopped.
    pub(super) async fn serve(self: Arc<Program>, listener: UnixListener) {
        while let Ok((line, _)) = listener.accept().await {
            let program = self.clone();
            tokio::spawn(async move {
                if let Err(cause) = program.answer(line).await {
                    eprintln!("warning: a call of the program could not be answered: {cause}");
                }
            });
        }
    }

    async fn answer(&self, mut line: UnixStream) -> std::io::Result<()> {
        let mut text = String::new();
        BufReader::new(&mut line).read_line(&mut text).await?;
        let response = match serde_json::from_str(&text) {
            Ok(request) => self.respond(request).await.unwrap_or_else(refused),
            Err(cause) => ClientResponse::Refused(Failure::fatal(format!(
                "the client does not understand the program: {cause}; are both of version {}?",
                millstream::artifact::ENGINE_VERSION
            ))),
        };
        let mut text = serde_json::to_vec(&response).expect("responses have a form in JSON");
        text.push(b'\n');
        line.write_all(&text).await
    }

    async fn respond(&self, request: ClientRequest) -> Result<ClientResponse, ClientError> {
        let mut client = self.client.clone();
        Ok(match request {
            ClientRequest::Submit(graph) => {
                self.submit(*graph).await?;
                ClientResponse::Submitted
            }
            ClientRequest::Status(job) => ClientResponse::Status(status_of(&client.job(job).await?.0)?),
            ClientRequest::Progress(job) => {
                let (job, _) = client.job(job).await?;
                ClientResponse::Progress(JobProgress {
                    records_read: job.records_read,
                    checkpoints: job.completed_checkpoints,
                })
            }
            ClientRequest::Cancel(job) => {
                client.cancel(job).await?;
                ClientResponse::Canceling
            }
            ClientRequest::Wait(_) if self.is_detached => ClientResponse::Ended(Box::new(FinishedJob::detached())),
            ClientRequest::Wait(job) => ClientResponse::Ended(Box::new(self.wait(job).await?)),
        })
    }

    async fn submit(&self, graph: JobGraph) -> Result<(), ClientError> {
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
    async fn wait(&self, job: JobId) -> Result<FinishedJob, ClientError> {
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

fn refused(error: ClientError) -> ClientResponse {
    ClientResponse::Refused(Failure::fatal(format!("{:#}", anyhow::Error::from(error))))
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
