//! Event time: watermarks, timers, and what they make of keyed state.

use millstream::prelude::*;
use millstream_tests::{local, wait_until};
use std::{
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    time::Duration,
};

/// Counts records per key and window until the watermark passes the window's end; tumbling windows by hand.
struct Window {
    sums: MapState<u64, u64, u64>,
}

impl KeyedProcessFunction for Window {
    type Key = u64;
    type In = (u64, u64);
    type Out = (u64, u64);
    type Conf = ();

    fn open((): (), context: &mut RuntimeContext) -> Result<Self, Failure> {
        Ok(Window { sums: context.map_state("sums")? })
    }

    fn process(
        &mut self,
        (_, time): (u64, u64),
        context: &KeyedContext<'_, u64>,
        _: &mut Out<'_, (u64, u64)>,
    ) -> Result<(), Failure> {
        let end = time / 100 * 100 + 99;
        self.sums.update(context, end, |sum| *sum += 1);
        context.register_event_time_timer(EventTime(end as i64));
        Ok(())
    }

    fn on_timer(
        &mut self,
        timer: Timer,
        context: &KeyedContext<'_, u64>,
        out: &mut Out<'_, (u64, u64)>,
    ) -> Result<(), Failure> {
        let Timer::EventTime(end) = timer else { panic!("{timer:?}") };
        let sum = self.sums.remove(context, &(end.0 as u64)).expect("a timer is set for every window");
        out.emit((context.key(), sum));
        Ok(())
    }
}

#[test]
fn windows_close_with_all_their_records_at_any_parallelism() {
    for parallelism in [1, 2, 5] {
        let env = local(&[&format!("parallelism.default={parallelism}")]);
        // Times are shuffled within 50 ms; five keys; ten windows of 100 ms with 20 records per key each.
        let records = (0..1_000_u64).map(|i| (i % 5, (i / 50 * 50) + (i * 37) % 50));
        let stamped = env.from_collection(records).assign_timestamps_and_watermarks(
            WatermarkStrategy::for_bounded_out_of_orderness(Duration::from_millis(50)),
            |record| record.1 as i64,
        );
        let windows = stamped.key_by::<u64, _>(|record| record.0).process::<Window>(());
        let collected = windows.collect();
        let result = env.execute("windows").expect("the job succeeds");
        let mut seen = result.collected(&collected);
        seen.sort_unstable();
        let expected: Vec<(u64, u64)> = (0..5).flat_map(|key| (0..10).map(move |_| (key, 20))).collect();
        assert_eq!(seen, expected, "parallelism {parallelism}");
    }
}

/// Fires a processing-time timer for each record.
struct Delay {
    seen: ListState<u64, u64>,
}

impl KeyedProcessFunction for Delay {
    type Key = u64;
    type In = u64;
    type Out = u64;
    type Conf = i64;

    fn open(_: i64, context: &mut RuntimeContext) -> Result<Self, Failure> {
        Ok(Delay { seen: context.list_state("seen")? })
    }

    fn process(&mut self, record: u64, context: &KeyedContext<'_, u64>, _: &mut Out<'_, u64>) -> Result<(), Failure> {
        self.seen.add(context, record);
        context.register_processing_time_timer(context.current_processing_time() + 20);
        Ok(())
    }

    fn on_timer(&mut self, _: Timer, context: &KeyedContext<'_, u64>, out: &mut Out<'_, u64>) -> Result<(), Failure> {
        self.seen.clear(context).into_iter().for_each(|record| out.emit(record));
        Ok(())
    }
}

#[test]
fn processing_time_timers_fire_in_a_job_that_goes_on() {
    let env = local(&["parallelism.default=2"]);
    let delayed = env.from_source(Trickle).set_parallelism(1).key_by::<u64, _>(|n| *n % 3).process::<Delay>(20);
    let counted = delayed.map(|number| {
        FIRED.fetch_add(1, SeqCst);
        number
    });
    let collected = counted.collect();
    let job = env.execute_async("delay").expect("the job starts");
    wait_until("the end of the job, which comes when all timers have fired", || job.status().is_terminal());
    let result = job.result().expect("the job succeeds");
    let mut seen = result.collected(&collected);
    seen.sort_unstable();
    assert_eq!(seen, (0..10).collect::<Vec<u64>>());
}

/// What timers have emitted.
static FIRED: AtomicU64 = AtomicU64::new(0);

/// Ten numbers at once, and the end only when timers have emitted all of them: at the end of the data they would fire
/// anyway.
#[derive(serde::Serialize, serde::Deserialize)]
struct Trickle;

struct TrickleReader(u64);

impl millstream::source::Source for Trickle {
    type Out = u64;
    type Reader = TrickleReader;
    fn reader(self, _: &mut RuntimeContext) -> Result<TrickleReader, Failure> {
        Ok(TrickleReader(0))
    }
}

impl millstream::source::SourceReader for TrickleReader {
    type Out = u64;
    fn poll(
        &mut self,
        out: &mut millstream::source::SourceOut<'_, u64>,
    ) -> Result<millstream::source::SourceStatus, Failure> {
        use millstream::source::SourceStatus;
        self.0 += 1;
        match self.0 {
            1 => {
                (0..10_u64).for_each(|number| out.emit(number));
                Ok(SourceStatus::More)
            }
            _ if FIRED.load(SeqCst) < 10 => Ok(SourceStatus::IdleFor(Duration::from_millis(5))),
            _ => Ok(SourceStatus::End),
        }
    }
    fn snapshot(&mut self, _: &mut millstream::source::SourceSnapshot<'_>) {}
    fn position(&self) -> String {
        format!("poll {}", self.0)
    }
}
