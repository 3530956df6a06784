//! Jobs of several regions: one restarts, or is adopted, beside others.

use millstream_model::{id::SlotIndex, message::TaskStatus};

use super::{adoption::Decided, *};

/// A pipeline of two subtasks a vertex and one of one subtask a vertex, with nothing between them and no slot in common:
/// three slots, the first two of worker 0.
fn two_pipelines(settings: &[(&str, &str)]) -> JobGraph {
    let mut graph = graph(&[vertex(1, 2), vertex(2, 2), vertex(3, 1), vertex(4, 1)], &[(0, 1), (2, 3)]);
    for (key, value) in settings {
        graph.configuration.set_text(key, value, Origin::Program);
    }
    for vertex in &mut graph.vertices[2..] {
        vertex.slot_sharing_group = "other".to_owned();
    }
    graph
}

const BIG: RegionIndex = RegionIndex(0);
const SMALL: RegionIndex = RegionIndex(1);

/// The inboxes of both workers.
struct Pair {
    scene: Scene,
    one: Inbox,
    two: Inbox,
}

impl Pair {
    /// Both pipelines run, the first on worker 0, the second on worker 1.
    fn running(settings: &[(&str, &str)]) -> Pair {
        let mut scene = Scene::of(two_pipelines(settings), tempfile::tempdir().unwrap(), Arc::new(MemoryStore::new()));
        assert_eq!(scene.handle.status(), JobStatus::Created);
        assert!(scene.inbox.take().is_empty(), "a job starts as a whole");
        let two = scene.join(1, 1);
        let one = scene.inbox.clone();
        let mut pair = Pair { scene, one, two };
        assert_eq!(pair.scene.handle.status(), JobStatus::Running);
        assert_eq!(generations(&pair.one.take()), [(1, 1, None)]);
        assert_eq!(generations(&pair.two.take()), [(2, 1, None)]);
        for region in [BIG, SMALL] {
            pair.scene.region_runs(region);
        }
        pair
    }

    /// With a durable checkpoint 1.
    fn with_checkpoint() -> Pair {
        let mut pair = Pair::running(WITH_CHECKPOINTS);
        pair.scene.wait(10);
        for inbox in [&pair.one, &pair.two] {
            assert_eq!(triggers(&inbox.take()), [(1, CheckpointKind::Checkpoint)]);
        }
        pair.scene.ack_regions(1);
        for inbox in [&pair.one, &pair.two] {
            assert_eq!(completions(&inbox.take()), [1]);
        }
        pair
    }

    fn inboxes(&self) -> [Vec<Command>; 2] {
        [self.one.take(), self.two.take()]
    }
}

impl Scene {
    fn attempts_of(&self, region: RegionIndex) -> Vec<ExecutionAttemptId> {
        let subtasks = self.master.regions.subtasks(region);
        self.master.execution.executions_of(subtasks).map(|execution| execution.attempt).collect()
    }

    fn region_becomes(&mut self, region: RegionIndex, state: ExecutionState) {
        for attempt in self.attempts_of(region) {
            self.report(Report::Task { attempt, state, failure: None });
        }
    }

    fn region_runs(&mut self, region: RegionIndex) {
        for state in [ExecutionState::Deploying, ExecutionState::Initializing, ExecutionState::Running] {
            self.region_becomes(region, state);
        }
    }

    fn region_fails(&mut self, region: RegionIndex, failure: Failure) {
        let attempt = self.attempts_of(region)[0];
        self.report(Report::Task { attempt, state: ExecutionState::Failed, failure: Some(failure) });
    }

    /// Stores and acknowledges all parts of all regions.
    fn ack_regions(&mut self, checkpoint: u64) {
        let checkpoint = CheckpointId(checkpoint);
        let directory = CheckpointDirectory::new(self.root.path(), self.graph.job_id);
        for attempt in [self.attempts_of(BIG), self.attempts_of(SMALL)].concat() {
            let name = format!("{}-{}", attempt.subtask, attempt.generation.0);
            let file = directory.write(checkpoint, &name, name.as_bytes()).unwrap();
            let state = SubtaskState { subtask: attempt.subtask, file: Some(file) };
            self.report(Report::CheckpointAck { attempt, checkpoint, state, stats: SnapshotStats::default() });
        }
    }

    /// What the tasks of a region say to a new leader.
    fn statuses(&self, region: RegionIndex) -> Vec<TaskStatus> {
        let generation = self.master.keeper.stored(&self.master.regions)[region.0].unwrap().generation;
        let status = |subtask: &Subtask| TaskStatus {
            attempt: ExecutionAttemptId { subtask: *subtask, generation },
            slot: SlotIndex(subtask.index),
            state: ExecutionState::Running,
            end_of_data: false,
        };
        self.master.regions.subtasks(region).iter().map(status).collect()
    }
}

/// Generation, attempt and checkpoint of the deployments among these.
fn generations(commands: &[Command]) -> Vec<(u64, u64, Option<u64>)> {
    let deployed = |command: &Command| match command {
        Command::Deploy { deployment, .. } => Some((deployment.generation.0, deployment.attempt, restored(deployment))),
        _ => None,
    };
    commands.iter().filter_map(deployed).collect()
}

fn cancels(commands: &[Command]) -> Vec<u64> {
    let cancelled = |command: &Command| match command {
        Command::Cancel { generation } => Some(generation.0),
        _ => None,
    };
    commands.iter().filter_map(cancelled).collect()
}

#[test]
fn a_failure_restarts_its_region_from_the_latest_checkpoint_and_others_hear_of_nothing_but_their_checkpoint() {
    let mut pair = Pair::with_checkpoint();
    pair.scene.wait(10);
    pair.inboxes();
    pair.scene.region_fails(SMALL, Failure::new("lost"));
    assert_eq!(pair.scene.handle.status(), JobStatus::Restarting);
    let [one, two] = pair.inboxes();
    let is_abort = |command: &Command| matches!(command, Command::CheckpointAborted { .. });
    assert!(one.len() == 1 && is_abort(&one[0]), "what is under way is given up, and nothing else: {one:?}");
    assert_eq!(cancels(&two), [2]);
    pair.scene.region_becomes(SMALL, ExecutionState::Canceled);
    pair.scene.wait(4);
    assert!(pair.inboxes().iter().all(Vec::is_empty), "it pauses, and no checkpoint is taken");
    pair.scene.wait(1);
    let [one, two] = pair.inboxes();
    assert!(one.is_empty(), "{one:?}");
    assert_eq!(generations(&two), [(3, 2, Some(1))]);
    let attempts = [pair.scene.attempts_of(BIG)[0], pair.scene.attempts_of(SMALL)[0]];
    assert_eq!(attempts.map(|attempt| attempt.generation.0), [1, 3]);
    assert_eq!((pair.scene.handle.status(), pair.scene.handle.metrics().restarts), (JobStatus::Running, 1));

    // Checkpoints go on when it runs, with the parts of both.
    pair.scene.wait(20);
    assert!(pair.inboxes().iter().all(Vec::is_empty), "not all tasks run");
    pair.scene.region_runs(SMALL);
    pair.scene.wait(10);
    for inbox in [&pair.one, &pair.two] {
        assert_eq!(triggers(&inbox.take()), [(3, CheckpointKind::Checkpoint)]);
    }
    pair.scene.ack_regions(3);
    assert_eq!(pair.inboxes().map(|told| completions(&told)), [[3], [3]]);
}

#[test]
fn a_lost_worker_restarts_the_regions_that_it_had_tasks_of_in_the_slots_of_another() {
    let mut pair = Pair::with_checkpoint();
    pair.scene.lose(1);
    assert_eq!(pair.scene.handle.status(), JobStatus::Restarting);
    pair.scene.wait(5);
    assert!(pair.inboxes().iter().all(Vec::is_empty), "there is no slot, and who is gone is not spoken to");
    let three = pair.scene.join(2, 1);
    assert_eq!(generations(&three.take()), [(3, 2, Some(1))]);
    assert!(pair.one.take().is_empty());
    assert_eq!(pair.scene.handle.status(), JobStatus::Running);
    // The other way round: what restarts finds its own slots again, and takes none of the other's.
    pair.scene.region_runs(SMALL);
    pair.scene.region_fails(BIG, Failure::new("lost"));
    pair.scene.region_becomes(BIG, ExecutionState::Canceled);
    pair.scene.wait(5);
    assert_eq!(generations(&pair.one.take()), [(4, 2, Some(1))]);
    assert!(three.take().is_empty());
}

#[test]
fn with_the_strategy_full_all_regions_restart() {
    let settings = [WITH_CHECKPOINTS, &[("jobmanager.execution.failover-strategy", "full")]].concat();
    let mut pair = Pair::running(&settings);
    pair.scene.region_fails(SMALL, Failure::new("lost"));
    assert_eq!(pair.inboxes().map(|told| cancels(&told)), [[1], [2]]);
    for region in [BIG, SMALL] {
        pair.scene.region_becomes(region, ExecutionState::Canceled);
    }
    pair.scene.wait(5);
    assert_eq!(pair.inboxes().map(|told| generations(&told)), [[(3, 2, None)], [(4, 2, None)]]);
}

#[test]
fn two_regions_restart_each_in_its_time_and_the_job_runs_when_both_do() {
    let mut pair = Pair::running(WITH_CHECKPOINTS);
    pair.scene.region_fails(SMALL, Failure::new("lost"));
    pair.scene.region_becomes(SMALL, ExecutionState::Canceled);
    pair.scene.wait(3);
    pair.scene.region_fails(BIG, Failure::new("lost, too"));
    pair.scene.region_becomes(BIG, ExecutionState::Canceled);
    pair.inboxes();
    pair.scene.wait(2);
    assert_eq!(pair.inboxes().map(|told| generations(&told)), [vec![], vec![(3, 2, None)]]);
    assert_eq!(pair.scene.handle.status(), JobStatus::Restarting);
    pair.scene.wait(3);
    assert_eq!(pair.inboxes().map(|told| generations(&told)), [vec![(4, 2, None)], vec![]]);
    assert_eq!((pair.scene.handle.status(), pair.scene.handle.metrics().restarts), (JobStatus::Running, 2));
    // Both attempts of the strategy are used up.
    pair.scene.region_fails(SMALL, Failure::new("once more"));
    assert_eq!(pair.scene.handle.status(), JobStatus::Failing);
    assert_eq!(pair.inboxes().map(|told| cancels(&told)), [[4], [3]], "all tasks end when the job fails");
}

#[test]
fn a_region_that_is_stuck_or_a_failure_that_no_restart_mends_ends_the_job() {
    let mut pair = Pair::running(WITH_CHECKPOINTS);
    pair.scene.region_fails(BIG, Failure::new("lost"));
    pair.scene.wait(180);
    let message = pair.scene.outcome().failure.unwrap().message;
    assert!(message.contains("vertex 1 (1), vertex 2 (0), vertex 2 (1)"), "{message}");
    assert!(!message.contains("vertex 3"), "who was not told to end is not stuck: {message}");

    let mut pair = Pair::running(WITH_CHECKPOINTS);
    pair.scene.region_fails(SMALL, Failure::fatal("the program is wrong"));
    assert_eq!(pair.inboxes().map(|told| cancels(&told)), [[1], [2]]);
    for region in [BIG, SMALL] {
        pair.scene.region_becomes(region, ExecutionState::Canceled);
    }
    assert_eq!(pair.scene.outcome().failure.unwrap().message, "the program is wrong");
}

#[test]
fn a_failure_after_all_were_told_to_finish_restarts_those_that_have_finished_as_well() {
    let mut pair = Pair::running(WITH_CHECKPOINTS);
    for region in [BIG, SMALL] {
        for attempt in pair.scene.attempts_of(region) {
            pair.scene.report(Report::EndOfData { attempt });
        }
    }
    assert_eq!(
        pair.inboxes().map(|told| triggers(&told)),
        [[(1, CheckpointKind::Final)], [(1, CheckpointKind::Final)]]
    );
    pair.scene.ack_regions(1);
    let finish = |told: Vec<Command>| told.iter().any(|command| matches!(command, Command::Finish { .. }));
    assert_eq!(pair.inboxes().map(finish), [true, true]);
    pair.scene.region_becomes(BIG, ExecutionState::Finished);
    pair.scene.region_fails(SMALL, Failure::new("lost"));
    pair.scene.region_becomes(SMALL, ExecutionState::Canceled);
    pair.scene.wait(5);
    assert_eq!(pair.inboxes().map(|told| generations(&told)), [[(3, 2, Some(1))], [(4, 2, Some(1))]]);
}

/// The leader dies, both workers do not.
fn taken_up(pair: Pair) -> (Pair, Decided) {
    let (mut scene, decided) = pair.scene.taken_up();
    let (one, two) = (scene.join(0, 2), scene.join(1, 1));
    (Pair { scene, one, two }, decided)
}

#[test]
fn regions_whose_every_task_runs_are_adopted_and_what_is_left_of_others_is_stopped_before_they_restart() {
    let (mut pair, decided) = taken_up(Pair::with_checkpoint());
    let (big, mut small) = (pair.scene.statuses(BIG), pair.scene.statuses(SMALL));
    small[1].state = ExecutionState::Failed;
    pair.scene.status_of(1, small);
    assert!(decided.lock().unwrap().is_empty(), "the other one may run");
    pair.inboxes();
    pair.scene.status_of(0, big);
    assert_eq!(*decided.lock().unwrap(), [true]);
    assert_eq!(pair.scene.handle.status(), JobStatus::Restarting);
    let [one, two] = pair.inboxes();
    assert_eq!((completions(&one), cancels(&one), generations(&one)), (vec![1], vec![], vec![]));
    assert_eq!((completions(&two), cancels(&two), generations(&two)), (vec![], vec![2], vec![]));
    let alive = pair.scene.attempts_of(SMALL);
    assert_eq!(alive.len(), 1, "one has ended");
    pair.scene.report(Report::Task { attempt: alive[0], state: ExecutionState::Canceled, failure: None });
    pair.scene.wait(0);
    assert_eq!(pair.inboxes().map(|told| generations(&told)), [vec![], vec![(3, 2, Some(1))]]);
    pair.scene.region_runs(SMALL);
    assert_eq!((pair.scene.handle.status(), pair.scene.handle.metrics().restarts), (JobStatus::Running, 0));
    pair.scene.wait(10);
    pair.scene.ack_regions(2);
    assert_eq!(pair.inboxes().map(|told| completions(&told)), [[2], [2]]);
}

#[test]
fn a_region_whose_worker_has_not_come_in_time_is_deployed_on_another_and_the_rest_is_adopted() {
    let (mut scene, decided) = Pair::with_checkpoint().scene.taken_up();
    let one = scene.join(0, 2);
    let big = scene.statuses(BIG);
    scene.status_of(0, big);
    scene.wait(4);
    assert!(decided.lock().unwrap().is_empty());
    scene.wait(1);
    assert_eq!(*decided.lock().unwrap(), [true]);
    assert!(cancels(&one.take()).is_empty());
    let three = scene.join(2, 1);
    scene.wait(0);
    assert_eq!(generations(&three.take()), [(3, 2, Some(1))]);
    assert_eq!(scene.handle.status(), JobStatus::Running);
}

#[test]
fn a_leader_that_died_between_storing_a_generation_and_deploying_it_costs_that_region_only() {
    let mut pair = Pair::with_checkpoint();
    pair.scene.region_fails(SMALL, Failure::new("lost"));
    pair.scene.region_becomes(SMALL, ExecutionState::Canceled);
    let before = pair.scene.statuses(SMALL);
    pair.scene.wait(5);
    let (mut pair, decided) = taken_up(pair);
    let ended = |status: TaskStatus| TaskStatus { state: ExecutionState::Canceled, ..status };
    pair.scene.status_of(1, before.into_iter().map(ended).collect());
    let big = pair.scene.statuses(BIG);
    pair.scene.status_of(0, big);
    assert_eq!(*decided.lock().unwrap(), [true]);
    pair.inboxes();
    pair.scene.wait(0);
    assert_eq!(pair.inboxes().map(|told| generations(&told)), [vec![], vec![(4, 3, Some(1))]]);
}

#[test]
fn a_worker_on_which_something_lives_that_the_store_does_not_know_of_is_not_used_again() {
    let (mut pair, decided) = taken_up(Pair::with_checkpoint());
    let (big, mut small) = (pair.scene.statuses(BIG), pair.scene.statuses(SMALL));
    small[1].attempt.generation = Generation(9);
    pair.scene.status_of(1, small);
    pair.scene.status_of(0, big);
    assert_eq!(*decided.lock().unwrap(), [true]);
    pair.inboxes();
    let three = pair.scene.join(2, 1);
    pair.scene.wait(0);
    assert_eq!(generations(&three.take()), [(3, 2, Some(1))]);
    assert!(pair.two.take().is_empty());
}
