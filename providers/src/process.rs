//! Workers as processes of this machine: the artifact, started in the role `worker`, speaks one line of JSON per message
//! on its standard input and output.

use std::{
    io::{self, BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
};

use millstream_model::{
    fault::Failure,
    id::WorkerId,
    message::{FromWorker, Report, ToWorker},
};

/// A worker process. It is killed when this is dropped.
#[derive(Debug)]
pub struct WorkerProcess {
    worker: WorkerId,
    /// `None` once it cannot be written to any more.
    input: Mutex<Option<ChildStdin>>,
    child: Mutex<Child>,
}

/// A worker process could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start {artifact} as a worker")]
pub struct StartError {
    artifact: String,
    source: io::Error,
}

impl WorkerProcess {
    /// Starts `artifact` as a worker. Its reports go to `report`, on a thread of their own; the last one says that the
    /// process has ended, and how.
    ///
    /// # Errors
    /// If the process cannot be started.
    pub fn start(
        artifact: &Path,
        worker: WorkerId,
        report: impl Fn(FromWorker) + Send + 'static,
    ) -> Result<WorkerProcess, StartError> {
        let failed = |source| StartError { artifact: artifact.display().to_string(), source };
        let mut child = Command::new(artifact)
            .env("MILLSTREAM_ROLE", "worker")
            .env("MILLSTREAM_WORKER", worker.0.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let input = child.stdin.take();
        let output = child.stdout.take().ok_or_else(|| failed(io::Error::other("it has no standard output")))?;
        thread::Builder::new()
            .name(format!("worker-{}-reports", worker.0))
            .spawn(move || {
                let why = read_reports(BufReader::new(output), &report);
                let failure = Failure::new(format!("worker process {} has ended: {why}", worker.0));
                report(FromWorker { worker, report: Report::WorkerFailed { failure } });
            })
            .map_err(failed)?;
        Ok(WorkerProcess { worker, input: Mutex::new(input), child: Mutex::new(child) })
    }

    pub fn worker(&self) -> WorkerId {
        self.worker
    }

    /// The process's id.
    pub fn id(&self) -> u32 {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).id()
    }

    /// Hands over a message, without waiting for what it does. A process that has ended has said so by its reports.
    pub fn send(&self, message: &ToWorker) {
        let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(pipe) = &mut *input else { return };
        let written = serde_json::to_string(message)
            .map_err(io::Error::other)
            .and_then(|line| writeln!(pipe, "{line}").and_then(|()| pipe.flush()));
        if let Err(cause) = written {
            tracing::warn!(worker = self.worker.0, %cause, "a worker process cannot be spoken to");
            *input = None;
        }
    }
}

/// Passes reports on until there are no more; returns why.
fn read_reports(output: impl BufRead, report: &impl Fn(FromWorker)) -> String {
    for line in output.lines() {
        let line = match line {
            Ok(line) => line,
            Err(cause) => return format!("its output cannot be read: {cause}"),
        };
        match serde_json::from_str(&line) {
            Ok(message) => report(message),
            // A user's function may print; that is no message of ours.
            Err(_) => println!("{line}"),
        }
    }
    "its output has ended".to_owned()
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        // It may have ended already; either way it is waited for, so that no zombie is left.
        let _ = child.kill();
        let _ = child.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use super::*;

    #[test]
    fn a_program_that_is_no_worker_is_reported_as_ended() {
        let (sender, reports) = mpsc::channel();
        let sender = Arc::new(Mutex::new(sender));
        let report = move |message| {
            let _ = sender.lock().unwrap().send(message);
        };
        let _process = WorkerProcess::start(Path::new("/bin/true"), WorkerId(3), report).unwrap();
        let FromWorker { worker, report } = reports.recv().unwrap();
        assert_eq!(worker, WorkerId(3));
        assert!(matches!(report, Report::WorkerFailed { failure } if failure.message.contains("has ended")));
    }

    #[test]
    fn a_missing_artifact_is_an_error_that_names_it() {
        let error = WorkerProcess::start(Path::new("/no/such/artifact"), WorkerId(0), |_| ()).unwrap_err();
        assert!(error.to_string().contains("/no/such/artifact"));
    }
}
