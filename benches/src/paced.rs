//! An open loop: records that are due at fixed times, and a sink that takes how late each has arrived.

use std::time::Duration;

use clap::Args;
use hdrhistogram::Histogram;
use millstream::{
    context::RuntimeContext,
    model::message::TaskResult,
    prelude::*,
    sink::{Sink, SinkWriter},
    source::{Source, SourceOut, SourceReader, SourceSnapshot, SourceStatus},
};
use serde::{Deserialize, Serialize};

use crate::{
    keyed_sum::{Event, EventParts, EventRef},
    machine::now_nanos,
    stamp::Percentiles,
};

/// How fast, and how long.
#[derive(Clone, Copy, Debug, Args, Serialize, Deserialize)]
pub struct Pace {
    /// Records per second
    #[arg(long, default_value_t = 100_000)]
    pub rate: u64,
    /// Seconds that are measured
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// Seconds before them that are not
    #[arg(long, default_value_t = 1.0)]
    pub warm_up: f64,
}

impl Pace {
    fn records(&self) -> u64 {
        (self.rate as f64 * (self.seconds + self.warm_up)) as u64
    }

    fn warm_up_records(&self) -> u64 {
        (self.rate as f64 * self.warm_up) as u64
    }

    /// How many latencies there must be in the end.
    pub fn measured_records(&self) -> u64 {
        self.records() - self.warm_up_records()
    }
}

/// Passes each record on. What is measured is the way there.
pub struct PassOn;

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
pub struct Paced {
    pub pace: Pace,
}

/// Emits them.
pub struct PacedReader {
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
pub struct Arrivals {
    pub pace: Pace,
}

/// Leaves the [`Percentiles`].
pub struct ArrivalsWriter {
    warm_up_records: u64,
    seen: u64,
    latencies: Histogram<u64>,
    percentiles: Percentiles,
}

impl Sink for Arrivals {
    type In = Event;
    type Writer = ArrivalsWriter;

    fn writer(self, context: &mut RuntimeContext) -> Result<ArrivalsWriter, Failure> {
        Ok(ArrivalsWriter {
            warm_up_records: self.pace.warm_up_records(),
            seen: 0,
            latencies: Percentiles::histogram(),
            percentiles: Percentiles::new(context),
        })
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
        self.percentiles.set(&self.latencies);
        Ok(())
    }
}
