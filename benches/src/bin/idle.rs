//! Processor time of a job of 1,024 channels whose sources emit nothing.

#![allow(clippy::disallowed_methods, reason = "the program waits while the job is watched")]

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use millstream::{
    context::RuntimeContext,
    prelude::*,
    source::{Source, SourceOut, SourceReader, SourceSnapshot, SourceStatus},
};
use millstream_benches::{
    machine::{cpu_seconds, now_nanos},
    options::{self, Common, NoneOfItsOwn},
    report::Run,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

const BENCH: &str = "idle";
/// Squared, it is the number of channels of a hash edge.
const PARALLELISM: u32 = 32;
const SETTLING: Duration = Duration::from_secs(1);

#[millstream::main]
fn main() -> Result<()> {
    let (Common { repetitions, quick, .. }, NoneOfItsOwn {}) = options::parse();
    let watched = Duration::from_millis(if quick { 1_000 } else { 5_000 });
    for _ in 0..repetitions {
        measure(watched)?;
    }
    Ok(())
}

fn measure(watched: Duration) -> Result<()> {
    let mut env = StreamExecutionEnvironment::get();
    env.set_parallelism(PARALLELISM);
    env.from_source(Silent).key_by::<u64, _>(|number| *number).count().discard();
    let job = env.execute_async(BENCH)?;
    while job.status() != JobStatus::Running {
        ensure!(!job.status().is_terminal(), "the job has ended: {:?}", job.result().err());
        thread::sleep(Duration::from_millis(10));
    }
    thread::sleep(SETTLING);
    let channels = PARALLELISM * PARALLELISM;
    let report = Run::start(BENCH, json!({ "channels": channels, "parallelism": PARALLELISM, "rate": 0 }));
    let (cpu, wall) = (cpu_seconds(), now_nanos());
    thread::sleep(watched);
    let (cpu, wall) = (cpu_seconds() - cpu, (now_nanos() - wall) as f64 / 1e9);
    report.report(&[("cpu_fraction", cpu / wall, "1"), ("seconds", wall, "s")]);
    job.cancel();
    ensure!(matches!(job.result(), Err(JobError::Cancelled)), "the job should have been cancelled");
    Ok(())
}

/// Emits nothing, and never ends.
#[derive(Serialize, Deserialize)]
struct Silent;

struct SilentReader;

impl Source for Silent {
    type Out = u64;
    type Reader = SilentReader;

    fn reader(self, _: &mut RuntimeContext) -> Result<SilentReader, Failure> {
        Ok(SilentReader)
    }
}

impl SourceReader for SilentReader {
    type Out = u64;

    fn poll(&mut self, _: &mut SourceOut<'_, u64>) -> Result<SourceStatus, Failure> {
        Ok(SourceStatus::Idle)
    }

    fn snapshot(&mut self, _: &mut SourceSnapshot<'_>) {}

    fn position(&self) -> String {
        "before the first record".to_owned()
    }
}
