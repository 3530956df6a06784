//! Open-loop latency through one `key_by` between two slots. Counted from the time a record was *due*, so a source that
//! falls behind cannot hide it.

use anyhow::{Result, ensure};
use millstream::prelude::*;
use millstream_benches::{
    options::{self, Common},
    paced::{Arrivals, Pace, Paced, PassOn},
    report::Run,
    stamp::Percentiles,
};
use serde_json::json;

const BENCH: &str = "latency-local";

#[millstream::main]
fn main() -> Result<()> {
    let (Common { repetitions, .. }, pace) = options::parse::<Pace>();
    for _ in 0..repetitions {
        let conditions = json!({ "rate": pace.rate, "seconds": pace.seconds, "record_bytes": 100, "parallelism": 1,
                                 "transport": "memory", "channels": 1 });
        let report = Run::start(BENCH, conditions);
        let (latencies, figures) = Percentiles::figures(&run(pace)?);
        ensure!(latencies == pace.measured_records(), "records were lost");
        report.report(&figures);
    }
    Ok(())
}

fn run(pace: Pace) -> Result<JobExecutionResult> {
    let mut env = StreamExecutionEnvironment::get();
    env.set_parallelism(1);
    env.from_source(Paced { pace })
        .slot_sharing_group("sources")
        .key_by::<u64, _>(|record| record.key())
        .process::<PassOn>(())
        .slot_sharing_group("sinks")
        .sink_to(Arrivals { pace });
    Ok(env.execute(BENCH)?)
}
