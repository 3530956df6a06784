//! The way between two workers: loopback, or an Ethernet between two network namespaces, which is what pods see.
//!
//! ```text
//!  loopback   worker 0 ──────── lo ──────── worker 1
//!  mtu1500    worker 0 ── cable ── switch ── cable ── worker 1      MTU 1500, sockets that hold 208 KiB
//!  lossy      worker 0 ── cable ── relay at the switch ── cable ── worker 1      and 1 in 1,000 lost, all 1 ms late
//! ```
//! Hosts and relay are those of the tests. The JobMaster is in this process, as in a local job, and reaches the workers by
//! their pipes; what they do not get by the network is the same. The opponents' processes are on such hosts, too.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::Path as FilePath,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use clap::ValueEnum;
use crossbeam_channel::{Receiver, unbounded};
use millstream::{
    artifact,
    logging::WorkerLog,
    mini_cluster::finished,
    model::{
        config::{Configuration, TASK_SLOTS},
        fault::Failure,
        id::WorkerId,
        job_graph::JobGraph,
        message::{FromWorker, Report, ToWorker},
        state::JobStatus,
    },
    worker_network::JobNetwork,
    worker_process::WorkerSetup,
};
use millstream_api::job::{FinishedJob, JobError, JobProgress, PipelineExecutor, RunningJob};
use millstream_controlplane::{JobHandle, JobMaster, JobMasterConfig, WorkerLink, store::MemoryStore};
use millstream_providers::process::{Output, WorkerProcess};

use crate::{
    hosts::Hosts,
    weather::{Relay, Weather},
};

/// What a pod's sockets hold, as the kernel counts: it doubles `net.core.rmem_default`, which few may raise.
pub const POD_SOCKET_BUFFER: u64 = 208 << 10;

/// Which way it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Path {
    #[default]
    Loopback,
    Mtu1500,
    Lossy,
}

impl Path {
    pub fn name(self) -> &'static str {
        match self {
            Path::Loopback => "loopback",
            Path::Mtu1500 => "mtu1500",
            Path::Lossy => "lossy",
        }
    }

    /// What becomes of what goes this way.
    fn weather(self) -> Option<Weather> {
        let lossy = Weather { delay: Duration::from_millis(1), lost_of_thousand: 1, ..Weather::default() };
        (self == Path::Lossy).then_some(lossy)
    }
}

/// Runs jobs on workers of hosts of their own: one worker for each host.
pub struct HostedCluster {
    configuration: Configuration,
    path: Path,
    hosts: Arc<Hosts>,
}

impl HostedCluster {
    /// Makes the hosts.
    ///
    /// # Panics
    /// If this process may not.
    pub fn new(configuration: Configuration, path: Path, hosts: u8) -> HostedCluster {
        HostedCluster { configuration, path, hosts: Arc::new(Hosts::new(hosts)) }
    }

    fn start(&self, mut graph: JobGraph) -> Result<HostedJob, Failure> {
        let own = artifact::own();
        graph.artifact = Some(own.map_err(|cause| Failure::fatal(format!("this executable cannot be read: {cause}")))?);
        let network = JobNetwork::new(&graph, JobNetwork::new_authority(graph.job_id)?)?;
        let slots = graph.configuration.get(&TASK_SLOTS)?;
        let sources = graph.sources().collect();
        let (sender, reports) = unbounded();
        let (mut workers, mut links, mut relays) = (Vec::new(), Vec::new(), HashMap::new());
        for host in 0..self.hosts.count() {
            let worker = WorkerId(host.into());
            let mut setup = network.setup(worker)?;
            setup.bind = SocketAddr::new(self.hosts.address(host), 0);
            let setup = WorkerSetup {
                worker,
                slots,
                network: Some(setup),
                log: WorkerLog::default(),
                memory: Default::default(),
            }
            .to_line();
            let (registered, registration) = unbounded();
            let reports = sender.clone();
            let pass_on = move |message: FromWorker| {
                if let Report::Registered { shuffle_address, .. } = &message.report {
                    let _ = registered.send(*shuffle_address);
                }
                // The job may have ended.
                let _ = reports.send(message);
            };
            let own = FilePath::new("/proc/self/exe");
            let process = self.hosts.on(host, || WorkerProcess::start(own, worker, &setup, Output::Inherited, pass_on));
            let process = Arc::new(process.map_err(|cause| Failure::new(cause.to_string()))?);
            let mut address = address_of(worker, &registration)?;
            if let Some(weather) = self.path.weather() {
                let relay = Relay::to(address, &self.hosts, weather, host.into());
                address = relay.address;
                relays.insert(worker, relay);
            }
            let link = Link { process: Arc::downgrade(&process), worker, slots, address };
            links.push(Box::new(link) as Box<dyn WorkerLink>);
            workers.push(process);
        }
        let store = Arc::new(MemoryStore::new());
        let epoch = store.elect();
        // No other ever joins: the sender is gone.
        let joining = unbounded().1;
        let config = JobMasterConfig { graph, workers: links, joining, reports, store, checkpoint_dir: None, epoch };
        let held = Mutex::new(Some((workers, relays)));
        Ok(HostedJob { handle: JobMaster::start(config), sources, held })
    }
}

/// Waits until a worker listens. What it prints says why it does not.
fn address_of(worker: WorkerId, registration: &Receiver<Option<SocketAddr>>) -> Result<SocketAddr, Failure> {
    let address = registration.recv_timeout(Duration::from_secs(60)).ok().flatten();
    address.ok_or_else(|| Failure::new(format!("worker {} does not start, or does not listen", worker.0)))
}

impl PipelineExecutor for HostedCluster {
    fn configuration(&self) -> Configuration {
        self.configuration.clone()
    }

    fn submit(&self, graph: JobGraph) -> Result<Arc<dyn RunningJob>, JobError> {
        let job = self.start(graph).map_err(JobError::Submission)?;
        Ok(Arc::new(job))
    }
}

type Held = (Vec<Arc<WorkerProcess>>, HashMap<WorkerId, Relay>);

struct HostedJob {
    handle: JobHandle,
    sources: Vec<millstream::model::id::JobVertexId>,
    /// Workers and relays, until the job has ended.
    held: Mutex<Option<Held>>,
}

impl RunningJob for HostedJob {
    fn status(&self) -> JobStatus {
        self.handle.status()
    }

    fn cancel(&self) {
        self.handle.cancel();
    }

    fn wait(&self) -> FinishedJob {
        let outcome = self.handle.wait();
        drop(self.held.lock().expect("nobody panicked with it").take());
        finished(outcome)
    }

    fn progress(&self) -> JobProgress {
        let metrics = self.handle.metrics();
        JobProgress { records_read: metrics.records_read(&self.sources), checkpoints: metrics.checkpoints.completed }
    }
}

/// The way of the JobMaster to a worker.
struct Link {
    process: Weak<WorkerProcess>,
    worker: WorkerId,
    slots: u32,
    address: SocketAddr,
}

impl WorkerLink for Link {
    fn send(&self, message: ToWorker) {
        // A process that is gone has said so.
        if let Some(process) = self.process.upgrade() {
            process.send(&message);
        }
    }

    fn worker(&self) -> WorkerId {
        self.worker
    }

    fn slots(&self) -> u32 {
        self.slots
    }

    fn shuffle_address(&self) -> Option<SocketAddr> {
        Some(self.address)
    }
}
