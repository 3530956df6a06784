//! What others are shown of all tasks.

use super::*;

#[test]
fn a_snapshot_has_every_task_with_its_states_and_what_it_has_reported() {
    let mut scene = Scene::new(&[]);
    let snapshot = scene.master.snapshot(scene.now);
    let subtasks: Vec<_> = snapshot.tasks.iter().map(|task| (task.subtask.vertex.0, task.subtask.index)).collect();
    assert_eq!(subtasks, [(1, 0), (1, 1), (2, 0), (2, 1)]);
    assert!(snapshot.tasks.iter().all(|task| task.state == ExecutionState::Deploying && task.metrics.is_none()));
    let statuses: Vec<_> = snapshot.history.iter().map(|(status, _)| *status).collect();
    assert_eq!(statuses, [JobStatus::Initializing, JobStatus::Created, JobStatus::Running]);

    scene.now = scene.now + Duration::from_secs(1);
    let attempt = ExecutionAttemptId { subtask: snapshot.tasks[0].subtask, generation: Generation(1) };
    let metrics = TaskMetrics { records_in: 7, ..TaskMetrics::default() };
    let state = ExecutionState::Initializing;
    for report in [Report::Task { attempt, state, failure: None }, Report::Metrics { tasks: vec![(attempt, metrics)] }]
    {
        scene.master.handle(Event::Report(FromWorker { worker: WorkerId(0), report }), scene.now);
    }
    let task = &scene.master.snapshot(scene.now).tasks[0];
    assert_eq!((task.state, task.place.map(|place| place.0), task.metrics), (state, Some(WorkerId(0)), Some(metrics)));
    assert_eq!(task.history.last(), Some(&(state, scene.now)));
    let shown = scene.handle.metrics();
    assert_eq!(shown.tasks_by_state.of(ExecutionState::Initializing), 1);
    assert_eq!(shown.tasks_by_state.of(ExecutionState::Deploying), 3);
    assert_eq!((shown.tasks_by_state.total(), shown.last_modification), (4, scene.now));
}

#[test]
fn a_job_without_slots_shows_tasks_that_were_never_deployed() {
    let mut graph = job(&[]);
    graph.vertices[0].parallelism = 9;
    let epoch_store = Arc::new(MemoryStore::new());
    let epoch = epoch_store.elect();
    let (handle, side) = JobHandle::new(graph.job_id);
    let (_open, joining) = unbounded();
    let config = JobMasterConfig {
        graph,
        workers: Vec::new(),
        reports: unbounded().1,
        joining,
        store: epoch_store,
        checkpoint_dir: None,
        epoch,
    };
    let mut master = JobMaster::prepare(config, side.view, Box::new(|| 0.5), Moment::default()).unwrap();
    master.begin(Moment::default());
    let snapshot = master.snapshot(Moment::default());
    assert!(snapshot.tasks.iter().all(|task| task.state == ExecutionState::Created && task.place.is_none()));
    assert_eq!(handle.metrics().tasks_by_state.of(ExecutionState::Created), 11);
}
