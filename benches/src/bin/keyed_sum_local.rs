//! Running sum by key over two slots: a million keys, 100-byte records, every update emitted; then the same with a
//! checkpoint each second.
//!
//! Each measured run is checked by the number of updates, and by the keys and sums of every 64th key; an unmeasured one
//! before it by all keys.

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use millstream::{
    context::{Counter, RuntimeContext},
    model::{config, message::TaskResult},
    prelude::*,
    sink::{Sink, SinkWriter},
};
use millstream_benches::{
    keyed_sum::KeyedSum,
    options::{self, Common},
    report::Run,
    span,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

const BENCH: &str = "keyed-sum-local";
const SLOTS: u32 = 2;
const SAMPLE: u64 = 64;

#[derive(Args)]
struct Options {
    /// Records in all
    #[arg(long, default_value_t = 60_000_000)]
    records: u64,
    /// Distinct keys to draw from
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Only the run without checkpoints
    #[arg(long)]
    no_checkpoints: bool,
}

#[millstream::main]
fn main() -> Result<()> {
    let (Common { repetitions, .. }, options) = options::parse::<Options>();
    let work = KeyedSum { records: options.records, keys: options.keys };
    let all = KeyedSum { records: work.records.min(1_000_000), ..work };
    run(all, 1, None)?;
    for _ in 0..repetitions {
        let runs = [None, Some(Duration::from_secs(1))];
        for interval in runs.into_iter().take(if options.no_checkpoints { 1 } else { 2 }) {
            measure(work, interval)?;
        }
    }
    Ok(())
}

fn measure(work: KeyedSum, interval: Option<Duration>) -> Result<()> {
    let KeyedSum { records, keys } = work;
    let mut report = Run::start(
        BENCH,
        json!({ "records": records, "keys": keys, "record_bytes": 100, "parallelism": SLOTS, "transport": "memory",
                "checkpoint_interval_ms": interval.map(|interval| interval.as_millis() as u64) }),
    );
    let result = run(work, SAMPLE, interval)?;
    let seconds = span::seconds();
    report.add(json!({ "job_seconds": result.net_runtime().as_secs_f64(), "checkpoints": result.checkpoints(),
                       "emitted": result.accumulator("emitted") }));
    report.report(&[("records_per_s", records as f64 / seconds, "records/s"), ("seconds", seconds, "s")]);
    Ok(())
}

/// Runs the job and checks the keys that are multiples of `stride`.
fn run(work: KeyedSum, stride: u64, interval: Option<Duration>) -> Result<JobExecutionResult> {
    let mut env = StreamExecutionEnvironment::get();
    env.set_parallelism(SLOTS);
    let directory = tempfile::tempdir()?;
    if let Some(interval) = interval {
        let configuration = env.configuration_mut();
        configuration.set(&config::CHECKPOINTING_INTERVAL, Some(interval));
        configuration.set(&config::CHECKPOINTING_DIR, Some(directory.path().display().to_string()));
    }
    env.from_source(work)
        .key_by::<u64, _>(|record| record.key())
        .sum(|record| record.value())
        .sink_to(CheckSum { keys: work.keys, stride });
    span::start();
    let result = env.execute(BENCH)?;
    let (distinct, sum) = work.expected(stride);
    ensure!(result.restarts() == 0, "the job was restarted");
    ensure!(result.accumulator("updates") == work.records as i64, "{} updates", result.accumulator("updates"));
    ensure!(result.accumulator("distinct") == distinct as i64, "{} distinct keys", result.accumulator("distinct"));
    ensure!(result.accumulator("sum") == sum as i64, "the sums add up to {}", result.accumulator("sum"));
    Ok(result)
}

/// Adds all updates up, and remembers the last one of each key that is a multiple of `stride`.
#[derive(Serialize, Deserialize)]
struct CheckSum {
    keys: u64,
    stride: u64,
}

impl Sink for CheckSum {
    type In = (u64, u64);
    type Writer = CheckSumWriter;

    fn writer(self, context: &mut RuntimeContext) -> Result<CheckSumWriter, Failure> {
        let last = vec![0; self.keys.div_ceil(self.stride) as usize].into();
        let totals = ["emitted", "updates", "distinct", "sum"].map(|name| context.accumulator(name));
        Ok(CheckSumWriter { stride: self.stride, last, emitted: 0, updates: 0, totals })
    }
}

struct CheckSumWriter {
    stride: u64,
    last: Box<[u64]>,
    emitted: u64,
    updates: u64,
    totals: [Counter; 4],
}

impl SinkWriter for CheckSumWriter {
    type In = (u64, u64);

    #[inline]
    fn write(&mut self, (key, sum): (u64, u64), _: EventTime) -> Result<(), Failure> {
        self.emitted = self.emitted.wrapping_add(sum);
        self.updates += 1;
        if key & (self.stride - 1) == 0 {
            self.last[(key / self.stride) as usize] = sum;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        span::ended();
        Ok(())
    }

    fn finish(&mut self, _: &mut TaskResult) -> Result<(), Failure> {
        let distinct = self.last.iter().filter(|sum| **sum != 0).count() as u64;
        let sum = self.last.iter().copied().fold(0, u64::wrapping_add);
        for (total, value) in self.totals.iter().zip([self.emitted, self.updates, distinct, sum]) {
            total.add(value as i64);
        }
        Ok(())
    }
}
