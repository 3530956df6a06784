//! A coordinator that takes up what another has left running.

use millstream_model::{id::SlotIndex, message::TaskStatus};

use super::*;

pub(super) type Decided = Arc<Mutex<Vec<bool>>>;

impl Scene {
    /// The coordinator dies, its workers do not: another one takes over. None of them has joined it yet.
    pub(super) fn taken_up(self) -> (Scene, Decided) {
        self.taken_up_beside(&[])
    }

    /// The same with workers that are on their way to it: if it does not adopt, they are ended.
    fn taken_up_beside(self, coming: &[u32]) -> (Scene, Decided) {
        let Scene { graph, root, store, .. } = self;
        let epoch = store.elect();
        let config = JobMasterConfig {
            graph: graph.clone(),
            workers: Vec::new(),
            reports: unbounded().1,
            joining: unbounded().1,
            store: store.clone(),
            checkpoint_dir: Some(root.path().to_owned()),
            epoch,
        };
        let (handle, side) = JobHandle::new(graph.job_id);
        let now = Moment(Duration::from_secs(2_000_000));
        let decided = Decided::default();
        let told = decided.clone();
        let ended = coming.iter().copied().map(WorkerId).collect();
        let adoption = AdoptionConfig {
            timeout: Duration::from_secs(5),
            decided: Box::new(move |kept| {
                told.lock().unwrap().push(!kept.is_empty());
                if kept.is_empty() { ended } else { Vec::new() }
            }),
        };
        let master = JobMaster::prepare(config, side.view, Box::new(|| 0.5), now).unwrap();
        let master = JobMaster { adoption: Some(adoption), ..master };
        let mut scene = Scene { master, handle, inbox: Inbox::default(), store, root, now, graph };
        scene.master.begin(now);
        (scene, decided)
    }

    pub(super) fn status_of(&mut self, worker: u32, tasks: Vec<TaskStatus>) {
        let report = Report::Status { tasks };
        self.master.handle(Event::Report(FromWorker { worker: WorkerId(worker), report }), self.now);
    }

    /// All four tasks, as they run.
    fn running(&self) -> Vec<TaskStatus> {
        let running = ExecutionState::Running;
        let status = |attempt| TaskStatus { attempt, slot: SlotIndex(0), state: running, end_of_data: false };
        self.attempts().into_iter().map(status).collect()
    }

    fn is_waiting_for_slots(&self) -> bool {
        self.master.stages.iter().all(|stage| matches!(stage, Stage::WaitingForSlots { .. }))
    }

    fn is_restarted(&self, decided: &Decided) {
        assert_eq!(*decided.lock().unwrap(), [false]);
        assert!(self.is_waiting_for_slots(), "{:?}", self.master.stages);
    }
}

/// One that runs, with a durable checkpoint and one under way.
fn with_checkpoints() -> Scene {
    let mut scene = Scene::new(WITH_CHECKPOINTS);
    scene.run_tasks();
    scene.checkpoint(1);
    scene.wait(10);
    scene
}

#[test]
fn a_job_whose_every_task_runs_is_adopted_and_nothing_is_deployed() {
    let (mut scene, decided) = with_checkpoints().taken_up();
    let inbox = scene.join(3, 2);
    assert!(matches!(inbox.take()[..], [Command::ReportStatus]));
    let running = scene.running();
    scene.status_of(3, running);
    let told = inbox.take();
    let generation = Generation(1);
    let aborted = |command: &Command| {
        matches!(command, Command::CheckpointAborted { generation: Generation(1), checkpoint: CheckpointId(2) })
    };
    assert!(told.iter().any(aborted), "what the old leader had begun is given up: {told:?}");
    assert_eq!(completions(&told), [1], "sinks hear again of what they may have missed");
    assert!(!told.iter().any(|command| matches!(command, Command::Deploy { .. } | Command::Cancel { .. })));
    assert_eq!(scene.record().generation, generation);
    assert_eq!((scene.handle.status(), scene.handle.metrics().restarts), (JobStatus::Running, 0));
    assert_eq!(*decided.lock().unwrap(), [true]);

    // Number 2 had begun: its number is not used again.
    scene.wait(10);
    assert_eq!(triggers(&inbox.take()), [(3, CheckpointKind::Checkpoint)]);
    scene.ack(3);
    assert_eq!(completions(&inbox.take()), [3]);
}

#[test]
fn tasks_of_one_job_may_be_on_several_workers_and_none_may_miss() {
    let (mut scene, decided) = with_checkpoints().taken_up();
    scene.join(3, 1);
    scene.join(4, 1);
    let mut running = scene.running();
    let others = running.split_off(3);
    scene.status_of(3, running.clone());
    scene.status_of(3, running);
    assert!(decided.lock().unwrap().is_empty());
    scene.status_of(4, others);
    assert_eq!(*decided.lock().unwrap(), [true]);
    // An adopted job fails over as any other does.
    scene.lose(4);
    assert_eq!(scene.handle.status(), JobStatus::Restarting);
}

#[test]
fn a_job_of_which_a_task_is_not_reported_in_time_starts_again_from_its_checkpoint() {
    let (mut scene, decided) = with_checkpoints().taken_up();
    let old = scene.join(3, 2);
    let mut running = scene.running();
    running.pop();
    scene.status_of(3, running);
    scene.wait(4);
    assert!(decided.lock().unwrap().is_empty());
    scene.wait(1);
    scene.is_restarted(&decided);
    assert!(old.take().iter().any(|command| matches!(command, Command::Cancel { generation: Generation(1) })));
    scene.inbox = scene.join(5, 2);
    let deployment = scene.run_tasks();
    assert_eq!((deployment.generation, restored(&deployment)), (Generation(2), Some(1)));
    assert!(deployment.placements.iter().all(|placement| placement.worker == WorkerId(5)));
    assert!(old.take().is_empty(), "what the old leader has started is not used again");
}

#[test]
fn a_worker_that_is_ended_on_its_way_to_a_job_that_was_not_adopted_is_never_used() {
    let (mut scene, decided) = with_checkpoints().taken_up_beside(&[3]);
    scene.wait(5);
    scene.is_restarted(&decided);
    let late = scene.join(3, 2);
    assert!(late.take().is_empty(), "nobody would tell of its end");
    scene.is_restarted(&decided);
    scene.inbox = scene.join(5, 2);
    let deployment = scene.run_tasks();
    assert!(deployment.placements.iter().all(|placement| placement.worker == WorkerId(5)));
}

#[test]
fn tasks_of_another_generation_are_not_adopted() {
    for other in [0, 2] {
        let (mut scene, decided) = with_checkpoints().taken_up();
        scene.join(3, 2);
        let mut running = scene.running();
        running[1].attempt.generation = Generation(other);
        scene.status_of(3, running);
        scene.is_restarted(&decided);
    }
}

#[test]
fn tasks_that_do_not_run_are_not_adopted() {
    for state in [ExecutionState::Initializing, ExecutionState::Finished, ExecutionState::Failed] {
        let (mut scene, decided) = with_checkpoints().taken_up();
        scene.join(3, 2);
        let mut running = scene.running();
        running[3].state = state;
        scene.status_of(3, running);
        scene.is_restarted(&decided);
    }
}

#[test]
fn a_task_that_two_workers_run_is_not_adopted() {
    let (mut scene, decided) = with_checkpoints().taken_up();
    scene.join(3, 2);
    scene.join(4, 2);
    let first = scene.running()[..1].to_vec();
    scene.status_of(3, first.clone());
    scene.status_of(4, first);
    scene.is_restarted(&decided);
}

#[test]
fn what_fails_while_others_are_waited_for_is_not_adopted() {
    let scene = || {
        let (mut scene, decided) = with_checkpoints().taken_up();
        scene.join(3, 2);
        let mut running = scene.running();
        running.pop();
        scene.status_of(3, running);
        (scene, decided)
    };
    let (mut one, decided) = scene();
    one.fail_task(Failure::new("lost"));
    one.is_restarted(&decided);
    let (mut other, decided) = scene();
    other.lose(3);
    other.is_restarted(&decided);
}

#[test]
fn an_adopted_job_that_had_read_all_takes_its_final_checkpoint() {
    let (mut scene, _) = with_checkpoints().taken_up();
    let inbox = scene.join(3, 2);
    let mut running = scene.running();
    running.iter_mut().skip(1).for_each(|task| task.end_of_data = true);
    let late = running.pop().unwrap();
    scene.status_of(3, running);
    let attempt = scene.attempts()[0];
    scene.report(Report::EndOfData { attempt });
    scene.status_of(3, vec![late]);
    assert_eq!(triggers(&inbox.take()), [(3, CheckpointKind::Final)]);
}

#[test]
fn a_job_may_be_cancelled_while_its_workers_are_waited_for() {
    let (mut scene, _) = with_checkpoints().taken_up();
    scene.join(3, 2);
    scene.master.handle(Event::Request(Request::Cancel), scene.now);
    assert_eq!(scene.outcome().status, JobStatus::Canceled);
}

#[test]
fn a_job_that_was_accepted_and_never_deployed_waits_for_nobody() {
    let root = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::new());
    let mut never = Scene::new(WITH_CHECKPOINTS);
    (never.root, never.store) = (root, store);
    let (scene, decided) = never.taken_up();
    assert!(scene.is_waiting_for_slots());
    assert_eq!(*decided.lock().unwrap(), [false]);
}
