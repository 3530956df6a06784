//! Workers and their slots: they join, go, or are too few.

use super::*;

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
    as_wide_as(3)
}

fn as_wide_as(slots: u32) -> Scene {
    let mut wide = job(&[]);
    wide.vertices[0].parallelism = slots;
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
    let mut scene = as_wide_as(4);
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
