//! One history: a queue of events in the order of their time, what each does, and what must hold after each.

mod connections;
mod deeds;
mod judge;
mod wrong;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque, hash_map::DefaultHasher},
    fmt,
    hash::{Hash, Hasher},
    panic::{self, AssertUnwindSafe},
    path::Path,
    sync::Arc,
    time::Duration,
};

use millstream_controlplane::{
    leadership::{Election, Latch, MemoryElection},
    store::MemoryStore,
};
use millstream_model::id::{AllocationId, CheckpointId, ExecutionAttemptId, JobId, ResourceId, WorkerId};
use millstream_slots::Spread;
use millstream_storage::CheckpointDirectory;

use crate::{
    faults::{Fault, Faults, HEALED},
    job::JobSpec,
    job_manager::{JobManager, Wish},
    network::{Stream, Time},
    output::Output,
    store::SimStore,
    task_manager::{Host, OnJobManagerLost},
    worker::{InChannel, Snapshot},
};
use connections::Connection;
use deeds::Channel;

/// All jobs have to be over by then.
const LAST: Time = HEALED + 300_000_000;
/// How long nothing may happen after the last job's end until the cluster is looked at.
const QUIET: Time = 20_000_000;
/// Lines of a trace that are kept for a failure.
const KEPT_LINES: usize = 120;

/// A history that ended well.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ran {
    pub events: u64,
    /// Of the whole trace: the same for the same seed.
    pub trace: u64,
    /// The last lines of it.
    pub last: Vec<String>,
    /// Deployments above the first of each region, over all jobs.
    pub restarts: u64,
    /// Attempts that began again while tasks of other regions of their job ran.
    pub restarts_beside_others: u64,
    pub checkpoints: u64,
    pub elections: u64,
    /// Jobs of which tasks ran on under the next JobManager.
    pub adoptions: u64,
    /// Those of which some regions ran on and others had to be restarted.
    pub adopted_in_part: u64,
    /// Jobs that were taken up and had to be restarted.
    pub refused_adoptions: u64,
    /// Calls of replaced leaders that the store refused.
    pub fenced: u64,
}

/// A history in which something happened that must not.
#[derive(Clone, Debug)]
pub struct Broken {
    pub seed: u64,
    pub at: Time,
    pub what: String,
    pub faults: Faults,
    pub last: Vec<String>,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.last {
            writeln!(f, "  {line}")?;
        }
        writeln!(f, "  faults: {:?}", self.faults)?;
        writeln!(f, "seed {} at {} us: {}", self.seed, self.at, self.what)?;
        write!(f, "once more: SIM_SEED={} cargo test -p millstream-sim -- --nocapture", self.seed)
    }
}

/// What happens at a time.
#[derive(Clone, Debug)]
enum Event {
    Fault(Fault),
    /// A client hands a job in.
    Submit(usize),
    /// A leader is elected, if that one was the last.
    Elect {
        after: u64,
    },
    /// A JobManager notices that another leads, and ends.
    Deposed(u64),
    HostUp(usize),
    /// A TaskManager has waited long enough for a JobManager, if it still waits since then.
    Abandoned {
        host: usize,
        lost_at: Time,
    },
    Connect(usize),
    ToHost(u64),
    ToJobManager(u64),
    HostLoses(u64),
    JobManagerLoses {
        connection: u64,
        by_timeout: bool,
    },
    Wake {
        job_manager: u64,
        job: JobId,
        at: Time,
    },
    Turn {
        job_manager: u64,
        job: JobId,
        at: Time,
    },
    RequireAgain {
        job_manager: u64,
        job: JobId,
    },
    Ready(At),
    Exited(At),
    Started(At, ExecutionAttemptId),
    Step(At, ExecutionAttemptId),
    Stored(At, ExecutionAttemptId, CheckpointId, Box<Snapshot>),
    Arrives(Channel),
}

/// A worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct At {
    host: usize,
    allocation: AllocationId,
}

struct World {
    now: Time,
    random: fastrand::Rng,
    queue: BTreeMap<(Time, u64), Event>,
    queued: u64,
    faults: Faults,
    jobs: Vec<JobSpec>,
    /// How long a source takes for a record.
    paces: Vec<Time>,
    submitted: BTreeSet<JobId>,
    cancelled: BTreeSet<JobId>,
    election: MemoryElection,
    /// Of the leader, unless it is dead.
    latch: Option<Latch>,
    store: Arc<SimStore>,
    checkpoints: std::path::PathBuf,
    spread: Spread,
    job_managers: BTreeMap<u64, JobManager>,
    /// The number of the one that was elected last, which may be dead.
    leader: u64,
    hosts: Vec<Host>,
    connections: BTreeMap<u64, Connection>,
    channels: BTreeMap<Channel, Stream<(WorkerId, InChannel)>>,
    output: Output,
    /// Every attempt that ever began.
    begun: BTreeSet<(JobId, ExecutionAttemptId)>,
    adoptions: u64,
    refused_adoptions: u64,
    adopted_in_part: u64,
    restarts_beside_others: u64,
    last_connection: u64,
    last_id: u128,
    trace: DefaultHasher,
    last: VecDeque<String>,
    violation: Option<String>,
}

/// Runs a history. `directory` is for its checkpoints: empty, and fast.
///
/// # Errors
/// If something happened that must not, or if something did not happen that must.
pub fn simulate(seed: u64, directory: &Path) -> Result<Ran, Box<Broken>> {
    let mut random = fastrand::Rng::with_seed(seed);
    let faults = Faults::random(&mut random);
    simulate_with(seed, random, faults, directory)
}

/// Runs a history with these faults.
///
/// # Errors
/// As [`simulate`].
pub fn simulate_with(seed: u64, random: fastrand::Rng, faults: Faults, directory: &Path) -> Result<Ran, Box<Broken>> {
    let mut world = World::new(random, faults, directory);
    let ran = panic::catch_unwind(AssertUnwindSafe(|| world.run()));
    let events = ran.unwrap_or_else(|panicked| {
        let said = panicked.downcast_ref::<String>().cloned();
        let said = said.or_else(|| panicked.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        world.violated(format!("a panic: {}", said.unwrap_or_default()));
        0
    });
    if let Some(what) = world.violation.take() {
        let World { now: at, faults, last, .. } = world;
        return Err(Box::new(Broken { seed, at, what, faults, last: last.into() }));
    }
    Ok(world.ran(events))
}

impl World {
    fn new(mut random: fastrand::Rng, faults: Faults, directory: &Path) -> World {
        let real = Arc::new(MemoryStore::new());
        let store = Arc::new(SimStore::new(real.clone(), directory.to_owned()));
        let election = MemoryElection::new(real);
        let capacity = faults.hosts as u32 * faults.slots;
        let mut jobs = Vec::new();
        let mut needed = 0;
        for number in 0..faults.jobs {
            let job = JobSpec::random(JobId(number as u128 + 1), &mut random);
            // Jobs that never fit together would wait for each other to end, which is no fault.
            needed += job.required_slots();
            if needed <= capacity {
                jobs.push(job);
            }
        }
        let paces = jobs.iter().map(|_| random.u64(10_000..400_000)).collect();
        let spread = if random.bool() { Spread::Evenly } else { Spread::Pack };
        // Those that come up again later are numbered from below.
        let first = |number| ResourceId(u128::MAX - number as u128);
        let hosts = (0..faults.hosts).map(|number| Host::new(first(number), faults.slots, faults.on_lost)).collect();
        let mut world = World {
            now: 0,
            queue: BTreeMap::new(),
            queued: 0,
            jobs,
            paces,
            submitted: BTreeSet::new(),
            cancelled: BTreeSet::new(),
            election,
            latch: None,
            store,
            checkpoints: directory.to_owned(),
            spread,
            job_managers: BTreeMap::new(),
            leader: 0,
            hosts,
            connections: BTreeMap::new(),
            channels: BTreeMap::new(),
            output: Output::default(),
            begun: BTreeSet::new(),
            adoptions: 0,
            refused_adoptions: 0,
            adopted_in_part: 0,
            restarts_beside_others: 0,
            last_connection: 0,
            last_id: 0,
            trace: DefaultHasher::new(),
            last: VecDeque::new(),
            violation: None,
            random,
            faults,
        };
        world.after(0, Event::Elect { after: 0 });
        for host in 0..world.hosts.len() {
            let delay = world.random.u64(0..200_000);
            world.after(delay, Event::Connect(host));
        }
        for job in 0..world.jobs.len() {
            let delay = world.random.u64(0..3_000_000);
            world.after(delay, Event::Submit(job));
        }
        for (at, fault) in world.faults.list.clone() {
            world.after(at, Event::Fault(fault));
        }
        world
    }

    /// Runs to the end; how many events there were.
    fn run(&mut self) -> u64 {
        let mut events = 0;
        let mut over_since = None;
        while let Some(((at, _), event)) = self.queue.pop_first() {
            if over_since.is_some_and(|since| at > since + QUIET) {
                break;
            }
            self.now = at;
            events += 1;
            self.on_event(event);
            self.judge();
            if self.violation.is_some() {
                return events;
            }
            let is_over = self.now >= HEALED && self.jobs.iter().all(|job| self.store.has_result(job.id));
            over_since = if is_over { over_since.or(Some(self.now)) } else { None };
            if self.now > LAST {
                break;
            }
        }
        self.judge_end();
        events
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Fault(fault) => self.goes_wrong(fault),
            Event::Submit(job) => self.on_submit(job),
            Event::Elect { after } if after == self.leader => self.elect(),
            Event::Elect { .. } => {}
            Event::Deposed(number) => self.job_manager_ends(number),
            Event::HostUp(host) => {
                self.last_id += 1;
                self.hosts[host].is_up = true;
                self.hosts[host].resource = ResourceId(self.last_id);
                self.after(0, Event::Connect(host));
            }
            Event::Abandoned { host, lost_at } => self.on_abandoned(host, lost_at),
            Event::Connect(host) => self.connect(host),
            Event::ToHost(connection) => self.reach_host(connection),
            Event::ToJobManager(connection) => self.reach_job_manager(connection),
            Event::HostLoses(connection) => self.host_loses(connection),
            Event::JobManagerLoses { connection, by_timeout } => self.job_manager_loses(connection, by_timeout),
            Event::Wake { job_manager, job, at } => {
                if let Some(until) = self.is_frozen(job_manager) {
                    return self.at(until, Event::Wake { job_manager, job, at });
                }
                let now = self.now;
                self.with_job_manager(job_manager, |it| it.on_wake(job, at, now));
            }
            Event::Turn { job_manager, job, at } => {
                if let Some(until) = self.is_frozen(job_manager) {
                    return self.at(until, Event::Turn { job_manager, job, at });
                }
                let now = self.now;
                self.with_job_manager(job_manager, |it| it.on_turn(job, at, now));
            }
            Event::RequireAgain { job_manager, job } => {
                if let Some(until) = self.is_frozen(job_manager) {
                    return self.at(until, Event::RequireAgain { job_manager, job });
                }
                self.with_job_manager(job_manager, |it| it.slots().resources.require_again(job));
            }
            Event::Ready(at) => self.on_ready(at),
            Event::Exited(at) => self.worker_ends(at),
            Event::Started(at, attempt) => self.on_started(at, attempt),
            Event::Step(at, attempt) => self.on_step(at, attempt),
            Event::Stored(at, attempt, checkpoint, snapshot) => self.on_stored(at, attempt, checkpoint, &snapshot),
            Event::Arrives(channel) => self.on_arrives(channel),
        }
    }

    /// A client hands a job in, until somebody takes it.
    fn on_submit(&mut self, index: usize) {
        let job = self.jobs[index].clone();
        let leader = self.leader;
        if !self.job_managers.contains_key(&leader) || self.is_frozen(leader).is_some() {
            return self.after(100_000, Event::Submit(index));
        }
        self.note(|| format!("{} is submitted: {job:?}", crate::store::short(job.id)));
        self.submitted.insert(job.id);
        let now = self.now;
        self.with_job_manager(leader, |it| it.start_job(&job, None, now));
    }

    fn elect(&mut self) {
        let before = self.leader;
        if self.latch.is_some() && !matches!(self.election.try_acquire(), Ok(None)) {
            return self.violated("another is elected while one leads".to_owned());
        }
        // One that stands still has lost it, and does not know.
        self.latch = None;
        let Ok(Some(latch)) = self.election.try_acquire() else {
            return self.violated("nobody is elected though nobody leads".to_owned());
        };
        let epoch = latch.epoch();
        self.latch = Some(latch);
        self.store.on_elected(epoch);
        self.leader += 1;
        let number = self.leader;
        self.note(|| format!("JobManager {number} leads"));
        let (store, checkpoints) = (self.store.clone(), self.checkpoints.clone());
        let mut elected = JobManager::new(number, epoch, self.spread, store, checkpoints, self.random.fork());
        let adopt = match self.faults.on_lost {
            OnJobManagerLost::KeepWorkers => Some(Duration::from_micros(self.faults.adopt_timeout)),
            OnJobManagerLost::EndWorkers => None,
        };
        for job in &self.jobs {
            if self.submitted.contains(&job.id) && !self.store.has_result(job.id) {
                elected.start_job(job, adopt, self.now);
            }
        }
        self.job_managers.insert(number, elected);
        if let Some(replaced) = self.job_managers.get(&before) {
            let at = replaced.frozen_until.max(self.now) + self.random.u64(0..2_000_000);
            self.at(at, Event::Deposed(before));
        }
        self.with_job_manager(number, |_| ());
    }

    /// Its process is gone; what was connected to it notices soon.
    fn job_manager_ends(&mut self, number: u64) {
        if self.job_managers.remove(&number).is_none() {
            return;
        }
        if number == self.leader {
            self.latch = None;
        }
        self.note(|| format!("JobManager {number} ends"));
        let lost: Vec<u64> =
            self.connections.iter().filter(|(_, it)| it.job_manager == number).map(|(id, _)| *id).collect();
        for connection in lost {
            let delay = self.random.u64(100..20_000);
            self.after(delay, Event::HostLoses(connection));
        }
    }

    /// Until when it stands still, if it does.
    fn is_frozen(&self, job_manager: u64) -> Option<Time> {
        self.job_managers.get(&job_manager).map(|it| it.frozen_until).filter(|until| *until > self.now)
    }

    /// Lets a JobManager do something, and does what comes of it.
    fn with_job_manager<T>(&mut self, number: u64, turn: impl FnOnce(&mut JobManager) -> T) -> Option<T> {
        let now = self.now;
        let job_manager = self.job_managers.get_mut(&number)?;
        let done = turn(job_manager);
        let (messages, wishes) = job_manager.conclude(now, &mut self.last_id);
        let connections = job_manager.connections.clone();
        for (to, message) in messages {
            if let Some(connection) = connections.get(&to) {
                self.send_down(*connection, message);
            }
        }
        self.grant(number, wishes);
        Some(done)
    }

    fn grant(&mut self, number: u64, wishes: Vec<Wish>) {
        for wish in wishes {
            match wish {
                Wish::RequireAgain(job, at) => self.at(at, Event::RequireAgain { job_manager: number, job }),
                Wish::Wake(job, at) => self.at(at, Event::Wake { job_manager: number, job, at }),
                Wish::Turn(job, at) => self.at(at, Event::Turn { job_manager: number, job, at }),
                Wish::Decided { job, is_adopted, has_deployed } => {
                    self.note(|| {
                        format!("{} is adopted by JobManager {number}: {is_adopted}", crate::store::short(job))
                    });
                    self.adoptions += u64::from(is_adopted);
                    self.refused_adoptions += u64::from(!is_adopted);
                    if is_adopted {
                        self.judge_adoption(number, job, has_deployed);
                    }
                }
                Wish::Ended(job, for_good) => {
                    self.note(|| format!("{} has ended for JobManager {number}: {for_good}", crate::store::short(job)));
                }
            }
        }
    }

    fn after(&mut self, delay: Time, event: Event) {
        self.at(self.now + delay, event);
    }

    fn at(&mut self, at: Time, event: Event) {
        self.queued += 1;
        self.queue.insert((at.max(self.now), self.queued), event);
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        let line = format!("{:>9} {}", self.now, what());
        line.hash(&mut self.trace);
        if self.last.len() == KEPT_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    fn violated(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    fn directory(&self, job: JobId) -> CheckpointDirectory {
        CheckpointDirectory::new(&self.checkpoints, job)
    }

    fn ran(self, events: u64) -> Ran {
        let records = || self.jobs.iter().filter_map(|job| self.store.record(job.id));
        Ran {
            events,
            trace: self.trace.finish(),
            restarts: records().flat_map(|record| record.regions).map(|region| region.attempt - 1).sum(),
            checkpoints: self.jobs.iter().filter_map(|job| self.store.durable(job.id)).map(|id| id.0).sum(),
            elections: self.leader,
            adoptions: self.adoptions,
            refused_adoptions: self.refused_adoptions,
            adopted_in_part: self.adopted_in_part,
            restarts_beside_others: self.restarts_beside_others,
            fenced: self.store.fenced(),
            last: self.last.into(),
        }
    }
}
