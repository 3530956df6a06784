//! The line between a client and the JobManager that it has started for one job: standard input and output of that
//! process. Both ends are here.
//!
//! ```text
//!  client ── the job, one line ─────────────────────────► JobManager
//!         ◄─ where it can be reached, or why it ended, one line ──
//!         ── one more line: nobody waits any more ──────►
//! ```
//! If the line ends without that last one, the client was killed or interrupted.

use std::{
    io::{self, BufRead, Write},
    net::SocketAddr,
    path::PathBuf,
    process::Stdio,
    thread,
};

use millstream::artifact::ENGINE_VERSION;
use millstream_model::{fault::Failure, job_graph::JobGraph};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{ChildStdin, Command},
    sync::oneshot,
};

/// A job and what its cluster has to know.
#[derive(Debug, Serialize, Deserialize)]
pub struct ClusterRequest {
    pub graph: JobGraph,
    /// Absolute.
    pub artifact: PathBuf,
    /// The folder of the cluster's logs.
    pub logs: PathBuf,
    /// Whether the job is cancelled if its client is lost: `execution.shutdown-on-attached-exit`.
    pub ends_with_client: bool,
}

/// What becomes of it.
#[derive(Debug, Serialize, Deserialize)]
pub enum ClusterResponse {
    /// The job was accepted.
    Runs { clients: SocketAddr },
    /// The process ends.
    Refused(Failure),
}

/// The client's end: a cluster that runs its job.
#[derive(Debug)]
pub struct JobCluster {
    /// Where clients can ask.
    pub clients: SocketAddr,
    line: ChildStdin,
}

impl JobCluster {
    /// Starts a cluster with a command that is a JobManager for one job, and waits until that is accepted.
    ///
    /// # Errors
    /// If it cannot be started, or does not want the job. Then no process is left.
    pub async fn start(mut command: Command, request: &ClusterRequest) -> Result<JobCluster, Failure> {
        // A signal of a terminal is for the client. If that is not there any more before it has an answer, the process ends.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let failed = |what: &dyn std::fmt::Display| {
            Failure::fatal(format!(
                "no cluster can be started for the job: {what}; its logs are in {}",
                request.logs.display()
            ))
        };
        let mut process = command.spawn().map_err(|cause| failed(&cause))?;
        let mut line = process.stdin.take().expect("it is piped");
        let answers = process.stdout.take().expect("it is piped");
        let mut text = serde_json::to_vec(request).expect("requests have a form in JSON");
        text.push(b'\n');
        // One that ends before it has read it all has an answer.
        let _ = line.write_all(&text).await;
        let mut answer = String::new();
        BufReader::new(answers).read_line(&mut answer).await.map_err(|cause| failed(&cause))?;
        if answer.is_empty() {
            let status = process.wait().await.map_err(|cause| failed(&cause))?;
            return Err(failed(&format!("its JobManager has ended with {status}")));
        }
        match serde_json::from_str(&answer) {
            Ok(ClusterResponse::Runs { clients }) => Ok(JobCluster { clients, line }),
            Ok(ClusterResponse::Refused(failure)) => {
                let _ = process.wait().await;
                Err(failure)
            }
            Err(cause) => Err(failed(&format!("its JobManager is not understood: {cause}"))),
        }
    }

    /// Says that nobody waits for the job any more: the cluster ends with it.
    pub async fn let_go(mut self) {
        // One that has ended already needs not be told.
        let _ = self.line.write_all(b"\n").await;
    }
}

/// How a client has left its cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Left {
    /// It has what it wanted.
    LetGo,
    /// It was killed or interrupted.
    Lost,
}

/// The cluster's end.
#[derive(Debug)]
pub struct ClientEnd {
    left: oneshot::Receiver<Left>,
}

impl ClientEnd {
    /// Reads the request that this process was started with.
    ///
    /// # Errors
    /// If it cannot be understood.
    pub fn take() -> Result<(ClusterRequest, ClientEnd), Failure> {
        let mut text = String::new();
        io::stdin().lock().read_line(&mut text).map_err(not_understood)?;
        let request = serde_json::from_str(&text).map_err(|cause| not_understood(cause.into()))?;
        let (sender, left) = oneshot::channel();
        let watch = move || {
            let mut rest = String::new();
            let read = io::stdin().lock().read_line(&mut rest);
            let left = if matches!(read, Ok(1..)) { Left::LetGo } else { Left::Lost };
            // Whoever has ended does not ask.
            let _ = sender.send(left);
        };
        // Not by the runtime, which would wait for it at its end.
        thread::Builder::new().name("client-watch".to_owned()).spawn(watch).map_err(not_understood)?;
        Ok((request, ClientEnd { left }))
    }

    /// Waits until the client has left. Cancellation-safe; not to be called again.
    pub async fn left(&mut self) -> Left {
        (&mut self.left).await.unwrap_or(Left::Lost)
    }

    /// Tells the client. That it is not there any more is seen elsewhere.
    pub fn answer(response: &ClusterResponse) {
        let mut text = serde_json::to_vec(response).expect("responses have a form in JSON");
        text.push(b'\n');
        let mut out = io::stdout().lock();
        let _ = out.write_all(&text).and_then(|()| out.flush());
    }
}

fn not_understood(cause: io::Error) -> Failure {
    Failure::fatal(format!(
        "this process is for clients that start a cluster for a job, and cannot understand its own: {cause}; are both of \
         version {ENGINE_VERSION}?"
    ))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use millstream_model::{config::Configuration, id::JobId};

    use super::*;

    fn request() -> ClusterRequest {
        let graph = JobGraph {
            job_id: JobId(7),
            name: "job".to_owned(),
            vertices: Vec::new(),
            edges: Vec::new(),
            configuration: Configuration::new(),
            artifact: None,
        };
        ClusterRequest { graph, artifact: "/job".into(), logs: "/log/job".into(), ends_with_client: false }
    }

    /// Starts a shell script in place of a JobManager.
    async fn started(script: &str) -> Result<JobCluster, Failure> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        JobCluster::start(command, &request()).await
    }

    #[tokio::test]
    async fn a_jobmanager_gets_the_job_and_says_where_it_is_and_is_told_when_nobody_waits() {
        let root = tempfile::tempdir().unwrap();
        let (got, left) = (root.path().join("got"), root.path().join("left"));
        let [got_path, left_path] = [&got, &left].map(|path| path.display());
        let answer = r#"{"Runs":{"clients":"127.0.0.1:8081"}}"#;
        let script =
            format!("head -n 1 >{got_path}; echo '{answer}'; cat >{left_path}.new; mv {left_path}.new {left_path}");
        let cluster = started(&script).await.unwrap();
        assert_eq!(cluster.clients, SocketAddr::from(([127, 0, 0, 1], 8081)));
        let got: ClusterRequest = serde_json::from_slice(&std::fs::read(got).unwrap()).unwrap();
        assert_eq!((got.graph.job_id, got.logs), (JobId(7), request().logs));
        cluster.let_go().await;
        let seen = async {
            while !left.exists() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), seen).await.expect("it has been told");
        assert_eq!(std::fs::read_to_string(left).unwrap(), "\n");
    }

    #[tokio::test]
    async fn a_jobmanager_that_does_not_come_up_says_why_or_where_to_look() {
        let refused = ClusterResponse::Refused(Failure::fatal("not this one"));
        let refused = format!("echo '{}'", serde_json::to_string(&refused).unwrap());
        assert_eq!(started(&refused).await.unwrap_err().message, "not this one");
        for (script, words) in [("exit 3", "exit status: 3"), ("echo hello", "not understood")] {
            let failure = started(script).await.unwrap_err();
            assert!(failure.message.contains(words) && failure.message.contains("/log/job"), "{failure}");
        }
    }
}
