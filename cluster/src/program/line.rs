//! A client's end of the line to a program that it has started. The program's end is `millstream::client_line`.

use std::{io, path::Path, sync::Arc};

use millstream::{
    artifact::ENGINE_VERSION,
    client_line::{CLIENT_VARIABLE, ClientRequest, ClientResponse},
    job::{FinishedJob, JobProgress},
    model::{fault::Failure, id::JobId, job_graph::JobGraph, state::JobStatus},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    process::Command,
};

use crate::LARGEST_MESSAGE;

/// What becomes of a program's calls. Each may take as long as it needs: it has a connection of its own.
pub trait ProgramCalls: Send + Sync + 'static {
    /// Has a job run.
    fn submit(&self, graph: JobGraph) -> impl Future<Output = Result<(), Failure>> + Send;
    fn status(&self, job: JobId) -> impl Future<Output = Result<JobStatus, Failure>> + Send;
    fn progress(&self, job: JobId) -> impl Future<Output = Result<JobProgress, Failure>> + Send;
    fn cancel(&self, job: JobId) -> impl Future<Output = Result<(), Failure>> + Send;
    /// Comes back when the job has ended, or at once if nobody waits for it.
    fn wait(&self, job: JobId) -> impl Future<Output = Result<FinishedJob, Failure>> + Send;
}

/// A socket that a program finds by its environment.
#[derive(Debug)]
pub struct ProgramLine {
    listener: UnixListener,
    /// Nobody but this user can look into it.
    folder: tempfile::TempDir,
}

impl ProgramLine {
    /// # Errors
    /// If there is no place for a socket.
    pub fn open() -> io::Result<ProgramLine> {
        let folder = tempfile::tempdir()?;
        let listener = UnixListener::bind(folder.path().join("client"))?;
        Ok(ProgramLine { listener, folder })
    }

    /// The artifact as a process that makes its calls here. It ends when this end of the line is gone.
    pub fn command(&self, artifact: &Path) -> Command {
        let mut command = Command::new(artifact);
        command
            .env("MILLSTREAM_ROLE", "plan")
            .env(CLIENT_VARIABLE, self.folder.path().join("client"))
            .kill_on_drop(true);
        command
    }

    /// Answers the program's calls, each on its connection, for as long as it is not stopped.
    pub async fn serve(self, calls: Arc<impl ProgramCalls>) {
        while let Ok((line, _)) = self.listener.accept().await {
            let calls = calls.clone();
            tokio::spawn(async move {
                if let Err(cause) = answer(line, &*calls).await {
                    tracing::warn!(%cause, "a call of the program could not be answered");
                }
            });
        }
    }
}

async fn answer(mut line: UnixStream, calls: &impl ProgramCalls) -> io::Result<()> {
    let mut text = String::new();
    BufReader::new((&mut line).take(LARGEST_MESSAGE as u64)).read_line(&mut text).await?;
    if text.is_empty() {
        // It has only watched whether this end is there.
        return Ok(());
    }
    let response = match serde_json::from_str(&text) {
        Ok(request) => respond(request, calls).await.unwrap_or_else(ClientResponse::Refused),
        Err(cause) => ClientResponse::Refused(Failure::fatal(format!(
            "the client does not understand the program: {cause}; are both of version {ENGINE_VERSION}?"
        ))),
    };
    let mut text = serde_json::to_vec(&response).expect("responses have a form in JSON");
    text.push(b'\n');
    line.write_all(&text).await
}

async fn respond(request: ClientRequest, calls: &impl ProgramCalls) -> Result<ClientResponse, Failure> {
    Ok(match request {
        ClientRequest::Submit(graph) => {
            calls.submit(*graph).await?;
            ClientResponse::Submitted
        }
        ClientRequest::Status(job) => ClientResponse::Status(calls.status(job).await?),
        ClientRequest::Progress(job) => ClientResponse::Progress(calls.progress(job).await?),
        ClientRequest::Cancel(job) => {
            calls.cancel(job).await?;
            ClientResponse::Canceling
        }
        ClientRequest::Wait(job) => ClientResponse::Ended(Box::new(calls.wait(job).await?)),
    })
}
