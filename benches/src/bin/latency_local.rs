//! Open-loop latency through one `key_by` between two slots. Counted from the time a record was *due*, so a source that
//! falls behind cannot hide it.

use std::{sync::Mutex, time::Duration};

use anyhow::{Result, ensure};
use clap::Args;
use hdrhistogram::Histogram;
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
};
use serde::{Deserialize, Serialize};
use serde_json::json;

const BENCH: &str = "latency-local";

#[derive(Clone, Copy, Debug, Args, Serialize, Deserialize)]
struct Pace {
    /// Records per second
    #[arg(long, default_value_t = 100_000)]
    rate: u64,
    /// Seconds that are measured
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Seconds before them that are not
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
}

impl Pace {
    fn records(&self) -> u64 {
        (self.rate as f64 * (self.seconds + self.warm_up)) as u64
    }

    fn warm_up_records(&self) -> u64 {
        (self.rate as f64 * self.warm_up) as u64
    }
}

/// What the sink has seen, in nanoseconds. A static will do: the embedded cluster is this process.
static LATENCIES: Mutex<Option<Histogram<u64>>> = Mutex::new(None);

#[millstream::main]
fn main() -> Result<()> {
    let (Common { repetitions, .. }, pace) = options::parse::<Pace>();
    for _ in 0..repetitions {
        let conditions = json!({ "rate": pace.rate, "seconds": pace.seconds, "record_bytes": 100, "parallelism": 1,
                                 "transport": "memory", "channels": 1 });
        let report = Run::start(BENCH, conditions);
        run(pace)?;
        let latencies = LATENCIES.lock().expect("nobody panicked with it").take();
        let latencies = latencies.ok_or_else(|| anyhow::anyhow!("the sink has not finished"))?;
        ensure!(latencies.len() == pace.records() - pace.warm_up_records(), "records were lost");
        let at = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e3;
        report.report(&[("p50_us", at(0.5), "us"), ("p99_us", at(0.99), "us"), ("p99.9_us", at(0.999), "us")]);
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

/// Passes each record on. What is measured is the way there.
struct PassOn;

impl KeyedProcessFunction for PassOn {
    type Key = u64;
    type In = Event;
    type Out = Event;
    type Conf = ();

    fn open((): (), _: &mut RuntimeContext) -> Result<Self, Failure> {
        Ok(PassOn)
    }

    #[inline]
    fn process(
        &mut self,
        record: EventRef<'_>,
        _: &KeyedContext<'_, u64>,
        out: &mut Out<'_, Event>,
    ) -> Result<(), Failure> {
        out.emit(record);
        Ok(())
    }
}

/// Emits records when they are due; `key` is the index and `value` the due time.
#[derive(Serialize, Deserialize)]
struct Paced {
    pace: Pace,
}

struct PacedReader {
    first_due: Option<u64>,
    gap_nanos: f64,
    next: u64,
    end: u64,
}

impl Source for Paced {
    type Out = Event;
    type Reader = PacedReader;

    fn reader(self, _: &mut RuntimeContext) -> Result<PacedReader, Failure> {
        Ok(PacedReader { first_due: None, gap_nanos: 1e9 / self.pace.rate as f64, next: 0, end: self.pace.records() })
    }
}

impl SourceReader for PacedReader {
    type Out = Event;

    fn poll(&mut self, out: &mut SourceOut<'_, Event>) -> Result<SourceStatus, Failure> {
        let mut now = now_nanos();
        let first_due = *self.first_due.get_or_insert(now + 100_000_000);
        loop {
            if self.next == self.end {
                return Ok(SourceStatus::End);
            }
            let due = first_due + (self.next as f64 * self.gap_nanos) as u64;
            if due > now {
                now = now_nanos();
                if due > now {
                    return Ok(SourceStatus::IdleFor(Duration::from_nanos(due - now)));
                }
            }
            if out.should_pause() {
                return Ok(SourceStatus::More);
            }
            out.emit(&EventParts { key: self.next, value: due, payload: &[0; 84] });
            self.next += 1;
        }
    }

    fn snapshot(&mut self, _: &mut SourceSnapshot<'_>) {
        // Time does not go back.
    }

    fn position(&self) -> String {
        format!("record {}", self.next)
    }
}

/// Takes the latency of records in the order they were sent, without the warm-up.
#[derive(Serialize, Deserialize)]
struct Arrivals {
    pace: Pace,
}

struct ArrivalsWriter {
    warm_up_records: u64,
    seen: u64,
    latencies: Histogram<u64>,
}

impl Sink for Arrivals {
    type In = Event;
    type Writer = ArrivalsWriter;

    fn writer(self, _: &mut RuntimeContext) -> Result<ArrivalsWriter, Failure> {
        // From 1 ns to a minute at three digits.
        let latencies = Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are sound");
        Ok(ArrivalsWriter { warm_up_records: self.pace.warm_up_records(), seen: 0, latencies })
    }
}

impl SinkWriter for ArrivalsWriter {
    type In = Event;

    fn write(&mut self, record: EventRef<'_>, _: EventTime) -> Result<(), Failure> {
        if record.key() != self.seen {
            return Err(Failure::fatal("a record was lost or overtaken"));
        }
        self.seen += 1;
        if record.key() >= self.warm_up_records {
            self.latencies.saturating_record(now_nanos().saturating_sub(record.value()));
        }
        Ok(())
    }

    fn finish(&mut self, _: &mut TaskResult) -> Result<(), Failure> {
        *LATENCIES.lock().expect("nobody panicked with it") = Some(self.latencies.clone());
        Ok(())
    }
}
