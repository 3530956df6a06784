//! A JobMaster above a fake worker: its loop is not started, so that each test says what happens and when.

use std::{collections::BTreeSet, fs, path::Path, sync::Mutex};

use crossbeam_channel::{bounded, unbounded};
use millstream_model::{
    config::{Configuration, Origin},
    deployment::{CoordinatorState, Deployment, Peer, SubtaskState},
    id::{ExecutionAttemptId, OperatorId, Subtask},
    message::{CheckpointKind, SnapshotStats, TaskMetrics, TaskResult},
};
use millstream_storage::{CheckpointDirectory, read_metadata};

use super::{
    fixture::{coordinated, graph, vertex},
    *,
};
use crate::store::{JobRecord, MemoryStore};

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
        let master = JobMaster::prepare(config, side.view, now).unwrap();
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

    fn attempts(&self) -> Vec<ExecutionAttemptId> {
        let generation = self.master.generation();
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

#[test]
fn a_bounded_job_finishes_after_a_final_checkpoint_is_durable() {
    let mut scene = Scene::new(WITH_CHECKPOINTS);
    assert_eq!(scene.handle.status(), JobStatus::Running);
    let deployment = scene.run_tasks();
    assert_eq!((deployment.generation, restored(&deployment)), (Generation(1), None));
    for (place, attempt) in scene.attempts().into_iter().enumerate() {
        assert!(scene.inbox.take().is_empty(), "after {place} of 4 tasks");
        scene.report(Report::EndOfData { attempt });
    }
    assert_eq!(triggers(&scene.inbox.take()), [(1, CheckpointKind::Final)]);
    scene.ack(1);
    assert_eq!(scene.record().pointer, Some(CheckpointId(1)));
    let commands = scene.inbox.take();
    assert!(
        matches!(commands[..], [Command::CheckpointComplete { .. }, Command::Finish { .. }]),
        "sinks hear of the checkpoint before they finish: {commands:?}"
    );
    for (attempt, number) in scene.attempts().into_iter().zip(1..) {
        let accumulators = BTreeMap::from([("records".to_owned(), number)]);
        let collected = vec![(OperatorId(9), vec![number as u8])];
        scene.report(Report::Result { attempt, result: TaskResult { accumulators, collected } });
        assert_eq!(scene.handle.outcome(), None);
        scene.report(Report::Task { attempt, state: ExecutionState::Finished, failure: None });
    }
    let outcome = scene.outcome();
    assert_eq!((outcome.status, outcome.failure), (JobStatus::Finished, None));
    assert_eq!(outcome.accumulators["records"], 10);
    assert_eq!(outcome.collected.iter().map(|(_, bytes)| bytes[0]).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(outcome.timings.checkpoints.completed, 1);
    assert!(matches!(scene.inbox.take()[..], [Command::Shutdown]));
    assert_eq!(fs::read_dir(scene.root.path()).unwrap().count(), 0, "its checkpoints are gone");
}

#[test]
fn without_checkpoints_a_bounded_job_finishes_at_once() {
    let mut scene = Scene::new(&[]);
    scene.run_tasks();
    scene.attempts().into_iter().for_each(|attempt| scene.report(Report::EndOfData { attempt }));
    assert!(matches!(scene.inbox.take()[..], [Command::Finish { .. }]));
    scene.all_become(ExecutionState::Finished);
    assert_eq!(scene.outcome().status, JobStatus::Finished);
}

#[test]
fn a_failed_job_restarts_from_its_latest_checkpoint_when_all_its_tasks_have_ended() {
    let mut scene = Scene::new(WITH_CHECKPOINTS);
    scene.run_tasks();
    scene.checkpoint(1);
    scene.checkpoint(2);
    scene.wait(10);
    assert_eq!(triggers(&scene.inbox.take()), [(3, CheckpointKind::Checkpoint)]);

    scene.fail_task(Failure::new("lost").at("line 3"));
    assert_eq!(scene.handle.status(), JobStatus::Restarting);
    let commands = scene.inbox.take();
    assert!(
        matches!(
            commands[..],
            [
                Command::CheckpointAborted { checkpoint: CheckpointId(3), .. },
                Command::Cancel { generation: Generation(1) }
            ]
        ),
        "{commands:?}"
    );
    let old = scene.attempts();
    for attempt in old.iter().take(3) {
        scene.report(Report::Task { attempt: *attempt, state: ExecutionState::Canceled, failure: None });
    }
    scene.wait(8);
    assert!(scene.inbox.take().is_empty(), "one task has not ended");
    scene.report(Report::Task { attempt: old[3], state: ExecutionState::Canceled, failure: None });
    scene.wait(4);
    assert!(scene.inbox.take().is_empty(), "the pause is 5 s");
    scene.wait(1);
    let record = scene.record();
    assert_eq!(record.generation, Generation(2), "it is stored before it is used");
    let deployment = scene.run_tasks();
    assert_eq!((deployment.generation, restored(&deployment)), (Generation(2), Some(2)));
    assert_eq!(record.restored_from, deployment.restore.map(|checkpoint| checkpoint.directory));
    assert_eq!(scene.handle.status(), JobStatus::Running);
    assert_eq!(scene.handle.metrics().last_failure.unwrap().operator.as_deref(), Some("vertex 2"));

    // What the old tasks still say does not count.
    for attempt in old {
        scene.report(Report::Task { attempt, state: ExecutionState::Failed, failure: None });
        scene.report(Report::EndOfData { attempt });
    }
    assert_eq!(scene.handle.status(), JobStatus::Running);
    scene.checkpoint(4);
}

#[test]
fn a_job_whose_restarts_are_used_up_fails_with_the_operator_and_the_position() {
    let mut scene = Scene::new(WITH_CHECKPOINTS);
    scene.run_tasks();
    scene.restart();
    scene.restart();
    scene.fail_task(Failure::new("cannot parse").in_operator("parse").at("line 3"));
    assert_eq!(scene.handle.status(), JobStatus::Failing);
    scene.all_become(ExecutionState::Canceled);
    let outcome = scene.outcome();
    assert_eq!((outcome.status, outcome.timings.restarts), (JobStatus::Failed, 2));
    let failure = outcome.failure.unwrap();
    assert_eq!((failure.operator.as_deref(), failure.position.as_deref()), (Some("parse"), Some("line 3")));
    assert!(failure.message.contains("attempts = 2 is used up"), "{failure}");
}

#[test]
fn what_no_restart_can_mend_fails_the_job_also_while_it_restarts() {
    let mut scene = Scene::new(WITH_CHECKPOINTS);
    scene.run_tasks();
    scene.fail_task(Failure::new("lost"));
    let failure = Failure::fatal("the program is wrong");
    let attempt = scene.attempts()[0];
    scene.report(Report::Task { attempt, state: ExecutionState::Failed, failure: Some(failure) });
    assert_eq!(scene.handle.status(), JobStatus::Failing);
    scene.all_become(ExecutionState::Canceled);
    assert_eq!(scene.outcome().failure.unwrap().message, "the program is wrong");
}

#[test]
fn a_cancelled_job_ends_when_its_tasks_have_and_takes_its_checkpoints_with_it() {
    let mut scene = Scene::new(WITH_CHECKPOINTS);
    scene.run_tasks();
    scene.checkpoint(1);
    scene.master.handle(Event::Request(Request::Cancel), scene.now);
    assert_eq!(scene.handle.status(), JobStatus::Cancelling);
    assert!(matches!(scene.inbox.take()[..], [Command::Cancel { .. }]));
    scene.all_become(ExecutionState::Canceled);
    assert_eq!(scene.outcome().status, JobStatus::Canceled);
    assert!(!scene.path_of(1).exists());
    assert_eq!(scene.record().result.unwrap().status, JobStatus::Canceled);
}

#[test]
fn a_job_can_be_cancelled_while_it_waits_for_its_restart() {
    let mut scene = Scene::new(WITH_CHECKPOINTS);
    scene.run_tasks();
    scene.fail_task(Failure::new("lost"));
    scene.all_become(ExecutionState::Canceled);
    scene.master.handle(Event::Request(Request::Cancel), scene.now);
    assert_eq!(scene.outcome().status, JobStatus::Canceled);
}

#[test]
fn retained_checkpoints_stay_and_another_job_starts_from_them() {
    let settings =
        [WITH_CHECKPOINTS, &[("execution.checkpointing.externalized-checkpoint-retention", "RETAIN_ON_CANCELLATION")]];
    let mut scene = Scene::new(&settings.concat());
    scene.run_tasks();
    scene.checkpoint(1);
    scene.checkpoint(2);
    scene.master.handle(Event::Request(Request::Cancel), scene.now);
    scene.all_become(ExecutionState::Canceled);
    assert!(scene.path_of(2).exists());

    let path = scene.path_of(2).to_string_lossy().into_owned();
    let mut next = job(&[WITH_CHECKPOINTS, &[("execution.state-recovery.path", &path)]].concat());
    next.job_id = JobId(0xDEF);
    let mut next = Scene::of(next, scene.root, scene.store);
    assert_eq!(restored(&next.run_tasks()), Some(2));
    // Before it has a checkpoint of its own, it restarts from the same one; numbers go on after it.
    assert_eq!(restored(&next.restart()), Some(2));
    next.checkpoint(3);
    next.master.handle(Event::Request(Request::Cancel), next.now);
    next.all_become(ExecutionState::Canceled);
    assert!(Path::new(&path).exists(), "what the user named is the user's");
    assert!(!next.path_of(3).exists());
}

#[test]
fn a_damaged_checkpoint_is_passed_over_for_the_one_before() {
    let mut scene = Scene::new(WITH_CHECKPOINTS);
    scene.run_tasks();
    scene.checkpoint(1);
    scene.checkpoint(2);
    damage(&scene.path_of(2));
    assert_eq!(restored(&scene.restart()), Some(1));
    scene.checkpoint(3);
    // The damaged one went, not the one that the job lives on.
    assert_eq!(scene.record().retained, [CheckpointId(1), CheckpointId(3)]);
    fs::write(scene.path_of(3).join("_metadata"), b"nonsense").unwrap();
    assert_eq!(restored(&scene.restart()), Some(1));
}

#[test]
fn a_job_whose_checkpoints_are_all_damaged_fails_rather_than_starts_empty() {
    let mut scene = Scene::new(WITH_CHECKPOINTS);
    scene.run_tasks();
    scene.checkpoint(1);
    scene.checkpoint(2);
    damage(&scene.path_of(1));
    damage(&scene.path_of(2));
    scene.fail_task(Failure::new("lost"));
    scene.all_become(ExecutionState::Canceled);
    scene.wait(5);
    let failure = scene.outcome().failure.unwrap();
    assert!(failure.message.contains("chk-2/") && failure.message.contains("checksum"), "{failure}");
}

#[test]
fn a_coordinator_that_takes_over_goes_on_from_the_pointer_at_a_higher_generation() {
    let mut scene = Scene::new(WITH_CHECKPOINTS);
    scene.run_tasks();
    scene.checkpoint(1);
    scene.wait(10);
    let mut next = scene.succeed();
    let deployment = next.run_tasks();
    assert_eq!((deployment.generation, restored(&deployment)), (Generation(2), Some(1)));
    // Number 2 had begun.
    next.checkpoint(3);
    assert!(!next.path_of(2).exists());
}

#[test]
fn an_old_coordinator_stops_when_it_is_fenced_off_and_deletes_nothing() {
    let mut scene = Scene::new(WITH_CHECKPOINTS);
    scene.run_tasks();
    scene.checkpoint(1);
    scene.wait(10);
    scene.store.elect();
    scene.ack(2);
    let outcome = scene.outcome();
    assert_eq!(outcome.status, JobStatus::Running, "the job lives on elsewhere");
    assert!(completions(&scene.inbox.take()).is_empty(), "no sink commits what is not in the pointer");
    assert!(scene.path_of(1).exists());
}

#[test]
fn a_coordinator_that_never_led_leaves_the_job_alone() {
    let store = Arc::new(MemoryStore::new());
    let epoch = store.elect();
    store.elect();
    let (graph, workers, reports) = (job(&[]), Vec::new(), unbounded().1);
    let config =
        JobMasterConfig { graph, workers, joining: unbounded().1, reports, store, checkpoint_dir: None, epoch };
    let outcome = JobMaster::start(config).wait();
    assert!(!outcome.status.is_terminal(), "the job may live elsewhere");
    assert!(outcome.failure.unwrap().message.contains("does not lead"));
}

#[test]
fn a_job_that_has_ended_never_runs_again() {
    let mut scene = Scene::new(&[]);
    scene.run_tasks();
    scene.attempts().into_iter().for_each(|attempt| scene.report(Report::EndOfData { attempt }));
    scene.all_become(ExecutionState::Finished);
    let epoch = scene.store.elect();
    let config = JobMasterConfig {
        graph: scene.graph,
        workers: Vec::new(),
        reports: unbounded().1,
        joining: unbounded().1,
        store: scene.store,
        checkpoint_dir: None,
        epoch,
    };
    let outcome = JobMaster::start(config).wait();
    assert_eq!(outcome.status, JobStatus::Failed);
    assert!(outcome.failure.unwrap().message.contains("never runs again"));
}

#[test]
fn tasks_that_do_not_end_fail_the_job_by_name() {
    let mut scene = Scene::new(WITH_CHECKPOINTS);
    scene.run_tasks();
    scene.fail_task(Failure::new("lost"));
    let attempt = scene.attempts()[0];
    scene.report(Report::Task { attempt, state: ExecutionState::Canceled, failure: None });
    scene.inbox.take();
    scene.wait(30);
    assert!(matches!(scene.inbox.take()[..], [Command::Cancel { .. }]), "they are told once more");
    scene.wait(150);
    let outcome = scene.outcome();
    assert_eq!(outcome.status, JobStatus::Failed);
    let message = outcome.failure.unwrap().message;
    assert!(message.contains("vertex 1 (1), vertex 2 (1)"), "{message}");
}

#[test]
fn a_job_that_lost_its_worker_goes_on_when_others_have_enough_slots() {
    let mut scene = Scene::new(WITH_CHECKPOINTS);
    scene.run_tasks();
    scene.checkpoint(1);
    scene.lose(0);
    assert_eq!(scene.handle.status(), JobStatus::Restarting, "its tasks are not waited for");
    scene.inbox.take();
    scene.wait(5);
    scene.wait(60);
    assert_eq!(scene.handle.status(), JobStatus::Restarting, "there is no slot");
    let first = scene.join(1, 1);
    assert!(first.take().is_empty(), "one slot of two");
    let second = scene.join(2, 1);
    for inbox in [first, second] {
        let [Command::Deploy { deployment, .. }] = &inbox.take()[..] else { panic!("it is deployed") };
        assert_eq!((deployment.generation, restored(deployment)), (Generation(2), Some(1)));
        let peer = |number| Peer { worker: WorkerId(number), shuffle_address: Some(address_of(number)) };
        assert_eq!(deployment.peers, [peer(1), peer(2)]);
        assert!(deployment.placements.iter().all(|placement| placement.worker != WorkerId(0)));
    }
    assert!(scene.inbox.take().is_empty(), "who is gone is not spoken to");
    assert_eq!(scene.handle.status(), JobStatus::Running);
}

#[test]
fn tasks_of_a_worker_that_goes_while_they_are_stopped_are_not_waited_for() {
    let mut scene = Scene::new(WITH_CHECKPOINTS);
    scene.run_tasks();
    scene.fail_task(Failure::new("lost"));
    scene.lose(0);
    scene.join(1, 2);
    scene.wait(4);
    assert_eq!(scene.handle.status(), JobStatus::Restarting);
    scene.wait(1);
    assert_eq!(scene.handle.status(), JobStatus::Running, "the watchdog has 3 minutes, and nothing to watch");
}

#[test]
fn a_worker_that_runs_nothing_of_the_job_is_no_loss() {
    let mut scene = Scene::new(WITH_CHECKPOINTS);
    scene.run_tasks();
    let spare = scene.join(1, 2);
    scene.lose(1);
    assert_eq!(scene.handle.status(), JobStatus::Running);
    scene.checkpoint(1);
    assert!(spare.take().is_empty());
}

#[test]
fn a_worker_whose_end_is_known_before_it_joins_is_not_used() {
    let mut scene = Scene::new(WITH_CHECKPOINTS);
    scene.run_tasks();
    scene.lose(1);
    scene.lose(0);
    scene.wait(5);
    let gone = scene.join(1, 2);
    assert!(gone.take().is_empty());
    assert_eq!(scene.handle.status(), JobStatus::Restarting);
}

/// A job that needs three slots, where there are two.
fn too_wide() -> Scene {
    let mut wide = job(&[]);
    wide.vertices[0].parallelism = 3;
    Scene::of(wide, tempfile::tempdir().unwrap(), Arc::new(MemoryStore::new()))
}

#[test]
fn a_job_waits_for_slots_so_long_and_then_says_how_many_are_missing() {
    let mut scene = too_wide();
    assert_eq!(scene.handle.status(), JobStatus::Created);
    scene.wait(299);
    assert_eq!(
        (scene.handle.outcome(), scene.master.next_deadline().unwrap()),
        (None, scene.now + Duration::from_secs(1))
    );
    scene.wait(1);
    let outcome = scene.outcome();
    assert_eq!(outcome.status, JobStatus::Failed);
    let message = outcome.failure.unwrap().message;
    assert!(message.contains("needs 3 slots and 2 are there, 1 too few"), "{message}");
    assert!(message.contains("300s (slot.request.timeout)"), "{message}");
    assert!(scene.store.load(scene.master.epoch, scene.graph.job_id).unwrap().is_none(), "it may be tried again");
}

#[test]
fn the_time_for_slots_is_not_prolonged_by_workers_that_do_not_suffice() {
    let mut scene = too_wide();
    scene.master.graph.vertices[0].parallelism = 4;
    scene.wait(200);
    scene.join(1, 1);
    scene.wait(100);
    let message = scene.outcome().failure.unwrap().message;
    assert!(message.contains("needs 4 slots and 3 are there"), "{message}");
}

#[test]
fn a_job_that_waits_for_slots_can_be_cancelled() {
    let mut scene = too_wide();
    scene.master.handle(Event::Request(Request::Cancel), scene.now);
    assert_eq!(scene.outcome().status, JobStatus::Canceled);
}

#[test]
fn a_full_or_unwritable_directory_is_named_in_the_jobs_failure() {
    let mut scene = Scene::new(WITH_CHECKPOINTS);
    scene.run_tasks();
    // A file in the place of the job's directory: not even root can write below it.
    fs::write(scene.root.path().join(scene.graph.job_id.to_string()), b"").unwrap();
    scene.wait(10);
    assert_eq!(scene.handle.status(), JobStatus::Failing);
    scene.all_become(ExecutionState::Canceled);
    let failure = scene.outcome().failure.unwrap();
    assert!(failure.message.contains(scene.root.path().to_str().unwrap()), "{failure}");
    assert!(failure.message.contains("not a directory") || failure.message.contains("Not a directory"), "{failure}");
}

#[test]
fn a_job_may_change_its_parallelism_and_not_its_max_parallelism() {
    let settings =
        [WITH_CHECKPOINTS, &[("execution.checkpointing.externalized-checkpoint-retention", "RETAIN_ON_CANCELLATION")]];
    let mut scene = Scene::new(&settings.concat());
    scene.run_tasks();
    scene.checkpoint(1);
    let path = scene.path_of(1).to_string_lossy().into_owned();

    let mut wider = job(&[("execution.state-recovery.path", &path)]);
    wider.job_id = JobId(0xDEF);
    wider.vertices.iter_mut().for_each(|vertex| vertex.parallelism = 1);
    let mut wider = Scene::of(wider, tempfile::tempdir().unwrap(), scene.store.clone());
    let commands = wider.inbox.take();
    assert!(matches!(&commands[..], [Command::Deploy { deployment, .. }] if restored(deployment) == Some(1)));

    wider.graph.job_id = JobId(0xDED);
    wider.graph.vertices[1].max_parallelism = millstream_model::key_group::MaxParallelism(256);
    let other = Scene::of(wider.graph, tempfile::tempdir().unwrap(), scene.store.clone());
    let failure = other.outcome().failure.unwrap();
    assert_eq!(failure.operator.as_deref(), Some("operator 2"));
    assert!(failure.message.contains("128") && failure.message.contains("256"), "{failure}");
}

#[test]
fn state_without_a_place_in_the_job_is_refused() {
    let mut scene = Scene::new(WITH_CHECKPOINTS);
    scene.run_tasks();
    scene.checkpoint(1);
    let path = scene.path_of(1).to_string_lossy().into_owned();
    let mut other = graph(&[vertex(1, 2)], &[]);
    other.job_id = JobId(0xDEF);
    other.configuration.set_text("execution.state-recovery.path", &path, Origin::Program);
    let other = Scene::of(other, tempfile::tempdir().unwrap(), scene.store.clone());
    let failure = other.outcome().failure.unwrap();
    assert!(failure.message.contains(&OperatorId(2).to_string()), "{failure}");
}

#[test]
fn each_deployment_has_a_secret_of_its_own_and_says_where_its_workers_are() {
    let mut scene = Scene::new(WITH_CHECKPOINTS);
    let first = scene.run_tasks();
    assert_eq!(first.peers, [Peer { worker: WorkerId(0), shuffle_address: Some(address_of(0)) }]);
    let second = scene.restart();
    let other = Scene::new(WITH_CHECKPOINTS).run_tasks();
    let tokens = BTreeSet::from([first.token.0, second.token.0, other.token.0]);
    assert_eq!(tokens.len(), 3, "{tokens:?}");
    assert!(!format!("{first:?}").contains(&first.token.0.to_string()), "a log must not give it away");
}

#[test]
fn barriers_are_triggered_when_the_coordinator_has_answered() {
    let mut with_coordinator = job(WITH_CHECKPOINTS);
    with_coordinator.vertices[0] = coordinated(1, 2);
    let mut scene = Scene::of(with_coordinator, tempfile::tempdir().unwrap(), Arc::new(MemoryStore::new()));
    scene.run_tasks();
    scene.wait(10);
    let asked = |commands: Vec<Command>, number| matches!(&commands[..], [Command::SnapshotCoordinators { checkpoint: CheckpointId(n), .. }] if *n == number);
    assert!(asked(scene.inbox.take(), 1));
    let generation = scene.master.generation();
    let state = CoordinatorState { operator: OperatorId(1), bytes: vec![7] };
    scene.report(Report::CoordinatorAck { generation, checkpoint: CheckpointId(1), state: state.clone() });
    assert_eq!(triggers(&scene.inbox.take()), [(1, CheckpointKind::Checkpoint)]);
    scene.ack(1);
    scene.inbox.take();

    // One that ends before its barriers must let coordinators go on.
    scene.wait(10);
    assert!(asked(scene.inbox.take(), 2));
    scene.fail_task(Failure::new("lost"));
    let commands = scene.inbox.take();
    assert!(matches!(commands[0], Command::CheckpointAborted { checkpoint: CheckpointId(2), .. }), "{commands:?}");
    scene.report(Report::CoordinatorAck { generation, checkpoint: CheckpointId(2), state });
    assert!(scene.inbox.take().is_empty());
}

#[test]
fn too_few_slots_and_a_missing_directory_are_errors_that_say_what_to_change() {
    let mut scene = too_wide();
    scene.master.handle(Event::NoMoreWorkers, scene.now);
    let failure = scene.outcome().failure.unwrap();
    assert!(failure.message.contains("needs 3 slots and 2 are there"), "{failure}");

    let store = Arc::new(MemoryStore::new());
    let epoch = store.elect();
    let (graph, workers, reports) = (job(WITH_CHECKPOINTS), Vec::new(), unbounded().1);
    let config =
        JobMasterConfig { graph, workers, joining: unbounded().1, reports, store, checkpoint_dir: None, epoch };
    let failure = JobMaster::start(config).wait().failure.unwrap();
    assert!(failure.message.contains("execution.checkpointing.dir"), "{failure}");
}

#[test]
fn whoever_asks_for_a_checkpoint_gets_its_number_when_it_is_durable() {
    let mut scene = Scene::new(WITH_CHECKPOINTS);
    let (sender, answer) = bounded(1);
    scene.master.handle(Event::Request(Request::Checkpoint(sender)), scene.now);
    assert!(matches!(answer.try_recv(), Ok(Err(CheckpointRefused::NotRunning { .. }))));

    scene.run_tasks();
    let (sender, answer) = bounded(1);
    scene.master.handle(Event::Request(Request::Checkpoint(sender)), scene.now);
    assert_eq!(triggers(&scene.inbox.take()), [(1, CheckpointKind::Checkpoint)]);
    assert!(answer.is_empty());
    scene.ack(1);
    assert_eq!(answer.try_recv(), Ok(Ok(CheckpointId(1))));

    let (sender, answer) = bounded(1);
    scene.master.handle(Event::Request(Request::Checkpoint(sender)), scene.now);
    scene.fail_task(Failure::new("lost"));
    assert!(matches!(answer.try_recv(), Ok(Err(CheckpointRefused::GivenUp { .. }))));
}

#[test]
fn the_end_of_a_job_answers_all_who_wait_for_a_checkpoint() {
    let mut scene = Scene::new(&[]);
    scene.run_tasks();
    let answers = [(); 2].map(|()| {
        let (sender, answer) = bounded(1);
        scene.master.handle(Event::Request(Request::Checkpoint(sender)), scene.now);
        answer
    });
    assert_eq!(triggers(&scene.inbox.take()).len(), 1, "the other one waits for its turn");
    scene.attempts().into_iter().for_each(|attempt| scene.report(Report::EndOfData { attempt }));
    assert!(answers.iter().all(|answer| matches!(answer.try_recv(), Ok(Err(_)))));
}

#[test]
fn timers_get_their_turn_under_a_stream_of_reports() {
    let mut scene = Scene::new(WITH_CHECKPOINTS);
    scene.run_tasks();
    scene.now = scene.now + Duration::from_secs(10);
    let attempt = scene.attempts()[0];
    let metrics = TaskMetrics { records_in: 7, ..TaskMetrics::default() };
    scene.report(Report::Metrics { tasks: vec![(attempt, metrics)] });
    assert_eq!(triggers(&scene.inbox.take()), [(1, CheckpointKind::Checkpoint)]);
    assert_eq!(scene.handle.metrics().tasks[&attempt.subtask], metrics);
}

/// A fake worker that answers every command at once, as far as a job without data needs it.
struct Obedient {
    reports: Sender<FromWorker>,
}

impl WorkerLink for Obedient {
    fn send(&self, message: ToWorker) {
        let report = |report| self.reports.send(FromWorker { worker: WorkerId(0), report }).unwrap();
        let attempt =
            ExecutionAttemptId { subtask: Subtask { vertex: JobVertexId(1), index: 0 }, generation: Generation(1) };
        let become_all = |states: &[ExecutionState]| {
            states.iter().for_each(|state| report(Report::Task { attempt, state: *state, failure: None }));
        };
        match message.command {
            Command::Deploy { .. } => {
                become_all(&[ExecutionState::Deploying, ExecutionState::Initializing, ExecutionState::Running]);
            }
            Command::Cancel { .. } => become_all(&[ExecutionState::Canceled]),
            Command::TriggerCheckpoint { checkpoint, .. } => {
                let state = SubtaskState { subtask: attempt.subtask, file: None };
                let stats = SnapshotStats::default();
                report(Report::CheckpointAck { attempt, checkpoint, state, stats });
            }
            _ => {}
        }
    }

    fn worker(&self) -> WorkerId {
        WorkerId(0)
    }

    fn slots(&self) -> u32 {
        1
    }

    fn shuffle_address(&self) -> Option<SocketAddr> {
        None
    }
}

fn start_obedient(configuration: Configuration, root: &Path) -> (JobHandle, Sender<FromWorker>) {
    let mut graph = graph(&[vertex(1, 1)], &[]);
    graph.configuration = configuration;
    let (sender, reports) = unbounded();
    let store = Arc::new(MemoryStore::new());
    let epoch = store.elect();
    let checkpoint_dir = Some(root.to_owned());
    let workers: Vec<Box<dyn WorkerLink>> = vec![Box::new(Obedient { reports: sender.clone() })];
    (
        JobMaster::start(JobMasterConfig {
            graph,
            workers,
            joining: unbounded().1,
            reports,
            store,
            checkpoint_dir,
            epoch,
        }),
        sender,
    )
}

#[test]
fn the_loop_takes_checkpoints_by_its_own_clock_and_ends_when_it_is_told_to() {
    let root = tempfile::tempdir().unwrap();
    let mut configuration = Configuration::new();
    configuration.set(&config::CHECKPOINTING_INTERVAL, Some(Duration::from_millis(10)));
    let (handle, _sender) = start_obedient(configuration, root.path());
    while handle.metrics().checkpoints.completed < 3 {
        std::thread::yield_now();
    }
    handle.trigger_checkpoint().unwrap();
    handle.cancel();
    let outcome = handle.wait();
    assert_eq!(outcome.status, JobStatus::Canceled);
    assert!(outcome.timings.checkpoints.completed >= 4);
    assert!(matches!(handle.trigger_checkpoint(), Err(CheckpointRefused::Ended { .. })));
    handle.cancel();
}
