//! Failures, restarts and the end of a job by hand.

use super::*;

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
    let [region] = &record.regions[..] else { panic!("it has one region: {:?}", record.regions) };
    assert_eq!((region.generation, region.attempt, deployment.attempt), (Generation(2), 2, 2));
    assert_eq!(region.restored_from, deployment.restore.map(|checkpoint| checkpoint.directory));
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
