//! Async functions: whatever the order in which results come, and however often the job starts again, each record counts
//! once, and in the order that was asked for.

use std::{
    future::pending,
    sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering::SeqCst},
    time::Duration,
};

use millstream::{
    prelude::*,
    source::{Source, SourceOut, SourceReader, SourceSnapshot, SourceStatus},
};
use millstream_tests::{local, wait_until};
use tokio::{sync::Semaphore, task::yield_now};

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(600);
/// Shorter than a test may take, and longer than a busy machine keeps a future waiting that has nothing to wait for.
const SHORT: Duration = Duration::from_secs(1);

fn failure_of(env: &StreamExecutionEnvironment) -> Failure {
    match env.execute("fails") {
        Err(JobError::Failed(failure)) => failure,
        other => panic!("the job should have failed: {other:?}"),
    }
}

/// Lets others run for a while that differs from record to record.
async fn dawdle(record: u64) {
    for _ in 0..record.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 61 {
        yield_now().await;
    }
}

/// Three async functions, with operators that pause and operators that cannot between them. Texts of a kilobyte each, so
/// that channels fill up.
fn run(settings: &[&str], wait: AsyncWait) -> Vec<(u64, u64)> {
    let env = local(settings);
    let numbers = env.from_collection(0..400_u64);
    let texts = numbers.async_map(wait.capacity(3), |number| async move {
        dawdle(number).await;
        Ok(format!("{number} {}", "x".repeat(1_000)))
    });
    let parsed = texts.map(|text| text.split(' ').next().map_or(0, |number| number.parse::<u64>().expect("a number")));
    let twice = parsed.flat_map_iter::<(u64, u64), _, _>(|number| (0..number % 4).map(move |nth| (number, nth)));
    let copied = twice.async_flat_map(wait.capacity(2), |(number, nth)| async move {
        dawdle(number + nth).await;
        Ok(vec![(number, nth); (number % 2) as usize])
    });
    // Cannot pause: emits more than the capacity of what is behind it.
    let burst = copied.flat_map::<(u64, u64), _>(|pair, out| (0..3).for_each(|_| out.emit(pair)));
    let plus = burst.async_map_with(wait.capacity(2), 1_000_u64, |plus, (number, nth)| async move {
        dawdle(number).await;
        Ok((number + *plus, nth))
    });
    let collected = plus.collect();
    env.execute("equal results").expect("the job succeeds").collected(&collected)
}

#[test]
fn results_are_those_of_plain_functions_whatever_the_order_chaining_and_parallelism() {
    let of = |number: u64| (0..number % 4).filter(move |_| number % 2 == 1).map(move |nth| (number + 1_000, nth));
    let expected: Vec<(u64, u64)> = (0..400).flat_map(of).flat_map(|pair| [pair; 3]).collect();
    for settings in [
        &["parallelism.default=1"][..],
        &["parallelism.default=1", "pipeline.operator-chaining.enabled=false"],
        &["parallelism.default=2"],
        &["parallelism.default=3", "pipeline.operator-chaining.enabled=false"],
        &["parallelism.default=2", "task.threading=task"],
        &["parallelism.default=2", "execution.buffer-timeout.interval=0 ms"],
        &["parallelism.default=2", "pipeline.operator-chaining.enabled=false", SMALL_SEGMENTS, SMALL_WINDOW],
        &["parallelism.default=1", "pipeline.operator-chaining.enabled=false", SMALL_SEGMENTS, SMALL_WINDOW],
    ] {
        for wait in [AsyncWait::ordered(LONG), AsyncWait::unordered(LONG)] {
            let mut seen = run(settings, wait);
            let keeps_order = wait == AsyncWait::ordered(LONG) && settings[0].ends_with("=1");
            if !keeps_order {
                seen.sort_unstable();
            }
            assert!(seen == expected, "{settings:?}, {wait:?}: {} of {} records", seen.len(), expected.len());
        }
    }
}

const SMALL_SEGMENTS: &str = "taskmanager.memory.segment-size=4kb";
const SMALL_WINDOW: &str = "taskmanager.network.memory.channel-window=4kb";

/// Numbers from 0, as many as it is told, each its own time stamp. `pauses` says before which numbers it waits for ten
/// milliseconds, so that watermarks are sent.
#[derive(serde::Serialize, serde::Deserialize)]
struct Numbers {
    count: u64,
    pauses: Vec<u64>,
}

struct NumbersReader {
    numbers: Numbers,
    next: u64,
}

static EMITTED: AtomicU64 = AtomicU64::new(0);

impl Source for Numbers {
    type Out = u64;
    type Reader = NumbersReader;
    fn reader(self, context: &mut RuntimeContext) -> Result<NumbersReader, Failure> {
        let next =
            context.take_restored("next").pop().map(|bytes| u64::from_le_bytes(bytes.try_into().expect("8 bytes")));
        Ok(NumbersReader { numbers: self, next: next.unwrap_or(0) })
    }
}

impl SourceReader for NumbersReader {
    type Out = u64;
    fn poll(&mut self, out: &mut SourceOut<'_, u64>) -> Result<SourceStatus, Failure> {
        while self.next < self.numbers.count {
            if out.should_pause() {
                return Ok(SourceStatus::More);
            }
            if let Some(pause) = self.numbers.pauses.iter().position(|pause| *pause == self.next) {
                self.numbers.pauses.remove(pause);
                return Ok(SourceStatus::IdleFor(Duration::from_millis(10)));
            }
            self.next += 1;
            EMITTED.store(self.next, SeqCst);
            out.emit(self.next - 1);
        }
        Ok(SourceStatus::End)
    }
    fn snapshot(&mut self, snapshot: &mut SourceSnapshot<'_>) {
        snapshot.split("next", self.next.to_le_bytes().to_vec());
    }
    fn position(&self) -> String {
        format!("number {}", self.next)
    }
}

/// Pairs each record with its time stamp and with the watermark that it meets.
struct Times;

impl ProcessFunction for Times {
    type In = u64;
    type Out = (u64, i64, i64);
    type Conf = ();
    fn open((): (), _: &mut RuntimeContext) -> Result<Self, Failure> {
        Ok(Times)
    }
    fn process(
        &mut self,
        record: u64,
        context: &ProcessContext<'_>,
        out: &mut Out<'_, (u64, i64, i64)>,
    ) -> Result<(), Failure> {
        let time = context.timestamp().expect("records have time stamps");
        out.emit((record, time.0, context.current_watermark().0.0));
        Ok(())
    }
}

/// Ten numbers, a watermark if `is_timed`, ten more; the results of the first ten come after those of the others.
fn late_first_half(is_timed: bool, is_chained: bool) -> Vec<(u64, i64, i64)> {
    static SECOND_HALF: Semaphore = Semaphore::const_new(0);
    while SECOND_HALF.try_acquire_many(1).map(|permit| permit.forget()).is_ok() {}
    let mut settings = vec!["parallelism.default=1"];
    settings.push(if is_timed {
        "pipeline.auto-watermark-interval=1 ms"
    } else {
        "pipeline.auto-watermark-interval=10 min"
    });
    if !is_chained {
        settings.push("pipeline.operator-chaining.enabled=false");
    }
    let env = local(&settings);
    let numbers = env.from_source(Numbers { count: 20, pauses: vec![10] });
    let timed = numbers
        .assign_timestamps_and_watermarks(WatermarkStrategy::for_monotonous_timestamps(), |number| number as i64);
    let results = timed.async_map(AsyncWait::unordered(LONG), |number| async move {
        if number < 10 {
            SECOND_HALF.acquire_many(10).await.expect("it is never closed").forget();
            SECOND_HALF.add_permits(10);
        } else {
            SECOND_HALF.add_permits(1);
        }
        Ok(number)
    });
    let collected = results.process::<Times>(()).collect();
    env.execute("late first half").expect("the job succeeds").collected(&collected)
}

#[test]
fn unordered_results_pass_each_other_but_not_a_watermark() {
    for is_chained in [true, false] {
        let seen = late_first_half(true, is_chained);
        let order: Vec<bool> = seen.iter().map(|(number, ..)| *number < 10).collect();
        assert_eq!(order, [[true; 10], [false; 10]].concat(), "{seen:?}");
        for (number, time, watermark) in &seen {
            assert_eq!(*time, *number as i64, "a result keeps the time stamp of its record");
            assert!(*time > *watermark, "{number} is late: {watermark}");
        }
        assert!(seen[19].2 >= 8, "the watermark came between: {seen:?}");

        let seen = late_first_half(false, is_chained);
        // Not all of them: who has told the others to go on may be the last to get there.
        assert!(seen[0].0 >= 10, "without a watermark they pass: {seen:?}");
    }
}

#[test]
fn no_more_records_are_worked_on_than_the_capacity_and_the_source_is_held_back() {
    static RUNNING: AtomicI64 = AtomicI64::new(0);
    static MOST: AtomicI64 = AtomicI64::new(0);
    static EMITTED_AT_MOST: AtomicU64 = AtomicU64::new(0);
    let env = local(&["parallelism.default=1"]);
    let numbers = env.from_source(Numbers { count: 500, pauses: Vec::new() });
    let results = numbers.async_map(AsyncWait::ordered(LONG).capacity(7), |number| async move {
        MOST.fetch_max(RUNNING.fetch_add(1, SeqCst) + 1, SeqCst);
        // The first ones wait until all places are taken.
        while MOST.load(SeqCst) < 7 {
            yield_now().await;
        }
        EMITTED_AT_MOST.fetch_max(EMITTED.load(SeqCst).saturating_sub(number), SeqCst);
        dawdle(number).await;
        RUNNING.fetch_sub(1, SeqCst);
        Ok(number)
    });
    let collected = results.collect();
    let result = env.execute("capacity").expect("the job succeeds");
    assert_eq!(result.collected(&collected), (0..500).collect::<Vec<u64>>());
    assert_eq!(MOST.load(SeqCst), 7);
    let ahead = EMITTED_AT_MOST.load(SeqCst);
    assert!(ahead <= 7, "the source was {ahead} records ahead of one that was not emitted");
}

#[test]
fn an_operator_that_can_pause_waits_for_one_behind_it_and_keeps_a_watermark_back_meanwhile() {
    static PRODUCED: AtomicU64 = AtomicU64::new(0);
    static AHEAD: AtomicU64 = AtomicU64::new(0);
    let env = local(&["parallelism.default=1", "pipeline.auto-watermark-interval=1 ms"]);
    let timed = env
        .from_source(Numbers { count: 1, pauses: Vec::new() })
        .assign_timestamps_and_watermarks(WatermarkStrategy::for_monotonous_timestamps(), |number| number as i64);
    let many = timed.flat_map_iter::<u64, _, _>(|_| (0..1_000).inspect(|number| PRODUCED.store(number + 1, SeqCst)));
    let results = many.async_map(AsyncWait::ordered(LONG).capacity(4), |number| async move {
        if number == 10 || number == 999 {
            // Long enough for a watermark to be made; without one this test proves less, and passes.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        AHEAD.fetch_max(PRODUCED.load(SeqCst) - number, SeqCst);
        Ok(number)
    });
    let collected = results.process::<Times>(()).collect();
    let result = env.execute("pauses").expect("the job succeeds");
    let seen = result.collected(&collected);
    assert_eq!(seen.len(), 1_000);
    assert!(seen.iter().all(|(_, time, watermark)| (*time, *watermark) == (0, i64::MIN)), "{seen:?}");
    assert!(AHEAD.load(SeqCst) <= 4, "{AHEAD:?} were produced and not emitted");
}

#[test]
fn a_result_that_does_not_come_in_time_fails_the_job_with_operator_cause_and_record() {
    for is_full in [false, true] {
        let env = local(&["parallelism.default=1"]);
        let numbers = env.from_collection(0..10_u64);
        let wait = AsyncWait::ordered(SHORT).capacity(if is_full { 2 } else { 100 });
        let results =
            numbers.async_map(wait, |number| async move { if number == 3 { pending().await } else { Ok(number) } });
        let _ = results.name("slow lookup").discard();
        let failure = failure_of(&env);
        assert_eq!(failure.operator.as_deref(), Some("slow lookup"));
        assert!(failure.message.contains("no result in time"), "{failure}");
        assert_eq!(failure.position.as_deref(), Some("record 4 into the operator"));
    }
}

#[test]
fn a_value_can_stand_for_a_result_that_does_not_come_in_time_and_its_future_is_dropped_at_once() {
    static IS_DROPPED: AtomicBool = AtomicBool::new(false);
    struct Noted;
    impl Drop for Noted {
        fn drop(&mut self) {
            IS_DROPPED.store(true, SeqCst);
        }
    }
    let env = local(&["parallelism.default=1"]);
    let numbers = env.from_collection(0..10_u64);
    let results = numbers.async_map_or(
        AsyncWait::ordered(SHORT).capacity(3),
        |number| async move {
            if number == 1 {
                let _noted = Noted;
                pending::<()>().await;
            }
            // Not only when the job is over and all futures are dropped.
            while number == 9 && !IS_DROPPED.load(SeqCst) {
                yield_now().await;
            }
            Ok(number)
        },
        |number| number + 1_000,
    );
    let collected = results.collect();
    let result = env.execute("late").expect("the job succeeds");
    assert_eq!(result.collected(&collected), [0, 1_001, 2, 3, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn results_leave_while_the_input_is_silent() {
    static SEEN: AtomicU64 = AtomicU64::new(0);
    for is_chained in [true, false] {
        SEEN.store(0, SeqCst);
        let env = local(&["parallelism.default=1", &format!("pipeline.operator-chaining.enabled={is_chained}")]);
        let results = env.from_source(Silent).async_map(AsyncWait::ordered(LONG), |number| async move {
            dawdle(number).await;
            Ok(number)
        });
        let _ = results.map(|number| SEEN.fetch_add(1, SeqCst) + number).discard();
        let job = env.execute_async("silent").expect("the job starts");
        wait_until("all results", || SEEN.load(SeqCst) == 5);
        job.cancel();
        assert!(matches!(job.result(), Err(JobError::Cancelled)));
    }
}

/// Five numbers, and then nothing, for ever.
#[derive(serde::Serialize, serde::Deserialize)]
struct Silent;

struct SilentReader(u64);

impl Source for Silent {
    type Out = u64;
    type Reader = SilentReader;
    fn reader(self, _: &mut RuntimeContext) -> Result<SilentReader, Failure> {
        Ok(SilentReader(0))
    }
}

impl SourceReader for SilentReader {
    type Out = u64;
    fn poll(&mut self, out: &mut SourceOut<'_, u64>) -> Result<SourceStatus, Failure> {
        while self.0 < 5 {
            out.emit(self.0);
            self.0 += 1;
        }
        Ok(SourceStatus::Idle)
    }
    fn snapshot(&mut self, _: &mut SourceSnapshot<'_>) {}
    fn position(&self) -> String {
        format!("number {}", self.0)
    }
}

#[test]
fn an_error_and_a_panic_of_a_future_fail_the_job_with_operator_cause_and_record() {
    let env = local(&["parallelism.default=1"]);
    let numbers = env.from_collection(0..100_u64);
    let results = numbers.async_map(AsyncWait::unordered(LONG).capacity(5), |number| async move {
        dawdle(number).await;
        if number == 42 { Err(Failure::fatal("no forty-two here")) } else { Ok(number) }
    });
    let _ = results.name("strict lookup").discard();
    let failure = failure_of(&env);
    assert_eq!(failure.operator.as_deref(), Some("strict lookup"));
    assert_eq!(failure.message, "no forty-two here");
    assert_eq!(failure.position.as_deref(), Some("record 43 into the operator"));

    let numbers = env.from_collection(0..100_u64);
    let results = numbers.async_map(AsyncWait::ordered(LONG).capacity(5), |number| async move {
        dawdle(number).await;
        assert!(number != 42, "forty-two is not allowed");
        Ok(number)
    });
    let _ = results.name("strict lookup").discard();
    let failure = failure_of(&env);
    assert_eq!(failure.operator.as_deref(), Some("strict lookup"));
    assert!(failure.message.contains("forty-two is not allowed"), "{failure}");
    assert!(failure.message.contains("async_functions.rs"), "{failure}");
    assert!(failure.backtrace.is_some());
    assert_eq!(failure.position.as_deref(), Some("record 43 into the operator"));
}

#[test]
fn a_failed_attempt_is_repeated_unless_it_is_hopeless() {
    static ATTEMPTS: AtomicU32 = AtomicU32::new(0);
    let env = local(&["parallelism.default=1"]);
    let wait = AsyncWait::ordered(LONG).retry(AsyncRetry::fixed_delay(2, Duration::from_millis(1)));
    let results = env.from_collection(0..10_u64).async_map(wait, |number| async move {
        if number == 5 && ATTEMPTS.fetch_add(1, SeqCst) < 2 {
            return Err(Failure::new("busy"));
        }
        Ok(number)
    });
    let collected = results.collect();
    let result = env.execute("retries").expect("the job succeeds");
    assert_eq!(result.collected(&collected), (0..10).collect::<Vec<u64>>());
    assert_eq!(ATTEMPTS.load(SeqCst), 3);

    static HOPELESS: AtomicU32 = AtomicU32::new(0);
    let results = env.from_collection(0..10_u64).async_map(wait, |number| async move {
        if number == 5 {
            HOPELESS.fetch_add(1, SeqCst);
            return Err(Failure::fatal("gone"));
        }
        Ok(number)
    });
    let _ = results.discard();
    assert_eq!(failure_of(&env).message, "gone");
    assert_eq!(HOPELESS.load(SeqCst), 1);
}

/// Looks numbers up, with a say in everything.
struct LookUp {
    plus: u64,
}

impl AsyncFunction for LookUp {
    type In = u64;
    type Out = u64;
    type Conf = u64;
    fn open(plus: u64, _: &mut RuntimeContext) -> Result<Self, Failure> {
        Ok(LookUp { plus })
    }
    async fn invoke(self: std::sync::Arc<Self>, number: u64) -> Result<Vec<u64>, Failure> {
        match number {
            3 => pending().await,
            4 => Err(Failure::new("never mind")),
            _ => Ok(vec![number + self.plus; 2]),
        }
    }
    fn timeout(&self, number: u64) -> Result<Vec<u64>, Failure> {
        Ok(vec![number])
    }
    fn is_worth_retrying(&self, failure: &Failure) -> bool {
        failure.message == "never mind"
    }
}

#[test]
fn an_async_function_as_a_type_says_what_is_late_and_what_is_worth_another_attempt() {
    let env = local(&["parallelism.default=1"]);
    let wait = AsyncWait::ordered(SHORT).retry(AsyncRetry::fixed_delay(u32::MAX, Duration::from_millis(1)));
    let collected = env.from_collection(0..6_u64).async_process::<LookUp>(wait, 100).collect();
    let result = env.execute("a type").expect("the job succeeds");
    assert_eq!(result.collected(&collected), [100, 100, 101, 101, 102, 102, 3, 4, 105, 105]);
}

/// Opens a gate only after checkpoints were completed with all places taken behind it, then fails once.
fn restart_with_all_places_taken(wait: AsyncWait, count: u64, is_chained: bool) {
    static GATE: Semaphore = Semaphore::const_new(0);
    static HAS_FAILED: AtomicBool = AtomicBool::new(false);
    GATE.forget_permits(usize::MAX);
    HAS_FAILED.store(false, SeqCst);
    let directory = tempfile::tempdir().expect("a directory for checkpoints");
    let env = local(&[
        "parallelism.default=1",
        &format!("pipeline.operator-chaining.enabled={is_chained}"),
        "execution.checkpointing.interval=10 ms",
        &format!("execution.checkpointing.dir={}", directory.path().display()),
        "restart-strategy.type=fixed-delay",
        "restart-strategy.fixed-delay.attempts=1",
        "restart-strategy.fixed-delay.delay=1 ms",
    ]);
    let numbers = env.from_source(Numbers { count, pauses: Vec::new() });
    let results = numbers.async_map(wait.capacity(4), |number| async move {
        drop(GATE.acquire().await);
        if number == 2 && !HAS_FAILED.swap(true, SeqCst) {
            return Err(Failure::new("once"));
        }
        dawdle(number).await;
        Ok(number)
    });
    let collected = results.collect();
    let job = env.execute_async("restart").expect("the job starts");
    wait_until("two checkpoints with all places taken", || job.progress().checkpoints >= 2);
    GATE.add_permits(1);
    let result = job.result().expect("the job succeeds");
    assert_eq!(result.restarts(), 1);
    let mut seen = result.collected(&collected);
    if wait != AsyncWait::ordered(LONG) {
        seen.sort_unstable();
    }
    assert_eq!(seen, (0..count).collect::<Vec<u64>>(), "{wait:?}, chained: {is_chained}");
}

#[test]
fn a_checkpoint_does_not_wait_for_results_and_a_restart_begins_them_again() {
    for wait in [AsyncWait::ordered(LONG), AsyncWait::unordered(LONG)] {
        // In a chain with its source, the operator may be full for long with more to come.
        restart_with_all_places_taken(wait, 50, true);
        // Behind a channel, a barrier that is behind records waits for these; so they are as many as there are places.
        restart_with_all_places_taken(wait, 4, false);
    }
}

#[test]
fn a_cancelled_job_drops_its_futures() {
    static HELD: AtomicI64 = AtomicI64::new(0);
    struct Counted;
    impl Drop for Counted {
        fn drop(&mut self) {
            HELD.fetch_sub(1, SeqCst);
        }
    }
    let env = local(&["parallelism.default=1"]);
    let wait = AsyncWait::ordered(LONG).capacity(3);
    let results = env.from_collection(0..10_u64).async_map(wait, |_| async move {
        HELD.fetch_add(1, SeqCst);
        let _counted = Counted;
        pending::<Result<u64, Failure>>().await
    });
    let _ = results.discard();
    let job = env.execute_async("cancelled").expect("the job starts");
    wait_until("all places to be taken", || HELD.load(SeqCst) == 3);
    job.cancel();
    assert!(matches!(job.result(), Err(JobError::Cancelled)));
    wait_until("all futures to be dropped", || HELD.load(SeqCst) == 0);
}
