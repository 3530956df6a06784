//! Running sum by key over two worker processes of one slot each: a million keys, 100-byte records, every update emitted.
//!
//! Checked as in `keyed_sum_local`. Time counts from the first record, since starting processes is another question.

use anyhow::Result;
use clap::Args;
use millstream::prelude::*;
use millstream_benches::{
    keyed_sum::{CheckSum, KeyedSum},
    options::{self, Common},
    report::Run,
    stamp,
    workers::Workers,
};
use serde_json::json;

const BENCH: &str = "keyed-sum-two-process";
const SAMPLE: u64 = 64;

#[derive(Args)]
struct Options {
    /// Records in all
    #[arg(long, default_value_t = 60_000_000)]
    records: u64,
    /// Distinct keys to draw from
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    #[command(flatten)]
    workers: Workers,
}

#[millstream::main]
fn main() -> Result<()> {
    let (Common { repetitions, .. }, Options { records, keys, workers }) = options::parse();
    let work = KeyedSum { records, keys };
    run(KeyedSum { records: records.min(1_000_000), ..work }, 1, &workers)?;
    for _ in 0..repetitions {
        let conditions = json!({ "records": records, "keys": keys, "record_bytes": 100, "parallelism": 2 });
        let mut report = Run::start(BENCH, workers.conditions(conditions));
        let result = run(work, SAMPLE, &workers)?;
        let seconds = stamp::seconds_between("began", "ended", &result);
        report.add(
            json!({ "job_seconds": result.net_runtime().as_secs_f64(), "emitted": result.accumulator("emitted") }),
        );
        report.report(&[("records_per_s", records as f64 / seconds, "records/s"), ("seconds", seconds, "s")]);
    }
    Ok(())
}

/// Runs the job and checks the keys that are multiples of `stride`.
fn run(work: KeyedSum, stride: u64, workers: &Workers) -> Result<JobExecutionResult> {
    let mut env = workers.environment(1)?;
    env.set_parallelism(2);
    env.from_source(work)
        .key_by::<u64, _>(|record| record.key())
        .sum(|record| record.value())
        .sink_to(CheckSum { keys: work.keys, stride });
    let result = env.execute(BENCH)?;
    work.check(stride, &result)?;
    Ok(result)
}
