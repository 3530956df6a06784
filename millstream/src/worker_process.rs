//! A worker in a process of its own: messages of the JobMaster come in on standard input, reports go out on standard
//! output, each as one line of JSON.

use std::{
    io::{self, BufRead, Write},
    process::ExitCode,
    thread,
};

use crossbeam_channel::unbounded;
use millstream_dataplane::{Worker, WorkerConfig};
use millstream_model::{
    config::Configuration,
    id::WorkerId,
    message::{FromWorker, ToWorker},
};

use crate::{artifact, logging};

/// Names the worker's number.
pub const WORKER_VARIABLE: &str = "MILLSTREAM_WORKER";

/// Runs this process as a worker until its standard input ends: then whoever started it is gone.
pub(crate) fn run() -> ExitCode {
    logging::start(&Configuration::new());
    let missing = artifact::missing_features();
    if !missing.is_empty() {
        eprintln!("this executable was compiled for CPU features that this machine lacks: {}", missing.join(", "));
        return ExitCode::FAILURE;
    }
    let worker = std::env::var(WORKER_VARIABLE).ok().and_then(|number| number.parse().ok()).map(WorkerId);
    let Some(worker) = worker else {
        eprintln!("{WORKER_VARIABLE} must be the worker's number");
        return ExitCode::from(2);
    };
    let own = match artifact::own() {
        Ok(own) => own,
        Err(cause) => {
            eprintln!("this executable cannot be read: {cause}");
            return ExitCode::FAILURE;
        }
    };
    let (sender, reports) = unbounded::<FromWorker>();
    let worker = match Worker::start(WorkerConfig { worker, artifact: Some(own.sha256), network: None }, sender) {
        Ok(worker) => worker,
        Err(failure) => {
            eprintln!("{failure}");
            return ExitCode::FAILURE;
        }
    };
    // Ends when the worker has ended, which holds the other end of the channel.
    let writer = thread::spawn(move || {
        reports.iter().try_for_each(|report| {
            let line = serde_json::to_string(&report)?;
            let mut out = io::stdout().lock();
            writeln!(out, "{line}").and_then(|()| out.flush())
        })
    });
    for line in io::stdin().lock().lines() {
        let message = line.map_err(|cause| cause.to_string());
        let message =
            message.and_then(|line| serde_json::from_str::<ToWorker>(&line).map_err(|cause| cause.to_string()));
        match message {
            Ok(message) => worker.send(message),
            Err(cause) => {
                eprintln!("a message of the JobMaster cannot be read: {cause}");
                return ExitCode::FAILURE;
            }
        }
    }
    drop(worker);
    let _ = writer.join();
    ExitCode::SUCCESS
}
