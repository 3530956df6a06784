//! A JobMaster above a fake worker: its loop is not started, so that each test says what happens and when. The scene is
//! here, the tests are by theme in the modules.

use std::{collections::BTreeSet, fs, path::Path, sync::Mutex};

use crossbeam_channel::{bounded, unbounded};
use millstream_model::{
    config::{Configuration, Origin},
    deployment::{CoordinatorState, Deployment, Peer, SubtaskState},
    id::{ExecutionAttemptId, Generation, JobVertexId, OperatorId, Subtask},
    message::{CheckpointKind, Command, SnapshotStats, TaskMetrics, TaskResult},
};
use millstream_storage::{CheckpointDirectory, read_metadata};

use super::{
    fixture::{coordinated, graph, vertex},
    *,
};
use crate::store::{JobRecord, MemoryStore};

mod adoption;
mod by_the_clock;
mod checkpoints;
mod regions;
mod restarts;
mod restoring;
mod snapshots;
mod succession;
mod workers;

/// A fake worker's inbox: it keeps what it was sent, and obeys only when a test makes it.
#[derive(Clone, Default)]
struct Inbox(Arc<Mutex<Vec<Command>>>);

struct FakeWorker {
    number: u32,
    slots: u32,
    epoch: LeaderEpoch,
    inbox: Inbox,
}

impl WorkerLink for FakeWorker {
    fn send(&self, message: ToWorker) {
        assert_eq!(message.epoch, self.epoch);
        self.inbox.0.lock().unwrap().push(message.command);
    }

    fn worker(&self) -> WorkerId {
        WorkerId(self.number)
    }

    fn slots(&self) -> u32 {
        self.slots
    }

    fn shuffle_address(&self) -> Option<SocketAddr> {
        Some(address_of(self.number))
    }
}

fn address_of(worker: u32) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9_000 + worker as u16))
}

impl Inbox {
    fn take(&self) -> Vec<Command> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// A job of two vertices with two subtasks each, on one fake worker with two slots.
struct Scene {
    master: JobMaster,
    handle: JobHandle,
    inbox: Inbox,
    store: Arc<MemoryStore>,
    root: tempfile::TempDir,
    now: Moment,
    graph: JobGraph,
}

fn job(settings: &[(&str, &str)]) -> JobGraph {
    let mut graph = graph(&[vertex(1, 2), vertex(2, 2)], &[(0, 1)]);
    for (key, value) in settings {
        graph.configuration.set_text(key, value, Origin::Program);
    }
    graph
}

const WITH_CHECKPOINTS: &[(&str, &str)] = &[
    ("execution.checkpointing.interval", "10 s"),
    ("restart-strategy.type", "fixed-delay"),
    ("restart-strategy.fixed-delay.attempts", "2"),
    ("restart-strategy.fixed-delay.delay", "5 s"),
];

impl Scene {
    fn new(settings: &[(&str, &str)]) -> Scene {
        Scene::of(job(settings), tempfile::tempdir().unwrap(), Arc::new(MemoryStore::new()))
    }

    /// Starts a coordinator of this job. The store and the directory may be those of an earlier one.
    fn of(graph: JobGraph, root: tempfile::TempDir, store: Arc<MemoryStore>) -> Scene {
        let epoch = store.elect();
        let inbox = Inbox::default();
        let worker = FakeWorker { number: 0, slots: 2, epoch, inbox: inbox.clone() };
        let config = JobMasterConfig {
            graph: graph.clone(),
            workers: vec![Box::new(worker)],
            reports: unbounded().1,
            joining: unbounded().1,
            store: store.clone(),
            checkpoint_dir: Some(root.path().to_owned()),
            epoch,
        };
        let (handle, side) = JobHandle::new(graph.job_id);
        let now = Moment(Duration::from_secs(1_000_000));
        let master = JobMaster::prepare(config, side.view, Box::new(|| 0.5), now).unwrap();
        let mut scene = Scene { master, handle, inbox, store, root, now, graph };
        scene.master.begin(now);
        scene
    }

    /// One more worker is there.
    fn join(&mut self, number: u32, slots: u32) -> Inbox {
        let inbox = Inbox::default();
        let link = FakeWorker { number, slots, epoch: self.master.epoch, inbox: inbox.clone() };
        self.master.handle(Event::Joined(Box::new(link)), self.now);
        inbox
    }

    fn lose(&mut self, worker: u32) {
        let report = Report::WorkerFailed { failure: Failure::new("killed by signal 9 (SIGKILL)") };
        self.master.handle(Event::Report(FromWorker { worker: WorkerId(worker), report }), self.now);
    }

    /// The coordinator dies; another one takes over.
    fn succeed(self) -> Scene {
        Scene::of(self.graph, self.root, self.store)
    }

    fn report(&mut self, report: Report) {
        self.master.handle(Event::Report(FromWorker { worker: WorkerId(0), report }), self.now);
    }

    fn wait(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
        self.master.handle(Event::Timer, self.now);
    }

    /// Of the only region.
    fn generation(&self) -> Generation {
        self.master.keeper.stored(&self.master.regions)[0].expect("it was deployed").generation
    }

    fn attempts(&self) -> Vec<ExecutionAttemptId> {
        let generation = self.generation();
        let attempt =
            |vertex, index| ExecutionAttemptId { subtask: Subtask { vertex: JobVertexId(vertex), index }, generation };
        [(1, 0), (1, 1), (2, 0), (2, 1)].into_iter().map(|(vertex, index)| attempt(vertex, index)).collect()
    }

    fn all_become(&mut self, state: ExecutionState) {
        for attempt in self.attempts() {
            self.report(Report::Task { attempt, state, failure: None });
        }
    }

    /// Takes the deployment out of the inbox and lets all tasks run.
    fn run_tasks(&mut self) -> Deployment {
        let commands = self.inbox.take();
        let mut deployments = commands.into_iter().filter_map(|command| match command {
            Command::Deploy { deployment, .. } => Some(*deployment),
            _ => None,
        });
        let deployment = deployments.next().expect("the job is deployed");
        assert!(deployments.next().is_none());
        for state in [ExecutionState::Deploying, ExecutionState::Initializing, ExecutionState::Running] {
            self.all_become(state);
        }
        deployment
    }

    fn fail_task(&mut self, failure: Failure) {
        let attempt = self.attempts()[2];
        self.report(Report::Task { attempt, state: ExecutionState::Failed, failure: Some(failure) });
    }

    /// Stores and acknowledges all parts of a checkpoint.
    fn ack(&mut self, checkpoint: u64) {
        let checkpoint = CheckpointId(checkpoint);
        let directory = CheckpointDirectory::new(self.root.path(), self.graph.job_id);
        for attempt in self.attempts() {
            let name = format!("{}-{}", attempt.subtask, attempt.generation.0);
            let file = directory.write(checkpoint, &name, name.as_bytes()).unwrap();
            let state = SubtaskState { subtask: attempt.subtask, file: Some(file) };
            self.report(Report::CheckpointAck { attempt, checkpoint, state, stats: SnapshotStats::default() });
        }
    }

    /// Takes a checkpoint of this number after the interval.
    fn checkpoint(&mut self, number: u64) {
        self.inbox.take();
        self.wait(10);
        assert!(triggers(&self.inbox.take()).contains(&(number, CheckpointKind::Checkpoint)));
        self.ack(number);
        assert!(completions(&self.inbox.take()).contains(&number));
    }

    /// A task fails, the others end, the pause passes: the next deployment.
    fn restart(&mut self) -> Deployment {
        self.fail_task(Failure::new("lost"));
        self.all_become(ExecutionState::Canceled);
        self.wait(5);
        self.run_tasks()
    }

    fn path_of(&self, checkpoint: u64) -> PathBuf {
        CheckpointDirectory::new(self.root.path(), self.graph.job_id).of(CheckpointId(checkpoint))
    }

    fn record(&self) -> JobRecord {
        self.store.load(self.master.epoch, self.graph.job_id).unwrap().unwrap().0
    }

    fn outcome(&self) -> JobOutcome {
        self.handle.outcome().expect("the job has ended")
    }
}

fn triggers(commands: &[Command]) -> Vec<(u64, CheckpointKind)> {
    let trigger = |command: &Command| match command {
        Command::TriggerCheckpoint { checkpoint, kind, .. } => Some((checkpoint.0, *kind)),
        _ => None,
    };
    commands.iter().filter_map(trigger).collect()
}

fn completions(commands: &[Command]) -> Vec<u64> {
    let completion = |command: &Command| match command {
        Command::CheckpointComplete { checkpoint, .. } => Some(checkpoint.0),
        _ => None,
    };
    commands.iter().filter_map(completion).collect()
}

fn restored(deployment: &Deployment) -> Option<u64> {
    deployment.restore.as_ref().map(|checkpoint| checkpoint.id.0)
}

/// Flips a bit of the first state file in a checkpoint.
fn damage(checkpoint: &Path) {
    let metadata = read_metadata(&checkpoint.join("_metadata")).unwrap();
    let path = checkpoint.join(&metadata.subtasks[0].file.as_ref().unwrap().path);
    let mut bytes = fs::read(&path).unwrap();
    bytes[0] ^= 1;
    fs::write(&path, bytes).unwrap();
}
