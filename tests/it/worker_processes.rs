//! Workers as processes: started from the artifact and a job graph alone, each runs its share.

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use millstream::{
    model::{config::Configuration, id::WorkerId, job_graph::JobGraph, message::ToWorker, state::JobStatus},
    worker_process::WorkerSetup,
};
use millstream_controlplane::{JobMaster, JobMasterConfig, JobOutcome, WorkerLink, store::MemoryStore};
use millstream_providers::process::WorkerProcess;

const ARTIFACT: &str = env!("CARGO_BIN_EXE_two_pipelines_job");

/// The job graph, from the artifact in the role `plan`.
fn planned() -> JobGraph {
    let output = Command::new(ARTIFACT).env("MILLSTREAM_ROLE", "plan").stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

struct Link(Arc<WorkerProcess>);

impl WorkerLink for Link {
    fn send(&self, message: ToWorker) {
        self.0.send(&message);
    }
    fn worker(&self) -> WorkerId {
        self.0.worker()
    }
    fn slots(&self) -> u32 {
        1
    }
    fn shuffle_address(&self) -> Option<std::net::SocketAddr> {
        None
    }
}

fn run(graph: JobGraph, workers: u32) -> JobOutcome {
    let (sender, reports) = crossbeam_channel::unbounded();
    let start = |number| {
        let sender = sender.clone();
        let setup = WorkerSetup { worker: WorkerId(number), slots: 1, network: None };
        let process = WorkerProcess::start(Path::new(ARTIFACT), setup.worker, &setup.to_line(), move |message| {
            let _ = sender.send(message);
        });
        Arc::new(process.unwrap())
    };
    let processes: Vec<Arc<WorkerProcess>> = (0..workers).map(start).collect();
    let store = Arc::new(MemoryStore::new());
    let epoch = store.elect();
    let workers = processes.iter().map(|process| Box::new(Link(process.clone())) as Box<dyn WorkerLink>).collect();
    JobMaster::start(JobMasterConfig {
        graph,
        workers,
        joining: crossbeam_channel::unbounded().1,
        reports,
        store,
        checkpoint_dir: None,
        epoch,
    })
    .wait()
}

#[test]
fn two_processes_each_run_their_share_of_the_graph() {
    let graph = planned();
    // Two sharing groups of one slot each, and workers with one slot.
    let outcome = run(graph, 2);
    assert_eq!(outcome.status, JobStatus::Finished, "{:?}", outcome.failure);
    let bytes: Vec<usize> = outcome.collected.iter().map(|(_, records)| records.len()).filter(|n| *n > 0).collect();
    // Each record is an eight-byte archive behind its eight-byte length.
    assert_eq!(bytes.iter().sum::<usize>(), 16 * 1_500, "{bytes:?}");
}

#[test]
fn a_worker_refuses_the_graph_of_another_executable() {
    let mut graph = planned();
    graph.artifact.as_mut().unwrap().sha256 = "0".repeat(64);
    graph.configuration = Configuration::new();
    let outcome = run(graph, 2);
    assert_eq!(outcome.status, JobStatus::Failed);
    let message = outcome.failure.unwrap().message;
    assert!(message.contains("SHA-256 0000"), "{message}");
}
