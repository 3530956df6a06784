//! What is found in jobs of one shape: `lines`, `counts` and `files`, one after the other.

use millstream_model::{fault::Failure, id::CheckpointId, rates::TaskRates};

use super::*;
use crate::{
    checkpoint::{CheckpointPhases, CompletedStats, PendingStats, Slowest},
    job_master::TaskCounts,
};

/// `lines` with 2 subtasks, `counts` with 4, `files` with 1, one after the other.
fn shape() -> JobShape {
    let vertices = [("lines", 2), ("counts", 4), ("files", 1)].into_iter().zip(1..);
    let vertices =
        vertices.map(|((name, parallelism), id)| Vertex { id: JobVertexId(id), name: name.to_owned(), parallelism });
    JobShape { vertices: vertices.collect(), edges: vec![(0, 1), (1, 2)] }
}

/// A task's times in percent: busy and waiting for room.
fn task(vertex: u128, index: u32, busy: u32, held: u32, records: f64) -> TaskSnapshot {
    let rates = TaskRates {
        records_in_per_second: records,
        busy_millis_per_second: f64::from(busy) * 10.0,
        backpressured_millis_per_second: f64::from(held) * 10.0,
        ..TaskRates::default()
    };
    TaskSnapshot {
        subtask: Subtask { vertex: JobVertexId(vertex), index },
        place: None,
        state: ExecutionState::Running,
        history: Vec::new(),
        metrics: None,
        rates: Some(rates),
    }
}

/// What is found in a job that runs, with these times in percent for `lines`, `counts` (of the first subtask, and of the
/// others) and `files`.
fn found(execution: &ExecutionSnapshot, change: impl FnOnce(&mut JobMetrics)) -> Vec<Finding> {
    let mut tasks_by_state = TaskCounts::default();
    execution.tasks.iter().for_each(|task| tasks_by_state.add(task.state));
    let mut metrics = JobMetrics { tasks_total: 7, tasks_by_state, ..JobMetrics::default() };
    change(&mut metrics);
    why(&Facts {
        shape: &shape(),
        status: JobStatus::Running,
        metrics: &metrics,
        execution: Some(execution),
        missing_slots: 0,
        trouble: None,
        checkpoint_interval: Some(Duration::from_secs(5)),
        now: Moment(Duration::from_secs(1_000)),
    })
}

fn execution(lines: (u32, u32), counts: [(u32, f64); 4], held_counts: u32, files: u32) -> ExecutionSnapshot {
    let mut tasks: Vec<_> = (0..2).map(|index| task(1, index, lines.0, lines.1, 100.0)).collect();
    tasks.extend(counts.iter().zip(0..).map(|((busy, records), index)| task(2, index, *busy, held_counts, *records)));
    tasks.push(task(3, 0, files, 0, 100.0));
    ExecutionSnapshot { tasks, ..ExecutionSnapshot::default() }
}

const EVEN: [(u32, f64); 4] = [(10, 100.0); 4];

#[test]
fn the_task_that_others_wait_for_is_named_and_not_the_ones_that_wait() {
    // `lines` waits for `counts`, which waits for `files`.
    let findings = found(&execution((10, 85), EVEN, 60, 99), |_| {});
    let [first, ..] = &findings[..] else { panic!("nothing is found") };
    assert_eq!((first.severity, first.kind, first.vertex), (Severity::Problem, Kind::Bottleneck, Some(JobVertexId(3))));
    assert!(first.text.contains("'files' is busy 99 % of its time, and 'counts' waits 60 %"), "{}", first.text);
    assert!(first.text.contains("A higher parallelism than 1"), "{}", first.text);
    assert_eq!(findings.iter().filter(|finding| finding.kind == Kind::Bottleneck).count(), 1, "{findings:?}");
}

#[test]
fn one_subtask_that_gets_most_is_told_and_that_parallelism_would_not_help() {
    let findings = found(&execution((10, 40), [(95, 900.0), (4, 40.0), (4, 30.0), (4, 30.0)], 0, 5), |_| {});
    assert_eq!(
        (findings[0].kind, findings[0].severity, findings[0].subtask),
        (Kind::Bottleneck, Severity::Warning, Some(0))
    );
    assert!(findings[0].text.contains("More parallelism would not help"), "{}", findings[0].text);
    let skew = findings.iter().find(|finding| finding.kind == Kind::Skew).expect("it is skewed");
    assert!(skew.text.starts_with("Subtask 0 of the 4 of 'counts' gets 3.6 times"), "{}", skew.text);
}

#[test]
fn waiting_for_one_that_is_not_busy_is_the_network() {
    let findings = found(&execution((10, 85), EVEN, 0, 5), |_| {});
    assert_eq!(findings[0].kind, Kind::Transfer);
}

#[test]
fn a_job_that_nothing_holds_back_is_said_to_be_one() {
    let findings = found(&execution((20, 3), EVEN, 0, 5), |_| {});
    assert_eq!((findings.len(), findings[0].kind, findings[0].severity), (1, Kind::Nothing, Severity::Note));
    let findings = found(&execution((90, 0), EVEN, 0, 5), |_| {});
    assert_eq!((findings[0].kind, findings[0].vertex), (Kind::Busy, Some(JobVertexId(1))));
}

#[test]
fn a_function_that_blocks_its_slot_is_found() {
    let mut execution = execution((20, 3), EVEN, 0, 5);
    execution.tasks[6].rates.as_mut().unwrap().longest_step_nanos = 1_200_000_000;
    let findings = found(&execution, |_| {});
    assert_eq!((findings[0].kind, findings[0].vertex), (Kind::LongStep, Some(JobVertexId(3))));
    assert!(findings[0].text.starts_with("'files' took 1.2 s for one step"), "{}", findings[0].text);
}

#[test]
fn a_job_that_does_not_run_says_what_it_waits_for_and_nothing_of_its_tasks() {
    let metrics = JobMetrics { restarts: 3, last_failure: Some(Failure::new("it broke")), ..JobMetrics::default() };
    let facts = Facts {
        shape: &shape(),
        status: JobStatus::Restarting,
        metrics: &metrics,
        execution: None,
        missing_slots: 2,
        trouble: None,
        checkpoint_interval: None,
        now: Moment(Duration::from_secs(30)),
    };
    let findings = why(&facts);
    assert_eq!(findings.iter().map(|finding| finding.kind).collect::<Vec<_>>(), [Kind::NotRunning, Kind::Restarted]);
    assert!(findings[0].text.starts_with("The job waits for 2 more slots (for 30 s so far"), "{}", findings[0].text);
    assert!(findings[1].text.contains("restarted 3 times") && findings[1].text.contains("it broke"), "{findings:?}");
    let mut counts = TaskCounts::default();
    (0..3).for_each(|_| counts.add(ExecutionState::Running));
    let metrics = JobMetrics { tasks_total: 4, tasks_by_state: counts, ..metrics.clone() };
    let in_part = why(&Facts { metrics: &metrics, missing_slots: 0, ..facts });
    assert!(in_part[0].text.ends_with("3 of its 4 tasks run on; no checkpoint is taken until all do."), "{in_part:?}");
    let ended = why(&Facts { status: JobStatus::Canceled, missing_slots: 0, ..facts });
    assert_eq!((ended.len(), &*ended[0].text), (1, "The job has ended and is canceled."));
}

#[test]
fn tasks_that_are_missing_come_first() {
    let mut execution = execution((10, 85), EVEN, 60, 99);
    execution.tasks[6].state = ExecutionState::Deploying;
    let findings = found(&execution, |_| {});
    assert_eq!(findings.iter().map(|finding| finding.kind).collect::<Vec<_>>(), [Kind::Starting]);
}

#[test]
fn a_slow_checkpoint_says_which_phase_of_which_subtask_it_was() {
    let subtask = Subtask { vertex: JobVertexId(2), index: 1 };
    let slowest = |seconds| Slowest { duration: Duration::from_secs(seconds), subtask: Some(subtask) };
    let phases = CheckpointPhases { start_delay: slowest(7), asynchronous: slowest(2), ..CheckpointPhases::default() };
    let last = CompletedStats { id: CheckpointId(4), duration: Duration::from_secs(9), state_bytes: 1, phases };
    let mut execution = execution((20, 3), EVEN, 0, 5);
    execution.checkpoint_under_way = Some(PendingStats {
        id: CheckpointId(5),
        since: Moment(Duration::from_secs(955)),
        is_triggered: true,
        missing: vec![subtask],
    });
    let findings = found(&execution, |metrics| metrics.checkpoints.last_completed = Some(last));
    let texts: Vec<&str> = findings.iter().map(|finding| &*finding.text).collect();
    assert_eq!(
        texts[..2],
        [
            "Checkpoint 5 has been under way for 45 s: subtask 1 of the 4 of 'counts' has not acknowledged it: the barrier \
             is behind records that wait there, or the snapshot is being stored.",
            "Checkpoint 4 took 9.0 s: 7.0 s until the barrier was there, behind other records of subtask 1 of the 4 of \
             'counts', 2.0 s to store it of subtask 1 of the 4 of 'counts'."
        ]
    );
}
