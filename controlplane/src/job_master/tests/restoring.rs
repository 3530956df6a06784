//! What a job starts from: checkpoints that were kept, are damaged, or fit another shape of the job.

use super::*;

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
