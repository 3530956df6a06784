//! What the deciders of the control plane take on a large cluster: TaskManagers with 8 slots register, a job for every two
//! of them is submitted, slots are matched, workers join, everything is deployed, and all tasks report that they run. The
//! real deciders, without sockets and threads, as the simulation has them.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use crossbeam_channel::never;
use millstream_benches::{
    machine::cpu_seconds,
    options::{self, Common, NoneOfItsOwn},
    report::Run,
};
use millstream_controlplane::{JobMasterConfig, SteppedJobMaster, WorkerLink, clock::Moment, store::MemoryStore};
use millstream_model::{
    id::{AllocationId, ExecutionAttemptId, JobId, ResourceId, TaskManagerId, WorkerId},
    job_graph::{JobGraph, Partitioning, sketch},
    message::{Command, Report, ToWorker},
    state::ExecutionState,
};
use millstream_slots::{ResourceManager, SlotTable, Spread, WorkerRequest};
use serde_json::json;

const BENCH: &str = "deciders-scale";
const SLOTS: u32 = 8;
/// Of each of a job's two vertices: all slots of the TaskManagers that it has.
const PARALLELISM: u32 = 16;
/// TaskManagers of each run; there is a job for every two.
const SIZES: [(usize, &str); 3] = [(10, "cpu_10_s"), (100, "cpu_100_s"), (1_000, "cpu_s")];
/// Jobs do not wait for anything here.
const NOW: Moment = Moment(Duration::from_secs(1));

fn main() -> Result<()> {
    let (Common { repetitions, quick, .. }, NoneOfItsOwn {}) = options::parse();
    for _ in 0..repetitions {
        let conditions = json!({ "slots": SLOTS, "tasks_per_job": 2 * PARALLELISM, "task_managers_per_job": 2 });
        let run = Run::start(BENCH, conditions);
        let mut figures = Vec::new();
        for (task_managers, name) in SIZES.into_iter().filter(|(size, _)| !quick || *size < 1_000) {
            // Short ones many times: the processor's clock is coarse.
            let rounds = 1_000 / task_managers;
            let before = cpu_seconds();
            for _ in 0..rounds {
                deploy_all(task_managers)?;
            }
            figures.push((name, (cpu_seconds() - before) / rounds as f64, "s"));
        }
        if let [.., (_, hundred, _), (_, thousand, _)] = figures[..]
            && !quick
        {
            figures.push(("growth_100_to_1000", thousand / hundred, "1"));
        }
        run.report(&figures);
    }
    Ok(())
}

/// What one job's workers were told to run.
type Deployed = Arc<Mutex<Vec<(WorkerId, ExecutionAttemptId)>>>;

/// A worker that notes what it is told to deploy.
#[derive(Debug)]
struct Link {
    worker: WorkerId,
    slots: u32,
    deployed: Deployed,
}

impl WorkerLink for Link {
    fn send(&self, message: ToWorker) {
        if let Command::Deploy { deployment, .. } = message.command {
            let generation = deployment.generation;
            let mine = deployment.placements.iter().filter(|placement| placement.worker == self.worker);
            let attempts = mine.map(|placement| ExecutionAttemptId { subtask: placement.subtask, generation });
            let mut deployed = self.deployed.lock().unwrap_or_else(PoisonError::into_inner);
            deployed.extend(attempts.map(|attempt| (self.worker, attempt)));
        }
    }

    fn worker(&self) -> WorkerId {
        self.worker
    }

    fn slots(&self) -> u32 {
        self.slots
    }

    fn shuffle_address(&self) -> Option<SocketAddr> {
        None
    }
}

/// From nothing until all tasks of all jobs run.
fn deploy_all(task_managers: usize) -> Result<()> {
    let jobs = task_managers / 2;
    let store = Arc::new(MemoryStore::new());
    let epoch = store.elect();
    let mut resources = ResourceManager::new(Spread::Pack);
    let mut tables = BTreeMap::new();
    let mut masters = BTreeMap::new();
    let mut last_id = 0;
    for number in 0..task_managers {
        let id = TaskManagerId(number as u128);
        tables.insert(id, SlotTable::new(SLOTS));
        resources.on_registered(id, ResourceId(id.0), SLOTS);
        let requests = match_slots(&mut resources, &mut last_id);
        ensure!(requests.is_empty(), "slots were given to nobody");
    }
    let mut requests = Vec::new();
    for number in 0..jobs {
        let job = JobId(number as u128);
        let config = JobMasterConfig {
            graph: graph(job),
            workers: Vec::new(),
            joining: never(),
            reports: never(),
            store: store.clone(),
            checkpoint_dir: None,
            epoch,
        };
        masters.insert(job, (SteppedJobMaster::begin(config, Box::new(|| 0.5), NOW), Deployed::default()));
        resources.submit(job, PARALLELISM);
        requests.extend(match_slots(&mut resources, &mut last_id));
    }
    for WorkerRequest { task_manager, id, allocation, worker } in requests {
        tables.get_mut(&task_manager).context("an unknown TaskManager")?.request(id, allocation)?;
        let known = resources.on_ready(task_manager, id, worker)?;
        let (master, deployed) = masters.get_mut(&known.job).context("an unknown job")?;
        let slots = known.slots;
        master.on_joined(Box::new(Link { worker, slots, deployed: deployed.clone() }), NOW);
        master.on_report(worker, Report::Registered { slots, shuffle_address: None }, NOW);
    }
    for (job, (master, deployed)) in &mut masters {
        let tasks = std::mem::take(&mut *deployed.lock().unwrap_or_else(PoisonError::into_inner));
        ensure!(tasks.len() as u32 == 2 * PARALLELISM, "{} tasks of job {job} are deployed", tasks.len());
        for state in [ExecutionState::Initializing, ExecutionState::Running] {
            for (worker, attempt) in &tasks {
                master.on_report(*worker, Report::Task { attempt: *attempt, state, failure: None }, NOW);
            }
        }
        let execution = master.execution().context("a job has ended before it began")?;
        ensure!(execution.all_are(ExecutionState::Running), "job {job} does not run: {:?}", master.status());
    }
    ensure!(tables.values().all(|table| table.free() == 0), "slots are left over");
    Ok(())
}

fn match_slots(resources: &mut ResourceManager, last_id: &mut u128) -> Vec<WorkerRequest> {
    resources.allocate(|| {
        *last_id += 1;
        AllocationId(*last_id)
    })
}

/// A source and a sink, all to all.
fn graph(job: JobId) -> JobGraph {
    let vertices = vec![sketch::vertex(1, "source", PARALLELISM), sketch::vertex(2, "sink", PARALLELISM)];
    sketch::graph(job, vertices, vec![sketch::edge(0, 1, Partitioning::Hash)])
}
