//! A job on worker processes: its graph planned by the artifact, a JobMaster in this process, and workers started from
//! the same file.

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use millstream::{
    logging::WorkerLog,
    model::{id::WorkerId, job_graph::JobGraph},
    worker_process::{WorkerMemory, WorkerSetup},
};
use millstream_controlplane::{
    JobHandle, JobMaster, JobMasterConfig, JobOutcome, ProcessLink, WorkerLink, store::MemoryStore,
};
use millstream_providers::process::{Output, WorkerProcess};

/// The job graph, from the artifact in the role `plan`.
///
/// # Panics
/// If it describes none.
pub fn planned(artifact: &Path, arguments: &[&str]) -> JobGraph {
    let mut plan = Command::new(artifact);
    plan.args(arguments).env("MILLSTREAM_ROLE", "plan").stderr(Stdio::inherit());
    let output = plan.output().unwrap_or_else(|cause| panic!("{} cannot start: {cause}", artifact.display()));
    assert!(output.status.success(), "{} describes no job: {}", artifact.display(), output.status);
    serde_json::from_slice(&output.stdout).expect("what an artifact plans is a job graph")
}

/// A job that runs on worker processes. They are killed when this is dropped.
pub struct RemoteJob {
    pub handle: JobHandle,
    pub workers: Vec<Arc<WorkerProcess>>,
}

impl RemoteJob {
    /// Starts so many workers, each with so many slots, and the job on them.
    ///
    /// # Panics
    /// If a worker cannot be started.
    pub fn start(artifact: &Path, graph: JobGraph, workers: u32, slots: u32) -> RemoteJob {
        let (sender, reports) = crossbeam_channel::unbounded();
        let start = |number| {
            let sender = sender.clone();
            let setup = WorkerSetup {
                worker: WorkerId(number),
                slots,
                network: None,
                log: WorkerLog::default(),
                memory: WorkerMemory::default(),
                artifact: None,
            };
            let process =
                WorkerProcess::start(artifact, setup.worker, &setup.to_line(), Output::Inherited, move |message| {
                    let _ = sender.send(message);
                });
            Arc::new(process.expect("the artifact can be started"))
        };
        let processes: Vec<Arc<WorkerProcess>> = (0..workers).map(start).collect();
        let store = Arc::new(MemoryStore::new());
        let epoch = store.elect();
        let link = |process| Box::new(ProcessLink::new(process, slots, None)) as Box<dyn WorkerLink>;
        let workers = processes.iter().map(link).collect();
        // No others ever join: the sender is gone.
        let joining = crossbeam_channel::unbounded().1;
        let config = JobMasterConfig { graph, workers, joining, reports, store, checkpoint_dir: None, epoch };
        RemoteJob { handle: JobMaster::start(config), workers: processes }
    }

    /// Waits for the end.
    pub fn wait(self) -> JobOutcome {
        self.handle.wait()
    }
}
