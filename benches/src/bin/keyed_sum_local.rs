//! Running sum by key over two slots: a million keys, 100-byte records, every update emitted; then the same with a
//! checkpoint each second.
//!
//! Each measured run is checked by the number of updates, and by the keys and sums of every 64th key; an unmeasured one
//! before it by all keys.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use millstream::{model::config, prelude::*};
use millstream_benches::{
    keyed_sum::{CheckSum, KeyedSum},
    machine::now_nanos,
    options::{self, Common},
    report::Run,
    stamp,
};
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
    let started = now_nanos();
    let result = run(work, SAMPLE, interval)?;
    let seconds = stamp::seconds_since(started, "ended", &result);
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
    let result = env.execute(BENCH)?;
    work.check(stride, &result)?;
    Ok(result)
}
