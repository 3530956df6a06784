//! The loop itself: timers get their turn, by the JobMaster's own clock.

use super::*;

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
