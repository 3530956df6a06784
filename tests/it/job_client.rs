//! What a program does with a job that it has started and not waited for: asks for its status and progress, cancels it,
//! waits for it from anywhere, and reads its accumulators and times.

#![allow(clippy::disallowed_methods, reason = "what a job says of its time is compared with the wall clock")]

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use millstream::{connectors::GeneratorSource, prelude::*};
use millstream_tests::{local, wait_until};

/// A job that runs until it is cancelled.
fn endless(env: &StreamExecutionEnvironment) {
    let numbers = env.from_source(GeneratorSource::new(None, |index| index).rate(1_000.0));
    numbers.key_by::<u64, _>(|number| *number % 10).count().discard();
}

#[test]
fn a_started_job_runs_beside_the_program_until_it_is_cancelled() {
    let env = local(&["parallelism.default=2"]);
    endless(&env);
    let job = env.execute_async("endless").expect("the job starts");
    wait_until("the job to run and read", || job.status() == JobStatus::Running && job.progress().records_read > 0);
    job.cancel();
    assert!(matches!(job.result(), Err(JobError::Cancelled)));
    assert_eq!(job.status(), JobStatus::Canceled);
    // Again, and it stays so.
    job.cancel();
    assert!(matches!(job.result(), Err(JobError::Cancelled)));
    assert_eq!(job.status(), JobStatus::Canceled);
    assert!(JobError::Cancelled.to_string().contains("cancelled"));
}

#[test]
fn a_job_is_waited_for_from_any_thread_that_has_its_client() {
    static GATE: AtomicBool = AtomicBool::new(false);
    let env = local(&["parallelism.default=2"]);
    let numbers = env.from_collection(0..1_000_u64);
    let collected = numbers
        .map(|number| {
            while !GATE.load(SeqCst) {
                thread::yield_now();
            }
            number
        })
        .collect();
    let job = env.execute_async("gated").expect("the job starts");
    let waiting = [job.clone(), job.clone()].map(|job| thread::spawn(move || job.result()));
    wait_until("the job to run", || job.status() == JobStatus::Running);
    assert!(waiting.iter().all(|thread| !thread.is_finished()), "the job has not ended");
    GATE.store(true, SeqCst);
    for thread in waiting {
        let result = thread.join().unwrap().expect("the job succeeds");
        assert_eq!(result.job_id(), job.job_id());
        let mut seen = result.collected(&collected);
        seen.sort_unstable();
        assert_eq!(seen, (0..1_000).collect::<Vec<u64>>());
    }
    assert_eq!(job.status(), JobStatus::Finished);
    // A job that has ended stays as it is.
    job.cancel();
    assert!(job.result().is_ok());
    assert_eq!(job.status(), JobStatus::Finished);
    assert_eq!(job.progress().records_read, 1_000);
}

#[test]
fn jobs_of_one_program_run_beside_each_other_each_with_what_was_added_since_the_one_before() {
    let env = local(&["parallelism.default=2"]);
    endless(&env);
    let first = env.execute_async("first").expect("the job starts");
    let collected = env.from_collection(0..10_u64).collect();
    let second = env.execute_async("second").expect("the job starts");
    assert_ne!(first.job_id(), second.job_id());
    wait_until("the second job to end, though the first does not", || second.status().is_terminal());
    let result = second.result().expect("the second job succeeds");
    let mut seen = result.collected(&collected);
    seen.sort_unstable();
    assert_eq!(seen, (0..10).collect::<Vec<u64>>());
    assert!(!first.status().is_terminal());
    first.cancel();
    assert!(first.result().is_err());
}

#[test]
fn a_job_that_fails_says_so_to_whoever_asks() {
    let env = local(&["parallelism.default=1"]);
    let _ = env.from_collection(0..3_u64).map(|number| 6 / (number.max(1) - 1)).name("divide").discard();
    let job = env.execute_async("fails").expect("the job starts");
    for _ in 0..2 {
        let Err(JobError::Failed(failure)) = job.result() else { panic!("the job should have failed") };
        assert_eq!(failure.operator.as_deref(), Some("divide"), "{failure}");
        assert!(failure.message.contains("divide by zero"), "{failure}");
        assert_eq!(job.status(), JobStatus::Failed);
    }
}

#[test]
fn accumulators_are_summed_over_subtasks_and_times_are_those_of_the_job() {
    let env = local(&["parallelism.default=3"]);
    let numbers = env.from_collection(1..=1_000_u64).rebalance();
    let counted = numbers.rich_map(
        (),
        |(), context| Ok((context.accumulator("numbers"), context.accumulator("sum"), context.accumulator("never"))),
        |(numbers, sum, _), number| {
            numbers.add(1);
            sum.add(number as i64);
            number
        },
    );
    counted.discard();
    let before = Instant::now();
    let job = env.execute_async("accumulators").expect("the job starts");
    let result = job.result().expect("the job succeeds");
    let outer = before.elapsed();
    assert_eq!((result.accumulator("numbers"), result.accumulator("sum")), (1_000, 500_500));
    assert_eq!((result.accumulator("never"), result.accumulator("nobody made it")), (0, 0));
    assert_eq!(result.accumulators().get("sum"), Some(&500_500));
    assert!(result.net_runtime() > Duration::ZERO && result.net_runtime() <= outer, "{:?}", result.net_runtime());
    assert_eq!((result.restarts(), result.checkpoints()), (0, 0));
}

#[test]
fn what_was_counted_before_a_restart_is_not_counted_again() {
    static ATTEMPTS: AtomicU64 = AtomicU64::new(0);
    let env = local(&[
        "parallelism.default=1",
        "restart-strategy.type=fixed-delay",
        "restart-strategy.fixed-delay.attempts=3",
        "restart-strategy.fixed-delay.delay=50 ms",
    ]);
    let numbers = env.from_collection(0..100_u64);
    let counted = numbers.rich_map(
        (),
        |(), context| Ok(context.accumulator("numbers")),
        |numbers, number| {
            assert!(number != 60 || ATTEMPTS.fetch_add(1, SeqCst) >= 3, "not yet");
            numbers.add(1);
            number
        },
    );
    counted.discard();
    let result = env.execute_async("restarts").expect("the job starts").result().expect("the fourth attempt succeeds");
    assert_eq!(result.restarts(), 3);
    assert_eq!(result.accumulator("numbers"), 100);
    // The pauses before the restarts belong to it.
    assert!(result.net_runtime() >= Duration::from_millis(150), "{:?}", result.net_runtime());
}

#[test]
fn completed_checkpoints_are_counted_while_the_job_runs_and_in_its_result() {
    let checkpoints = tempfile::tempdir().unwrap();
    let env = local(&[
        "parallelism.default=2",
        "execution.checkpointing.interval=20 ms",
        &format!("execution.checkpointing.dir={}", checkpoints.path().display()),
    ]);
    let numbers = env.from_source(GeneratorSource::new(Some(3_000), |index| index).rate(1_000.0));
    numbers.key_by::<u64, _>(|number| *number % 10).count().discard();
    let job = env.execute_async("checkpoints").expect("the job starts");
    let mut seen = 0;
    wait_until("ten checkpoints, or the end", || {
        seen = job.progress().checkpoints;
        seen >= 10 || job.status().is_terminal()
    });
    assert!(seen >= 10, "{seen}");
    let result = job.result().expect("the job succeeds");
    assert!(result.checkpoints() >= seen, "{} after {seen}", result.checkpoints());
    assert_eq!(result.checkpoints(), job.progress().checkpoints);
}

#[test]
fn a_job_whose_client_is_dropped_goes_on() {
    static TAKEN: AtomicU64 = AtomicU64::new(0);
    static GATE: AtomicBool = AtomicBool::new(false);
    let env = local(&["parallelism.default=1"]);
    let _ = env
        .from_collection(0..100_u64)
        .map(|number| {
            while !GATE.load(SeqCst) {
                thread::yield_now();
            }
            TAKEN.fetch_add(1, SeqCst);
            number
        })
        .discard();
    // On a thread of its own: that it returns is part of what is tested.
    let job = env.execute_async("detached").expect("the job starts");
    wait_until("the job to run", || job.status() == JobStatus::Running);
    let dropping = thread::spawn(move || drop(job));
    wait_until("the drop to return", || dropping.is_finished());
    GATE.store(true, SeqCst);
    wait_until("the job to take all numbers", || TAKEN.load(SeqCst) == 100);
}
