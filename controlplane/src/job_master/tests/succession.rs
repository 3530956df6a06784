//! Coordinators after each other: one takes over, one is fenced off.

use super::*;

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
fn numbers_that_a_replaced_coordinator_used_meanwhile_are_skipped_and_no_checkpoint_fails_for_them() {
    let mut scene = Scene::new(WITH_CHECKPOINTS);
    scene.run_tasks();
    scene.checkpoint(1);
    let directory = CheckpointDirectory::new(scene.root.path(), scene.graph.job_id);
    // One that it has made complete and could not move the pointer to, and one that is under way.
    directory.begin(CheckpointId(2)).unwrap();
    fs::write(scene.path_of(2).join("_metadata"), "of another").unwrap();
    directory.begin(CheckpointId(3)).unwrap();
    scene.checkpoint(4);
    assert_eq!(scene.record().pointer, Some(CheckpointId(4)));
    assert_eq!(fs::read(scene.path_of(2).join("_metadata")).unwrap(), b"of another");
    scene.checkpoint(5);
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
