//! The coordinator, told and asked; and a model test of it with random acknowledgements.

use proptest::prelude::*;

use super::*;
use crate::job_master::fixture::{coordinated, graph, vertex};

const GENERATION: Generation = Generation(3);

fn config() -> CheckpointConfig {
    CheckpointConfig {
        interval: Some(Duration::from_secs(10)),
        timeout: Duration::from_secs(60),
        min_pause: Duration::ZERO,
        max_concurrent: 1,
        tolerable_failures: 0,
        num_retained: 1,
    }
}

fn job() -> JobGraph {
    graph(&[coordinated(1, 2), vertex(2, 1)], &[(0, 1)])
}

fn fresh(config: CheckpointConfig) -> CheckpointCoordinator {
    let found = Found { retained: Vec::new(), given_up: Vec::new(), next: CheckpointId(1) };
    CheckpointCoordinator::new(config, &job(), found)
}

fn started(config: CheckpointConfig) -> CheckpointCoordinator {
    let mut coordinator = fresh(config);
    coordinator.start(BTreeSet::from([GENERATION]), at(0));
    coordinator
}

fn at(seconds: u64) -> Moment {
    Moment(Duration::from_secs(seconds))
}

fn subtasks() -> Vec<Subtask> {
    let subtasks = |vertex: &millstream_model::job_graph::JobVertex| {
        let id = vertex.id;
        (0..vertex.parallelism).map(move |index| Subtask { vertex: id, index })
    };
    job().vertices.iter().flat_map(subtasks).collect()
}

fn ack(coordinator: &mut CheckpointCoordinator, subtask: Subtask, generation: Generation, number: u64) -> Vec<Action> {
    let attempt = ExecutionAttemptId { subtask, generation };
    let state = SubtaskState { subtask, file: None };
    coordinator.on_ack(attempt, CheckpointId(number), state, SnapshotStats::default(), at(0))
}

fn coordinator_ack(coordinator: &mut CheckpointCoordinator, number: u64, seconds: u64) -> Vec<Action> {
    let state = CoordinatorState { operator: OperatorId(1), bytes: Vec::new() };
    coordinator.on_coordinator_ack(GENERATION, CheckpointId(number), state, at(seconds))
}

/// There is room, and the coordinator has answered; what that leads to.
fn barriers(coordinator: &mut CheckpointCoordinator, number: u64, seconds: u64) -> Vec<Action> {
    let snapshot = Action::SnapshotCoordinators { checkpoint: CheckpointId(number) };
    assert_eq!(coordinator.on_begun(CheckpointId(number), at(seconds)), [snapshot]);
    coordinator_ack(coordinator, number, seconds)
}

/// All subtasks' parts of a checkpoint; what the last of them leads to.
fn ack_all(coordinator: &mut CheckpointCoordinator, number: u64) -> Vec<Action> {
    subtasks().into_iter().flat_map(|subtask| ack(coordinator, subtask, GENERATION, number)).collect()
}

/// Begins at this time, and gets as far as its barriers.
fn start(coordinator: &mut CheckpointCoordinator, number: u64, seconds: u64) {
    assert_eq!(coordinator.on_tick(at(seconds)), [begin(number)]);
    assert_eq!(barriers(coordinator, number, seconds), [trigger(number)]);
}

/// Begins at this time, and completes.
fn complete(coordinator: &mut CheckpointCoordinator, number: u64, seconds: u64) -> Vec<Action> {
    start(coordinator, number, seconds);
    assert!(matches!(ack_all(coordinator, number)[..], [Action::Complete(_)]));
    coordinator.on_durable(CheckpointId(number), at(seconds))
}

fn begin(number: u64) -> Action {
    Action::Begin { checkpoint: CheckpointId(number) }
}

fn trigger(number: u64) -> Action {
    Action::Trigger { checkpoint: CheckpointId(number), kind: CheckpointKind::Checkpoint }
}

fn abort(number: u64, reason: AbortReason) -> Action {
    Action::Abort { checkpoint: CheckpointId(number), reason }
}

fn notify(number: u64) -> Action {
    Action::Notify { checkpoint: CheckpointId(number) }
}

fn delete(numbers: &[u64]) -> Action {
    Action::Delete { checkpoints: numbers.iter().copied().map(CheckpointId).collect() }
}

#[test]
fn a_checkpoint_starts_an_interval_after_all_tasks_run_and_not_before() {
    let mut coordinator = fresh(config());
    assert_eq!(coordinator.next_deadline(), None);
    assert!(coordinator.on_tick(at(1000)).is_empty());
    coordinator.start(BTreeSet::from([GENERATION]), at(1000));
    assert_eq!(coordinator.next_deadline(), Some(at(1010)));
    assert!(coordinator.on_tick(at(1009)).is_empty());
    assert_eq!(coordinator.on_tick(at(1010)), [begin(1)]);
}

#[test]
fn a_checkpoint_completes_with_the_last_part_and_sinks_hear_of_it_when_it_is_durable() {
    let mut coordinator = started(config());
    start(&mut coordinator, 1, 10);
    let actions = ack_all(&mut coordinator, 1);
    let [Action::Complete(collected)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(collected.subtasks.iter().map(|state| state.subtask).collect::<Vec<_>>(), subtasks());
    assert_eq!(collected.coordinators.len(), 1);
    assert_eq!(coordinator.on_durable(CheckpointId(1), at(11)), [notify(1)]);
}

#[test]
fn a_checkpoint_knows_whom_it_waits_for_and_where_its_time_went() {
    let mut coordinator = started(config());
    assert_eq!(coordinator.under_way(), None);
    assert_eq!(coordinator.on_tick(at(10)), [begin(1)]);
    coordinator.on_begun(CheckpointId(1), at(10));
    assert!(!coordinator.under_way().unwrap().is_triggered);
    assert_eq!(coordinator_ack(&mut coordinator, 1, 12), [trigger(1)]);
    let all = subtasks();
    let mut ack = |subtask: Subtask, seconds: u64, stats: SnapshotStats| {
        let attempt = ExecutionAttemptId { subtask, generation: GENERATION };
        coordinator.on_ack(attempt, CheckpointId(1), SubtaskState { subtask, file: None }, stats, at(seconds));
        coordinator.under_way()
    };
    let second = 1_000_000_000;
    let stats = |alignment: u64, sync: u64, asynchronous: u64| SnapshotStats {
        alignment_nanos: alignment * second,
        sync_nanos: sync * second,
        async_nanos: asynchronous * second,
        state_bytes: 0,
    };
    ack(all[0], 15, stats(0, 1, 2));
    let under_way = ack(all[1], 20, stats(1, 0, 3)).unwrap();
    let known = (under_way.since, under_way.is_triggered, under_way.missing);
    assert_eq!(known, (at(10), true, vec![all[2]]));
    ack(all[2], 21, stats(3, 0, 1));
    coordinator.on_durable(CheckpointId(1), at(22));
    let slowest = |seconds, subtask| Slowest { duration: Duration::from_secs(seconds), subtask: Some(subtask) };
    let phases = CheckpointPhases {
        coordinators: Duration::from_secs(2),
        // What is left of the time since the barriers could go.
        start_delay: slowest(5, all[2]),
        alignment: slowest(3, all[2]),
        sync: slowest(1, all[0]),
        asynchronous: slowest(3, all[1]),
    };
    assert_eq!(coordinator.stats().last_completed.unwrap().phases, phases);
    assert_eq!(coordinator.under_way().unwrap().id, CheckpointId(2), "the next one is due");
}

#[test]
fn barriers_wait_for_all_coordinators_of_the_job() {
    let two = graph(&[coordinated(1, 2), coordinated(2, 1)], &[(0, 1)]);
    let found = Found { retained: Vec::new(), given_up: Vec::new(), next: CheckpointId(1) };
    let mut coordinator = CheckpointCoordinator::new(config(), &two, found);
    coordinator.start(BTreeSet::from([GENERATION]), at(0));
    assert_eq!(coordinator.on_tick(at(10)), [begin(1)]);
    assert!(coordinator_ack(&mut coordinator, 1, 10).is_empty(), "nobody was asked yet");
    assert!(barriers(&mut coordinator, 1, 10).is_empty(), "one of two has answered");
    assert!(coordinator_ack(&mut coordinator, 1, 11).is_empty(), "a repeated answer counts once");
    for subtask in subtasks() {
        assert!(ack(&mut coordinator, subtask, GENERATION, 1).is_empty(), "no barrier is under way");
    }
    let other = CoordinatorState { operator: OperatorId(2), bytes: Vec::new() };
    assert_eq!(coordinator.on_coordinator_ack(GENERATION, CheckpointId(1), other, at(12)), [trigger(1)]);
    assert!(matches!(ack_all(&mut coordinator, 1)[..], [Action::Complete(_)]));
}

#[test]
fn without_coordinators_barriers_go_at_once() {
    let found = Found { retained: Vec::new(), given_up: Vec::new(), next: CheckpointId(1) };
    let mut coordinator = CheckpointCoordinator::new(config(), &graph(&[vertex(1, 2)], &[]), found);
    coordinator.start(BTreeSet::from([GENERATION]), at(0));
    assert_eq!(coordinator.on_tick(at(10)), [begin(1)]);
    assert_eq!(coordinator.on_begun(CheckpointId(1), at(10)), [trigger(1)]);
}

#[test]
fn coordinators_are_never_between_two_checkpoints() {
    let mut coordinator = started(CheckpointConfig { max_concurrent: 3, tolerable_failures: 9, ..config() });
    assert_eq!(coordinator.on_tick(at(10)), [begin(1)]);
    coordinator.on_begun(CheckpointId(1), at(10));
    assert!(coordinator.on_tick(at(25)).is_empty(), "the coordinator has not answered for 1");
    assert_eq!(coordinator.next_deadline(), Some(at(70)));
    assert_eq!(coordinator.request(at(26)), (true, Vec::new()), "it is for later");
    assert_eq!(coordinator_ack(&mut coordinator, 1, 27), [trigger(1), begin(2)]);
    coordinator.on_begun(CheckpointId(2), at(27));
    assert!(coordinator.on_tick(at(40)).is_empty(), "the coordinator has not answered for 2");
    let declined = Failure::new("it cannot be encoded");
    let actions = coordinator.on_decline(GENERATION, CheckpointId(2), declined.clone(), at(41));
    assert_eq!(actions, [abort(2, AbortReason::Declined(declined)), begin(3)]);
    assert!(coordinator_ack(&mut coordinator, 2, 42).is_empty(), "it comes too late");
}

#[test]
fn a_checkpoint_whose_coordinators_do_not_answer_is_given_up() {
    let mut coordinator = started(CheckpointConfig { tolerable_failures: 9, ..config() });
    coordinator.on_tick(at(10));
    coordinator.on_begun(CheckpointId(1), at(10));
    let reason = AbortReason::Expired { missing: 4, timeout: Duration::from_secs(60) };
    assert_eq!(coordinator.on_tick(at(70)), [abort(1, reason), begin(2)]);
    coordinator.on_begun(CheckpointId(2), at(70));
    assert_eq!(coordinator.stop(), [abort(2, AbortReason::TasksEnded)]);
}

#[test]
fn late_repeated_and_foreign_acks_do_not_count() {
    let mut coordinator = started(config());
    start(&mut coordinator, 1, 10);
    let [first, ..] = subtasks()[..] else { panic!() };
    for _ in 0..5 {
        assert!(ack(&mut coordinator, first, GENERATION, 1).is_empty());
    }
    for subtask in subtasks() {
        assert!(ack(&mut coordinator, subtask, Generation(2), 1).is_empty());
        assert!(ack(&mut coordinator, subtask, Generation(4), 1).is_empty());
        assert!(ack(&mut coordinator, subtask, GENERATION, 2).is_empty());
    }
    let stranger = Subtask { vertex: millstream_model::id::JobVertexId(9), index: 0 };
    assert!(ack(&mut coordinator, stranger, GENERATION, 1).is_empty());
    assert!(matches!(ack_all(&mut coordinator, 1)[..], [Action::Complete(_)]));
    coordinator.on_durable(CheckpointId(1), at(11));
    assert!(ack_all(&mut coordinator, 1).is_empty());
}

#[test]
fn the_next_one_waits_for_room_and_for_the_pause() {
    let mut coordinator = started(CheckpointConfig { min_pause: Duration::from_secs(4), ..config() });
    start(&mut coordinator, 1, 10);
    assert!(coordinator.on_tick(at(20)).is_empty(), "one is under way");
    ack_all(&mut coordinator, 1);
    assert_eq!(coordinator.on_durable(CheckpointId(1), at(25)), [notify(1)]);
    assert_eq!(coordinator.next_deadline(), Some(at(29)));
    assert_eq!(coordinator.on_tick(at(29)), [begin(2)]);
}

#[test]
fn an_overdue_checkpoint_starts_as_soon_as_there_is_room() {
    let mut coordinator = started(config());
    start(&mut coordinator, 1, 10);
    ack_all(&mut coordinator, 1);
    assert_eq!(coordinator.on_durable(CheckpointId(1), at(25)), [notify(1), begin(2)]);
}

#[test]
fn what_is_older_than_a_durable_checkpoint_is_given_up_and_may_go() {
    let mut coordinator = started(CheckpointConfig { max_concurrent: 2, num_retained: 2, ..config() });
    start(&mut coordinator, 1, 10);
    start(&mut coordinator, 2, 20);
    ack_all(&mut coordinator, 2);
    let abort = abort(1, AbortReason::Subsumed { by: CheckpointId(2) });
    assert_eq!(coordinator.on_durable(CheckpointId(2), at(21)), [notify(2), abort, delete(&[1])]);
    assert!(ack_all(&mut coordinator, 1).is_empty());
    assert_eq!(coordinator.stats().failed, 0, "to be subsumed is no failure");
}

#[test]
fn only_so_many_are_kept() {
    let mut coordinator = started(CheckpointConfig { num_retained: 2, ..config() });
    assert_eq!(complete(&mut coordinator, 1, 10), [notify(1)]);
    assert_eq!(complete(&mut coordinator, 2, 20), [notify(2)]);
    assert_eq!(complete(&mut coordinator, 3, 30), [notify(3), delete(&[1])]);
    assert_eq!(coordinator.retained().map(|id| id.0).collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn a_damaged_checkpoint_does_not_push_out_the_whole_one_before_it() {
    let mut coordinator = started(CheckpointConfig { num_retained: 2, ..config() });
    complete(&mut coordinator, 1, 10);
    complete(&mut coordinator, 2, 20);
    coordinator.stop();
    coordinator.on_restored(CheckpointId(1));
    coordinator.start(BTreeSet::from([Generation(3)]), at(30));
    assert_eq!(complete(&mut coordinator, 3, 40), [notify(3), delete(&[2])]);
    assert_eq!(coordinator.retained().map(|id| id.0).collect::<Vec<_>>(), [1, 3]);
}

#[test]
fn one_failure_more_than_tolerable_fails_the_job_and_a_success_forgives_all() {
    let mut coordinator = started(CheckpointConfig { tolerable_failures: 1, ..config() });
    let decline = |coordinator: &mut CheckpointCoordinator, number, seconds| {
        coordinator.on_decline(
            GENERATION,
            CheckpointId(number),
            Failure::new("disk full").in_operator("sum"),
            at(seconds),
        )
    };
    coordinator.on_tick(at(10));
    assert!(matches!(decline(&mut coordinator, 1, 11)[..], [Action::Abort { .. }]));
    complete(&mut coordinator, 2, 20);
    coordinator.on_tick(at(30));
    assert!(matches!(decline(&mut coordinator, 3, 31)[..], [Action::Abort { .. }]));
    coordinator.on_tick(at(40));
    let actions = decline(&mut coordinator, 4, 41);
    let [Action::Abort { .. }, Action::FailJob { failure }] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(failure.operator.as_deref(), Some("sum"));
    assert!(failure.message.contains("disk full"), "{failure}");
    assert!(decline(&mut coordinator, 4, 41).is_empty(), "a repeated decline counts once");
}

#[test]
fn a_checkpoint_that_takes_too_long_is_given_up_with_what_was_missing() {
    let mut coordinator = started(config());
    start(&mut coordinator, 1, 10);
    assert_eq!(coordinator.next_deadline(), Some(at(70)));
    assert!(coordinator.on_tick(at(69)).is_empty());
    let actions = coordinator.on_tick(at(70));
    let reason = AbortReason::Expired { missing: 3, timeout: Duration::from_secs(60) };
    assert_eq!(actions[0], abort(1, reason));
    assert!(matches!(actions[1..], [Action::FailJob { .. }]));
}

#[test]
fn a_checkpoint_under_way_is_aborted_when_its_tasks_end() {
    let mut coordinator = started(config());
    start(&mut coordinator, 1, 10);
    assert_eq!(coordinator.stop(), [abort(1, AbortReason::TasksEnded)]);
    assert!(ack_all(&mut coordinator, 1).is_empty());
    coordinator.start(BTreeSet::from([Generation(4)]), at(20));
    assert_eq!(coordinator.on_tick(at(30)), [begin(2)], "numbers are never used twice");
}

#[test]
fn the_final_checkpoint_waits_for_the_pending_one_and_then_lets_the_job_finish() {
    let mut coordinator = started(config());
    start(&mut coordinator, 1, 10);
    assert!(coordinator.on_end_of_data(at(11)).is_empty());
    ack_all(&mut coordinator, 1);
    assert_eq!(coordinator.on_durable(CheckpointId(1), at(12)), [notify(1), begin(2)]);
    let last = Action::Trigger { checkpoint: CheckpointId(2), kind: CheckpointKind::Final };
    assert_eq!(barriers(&mut coordinator, 2, 12), [last]);
    assert!(coordinator.on_tick(at(30)).is_empty(), "no other starts beside it");
    assert_eq!(coordinator.request(at(30)), (false, Vec::new()));
    ack_all(&mut coordinator, 2);
    let actions = coordinator.on_durable(CheckpointId(2), at(31));
    assert_eq!(actions, [notify(2), delete(&[1]), Action::Finish]);
    assert!(coordinator.on_tick(at(1000)).is_empty(), "no other starts after it");
}

#[test]
fn a_final_checkpoint_that_failed_is_taken_again_after_a_pause() {
    let mut coordinator = started(CheckpointConfig { tolerable_failures: 1, ..config() });
    assert_eq!(coordinator.on_end_of_data(at(1)), [begin(1)]);
    assert!(matches!(barriers(&mut coordinator, 1, 1)[..], [Action::Trigger { kind: CheckpointKind::Final, .. }]));
    let actions = coordinator.on_decline(GENERATION, CheckpointId(1), Failure::new("disk full"), at(2));
    assert!(matches!(actions[..], [Action::Abort { .. }]), "{actions:?}");
    assert_eq!(coordinator.next_deadline(), Some(at(12)));
    assert_eq!(coordinator.on_tick(at(12)), [begin(2)]);
    let last = Action::Trigger { checkpoint: CheckpointId(2), kind: CheckpointKind::Final };
    assert_eq!(barriers(&mut coordinator, 2, 12), [last]);
}

#[test]
fn a_requested_checkpoint_starts_at_once_also_without_an_interval() {
    let mut coordinator = started(CheckpointConfig { interval: None, ..config() });
    assert_eq!(coordinator.next_deadline(), None);
    assert_eq!(coordinator.request(at(1)), (true, vec![begin(1)]));
}

#[test]
fn what_could_not_be_stored_is_not_durable_and_sinks_do_not_hear_of_it() {
    let mut coordinator = started(CheckpointConfig { tolerable_failures: 9, ..config() });
    start(&mut coordinator, 1, 10);
    ack_all(&mut coordinator, 1);
    let actions = coordinator.on_not_durable(CheckpointId(1), Failure::new("disk full"), at(11));
    assert!(matches!(actions[..], [Action::Abort { reason: AbortReason::NotStored(_), .. }]), "{actions:?}");
    assert_eq!(complete(&mut coordinator, 2, 20), [notify(2), delete(&[1])]);
}

/// What may happen to a coordinator, with numbers that a test maps to checkpoints that exist.
#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Ack { subtask: usize, age: u64, generation: u64 },
    CoordinatorAck { age: u64 },
    Decline { age: u64 },
    Request,
    EndOfData,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..15u64).prop_map(Step::Wait),
        20 => (0..3usize, 0..3u64, 0..8u64).prop_map(|(subtask, age, generation)| Step::Ack { subtask, age, generation }),
        8 => (0..3u64).prop_map(|age| Step::CoordinatorAck { age }),
        1 => (0..3u64).prop_map(|age| Step::Decline { age }),
        1 => Just(Step::Request),
        1 => Just(Step::Restart),
        1 => Just(Step::EndOfData),
    ]
}

/// The oracle: what was said, from outside the coordinator.
#[derive(Default)]
struct Seen {
    generation: Generation,
    begun: BTreeSet<CheckpointId>,
    /// Those whose coordinators were asked for their snapshots.
    asked: BTreeSet<CheckpointId>,
    /// Those whose barriers are under way.
    triggered: BTreeSet<CheckpointId>,
    /// Given up or durable.
    ended: BTreeSet<CheckpointId>,
    acks: BTreeSet<(CheckpointId, Subtask)>,
    coordinator_acks: BTreeSet<CheckpointId>,
    durable: Vec<CheckpointId>,
    deleted: BTreeSet<CheckpointId>,
    is_over: bool,
}

impl Seen {
    fn under_way(&self) -> usize {
        self.begun.difference(&self.ended).count()
    }

    fn is_triggered(&self, checkpoint: CheckpointId) -> bool {
        self.triggered.contains(&checkpoint) && !self.ended.contains(&checkpoint)
    }

    /// Those whose coordinators hold back what they send.
    fn holding(&self) -> Vec<CheckpointId> {
        let holds = |id: &&CheckpointId| !self.triggered.contains(id) && !self.ended.contains(id);
        self.asked.iter().filter(holds).copied().collect()
    }

    /// Plays the driver, with storage that fails when `storage_fails`, and checks every action.
    fn obey(
        &mut self,
        coordinator: &mut CheckpointCoordinator,
        actions: Vec<Action>,
        config: &CheckpointConfig,
        storage_fails: bool,
        now: Moment,
    ) {
        let mut actions = VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            match action {
                Action::Begin { checkpoint } => {
                    assert!(self.begun.last().is_none_or(|last| *last < checkpoint), "a number was used twice");
                    self.begun.insert(checkpoint);
                    let begun = if storage_fails {
                        coordinator.on_not_begun(checkpoint, Failure::new("no room"), now)
                    } else {
                        coordinator.on_begun(checkpoint, now)
                    };
                    begun.into_iter().rev().for_each(|action| actions.push_front(action));
                }
                Action::SnapshotCoordinators { checkpoint } => {
                    assert_eq!(self.holding(), [], "a coordinator is between two checkpoints");
                    assert!(self.begun.contains(&checkpoint) && self.asked.insert(checkpoint), "{checkpoint}");
                }
                Action::Trigger { checkpoint, .. } => {
                    assert!(self.coordinator_acks.contains(&checkpoint), "{checkpoint} lacks its coordinator");
                    assert!(!self.ended.contains(&checkpoint) && self.triggered.insert(checkpoint), "{checkpoint}");
                }
                Action::Complete(collected) => {
                    let id = collected.id;
                    assert!(!self.ended.contains(&id), "{id} completes after it ended");
                    for subtask in subtasks() {
                        assert!(self.acks.contains(&(id, subtask)), "{id} completes without {subtask}");
                    }
                    assert!(self.coordinator_acks.contains(&id), "{id} completes without its coordinator");
                    if storage_fails {
                        actions.extend(coordinator.on_not_durable(id, Failure::new("no room"), now));
                    } else {
                        assert!(self.durable.last().is_none_or(|last| *last < id), "the pointer goes back");
                        self.durable.push(id);
                        self.ended.insert(id);
                        actions.extend(coordinator.on_durable(id, now));
                    }
                }
                Action::Notify { checkpoint } => assert_eq!(self.durable.last(), Some(&checkpoint)),
                Action::Abort { checkpoint, .. } => {
                    assert!(self.begun.contains(&checkpoint) && self.ended.insert(checkpoint), "{checkpoint}");
                }
                Action::Delete { checkpoints } => {
                    let kept = self.durable.iter().rev().take(config.num_retained as usize).collect::<Vec<_>>();
                    for doomed in checkpoints {
                        assert!(self.ended.contains(&doomed), "{doomed} is deleted while it is under way");
                        assert!(!kept.contains(&&doomed), "{doomed} is deleted and should be kept");
                        assert!(
                            self.durable.last() > Some(&doomed),
                            "{doomed} is deleted before the pointer passed it"
                        );
                        assert!(self.deleted.insert(doomed), "{doomed} is deleted twice");
                    }
                }
                Action::Finish => self.is_over = true,
                Action::FailJob { .. } => {
                    assert!(actions.is_empty(), "something follows the failure: {actions:?}");
                    self.restart(coordinator, now);
                }
            }
            assert!(self.under_way() <= config.max_concurrent as usize, "too many at once");
        }
    }

    fn restart(&mut self, coordinator: &mut CheckpointCoordinator, now: Moment) {
        for action in coordinator.stop() {
            let Action::Abort { checkpoint, .. } = action else { panic!("{action:?}") };
            self.ended.insert(checkpoint);
        }
        self.generation.0 += 1;
        coordinator.start(BTreeSet::from([self.generation]), now);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whatever_happens_a_durable_checkpoint_is_complete_and_the_pointer_only_rises(
        steps in proptest::collection::vec((step(), proptest::bool::weighted(0.1)), 0..150),
        max_concurrent in 1..4u32,
        num_retained in 1..3u32,
        tolerable_failures in 0..3u32,
        min_pause in 0..4u64,
    ) {
        let min_pause = Duration::from_secs(min_pause);
        let config = CheckpointConfig { max_concurrent, num_retained, tolerable_failures, min_pause, ..config() };
        let mut coordinator = fresh(config.clone());
        let mut seen = Seen::default();
        let mut seconds = 0;
        seen.restart(&mut coordinator, at(0));
        let with_age = |seen: &Seen, age: u64| {
            CheckpointId(seen.begun.last().map_or(1, |last| last.0).saturating_sub(age))
        };
        for (step, storage_fails) in steps {
            if seen.is_over {
                break;
            }
            let now = at(seconds);
            let actions = match step {
                Step::Wait(more) => {
                    seconds += more;
                    coordinator.on_tick(at(seconds))
                }
                Step::Ack { subtask, age, generation } => {
                    let (subtask, checkpoint) = (subtasks()[subtask], with_age(&seen, age));
                    // Most are of the current generation; the others must not count.
                    let generation = Generation(seen.generation.0 + u64::from(generation == 7) - u64::from(generation == 6));
                    if generation == seen.generation && seen.is_triggered(checkpoint) {
                        seen.acks.insert((checkpoint, subtask));
                    }
                    ack(&mut coordinator, subtask, generation, checkpoint.0)
                }
                Step::CoordinatorAck { age } => {
                    let checkpoint = with_age(&seen, age);
                    if seen.holding().contains(&checkpoint) {
                        seen.coordinator_acks.insert(checkpoint);
                    }
                    let state = CoordinatorState { operator: OperatorId(1), bytes: Vec::new() };
                    coordinator.on_coordinator_ack(seen.generation, checkpoint, state, now)
                }
                Step::Decline { age } => {
                    coordinator.on_decline(seen.generation, with_age(&seen, age), Failure::new("declined"), now)
                }
                Step::Request => coordinator.request(now).1,
                Step::EndOfData => coordinator.on_end_of_data(now),
                Step::Restart => {
                    seen.restart(&mut coordinator, now);
                    Vec::new()
                }
            };
            seen.obey(&mut coordinator, actions, &config, storage_fails, at(seconds));
        }

        // From here on nothing goes wrong: a checkpoint completes.
        let before = seen.durable.len();
        for _ in 0..3 {
            let Some(deadline) = coordinator.next_deadline().filter(|_| !seen.is_over) else { break };
            seconds = seconds.max(deadline.0.as_secs());
            let actions = coordinator.on_tick(at(seconds));
            seen.obey(&mut coordinator, actions, &config, false, at(seconds));
            if let [holding] = seen.holding()[..] {
                seen.coordinator_acks.insert(holding);
                let state = CoordinatorState { operator: OperatorId(1), bytes: Vec::new() };
                let actions = coordinator.on_coordinator_ack(seen.generation, holding, state, at(seconds));
                seen.obey(&mut coordinator, actions, &config, false, at(seconds));
            }
            let Some(newest) = seen.triggered.last().copied() else { continue };
            let mut actions = Vec::new();
            for subtask in subtasks() {
                seen.acks.insert((newest, subtask));
                actions.extend(ack(&mut coordinator, subtask, seen.generation, newest.0));
            }
            seen.obey(&mut coordinator, actions, &config, false, at(seconds));
        }
        prop_assert!(seen.is_over || seen.durable.len() > before);
    }
}
