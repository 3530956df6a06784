//! What subtasks in other processes saw, in accumulators of the job's result: when, how much processor time, how late.
//! All processes of one machine have the same monotonic clock.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use hdrhistogram::Histogram;
use millstream::{context::RuntimeContext, metrics::Counter, prelude::JobExecutionResult};

use crate::machine;

/// When one subtask did something; the last time counts.
pub struct Stamp(Counter);

impl Stamp {
    pub fn new(name: &str, context: &RuntimeContext) -> Stamp {
        Stamp(context.accumulator(&format!("{name}.{}", context.index_of_this_subtask())))
    }

    pub fn now(&self) {
        self.0.add(machine::now_nanos() as i64 - self.0.get());
    }
}

/// Seconds from the first stamp of one name to the last of another.
pub fn seconds_between(first: &str, last: &str, result: &JobExecutionResult) -> f64 {
    seconds_since(stamps(first, result).min().unwrap_or(0), last, result)
}

/// Seconds from a time of [`machine::now_nanos`] to the last stamp of a name.
pub fn seconds_since(start_nanos: u64, last: &str, result: &JobExecutionResult) -> f64 {
    stamps(last, result).max().unwrap_or(0).saturating_sub(start_nanos) as f64 / 1e9
}

fn stamps(name: &str, result: &JobExecutionResult) -> impl Iterator<Item = u64> {
    let of_subtasks = result.accumulators().iter();
    of_subtasks.filter_map(move |(key, nanos)| (key.rsplit_once('.')?.0 == name).then_some(*nanos as u64))
}

/// Processor time of the worker processes while subtasks were at it, under the name `cpu_nanos`.
pub struct CpuTime(Counter);

/// What this process had used when it was last asked.
static COUNTED: AtomicU64 = AtomicU64::new(0);

impl CpuTime {
    pub fn new(context: &RuntimeContext) -> CpuTime {
        CpuTime(context.accumulator("cpu_nanos"))
    }

    /// Adds what the process has used since the last call of any of its subtasks; the first adds nothing.
    pub fn count(&self) {
        let now = (machine::cpu_seconds() * 1e9) as u64;
        let before = COUNTED.swap(now, Relaxed);
        if before > 0 {
            self.0.add(now.saturating_sub(before) as i64);
        }
    }

    pub fn seconds(result: &JobExecutionResult) -> f64 {
        result.accumulator("cpu_nanos") as f64 / 1e9
    }
}

/// Where the one sink of a job leaves the percentiles of its latencies.
pub struct Percentiles([Counter; 4]);

impl Percentiles {
    const NAMES: [&str; 4] = ["latencies", "p50_nanos", "p99_nanos", "p99.9_nanos"];

    pub fn new(context: &RuntimeContext) -> Percentiles {
        Percentiles(Percentiles::NAMES.map(|name| context.accumulator(name)))
    }

    /// From 1 ns to a minute at three digits.
    ///
    /// # Panics
    /// Never: the bounds are sound.
    pub fn histogram() -> Histogram<u64> {
        Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are sound")
    }

    pub fn set(&self, latencies: &Histogram<u64>) {
        let at = |quantile| latencies.value_at_quantile(quantile);
        let values = [latencies.len(), at(0.5), at(0.99), at(0.999)];
        for (counter, value) in self.0.iter().zip(values) {
            counter.add(value as i64 - counter.get());
        }
    }

    /// How many latencies there were, and what [`Run::report`](crate::report::Run::report) takes.
    pub fn figures(result: &JobExecutionResult) -> (u64, [(&'static str, f64, &'static str); 3]) {
        let [count, p50, p99, p999] = Percentiles::NAMES.map(|name| result.accumulator(name));
        let micros = |nanos: i64| nanos as f64 / 1e3;
        let figures = [("p50_us", micros(p50), "us"), ("p99_us", micros(p99), "us"), ("p99.9_us", micros(p999), "us")];
        (count as u64, figures)
    }
}
