//! The worker processes of one job: this very executable, started several times in the role `worker`.
//!
//! ```text
//!  start ──► process ──Registered──► joins the job ──► ends ──► replaced by a fresh process, under a new id
//!              ▲                                        │
//!              └──────── a pause, if it died young ◄────┘          the job ends: all end, and none is replaced
//! ```
//! A thread of its own owns the processes; the job's links to them only borrow. When this process dies, they see the end
//! of their standard input.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use millstream_controlplane::{ProcessLink, WorkerLink};
use millstream_model::{
    fault::Failure,
    id::WorkerId,
    memory::SlotMemory,
    message::{FromWorker, Report},
};
use millstream_providers::process::{Output, WorkerProcess};

use crate::{
    artifact::THIS_EXECUTABLE,
    hashed_file::HashedFile,
    logging::{self, WorkerLog},
    worker_network::JobNetwork,
    worker_process::{WorkerMemory, WorkerSetup},
};

/// How long processes may take to end after the job.
const GRACE: Duration = Duration::from_secs(5);

/// What a fleet is told when it starts.
pub(crate) struct FleetConfig {
    pub(crate) processes: u32,
    /// The executable of this process.
    pub(crate) artifact: HashedFile,
    /// Of each process.
    pub(crate) slots: u32,
    /// Of each slot.
    pub(crate) memory: SlotMemory,
    pub(crate) huge_pages: bool,
    pub(crate) network: JobNetwork,
    pub(crate) reports: Sender<FromWorker>,
    pub(crate) joining: Sender<Box<dyn WorkerLink>>,
}

/// Processes that run a job. They end when this is dropped, or the job has ended.
pub(crate) struct WorkerFleet {
    events: Sender<Event>,
    thread: Option<JoinHandle<()>>,
}

/// What the fleet's thread reacts to.
enum Event {
    Registered {
        worker: WorkerId,
        slots: u32,
        shuffle_address: Option<SocketAddr>,
    },
    Ended(WorkerId),
    /// The job needs no workers any more, and has told those that it knew.
    JobEnded,
    Dropped,
}

impl WorkerFleet {
    /// Starts the processes. They join when they are ready.
    ///
    /// # Errors
    /// If one cannot be started.
    pub(crate) fn start(config: FleetConfig) -> Result<WorkerFleet, Failure> {
        let (events, receiver) = unbounded();
        let mut keeper = Keeper {
            events: events.clone(),
            processes: HashMap::new(),
            due: Vec::new(),
            next: 0,
            replacement: Replacement::new(),
            kill_at: None,
            config,
        };
        for _ in 0..keeper.config.processes {
            keeper.start_process().map_err(Failure::new)?;
        }
        let thread = thread::Builder::new().name("worker-fleet".to_owned()).spawn(move || keeper.run(&receiver));
        let thread =
            thread.map_err(|cause| Failure::new(format!("no thread for workers could be started: {cause}")))?;
        Ok(WorkerFleet { events, thread: Some(thread) })
    }
}

impl Drop for WorkerFleet {
    fn drop(&mut self) {
        // It may have ended with the job.
        let _ = self.events.send(Event::Dropped);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The fleet's thread.
struct Keeper {
    config: FleetConfig,
    events: Sender<Event>,
    processes: HashMap<WorkerId, Running>,
    /// When replacements are to be started.
    due: Vec<Instant>,
    /// The number of the next worker: none is used twice, so that what is late of an old one is not taken for the new
    /// one's.
    next: u32,
    replacement: Replacement,
    /// Set when the job has ended: what runs then is killed.
    kill_at: Option<Instant>,
}

struct Running {
    process: Arc<WorkerProcess>,
    since: Instant,
    has_joined: bool,
}

impl Keeper {
    fn run(mut self, events: &Receiver<Event>) {
        loop {
            let deadline = self.kill_at.or_else(|| self.due.iter().min().copied());
            let event = match deadline {
                Some(deadline) => events.recv_deadline(deadline),
                None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match event {
                Ok(Event::Registered { worker, slots, shuffle_address }) => {
                    self.on_registered(worker, slots, shuffle_address);
                }
                Ok(Event::Ended(worker)) => self.on_ended(worker),
                Ok(Event::JobEnded) => self.on_job_ended(),
                Err(RecvTimeoutError::Timeout) if self.kill_at.is_none() => self.start_due(),
                // Processes that are left are killed.
                Err(_) | Ok(Event::Dropped) => return,
            }
            if self.kill_at.is_some() && self.processes.is_empty() {
                return;
            }
        }
    }

    fn on_registered(&mut self, worker: WorkerId, slots: u32, shuffle_address: Option<SocketAddr>) {
        let Some(running) = self.processes.get_mut(&worker) else { return };
        running.has_joined = true;
        let events = self.events.clone();
        // Before the process hears of it, or its end would have it replaced.
        let link = ProcessLink::new(&running.process, slots, shuffle_address)
            .before_shutdown(move || drop(events.send(Event::JobEnded)));
        if self.kill_at.is_some() || self.config.joining.send(Box::new(link)).is_err() {
            // The job has ended without knowing of it.
            self.processes.remove(&worker);
            self.on_job_ended();
        }
    }

    fn on_ended(&mut self, worker: WorkerId) {
        let Some(running) = self.processes.remove(&worker) else { return };
        if self.kill_at.is_none() {
            let now = now();
            self.due.push(now + self.replacement.pause_after(now.duration_since(running.since)));
        }
    }

    /// Those that the job knew were told to end; the others are killed at once.
    fn on_job_ended(&mut self) {
        self.kill_at.get_or_insert_with(|| now() + GRACE);
        self.due.clear();
        self.processes.retain(|_, running| running.has_joined);
    }

    fn start_due(&mut self) {
        let now = now();
        for _ in self.due.extract_if(.., |due| *due <= now).collect::<Vec<_>>() {
            if let Err(problem) = self.start_process() {
                tracing::warn!(problem, "a worker process is not replaced yet");
                self.due.push(now + self.replacement.pause_after(Duration::ZERO));
            }
        }
    }

    fn start_process(&mut self) -> Result<(), String> {
        let worker = WorkerId(self.next);
        self.next += 1;
        let (events, reports) = (self.events.clone(), self.config.reports.clone());
        let pass_on = move |message: FromWorker| {
            let event = match message.report {
                Report::Registered { slots, shuffle_address } => {
                    Some(Event::Registered { worker, slots, shuffle_address })
                }
                Report::WorkerFailed { .. } => Some(Event::Ended(worker)),
                _ => None,
            };
            // Nobody listens any more when the job has ended.
            event.into_iter().for_each(|event| drop(events.send(event)));
            let _ = reports.send(message);
        };
        let network = self.config.network.setup(worker).map_err(|failure| failure.message)?;
        let log = WorkerLog { levels: logging::levels(), is_captured: false };
        let memory = WorkerMemory {
            of_each_slot: Some(self.config.memory),
            data_bytes_max: None,
            huge_pages: self.config.huge_pages,
        };
        let artifact = Some(self.config.artifact.clone());
        let setup = WorkerSetup { worker, slots: self.config.slots, network: Some(network), log, memory, artifact };
        let process =
            WorkerProcess::start(Path::new(THIS_EXECUTABLE), worker, &setup.to_line(), Output::Inherited, pass_on)
                .map_err(|error| format!("{error}: {}", std::error::Error::source(&error).expect("it has a cause")))?;
        tracing::info!(worker = worker.0, process = process.id(), "a worker process has started");
        let running = Running { process: Arc::new(process), since: now(), has_joined: false };
        self.processes.insert(worker, running);
        Ok(())
    }
}

/// How long to wait before a process that has ended is replaced: the longer, the more of them die young.
#[derive(Debug)]
struct Replacement {
    next_pause: Duration,
}

impl Replacement {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(30);
    /// Whoever has lived so long did not die of how it was started.
    const YOUTH: Duration = Duration::from_secs(10);

    fn new() -> Replacement {
        Replacement { next_pause: Replacement::FIRST }
    }

    fn pause_after(&mut self, lived: Duration) -> Duration {
        if lived >= Replacement::YOUTH {
            self.next_pause = Replacement::FIRST;
            return Duration::ZERO;
        }
        let pause = self.next_pause;
        self.next_pause = (pause * 2).min(Replacement::LONGEST);
        pause
    }
}

#[expect(clippy::disallowed_methods, reason = "the keeper of processes owns its clock")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_that_die_young_are_replaced_ever_more_slowly_and_others_at_once() {
        let mut replacement = Replacement::new();
        let pauses: Vec<_> = (0..11).map(|_| replacement.pause_after(Duration::from_secs(1)).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000]);
        assert_eq!(replacement.pause_after(Duration::from_secs(10)), Duration::ZERO);
        assert_eq!(replacement.pause_after(Duration::ZERO), Replacement::FIRST);
    }
}
