//! The worker processes of a TaskManager. Processes are started, spoken to and waited for on threads of their own: each of
//! that may take time, and the connection to the JobManager must not wait for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    thread,
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender, unbounded};
use millstream::{
    logging::{self, WorkerLog},
    worker_process::WorkerSetup,
};
use millstream_model::{
    id::{AllocationId, JobId, LeaderEpoch},
    log::LogLevels,
    message::{Command, FromWorker, Report, ToWorker},
};
use millstream_providers::process::{Output, WorkerProcess};
use tokio::sync::mpsc::UnboundedSender;

use super::memory::{EndOfWorker, WorkerLimit};
use crate::{
    LARGEST_MESSAGE,
    artifacts::Located,
    logs::{
        capture::WorkerOutput,
        store::{JobFile, JobLogs},
    },
    metrics::{MemoryInUse, WorkerNumbers},
};

/// With room for what else is in its message.
const LARGEST_LINE: usize = LARGEST_MESSAGE - 1024;

/// Of more than so many, those are forgotten that have no workers here.
const JOBS_WITH_LEVELS_MAX: usize = 1000;

/// What a worker has to tell.
#[derive(Debug)]
pub(super) enum WorkerEvent {
    /// A report, as one line of JSON.
    Line { allocation: AllocationId, line: Vec<u8> },
    /// Its process has gone, or could not be started. The last event of an allocation.
    Ended { allocation: AllocationId, why: String, operator: Option<String> },
}

/// The workers. They are killed when this is dropped.
#[derive(Debug)]
pub(super) struct Workers {
    events: UnboundedSender<WorkerEvent>,
    numbers: WorkerNumbers,
    /// The way to each one's thread. Its end has the process killed.
    lines: BTreeMap<AllocationId, (JobId, Sender<String>)>,
    logs: JobLogs,
    /// What was said about what the workers of jobs log.
    levels: BTreeMap<JobId, LogLevels>,
}

impl Workers {
    pub(super) fn new(events: UnboundedSender<WorkerEvent>, logs: JobLogs, numbers: WorkerNumbers) -> Workers {
        Workers { events, numbers, lines: BTreeMap::new(), logs, levels: BTreeMap::new() }
    }

    /// Of all of them.
    pub(super) fn memory_in_use(&self) -> MemoryInUse {
        self.numbers.memory_in_use()
    }

    /// Starts a worker once its artifact is there. Lines for it wait until then.
    pub(super) fn start(
        &mut self,
        allocation: AllocationId,
        job: JobId,
        mut setup: WorkerSetup,
        limit: WorkerLimit,
        artifact: impl Future<Output = Result<Located, String>> + Send + 'static,
    ) {
        let (sender, lines) = unbounded();
        self.lines.insert(allocation, (job, sender));
        let (events, logs, numbers) = (self.events.clone(), self.logs.clone(), self.numbers.clone());
        setup.log = WorkerLog { levels: self.log_levels(job), is_captured: true };
        tokio::spawn(async move {
            let ended = |why: String| drop(events.send(WorkerEvent::Ended { allocation, why, operator: None }));
            let Located { path, file } = match artifact.await {
                Ok(located) => located,
                Err(why) => return ended(why),
            };
            setup.artifact = Some(file);
            let (own, file) = (events.clone(), logs.file(job));
            let keep = move || {
                let keeper = Keeper { allocation, job, events: own, file, numbers: numbers.clone(), limit };
                keeper.keep(&path, &setup, &lines);
                numbers.on_ended(allocation);
            };
            if let Err(cause) = thread::Builder::new().name("worker-line".to_owned()).spawn(keep) {
                ended(format!("no thread for a worker could be started: {cause}"));
            }
        });
    }

    /// What a job's workers log: what this process does, and stronger what was said about the job.
    fn log_levels(&self, job: JobId) -> LogLevels {
        let own = logging::levels();
        self.levels.get(&job).map_or_else(|| own.clone(), |levels| own.with(levels))
    }

    /// From now on this is logged, by the workers of a job, or by this process and all workers.
    pub(super) fn set_log_levels(&mut self, job: Option<JobId>, levels: &LogLevels) {
        match job {
            Some(job) if levels.is_empty() => drop(self.levels.remove(&job)),
            Some(job) => drop(self.levels.insert(job, levels.clone())),
            None => drop(logging::set_levels(levels)),
        }
        // A job without workers here may get some, but not for long after its end.
        let has_workers: BTreeSet<JobId> = self.lines.values().map(|(job, _)| *job).collect();
        if self.levels.len() > JOBS_WITH_LEVELS_MAX {
            self.levels.retain(|job, _| has_workers.contains(job));
        }
        for (of, lines) in self.lines.values().filter(|(of, _)| job.is_none_or(|job| job == *of)) {
            let command = Command::SetLogLevels { levels: self.log_levels(*of) };
            let message = ToWorker { epoch: LeaderEpoch::default(), command };
            let _ = lines.send(serde_json::to_string(&message).expect("messages have a form in JSON"));
        }
    }

    /// Passes a line on. A worker that is gone has said so.
    pub(super) fn send_line(&self, allocation: AllocationId, line: String) {
        if let Some((_, lines)) = self.lines.get(&allocation) {
            let _ = lines.send(line);
        }
    }

    /// Lets a worker that was told to end do so, and kills it after `grace`.
    pub(super) fn end(&mut self, allocation: AllocationId, grace: Duration) {
        if let Some((_, lines)) = self.lines.remove(&allocation) {
            tokio::spawn(async move {
                tokio::time::sleep(grace).await;
                drop(lines);
            });
        }
    }

    /// Kills a worker.
    pub(super) fn kill(&mut self, allocation: AllocationId) {
        self.lines.remove(&allocation);
    }

    pub(super) fn forget(&mut self, allocation: AllocationId) {
        self.lines.remove(&allocation);
    }
}

/// Looks after one worker, on a thread of its own.
struct Keeper {
    allocation: AllocationId,
    job: JobId,
    events: UnboundedSender<WorkerEvent>,
    /// Of what its job prints and logs.
    file: JobFile,
    numbers: WorkerNumbers,
    limit: WorkerLimit,
}

impl Keeper {
    /// Starts the worker's process and passes lines on to it, until there can be no more of them: then it is killed.
    fn keep(self, artifact: &std::path::Path, setup: &WorkerSetup, lines: &Receiver<String>) {
        let Keeper { allocation, job, events, file, numbers, limit } = self;
        let limit = Arc::new(limit);
        let worker = setup.worker;
        let output = Arc::new(WorkerOutput::new(worker, file));
        let written = output.clone();
        // Before it can say anything.
        numbers.on_starting(allocation, job, worker);
        let (reports, told, limited) = (events.clone(), numbers.clone(), limit.clone());
        let pass_on = move |message: FromWorker| {
            let name = told.job_name(allocation);
            if !told.on_report(allocation, &message) {
                return;
            }
            let event = match message {
                FromWorker { report: Report::WorkerFailed { failure }, .. } => {
                    let end = EndOfWorker {
                        job_name: &name,
                        job,
                        worker,
                        how: &failure.message,
                        failed_bytes: written.allocation_failed(),
                        memory: told.memory(allocation),
                    };
                    let first = limited.out_of_memory(&end).map(|why| format!("{why}. "));
                    let then = if first.is_some() { None } else { limited.killed(&end).map(|why| format!("; {why}")) };
                    let (first, then) = (first.unwrap_or_default(), then.unwrap_or_default());
                    let why = format!("{first}{}{then}{}", failure.message, written.last_words());
                    WorkerEvent::Ended { allocation, why, operator: written.crashed() }
                }
                message => as_line(allocation, &message),
            };
            // Nobody listens when the time with the JobManager is over.
            let _ = reports.send(event);
        };
        let capture = Output::Captured(Arc::new(move |stream, piece: &[u8]| output.take(stream, piece)));
        let (line, environment) = (setup.to_line(), limit.environment());
        let place = |process| limit.place(process);
        let started = WorkerProcess::start_placed(artifact, worker, &line, capture, pass_on, environment, place);
        let process = match started {
            Ok(process) => process,
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                let why = format!("{error}: {cause}");
                let _ = events.send(WorkerEvent::Ended { allocation, why, operator: None });
                return;
            }
        };
        numbers.on_started(allocation, process.id());
        tracing::info!(%job, worker = worker.0, process = process.id(), "a worker process has started");
        lines.iter().for_each(|line| process.send_line(&line));
    }
}

/// A report as it is passed on. One that is too large would cost the connection that all jobs share, so it costs the worker
/// alone.
fn as_line(allocation: AllocationId, message: &FromWorker) -> WorkerEvent {
    match serde_json::to_vec(message).expect("reports have a form in JSON") {
        line if line.len() > LARGEST_LINE => {
            let why = format!(
                "worker {} was ended, since a report of it has {} bytes and {LARGEST_LINE} are the most: write what the \
                 job collects to files instead",
                message.worker.0,
                line.len()
            );
            WorkerEvent::Ended { allocation, why, operator: None }
        }
        line => WorkerEvent::Line { allocation, line },
    }
}
