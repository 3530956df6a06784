//! How long words take through the job.
//!
//! **What is measured**: from the moment at which the source emits a line to the moment at which the sink sees the new
//! count of one of its words. One line in [`LINES_PER_SAMPLE`] is measured, with all its words, so that looking at the
//! clock costs next to nothing.
//!
//! **How**: the time travels as the line's time stamp, which the engine hands on from record to record and over
//! exchanges. It is in microseconds here, while event time is otherwise in milliseconds: nothing in this job has timers
//! or windows that would compare it with anything else. The clock is the system's, on one machine.
//!
//! **What it says**: the files are read as fast as the job can take them, so this is the latency at full load, most of
//! which is waiting in full buffers. It is not the latency at a given rate; `cargo xtask bench latency-local` is for that.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use millstream::prelude::*;

const LINES_PER_SAMPLE: u32 = 64;
/// Four classes for each doubling, from 2 microseconds to a bit over two minutes: a class is 19 % wide.
const CLASSES: u32 = 4 * 26;
const PREFIX: &str = "latency-class-";

/// The time stamp for the next line: the time, or none.
pub fn sample() -> i64 {
    thread_local! {
        static UNTIL_SAMPLE: Cell<u32> = const { Cell::new(0) };
    }
    let left = UNTIL_SAMPLE.get();
    UNTIL_SAMPLE.set(left.checked_sub(1).unwrap_or(LINES_PER_SAMPLE - 1));
    if left == 0 { now_micros() } else { EventTime::MIN.0 }
}

fn now_micros() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_micros()).unwrap_or(i64::MAX)
}

/// Counts latencies by class, in accumulators, which the engine adds up over all subtasks.
pub struct Latencies(Vec<Counter>);

impl Latencies {
    pub fn open(context: &mut RuntimeContext) -> Latencies {
        Latencies((0..CLASSES).map(|class| context.accumulator(&format!("{PREFIX}{class:03}"))).collect())
    }

    /// Takes the time stamp of a record that has arrived.
    pub fn arrived(&self, emitted: EventTime) {
        if emitted != EventTime::MIN {
            let micros = u64::try_from(now_micros() - emitted.0).unwrap_or(0);
            self.0[class_of(micros) as usize].add(1);
        }
    }
}

fn class_of(micros: u64) -> u32 {
    let class = 4.0 * (micros.max(2) as f64 / 2.0).log2();
    (class as u32).min(CLASSES - 1)
}

/// The upper end of a class.
fn micros_below(class: u32) -> f64 {
    2.0 * (f64::from(class + 1) / 4.0).exp2()
}

/// Percentiles, each given as the upper end of its class.
#[derive(Debug, PartialEq)]
pub struct LatencySummary {
    measured: u64,
    /// p50, p90, p99 and the highest one.
    micros: [f64; 4],
}

impl LatencySummary {
    /// From the accumulators of a job that has ended.
    pub fn of(accumulators: &BTreeMap<String, i64>) -> LatencySummary {
        let counted = |class| accumulators.get(&format!("{PREFIX}{class:03}")).map_or(0, |count| count.unsigned_abs());
        let counts: Vec<u64> = (0..CLASSES).map(counted).collect();
        let measured = counts.iter().sum::<u64>();
        let percentile = |part: f64| {
            let wanted = ((measured as f64 * part).ceil() as u64).max(1);
            let mut seen = 0;
            let class = counts.iter().position(|count| {
                seen += count;
                seen >= wanted
            });
            class.map_or(0.0, |class| micros_below(class as u32))
        };
        LatencySummary { measured, micros: [0.5, 0.9, 0.99, 1.0].map(percentile) }
    }
}

impl fmt::Display for LatencySummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.measured == 0 {
            return f.write_str("latency: nothing was measured");
        }
        let [p50, p90, p99, max] = self.micros.map(shown);
        write!(
            f,
            "latency at full load, from a line at the source to its words' counts at the sink: p50 {p50}, p90 {p90}, \
             p99 {p99}, max {max} ({} words, of 1 line in {LINES_PER_SAMPLE})",
            self.measured
        )
    }
}

fn shown(micros: f64) -> String {
    match micros {
        ..1e3 => format!("{micros:.0} us"),
        ..1e6 => format!("{:.1} ms", micros / 1e3),
        _ => format!("{:.1} s", micros / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_lies_below_the_end_of_its_class_and_not_far_below() {
        for micros in (3..2_000).chain([50_000, 1_000_000, 60_000_000]) {
            let end = micros_below(class_of(micros));
            assert!((micros as f64) < end * 1.000_001 && end < micros as f64 * 1.2, "{micros} {end}");
        }
        assert_eq!([class_of(0), class_of(u64::MAX)], [0, CLASSES - 1]);
    }

    #[test]
    fn percentiles_come_from_the_sums_of_all_subtasks() {
        let mut accumulators = BTreeMap::new();
        let mut count = |micros, times| {
            *accumulators.entry(format!("{PREFIX}{:03}", class_of(micros))).or_insert(0) += times;
        };
        count(100, 98);
        count(10_000, 1);
        count(1_000_000, 1);
        let summary = LatencySummary::of(&accumulators);
        assert_eq!(summary.measured, 100);
        let [p50, p90, p99, max] = summary.micros;
        assert!(p50 > 99.0 && p50 < 120.0 && p50 == p90, "{summary}");
        assert!(p99 > 9_999.0 && p99 < 12_000.0 && max > 999_999.0 && max < 1_200_000.0, "{summary}");
    }

    #[test]
    fn nothing_is_said_about_nothing() {
        assert_eq!(LatencySummary::of(&BTreeMap::new()).to_string(), "latency: nothing was measured");
    }
}
