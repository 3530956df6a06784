//! A job on worker processes of several hosts: each worker sees its own network only, and is connected by the shuffle's
//! encrypted connections. The JobMaster is in this process.

use std::{
    mem,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use crossbeam_channel::{Sender, unbounded};
use millstream::{
    logging::WorkerLog,
    model::{
        config::SHUFFLE_LANES,
        config::{NETWORK_IO, NetworkIo},
        id::{JobId, WorkerId},
        job_graph::JobGraph,
        message::FromWorker,
    },
    worker_process::{WorkerMemory, WorkerSetup},
};
use millstream_controlplane::{
    JobHandle, JobMaster, JobMasterConfig, JobMetrics, JobOutcome, WorkerLink, store::MemoryStore,
};
use millstream_dataplane::{Carrier, ClusterCa, NetworkSetup};

use crate::{
    hosted_worker::HostedWorker,
    hosts::Hosts,
    wait_until,
    weather::{Relay, Weather},
};

const DAY: Duration = Duration::from_secs(86_400);

/// How a job is spread over hosts.
#[derive(Clone, Debug)]
pub struct Spread {
    pub hosts: u8,
    /// Of the one worker of each host.
    pub slots: u32,
    pub idle_timeout: Duration,
    pub connect_timeout: Duration,
    /// Of the ways between hosts; without it they are as good as the kernel's.
    pub weather: Option<Weather>,
    /// As in `execution.checkpointing.dir`.
    pub checkpoints: Option<PathBuf>,
}

impl Spread {
    /// One worker per host, with peers that are given up after ten seconds.
    pub fn over(hosts: u8, slots: u32) -> Spread {
        let idle_timeout = Duration::from_secs(10);
        let connect_timeout = Duration::from_secs(10);
        Spread { hosts, slots, idle_timeout, connect_timeout, weather: None, checkpoints: None }
    }
}

/// A job that runs on hosts. The workers are killed when this is dropped.
pub struct HostedJob {
    pub handle: JobHandle,
    pub hosts: Hosts,
    /// By host.
    workers: Vec<HostedWorker>,
    /// Of workers that were killed.
    past: Vec<Relay>,
    starter: Starter,
    joining: Sender<Box<dyn WorkerLink>>,
}

impl HostedJob {
    /// Starts a worker on each host, and the job on them.
    ///
    /// # Panics
    /// If hosts cannot be made, or a worker cannot be started.
    pub fn start(artifact: &str, graph: JobGraph, spread: Spread) -> HostedJob {
        let hosts = Hosts::new(spread.hosts);
        let (sender, reports) = unbounded();
        let (joining, joined) = unbounded();
        let checkpoint_dir = spread.checkpoints.clone();
        let mut starter = Starter {
            artifact: artifact.into(),
            authority: ClusterCa::generate(graph.job_id.0, SystemTime::now(), DAY).expect("there is randomness"),
            job: graph.job_id,
            carrier: Carrier::configured(&graph.configuration).expect("the test configures one"),
            io: graph.configuration.get(&NETWORK_IO).expect("it is one"),
            lanes: graph.configuration.get(&SHUFFLE_LANES).expect("it is a number") as u8,
            spread,
            reports: sender,
            next: 0,
        };
        let all: Vec<u8> = (0..starter.spread.hosts).collect();
        let workers: Vec<_> = all.iter().map(|host| starter.start_on(&hosts, *host)).collect();
        let links = workers.iter().map(HostedWorker::link).collect();
        let store = Arc::new(MemoryStore::new());
        let epoch = store.elect();
        let config = JobMasterConfig { graph, workers: links, joining: joined, reports, store, checkpoint_dir, epoch };
        HostedJob { handle: JobMaster::start(config), hosts, workers, past: Vec::new(), starter, joining }
    }

    /// The process of the worker of a host.
    pub fn process(&self, host: u8) -> u32 {
        self.workers[usize::from(host)].process.id()
    }

    pub fn metrics(&self) -> JobMetrics {
        self.handle.metrics()
    }

    /// Kills the worker of a host, and starts another one there.
    ///
    /// # Panics
    /// If the worker cannot be started.
    pub fn kill_and_replace(&mut self, host: u8) {
        crate::signal("KILL", self.process(host));
        let worker = self.starter.start_on(&self.hosts, host);
        self.joining.send(worker.link()).expect("the job has not ended");
        let killed = mem::replace(&mut self.workers[usize::from(host)], worker);
        self.past.extend(killed.relay);
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// After a minute.
    pub fn end(&self) -> JobOutcome {
        wait_until("the end of the job", || self.handle.outcome().is_some());
        self.handle.wait()
    }

    /// Of all relays together: how many datagrams have passed, were lost, and were later than others.
    pub fn tally(&self) -> [u64; 3] {
        let present = self.workers.iter().filter_map(|worker| worker.relay.as_ref());
        let tallies = self.past.iter().chain(present).map(Relay::tally);
        tallies.fold([0; 3], |sum, tally| std::array::from_fn(|at| sum[at] + tally[at]))
    }

    /// Waits for `condition`, which must come while the job runs.
    ///
    /// # Panics
    /// If the job ends before, or after a minute.
    pub fn wait_until(&self, what: &str, mut condition: impl FnMut(&JobMetrics) -> bool) {
        wait_until(what, || {
            let outcome = self.handle.outcome();
            let holds = condition(&self.metrics());
            assert!(holds || outcome.is_none(), "the job has ended before: {what}\n{outcome:?}");
            holds
        });
    }
}

/// Starts workers.
struct Starter {
    artifact: PathBuf,
    authority: ClusterCa,
    job: JobId,
    carrier: Carrier,
    io: NetworkIo,
    lanes: u8,
    spread: Spread,
    reports: Sender<FromWorker>,
    /// No number is used twice.
    next: u32,
}

impl Starter {
    fn start_on(&mut self, hosts: &Hosts, host: u8) -> HostedWorker {
        let worker = WorkerId(self.next);
        self.next += 1;
        let Spread { slots, idle_timeout, connect_timeout, .. } = self.spread;
        let network = NetworkSetup {
            identity: self.authority.issue(worker, SystemTime::now(), DAY).expect("there is randomness"),
            job: self.job,
            transport: self.carrier,
            bind: SocketAddr::new(hosts.address(host), 0),
            lanes: self.lanes,
            socket_buffer: 8 << 20,
            connect_timeout,
            idle_timeout,
            io: self.io,
        };
        let setup = WorkerSetup {
            worker,
            slots,
            network: Some(network),
            log: WorkerLog::default(),
            memory: WorkerMemory::default(),
            artifact: None,
        };
        let reports = self.reports.clone();
        HostedWorker::start((hosts, host), &self.artifact, setup, self.spread.weather, reports)
    }
}
