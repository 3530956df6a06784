//! What happens when user code or its records misbehave: the job fails, or goes on, and says why.

use std::time::Duration;

use millstream::prelude::*;
use millstream_tests::{local, wait_until};

fn failure_of(env: &StreamExecutionEnvironment) -> Failure {
    match env.execute("fails") {
        Err(JobError::Failed(failure)) => failure,
        other => panic!("the job should have failed: {other:?}"),
    }
}

#[test]
fn a_panic_fails_the_job_with_operator_cause_and_position() {
    let env = local(&["parallelism.default=2"]);
    let numbers = env.from_collection(0..100_u64);
    let _ = numbers
        .map(|number| {
            assert!(number != 42, "forty-two is not allowed");
            number
        })
        .name("strict map")
        .discard();
    let failure = failure_of(&env);
    assert_eq!(failure.operator.as_deref(), Some("strict map"));
    assert!(failure.message.contains("forty-two is not allowed"), "{failure}");
    assert!(failure.message.contains("failures.rs"), "{failure}");
    // Records are dealt out in turn to two subtasks; 42 is the 22nd for the first.
    assert!(
        failure.position.as_deref().is_some_and(|position| position.contains("record 22 of input channel 0")),
        "{failure:?}"
    );
    assert!(failure.backtrace.is_some());
}

#[test]
fn an_error_names_the_innermost_operator() {
    let env = local(&["parallelism.default=1"]);
    let words = env.from_collection(["a".to_owned(), "b".to_owned()]);
    let passed = words.map(|word| word.to_owned()).name("outer");
    let _ = passed
        .filter(|word| if word == "b" { fail(Failure::fatal("no b, please")) } else { true })
        .name("inner")
        .discard();
    let failure = failure_of(&env);
    assert_eq!((failure.operator.as_deref(), failure.message.as_str()), (Some("inner"), "no b, please"));
}

#[test]
fn a_custom_partitioner_that_chooses_a_subtask_there_is_not_fails_with_both_operators() {
    let env = local(&["parallelism.default=3"]);
    let numbers = env.from_collection(0..10_u64).set_parallelism(1).name("numbers");
    let sent = numbers.partition_custom::<u64, _, _>(|number| *number, |number, _| number as u32);
    let _ = sent.map(|number| number).name("consumer").discard();
    let failure = failure_of(&env);
    assert_eq!(failure.operator.as_deref(), Some("numbers"));
    let expected = "in front of 'consumer' chose channel 3, but there are 3";
    assert!(failure.message.contains(expected), "{failure}");
}

#[test]
fn a_failing_open_fails_the_job() {
    let env = local(&["parallelism.default=1"]);
    let numbers = env.from_collection(0..3_u64);
    let _ = numbers
        .rich_map(
            "resource".to_owned(),
            |name, _| Err::<u64, _>(Failure::fatal(format!("cannot open {name}"))),
            |state, number| *state + number,
        )
        .name("opens")
        .discard();
    let failure = failure_of(&env);
    assert_eq!(failure.operator.as_deref(), Some("opens"));
    assert_eq!(failure.message, "cannot open resource");
}

#[test]
fn records_larger_than_a_segment_arrive_whole() {
    let env = local(&["parallelism.default=2", "taskmanager.memory.segment-size=4kb"]);
    let sizes = [0, 1, 100, 4_000, 4_096, 5_000, 100_000, 3_000_000];
    let texts = env.from_collection(sizes.map(|size| "x".repeat(size)));
    let lengths = texts.rebalance().filter(|text| text.bytes().all(|byte| byte == b'x')).rebalance();
    let collected = lengths.map(|text| text.len() as u64).collect();
    let result = env.execute("large records").expect("the job succeeds");
    let mut seen = result.collected(&collected);
    seen.sort_unstable();
    assert_eq!(seen, sizes.map(|size| size as u64));
}

#[test]
fn a_flat_map_that_explodes_fails_with_the_way_out() {
    let env = local(&["parallelism.default=2", "taskmanager.memory.overflow.max=1mb"]);
    let numbers = env.from_collection([1_000_000_u64]);
    let exploded =
        numbers.flat_map::<u64, _>(|count, out| (0..count).for_each(|number| out.emit(number))).name("explodes");
    let _ = exploded.key_by::<u64, _>(|number| *number).count().discard();
    let failure = failure_of(&env);
    assert_eq!(failure.operator.as_deref(), Some("explodes"));
    assert!(failure.message.contains("flat_map_iter"), "{failure}");
}

#[test]
fn a_burst_in_front_of_an_operator_that_keeps_records_fails_with_the_way_out() {
    let explode = |env: &StreamExecutionEnvironment| {
        let numbers = env.from_collection([1_u64, 1_000_000]);
        numbers.flat_map::<u64, _>(|count, out| (0..count).for_each(|number| out.emit(number))).name("explodes")
    };
    let check = |env: &StreamExecutionEnvironment, place: &str| {
        let failure = failure_of(env);
        assert_eq!(failure.operator.as_deref(), Some("explodes"), "{failure}");
        assert_eq!(failure.position.as_deref(), Some("record 2 of the collection"), "{failure}");
        assert!(failure.message.contains(place) && failure.message.contains("flat_map_iter"), "{failure}");
    };
    let env = local(&["parallelism.default=1", "taskmanager.memory.overflow.max=1mb"]);
    let wait = AsyncWait::unordered(Duration::from_secs(60)).capacity(3);
    let _ = explode(&env).async_map(wait, |number| async move { Ok(number) }).name("looks up").discard();
    check(&env, "the async function 'looks up'");

    let env = local(&["parallelism.default=1", "taskmanager.memory.overflow.max=1mb"]);
    let items = explode(&env).flat_map_iter::<u64, _, _>(|number| 0..number + 100).name("items");
    let _ = items.rebalance().map(|number| number).set_parallelism(2).discard();
    check(&env, "in front of 'items'");
}

#[test]
fn a_flat_map_iter_makes_a_million_records_of_one_in_little_memory() {
    let env = local(&["parallelism.default=2", "taskmanager.memory.overflow.max=0 bytes"]);
    let numbers = env.from_collection([1_000_000_u64, 500_000]);
    let exploded = numbers.flat_map_iter::<u64, _, _>(|count| 0..count);
    let counts = exploded.key_by::<u64, _>(|number| *number % 2).count();
    let collected = counts.filter(|pair| pair.1 == 750_000).collect();
    let result = env.execute("explodes in steps").expect("the job succeeds");
    let mut seen = result.collected(&collected);
    seen.sort_unstable();
    assert_eq!(seen, [(0, 750_000), (1, 750_000)]);
}

#[test]
fn iterators_are_made_with_what_was_configured_or_opened() {
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
    /// Items that all subtasks have made, as their functions were closed.
    static CLOSED_AFTER: AtomicU64 = AtomicU64::new(0);
    struct Numbering {
        step: u64,
        made: u64,
    }
    impl Drop for Numbering {
        fn drop(&mut self) {
            CLOSED_AFTER.fetch_add(self.made, SeqCst);
        }
    }
    let env = local(&["parallelism.default=2"]);
    let numbers = env.from_collection([2_u64, 3]).rebalance();
    let tens = numbers.flat_map_iter_with::<u64, u64, _, _>(10, |factor, number| (0..number).map(times(*factor)));
    let stepped = tens.rich_flat_map_iter::<u64, Numbering, u64, _, _, _>(
        5,
        |step, _| Ok(Numbering { step, made: 0 }),
        |numbering, number| {
            numbering.made += 2;
            [number, number + numbering.step].into_iter()
        },
    );
    let collected = stepped.collect();
    let mut seen = env.execute("iterators").expect("the job succeeds").collected(&collected);
    seen.sort_unstable();
    assert_eq!(seen, [0, 0, 5, 5, 10, 10, 15, 15, 20, 25]);
    wait_until("every function is closed", || CLOSED_AFTER.load(SeqCst) == 10);
}

/// Items as many times as large.
fn times(factor: u64) -> impl Fn(u64) -> u64 {
    move |number| number * factor
}

#[test]
fn absurd_parallelism_is_refused_before_anything_runs() {
    for parallelism in [0, 40_000] {
        let env = local(&[]);
        let _ = env.from_collection(0..3_u64).map(|number| number).set_parallelism(parallelism).discard();
        let error = env.execute("absurd").unwrap_err().to_string();
        assert!(error.contains("Map (failures.rs") && error.contains(&parallelism.to_string()), "{error}");
    }
}

#[test]
fn a_failed_task_is_restarted_as_often_as_the_strategy_says() {
    let env = local(&[
        "parallelism.default=1",
        "restart-strategy.type=fixed-delay",
        "restart-strategy.fixed-delay.attempts=2",
        "restart-strategy.fixed-delay.delay=1 ms",
    ]);
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
    static ATTEMPTS: AtomicU32 = AtomicU32::new(0);
    let numbers = env.from_collection(0..10_u64);
    let collected = numbers
        .map(|number| {
            assert!(number != 5 || ATTEMPTS.fetch_add(1, SeqCst) >= 2, "not yet");
            number
        })
        .collect();
    let result = env.execute("third time lucky").expect("the job succeeds");
    assert_eq!(result.restarts(), 2);
    assert_eq!(result.collected(&collected), (0..10).collect::<Vec<u64>>());
}
