//! Checkpoints: when they are taken, what they wait for, and who is told.

use super::*;

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
fn barriers_are_triggered_when_the_coordinator_has_answered() {
    let mut with_coordinator = job(WITH_CHECKPOINTS);
    with_coordinator.vertices[0] = coordinated(1, 2);
    let mut scene = Scene::of(with_coordinator, tempfile::tempdir().unwrap(), Arc::new(MemoryStore::new()));
    scene.run_tasks();
    scene.wait(10);
    let asked = |commands: Vec<Command>, number| matches!(&commands[..], [Command::SnapshotCoordinators { checkpoint: CheckpointId(n), .. }] if *n == number);
    assert!(asked(scene.inbox.take(), 1));
    let generation = scene.generation();
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
