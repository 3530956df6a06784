//! Open-loop latency through one `key_by` between two worker processes. Counted from the time a record was *due*, so a
//! source that falls behind cannot hide it.

use anyhow::{Result, ensure};
use clap::Args;
use millstream::prelude::*;
use millstream_benches::{
    options::{self, Common},
    paced::{Arrivals, Pace, Paced, PassOn},
    report::Run,
    stamp::Percentiles,
    workers::{self, Workers},
};
use serde_json::json;

const BENCH: &str = "shuffle-latency";

#[derive(Args)]
struct Options {
    #[command(flatten)]
    pace: Pace,
    #[command(flatten)]
    workers: Workers,
}

#[millstream::main]
fn main() -> Result<()> {
    let (Common { repetitions, .. }, Options { pace, workers }) = options::parse();
    for _ in 0..repetitions {
        let conditions = json!({ "rate": pace.rate, "seconds": pace.seconds, "record_bytes": 100, "channels": 1 });
        let report = Run::start(BENCH, workers.conditions(conditions));
        let (latencies, figures) = Percentiles::figures(&run(pace, &workers)?);
        ensure!(latencies == pace.measured_records(), "records were lost");
        report.report(&figures);
    }
    Ok(())
}

fn run(pace: Pace, workers: &Workers) -> Result<JobExecutionResult> {
    let env = workers.environment(1)?;
    env.from_source(Paced { pace })
        .slot_sharing_group("sources")
        .key_by::<u64, _>(|record| record.key())
        .process::<PassOn>(())
        .slot_sharing_group("sinks")
        .sink_to(Arrivals { pace });
    let result = env.execute(BENCH)?;
    workers::ensure_undisturbed(&result)?;
    Ok(result)
}
