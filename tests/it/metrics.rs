//! The numbers that a job reports of its tasks, for a job whose numbers are known beforehand: see
//! `src/bin/measured_job.rs`.

#![allow(clippy::disallowed_methods, reason = "what the job says of its time is compared with the wall clock")]

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use millstream::{
    connectors::GeneratorSource,
    model::{job_graph::JobGraph, message::TaskMetrics, state::JobStatus},
    prelude::*,
};
use millstream_controlplane::JobMetrics;
use millstream_tests::{
    local, wait_until,
    worker_processes::{RemoteJob, planned},
};

const ARTIFACT: &str = env!("CARGO_BIN_EXE_measured_job");

/// The numbers of each subtask of the vertex whose head is called so.
fn tasks_of(graph: &JobGraph, metrics: &JobMetrics, head: &str) -> Vec<TaskMetrics> {
    let vertex = graph.vertices.iter().find(|vertex| vertex.operators[0].name == head).expect(head).id;
    let tasks: BTreeMap<_, _> = metrics.tasks.iter().filter(|(subtask, _)| subtask.vertex == vertex).collect();
    tasks.into_values().copied().collect()
}

/// What `src/bin/measured_job.rs` says of itself.
const TEXTS: u64 = 4_000;
const TAKEN: u64 = TEXTS / 2;
const TEXT_BYTES: u64 = 1_000;
/// The last text is due so long after the first.
const MAKING: Duration = Duration::from_micros(100 * (TEXTS - 1));
const TAKING_ONE: Duration = Duration::from_millis(3);
const TAKING_THE_SLOWEST: Duration = Duration::from_millis(1_000);

fn spent(task: &TaskMetrics) -> Duration {
    Duration::from_nanos(task.busy_nanos + task.idle_nanos + task.backpressured_nanos)
}

#[test]
fn the_numbers_of_a_job_of_known_shape_are_right() {
    // Little room between the tasks, so that the one that makes texts has to wait for those that take them.
    let graph = planned(Path::new(ARTIFACT), &["-Dparallelism.default=2", "-Dtaskmanager.memory.segment-size=4kb"]);
    let before = Instant::now();
    let job = RemoteJob::start(Path::new(ARTIFACT), graph.clone(), 1, 2);
    wait_until("all tasks to run", || {
        let metrics = job.handle.metrics();
        metrics.tasks_total == 3 && metrics.tasks_running == 3
    });
    let running = Instant::now();

    let mut queued = 0;
    wait_until("a report of texts that wait", || {
        queued = tasks_of(&graph, &job.handle.metrics(), "take").iter().map(|task| task.input_queue_bytes).sum();
        queued > 0 || job.handle.status().is_terminal()
    });
    assert!(queued > TEXT_BYTES && queued < TAKEN * TEXT_BYTES / 2, "{queued} bytes waited");
    assert_eq!(job.handle.status(), JobStatus::Running);

    let outcome = job.handle.wait();
    let (inner, outer) = (running.elapsed(), before.elapsed());
    assert_eq!(outcome.status, JobStatus::Finished, "{:?}", outcome.failure);
    let metrics = job.handle.metrics();
    let [made] = tasks_of(&graph, &metrics, "make")[..] else { panic!("one subtask makes texts: {metrics:?}") };
    let taken = tasks_of(&graph, &metrics, "take");
    assert_eq!(taken.len(), 2, "{metrics:?}");
    let sum = |number: fn(&TaskMetrics) -> u64| taken.iter().map(number).sum::<u64>();

    assert_eq!((made.records_in, made.records_out), (TEXTS, TAKEN));
    assert_eq!((sum(|task| task.records_in), sum(|task| task.records_out)), (TAKEN, 0));
    assert_eq!((made.bytes_in, sum(|task| task.bytes_out)), (0, 0));
    for task in &taken {
        // Each text lies there with its length and a header; all are of the same size.
        let each = task.bytes_in / task.records_in;
        assert_eq!(each * task.records_in, task.bytes_in, "{task:?}");
        assert!((TEXT_BYTES..TEXT_BYTES + 64).contains(&each), "{task:?}");
        assert_eq!(task.input_queue_bytes, 0, "{task:?}");
    }
    // What is sent besides records: watermarks and the end of data, to each of the two.
    let besides = made.bytes_out - sum(|task| task.bytes_in);
    assert!(besides < 1_000, "{besides} bytes besides the texts");

    for task in [&made, &taken[0], &taken[1]] {
        assert!(spent(task) <= outer, "{task:?} in {outer:?}");
        // At the end, a task that waits for the others has not counted that yet.
        assert!(spent(task) >= inner / 2, "{task:?} in {inner:?}");
        assert!(task.longest_step_nanos > 0 && task.longest_step_nanos <= task.busy_nanos, "{task:?}");
    }
    assert!(spent(&made) >= MAKING, "{made:?}");
    for task in &taken {
        assert!(Duration::from_nanos(task.busy_nanos) >= TAKING_ONE * task.records_in as u32, "{task:?}");
        assert_eq!(task.backpressured_nanos, 0, "nobody comes after it: {task:?}");
    }
    // Making takes a tenth of the time of taking: for the rest it was kept waiting, and was not busy meanwhile.
    assert!(made.backpressured_nanos > made.busy_nanos, "{made:?}");
    assert!(Duration::from_nanos(made.backpressured_nanos) >= inner / 2, "{made:?} in {inner:?}");
    let longest = Duration::from_nanos(taken.iter().map(|task| task.longest_step_nanos).max().unwrap_or(0));
    assert!(longest >= TAKING_THE_SLOWEST, "{longest:?}");
}

#[test]
fn progress_is_reported_while_checkpoints_are_taken_more_often_than_numbers() {
    let checkpoints = tempfile::tempdir().unwrap();
    let env = local(&[
        "parallelism.default=2",
        "execution.checkpointing.interval=20 ms",
        &format!("execution.checkpointing.dir={}", checkpoints.path().display()),
    ]);
    let numbers = env.from_source(GeneratorSource::new(None, |index| index).rate(1_000.0));
    numbers.key_by::<u64, _>(|number| *number % 10).count().discard();
    let job = env.execute_async("progress").expect("the job starts");
    wait_until("records and checkpoints in the job's progress", || {
        let progress = job.progress();
        progress.records_read > 0 && progress.checkpoints > 10
    });
    job.cancel();
    assert!(matches!(job.result(), Err(JobError::Cancelled)));
}
