//! The line between a program that plans jobs and the client that submits them for it (`millstream run`).
//!
//! ```text
//!  the program, in the role `plan`            the client
//!  main() ── execute() ──► RemoteExecutor ──one connection per call, over a Unix socket──► JobManager
//!                               ▲                            │
//!                               └────── result ◄─────────────┘
//! ```
//! So a program has no code of the control plane's protocols in it, `main` runs once, and several executions, also those
//! that depend on earlier results, behave as they do anywhere else. Each call is a connection of its own: one line of
//! JSON there, one back. One more connection carries nothing: its end tells the program that the client is gone.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{self, ExitCode, Termination},
    sync::Arc,
    thread,
};

use millstream_api::job::{self, FinishedJob, JobError, JobProgress, PipelineExecutor, RunningJob};
use millstream_model::{config::Configuration, fault::Failure, id::JobId, job_graph::JobGraph, state::JobStatus};
use serde::{Deserialize, Serialize};

use crate::{artifact, logging, settings};

/// Names the client's socket, to a program in the role `plan`.
pub const CLIENT_VARIABLE: &str = "MILLSTREAM_CLIENT";

/// What a program asks of its client.
#[derive(Debug, Serialize, Deserialize)]
pub enum ClientRequest {
    Submit(Box<JobGraph>),
    Status(JobId),
    Progress(JobId),
    Cancel(JobId),
    /// The answer comes when the job has ended.
    Wait(JobId),
}

/// What the client answers.
#[derive(Debug, Serialize, Deserialize)]
pub enum ClientResponse {
    Submitted,
    Status(JobStatus),
    Progress(JobProgress),
    Canceling,
    Ended(Box<FinishedJob>),
    /// It cannot be done, or it is not known whether it was.
    Refused(Failure),
}

/// Runs `main`, whose jobs go to the client.
pub(crate) fn plan<R: Termination>(socket: PathBuf, main: impl FnOnce() -> R) -> ExitCode {
    let configuration = match settings::load() {
        Ok(configuration) => configuration,
        Err(cause) => {
            eprintln!("{cause}");
            return ExitCode::from(2);
        }
    };
    logging::start(&configuration);
    settings::report(&configuration);
    if let Err(cause) = end_with_client(&socket) {
        eprintln!("the client that has started this program cannot be reached: {cause}");
        return ExitCode::FAILURE;
    }
    job::set_default_executor(Arc::new(RemoteExecutor { configuration, socket }));
    main().report()
}

/// Ends this process when its client is gone, whatever `main` is at: nobody would hear of its jobs.
fn end_with_client(socket: &Path) -> io::Result<()> {
    let mut line = UnixStream::connect(socket)?;
    let socket = socket.to_owned();
    let watch = move || {
        // Nothing ever comes on it but its end.
        let _ = line.read(&mut [0]);
        sweep(&socket);
        // Whoever would read it may be gone as well, and `eprintln` panics then.
        let _ = writeln!(io::stderr(), "the client that has started this program is gone");
        process::exit(1);
    };
    thread::Builder::new().name("client-watch".to_owned()).spawn(watch).map(drop)
}

/// Removes what a client that was killed has left behind: a socket at which nobody listens, alone in its folder.
fn sweep(socket: &Path) {
    // One that is being killed may listen for a moment still. Whether it answers this or ends, the line ends.
    if let Ok(mut line) = UnixStream::connect(socket) {
        let _ = line.shutdown(Shutdown::Write);
        let _ = line.read(&mut [0]);
    }
    if UnixStream::connect(socket).is_err_and(|cause| cause.kind() == io::ErrorKind::ConnectionRefused) {
        let _ = fs::remove_file(socket);
        let _ = socket.parent().map(fs::remove_dir);
    }
}

/// Hands jobs to the client that has started this program.
struct RemoteExecutor {
    configuration: Configuration,
    socket: PathBuf,
}

impl PipelineExecutor for RemoteExecutor {
    fn configuration(&self) -> Configuration {
        self.configuration.clone()
    }

    fn submit(&self, mut graph: JobGraph) -> Result<Arc<dyn RunningJob>, JobError> {
        let own = artifact::own().map_err(|cause| {
            JobError::Submission(Failure::fatal(format!("this executable cannot be read: {cause}")))
        })?;
        graph.artifact = Some(own);
        let job = graph.job_id;
        match call(&self.socket, &ClientRequest::Submit(Box::new(graph))) {
            ClientResponse::Submitted => Ok(Arc::new(RemoteJob { socket: self.socket.clone(), job })),
            ClientResponse::Refused(failure) => Err(JobError::Submission(failure)),
            other => Err(JobError::Submission(unexpected(&other))),
        }
    }
}

/// A job on the cluster.
struct RemoteJob {
    socket: PathBuf,
    job: JobId,
}

impl RunningJob for RemoteJob {
    fn status(&self) -> JobStatus {
        match call(&self.socket, &ClientRequest::Status(self.job)) {
            ClientResponse::Status(status) => status,
            other => {
                tracing::warn!(job = %self.job, answer = ?other, "the client does not know how the job is");
                JobStatus::Initializing
            }
        }
    }

    fn cancel(&self) {
        match call(&self.socket, &ClientRequest::Cancel(self.job)) {
            ClientResponse::Canceling => {}
            other => tracing::warn!(job = %self.job, answer = ?other, "the job could not be cancelled"),
        }
    }

    fn wait(&self) -> FinishedJob {
        match call(&self.socket, &ClientRequest::Wait(self.job)) {
            ClientResponse::Ended(finished) => *finished,
            ClientResponse::Refused(failure) => FinishedJob::lost(failure),
            other => FinishedJob::lost(unexpected(&other)),
        }
    }

    fn progress(&self) -> JobProgress {
        match call(&self.socket, &ClientRequest::Progress(self.job)) {
            ClientResponse::Progress(progress) => progress,
            _ => JobProgress::default(),
        }
    }
}

fn unexpected(answer: &ClientResponse) -> Failure {
    Failure::new(format!("the client gave an answer to another question: {answer:?}"))
}

fn call(socket: &Path, request: &ClientRequest) -> ClientResponse {
    let called = || -> io::Result<ClientResponse> {
        let mut line = UnixStream::connect(socket)?;
        let text = serde_json::to_string(request).expect("requests have a form in JSON");
        line.write_all(format!("{text}\n").as_bytes())?;
        let mut answer = String::new();
        BufReader::new(line).read_line(&mut answer)?;
        if answer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        serde_json::from_str(&answer).map_err(io::Error::from)
    };
    called().unwrap_or_else(|cause| {
        // `main` may end before the watch has noticed.
        sweep(socket);
        ClientResponse::Refused(Failure::new(format!("the client that has started this program is gone: {cause}")))
    })
}
