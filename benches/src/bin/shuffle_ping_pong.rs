//! One 64-byte record back and forth between two worker processes.
//!
//! A job has no cycles, so the way back is closed in a process: source and sink share a slot of the first worker, and the
//! source emits the next record when the sink has seen the last one. A round trip crosses the wire twice.

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use anyhow::{Result, ensure};
use clap::Args;
use hdrhistogram::Histogram;
use millstream::{
    context::{RuntimeContext, TaskWaker},
    model::message::TaskResult,
    prelude::*,
    sink::{Sink, SinkWriter},
    source::{Source, SourceOut, SourceReader, SourceSnapshot, SourceStatus},
};
use millstream_benches::{
    machine::now_nanos,
    options::{self, Common},
    report::Run,
    stamp::Percentiles,
    workers::{self, Workers},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

const BENCH: &str = "shuffle-ping-pong";

#[derive(Args)]
struct Options {
    /// Round trips that are measured, after a tenth as many that are not
    #[arg(long, default_value_t = 50_000)]
    rounds: u64,
    #[command(flatten)]
    workers: Workers,
}

/// 64 bytes.
#[derive(Record)]
struct Ball {
    round: u64,
    sent_nanos: u64,
    payload: [u8; 48],
}

/// Records that have come back to this process.
static RETURNED: AtomicU64 = AtomicU64::new(0);
/// Of the source.
static SERVER: Mutex<Option<TaskWaker>> = Mutex::new(None);

#[millstream::main]
fn main() -> Result<()> {
    let (Common { repetitions, .. }, Options { rounds, workers }) = options::parse();
    for _ in 0..repetitions {
        let conditions = json!({ "rounds": rounds, "record_bytes": 64, "channels": 2 });
        let report = Run::start(BENCH, workers.conditions(conditions));
        let (round_trips, figures) = Percentiles::figures(&run(rounds, &workers)?);
        ensure!(round_trips == rounds, "{round_trips} round trips of {rounds}");
        report.report(&figures);
    }
    Ok(())
}

fn run(rounds: u64, workers: &Workers) -> Result<JobExecutionResult> {
    let env = workers.environment(1)?;
    let warm_up = rounds / 10;
    env.from_source(Serve { rounds: warm_up + rounds })
        .slot_sharing_group("near")
        .forward()
        .process::<Return>(())
        .slot_sharing_group("far")
        .forward()
        .sink_to(Catch { warm_up })
        .slot_sharing_group("near");
    let result = env.execute(BENCH)?;
    workers::ensure_undisturbed(&result)?;
    Ok(result)
}

#[derive(Serialize, Deserialize)]
struct Serve {
    rounds: u64,
}

struct ServeReader {
    rounds: u64,
    next: u64,
}

impl Source for Serve {
    type Out = Ball;
    type Reader = ServeReader;

    fn reader(self, context: &mut RuntimeContext) -> Result<ServeReader, Failure> {
        *SERVER.lock().expect("nobody panicked with it") = Some(context.waker());
        Ok(ServeReader { rounds: self.rounds, next: 0 })
    }
}

impl SourceReader for ServeReader {
    type Out = Ball;

    fn poll(&mut self, out: &mut SourceOut<'_, Ball>) -> Result<SourceStatus, Failure> {
        if self.next > RETURNED.load(Relaxed) {
            return Ok(SourceStatus::Idle);
        }
        if self.next == self.rounds {
            return Ok(SourceStatus::End);
        }
        out.emit(&BallParts { round: self.next, sent_nanos: now_nanos(), payload: &[1; 48] });
        self.next += 1;
        Ok(SourceStatus::Idle)
    }

    fn snapshot(&mut self, _: &mut SourceSnapshot<'_>) {
        // Time does not go back.
    }

    fn position(&self) -> String {
        format!("round {}", self.next)
    }
}

/// Sends each record back.
struct Return;

impl ProcessFunction for Return {
    type In = Ball;
    type Out = Ball;
    type Conf = ();

    fn open((): (), _: &mut RuntimeContext) -> Result<Self, Failure> {
        Ok(Return)
    }

    fn process(&mut self, ball: BallRef<'_>, _: &ProcessContext<'_>, out: &mut Out<'_, Ball>) -> Result<(), Failure> {
        out.emit(ball);
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
struct Catch {
    warm_up: u64,
}

struct CatchWriter {
    warm_up: u64,
    seen: u64,
    server: Option<TaskWaker>,
    round_trips: Histogram<u64>,
    percentiles: Percentiles,
}

impl Sink for Catch {
    type In = Ball;
    type Writer = CatchWriter;

    fn writer(self, context: &mut RuntimeContext) -> Result<CatchWriter, Failure> {
        Ok(CatchWriter {
            warm_up: self.warm_up,
            seen: 0,
            server: None,
            round_trips: Percentiles::histogram(),
            percentiles: Percentiles::new(context),
        })
    }
}

impl SinkWriter for CatchWriter {
    type In = Ball;

    fn write(&mut self, ball: BallRef<'_>, _: EventTime) -> Result<(), Failure> {
        if ball.round() != self.seen {
            return Err(Failure::fatal("a record was lost or overtaken"));
        }
        if self.seen >= self.warm_up {
            self.round_trips.saturating_record(now_nanos() - ball.sent_nanos());
        }
        self.seen += 1;
        RETURNED.store(self.seen, Relaxed);
        let server = self.server.get_or_insert_with(|| {
            SERVER.lock().expect("nobody panicked with it").clone().expect("it has emitted what is here")
        });
        server.wake();
        Ok(())
    }

    fn finish(&mut self, _: &mut TaskResult) -> Result<(), Failure> {
        self.percentiles.set(&self.round_trips);
        Ok(())
    }
}
