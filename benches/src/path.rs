//! The way between two workers: loopback, or an Ethernet between two network namespaces, which is what pods see.
//!
//! ```text
//!  loopback   worker 0 ──────── lo ──────── worker 1
//!  mtu1500    worker 0 ── cable ── switch ── cable ── worker 1      MTU 1500, sockets that hold 208 KiB
//!  lossy      worker 0 ── cable ── relay at the switch ── cable ── worker 1      and 1 in 1,000 lost, all 1 ms late
//! ```
//! Hosts and relay are those of the tests. The JobMaster is in this process, as in a local job, and reaches the workers by
//! their pipes; what they do not get by the network is the same. The opponents' processes are on such hosts, too.

use std::{path::Path as FilePath, sync::Arc, time::Duration};

use clap::ValueEnum;
use crossbeam_channel::unbounded;
use millstream::{
    artifact,
    embedded_job::EmbeddedJob,
    logging::WorkerLog,
    model::{
        config::{Configuration, TASK_SLOTS},
        fault::Failure,
        id::WorkerId,
        job_graph::JobGraph,
    },
    worker_network::JobNetwork,
    worker_process::WorkerSetup,
};
use millstream_api::job::{JobError, PipelineExecutor, RunningJob};
use millstream_controlplane::{JobMasterConfig, store::MemoryStore};

use crate::{hosted_worker::HostedWorker, hosts::Hosts, weather::Weather};

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

    fn start(&self, mut graph: JobGraph) -> Result<EmbeddedJob, Failure> {
        let own = artifact::own();
        graph.artifact = Some(own.map_err(|cause| Failure::fatal(format!("this executable cannot be read: {cause}")))?);
        let network = JobNetwork::new(&graph, JobNetwork::new_authority(graph.job_id)?)?;
        let slots = graph.configuration.get(&TASK_SLOTS)?;
        let (sender, reports) = unbounded();
        let mut workers = Vec::new();
        for host in 0..self.hosts.count() {
            let worker = WorkerId(host.into());
            let setup = WorkerSetup {
                worker,
                slots,
                network: Some(network.setup(worker)?),
                log: WorkerLog::default(),
                memory: Default::default(),
                artifact: None,
            };
            let (place, own) = ((&*self.hosts, host), FilePath::new("/proc/self/exe"));
            workers.push(HostedWorker::start(place, own, setup, self.path.weather(), sender.clone()));
        }
        let links = workers.iter().map(HostedWorker::link).collect();
        let store = Arc::new(MemoryStore::new());
        let epoch = store.elect();
        // No other ever joins: the sender is gone.
        let joining = unbounded().1;
        let config = JobMasterConfig { graph, workers: links, joining, reports, store, checkpoint_dir: None, epoch };
        EmbeddedJob::start(config, workers)
    }
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
