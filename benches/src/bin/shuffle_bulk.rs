//! Bytes of 100-byte records that go from one worker process to another: from each source to one sink, or from each of
//! four to each of four.
//!
//! The sinks check that each record of each source has arrived once and in order. Only records count as bytes, not their
//! frames. Sources wait until the connection stands and has found its MTU, as the opponent does.

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use millstream::{
    context::RuntimeContext,
    model::message::TaskResult,
    prelude::*,
    sink::{Sink, SinkWriter},
    source::{Source, SourceOut, SourceReader, SourceSnapshot, SourceStatus},
};
use millstream_benches::{
    keyed_sum::{Event, EventParts, EventRef},
    machine::now_nanos,
    options::{self, Common},
    report::Run,
    stamp::{self, CpuTime, Stamp},
    workers::{self, Workers},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

const BENCH: &str = "shuffle-bulk";
const RECORD_BYTES: u64 = 100;
/// From a source's first turn to its first record.
const CONNECT_PAUSE: Duration = Duration::from_millis(500);
/// Records between two looks at the clock.
const BURST: u32 = 64;

#[derive(Args)]
struct Options {
    /// Channels: 1, or the square of the sources, of which there are as many as sinks
    #[arg(long, default_value_t = 1)]
    channels: u32,
    /// Seconds of sending
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    #[command(flatten)]
    workers: Workers,
}

#[millstream::main]
fn main() -> Result<()> {
    let (Common { repetitions, quick, .. }, mut options) = options::parse::<Options>();
    if quick {
        options.seconds /= 20.0;
    }
    for _ in 0..repetitions {
        measure(&options)?;
    }
    Ok(())
}

fn measure(Options { channels, seconds, workers }: &Options) -> Result<()> {
    let sources = channels.isqrt();
    ensure!(sources * sources == *channels, "{channels} is no square");
    let conditions = json!({ "channels": channels, "seconds": seconds, "record_bytes": RECORD_BYTES });
    let mut report = Run::start(BENCH, workers.conditions(conditions));
    let env = workers.environment(sources)?;
    let stream = env.from_source(Flood { seconds: *seconds }).slot_sharing_group("sources");
    let stream = if *channels == 1 { stream.forward() } else { stream.rebalance() };
    stream.sink_to(Drain { sources }).slot_sharing_group("sinks");
    let result = env.execute(BENCH)?;
    let sent = workers::records_passed(&result)?;
    let took = stamp::seconds_between("began", "ended", &result);
    let bytes = sent as f64 * RECORD_BYTES as f64;
    report.add(json!({ "records": sent, "took_seconds": took }));
    report.report(&[
        ("bytes_per_s", bytes / took, "B/s"),
        ("cpu_s_per_gb", CpuTime::seconds(&result) / (bytes / 1e9), "s/GB"),
    ]);
    Ok(())
}

/// Emits as much as there is room for; `key` counts the records of a subtask, and `value` is its number.
#[derive(Serialize, Deserialize)]
struct Flood {
    seconds: f64,
}

struct FloodReader {
    subtask: u64,
    next: u64,
    seconds: f64,
    starts_at: Option<u64>,
    ends_at: Option<u64>,
    began: Stamp,
    cpu: CpuTime,
    sent: Counter,
}

impl Source for Flood {
    type Out = Event;
    type Reader = FloodReader;

    fn reader(self, context: &mut RuntimeContext) -> Result<FloodReader, Failure> {
        Ok(FloodReader {
            subtask: context.index_of_this_subtask().into(),
            next: 0,
            seconds: self.seconds,
            starts_at: None,
            ends_at: None,
            began: Stamp::new("began", context),
            cpu: CpuTime::new(context),
            sent: context.accumulator("sent"),
        })
    }
}

impl SourceReader for FloodReader {
    type Out = Event;

    fn poll(&mut self, out: &mut SourceOut<'_, Event>) -> Result<SourceStatus, Failure> {
        let now = now_nanos();
        let starts_at = *self.starts_at.get_or_insert(now + CONNECT_PAUSE.as_nanos() as u64);
        if now < starts_at {
            return Ok(SourceStatus::IdleFor(Duration::from_nanos(starts_at - now)));
        }
        let ends_at = *self.ends_at.get_or_insert_with(|| {
            self.began.now();
            self.cpu.count();
            now + (self.seconds * 1e9) as u64
        });
        loop {
            if now_nanos() >= ends_at {
                self.cpu.count();
                self.sent.add(self.next as i64);
                return Ok(SourceStatus::End);
            }
            for _ in 0..BURST {
                if out.should_pause() {
                    return Ok(SourceStatus::More);
                }
                out.emit(&EventParts { key: self.next, value: self.subtask, payload: &[9; 84] });
                self.next += 1;
            }
        }
    }

    fn snapshot(&mut self, _: &mut SourceSnapshot<'_>) {
        // Time does not go back.
    }

    fn position(&self) -> String {
        format!("record {}", self.next)
    }
}

/// Counts what arrives.
#[derive(Serialize, Deserialize)]
struct Drain {
    sources: u32,
}

struct DrainWriter {
    /// The next record of each source.
    next: Box<[Option<u64>]>,
    step: u64,
    received: u64,
    ended: Stamp,
    cpu: CpuTime,
    total: Counter,
}

impl Sink for Drain {
    type In = Event;
    type Writer = DrainWriter;

    fn writer(self, context: &mut RuntimeContext) -> Result<DrainWriter, Failure> {
        Ok(DrainWriter {
            next: vec![None; self.sources as usize].into(),
            step: self.sources.into(),
            received: 0,
            ended: Stamp::new("ended", context),
            cpu: CpuTime::new(context),
            total: context.accumulator("received"),
        })
    }
}

impl SinkWriter for DrainWriter {
    type In = Event;

    #[inline]
    fn write(&mut self, record: EventRef<'_>, _: EventTime) -> Result<(), Failure> {
        if self.received == 0 {
            self.cpu.count();
        }
        let key = record.key();
        // Every source deals its records out in turn.
        if self.next[record.value() as usize].replace(key + self.step).is_some_and(|expected| expected != key) {
            return Err(Failure::fatal("a record was lost or overtaken"));
        }
        self.received += 1;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.ended.now();
        Ok(())
    }

    fn finish(&mut self, _: &mut TaskResult) -> Result<(), Failure> {
        self.ended.now();
        self.cpu.count();
        self.total.add(self.received as i64);
        Ok(())
    }
}
