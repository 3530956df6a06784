//! The embedded cluster: a JobMaster per job in this process, and a worker beside it or several in processes of their own.
//! Flink's `MiniCluster`.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use crossbeam_channel::{Receiver, Sender, unbounded};
use millstream_api::{
    job::{JobError, PipelineExecutor, RunningJob},
    stream::environment::StreamExecutionEnvironment,
};
use millstream_controlplane::{JobMasterConfig, WorkerLink, scheduler::NotEnoughSlots};
use millstream_dataplane::{Worker, WorkerConfig};
use millstream_model::{
    config::{Configuration, LOCAL_TASK_MANAGERS, MEMORY_HUGE_PAGES, TASK_SLOTS},
    fault::Failure,
    id::WorkerId,
    job_graph::JobGraph,
    memory::TaskManagerMemory,
    message::{FromWorker, ToWorker},
};

use crate::{
    artifact,
    embedded_job::EmbeddedJob,
    leadership::{Leadership, checkpoint_dir},
    memory, role,
    worker_fleet::{FleetConfig, WorkerFleet},
    worker_network::{JobNetwork, check_configured_exposure},
};

/// Runs jobs in this process. Cheap to make: nothing runs before a job is submitted.
#[derive(Debug)]
pub struct MiniCluster {
    configuration: Configuration,
    /// Of the directory in the configuration of the first job that wanted one.
    leadership: Mutex<Option<Leadership>>,
}

impl MiniCluster {
    pub fn new(configuration: Configuration) -> MiniCluster {
        MiniCluster { configuration, leadership: Mutex::new(None) }
    }

    /// Leads the cluster's store, from the first job on. Jobs of one cluster share it.
    fn lead(&self, configuration: &Configuration) -> Result<Leadership, Failure> {
        let mut leadership = self.leadership.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(leadership) = &*leadership {
            return Ok(leadership.clone());
        }
        let new = Leadership::of(configuration)?;
        *leadership = Some(new.clone());
        Ok(new)
    }
}

/// Makes environments whose jobs run in this process.
pub trait LocalEnvironment {
    /// An environment with an embedded cluster and this configuration.
    fn local(configuration: Configuration) -> StreamExecutionEnvironment;
}

impl LocalEnvironment for StreamExecutionEnvironment {
    fn local(configuration: Configuration) -> StreamExecutionEnvironment {
        StreamExecutionEnvironment::with_executor(Arc::new(MiniCluster::new(configuration)))
    }
}

impl PipelineExecutor for MiniCluster {
    fn configuration(&self) -> Configuration {
        self.configuration.clone()
    }

    fn submit(&self, graph: JobGraph) -> Result<Arc<dyn RunningJob>, JobError> {
        let started = self.lead(&graph.configuration).and_then(|leadership| start(graph, leadership));
        started.map(|job| Arc::new(job) as Arc<dyn RunningJob>).map_err(JobError::Submission)
    }
}

fn start(mut graph: JobGraph, leadership: Leadership) -> Result<EmbeddedJob, Failure> {
    let (report_sender, reports) = unbounded();
    let StartedWorkers { workers, links, joining } = match graph.configuration.get(&LOCAL_TASK_MANAGERS)? {
        1 => start_in_process(&graph, report_sender)?,
        processes => start_processes(&mut graph, processes, report_sender)?,
    };
    let checkpoint_dir = checkpoint_dir(&graph.configuration)?;
    let (store, epoch) = (leadership.store.clone(), leadership.epoch);
    let config = JobMasterConfig { graph, workers: links, joining, reports, store, checkpoint_dir, epoch };
    EmbeddedJob::start(config, (workers, leadership))
}

/// What runs a job. It ends when this is dropped.
enum Workers {
    InProcess(#[expect(dead_code, reason = "held")] Worker),
    Processes(#[expect(dead_code, reason = "held")] WorkerFleet),
}

struct StartedWorkers {
    workers: Workers,
    /// Those that are there from the start.
    links: Vec<Box<dyn WorkerLink>>,
    joining: Receiver<Box<dyn WorkerLink>>,
}

/// One worker in this process, with as many slots as the job needs.
fn start_in_process(graph: &JobGraph, reports: Sender<FromWorker>) -> Result<StartedWorkers, Failure> {
    let slots = graph.required_slots();
    memory::allow_huge_pages(graph.configuration.get(&MEMORY_HUGE_PAGES)?);
    let memory = TaskManagerMemory::of(&graph.configuration, memory::available_bytes(), slots)?.of_slots(1);
    let config = WorkerConfig { worker: WorkerId(0), slots, artifact: None, network: None, memory: Some(memory) };
    let worker = Worker::start(config, reports)?;
    let link = Link { commands: worker.sender(), slots };
    // No other ever joins: the sender is gone.
    Ok(StartedWorkers { workers: Workers::InProcess(worker), links: vec![Box::new(link)], joining: unbounded().1 })
}

/// Workers in processes of their own, with the slots that are configured.
fn start_processes(
    graph: &mut JobGraph,
    processes: u32,
    reports: Sender<FromWorker>,
) -> Result<StartedWorkers, Failure> {
    if !role::knows_roles() {
        return Err(Failure::fatal(format!(
            "{} is {processes}, and this program cannot be started as a worker: that needs #[millstream::main] on its \
             main()",
            LOCAL_TASK_MANAGERS.name()
        )));
    }
    let slots = graph.configuration.get(&TASK_SLOTS)?;
    let (needed, available) = (graph.required_slots(), slots.saturating_mul(processes));
    if available < needed {
        // None will come, so it is not waited for.
        return Err(NotEnoughSlots { needed, available }.into());
    }
    let own =
        artifact::own_file(None).map_err(|cause| Failure::fatal(format!("this executable cannot be read: {cause}")))?;
    graph.artifact = Some(artifact::describe(&own));
    let (joining_sender, joining) = unbounded();
    check_configured_exposure(&graph.configuration)?;
    let network = JobNetwork::new(graph, JobNetwork::new_authority(graph.job_id)?)?;
    // All of them are on this machine.
    let available = memory::available_bytes() / u64::from(processes);
    let memory = TaskManagerMemory::of(&graph.configuration, available, slots)?.of_slots(1);
    let huge_pages = graph.configuration.get(&MEMORY_HUGE_PAGES)?;
    let config =
        FleetConfig { processes, artifact: own, slots, memory, huge_pages, network, reports, joining: joining_sender };
    let fleet = WorkerFleet::start(config)?;
    Ok(StartedWorkers { workers: Workers::Processes(fleet), links: Vec::new(), joining })
}

/// The way to the worker of this process.
struct Link {
    commands: Sender<ToWorker>,
    slots: u32,
}

impl WorkerLink for Link {
    fn send(&self, message: ToWorker) {
        // A worker that has ended has said so.
        let _ = self.commands.send(message);
    }

    fn worker(&self) -> WorkerId {
        WorkerId(0)
    }

    fn slots(&self) -> u32 {
        self.slots
    }

    fn shuffle_address(&self) -> Option<SocketAddr> {
        None
    }
}
