//! Many workers, each of which sends to all others: what a connection costs beside the records that it carries.
//!
//! ```text
//!  worker 0: source ─┬─► sink        64 workers of one slot: 2,016 connections, 4,032 channels between workers
//!  worker 1: source ─┼─► sink        2 workers of one slot, at the same rate in all: what the records alone cost
//!  …               all to all
//! ```
//! Each source deals its records out in turn. It begins with one for every sink, which is how a sink knows that it is
//! connected with all; the others are due at fixed times some seconds later, and their latency counts from then.

use std::{collections::BTreeMap, time::Duration};

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
    cluster::proportional_set_mb,
    keyed_sum::{Event, EventParts, EventRef},
    machine::now_nanos,
    options::{self, Common},
    report::Run,
    stamp::{self, CpuTime, Stamp},
    workers::{self, Workers},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

const BENCH: &str = "fan-out";
/// A record's key is its source's number above these bits, and its number of that source.
const SOURCE_BITS: u32 = 40;
/// From a source's first records to the paced ones.
const CONNECT_PAUSE: Duration = Duration::from_secs(4);

#[derive(Args)]
struct Options {
    /// Worker processes of one slot each
    #[arg(long, default_value_t = 64)]
    processes: u32,
    /// Records per second of all sources together
    #[arg(long, default_value_t = 200_000)]
    rate: u64,
    /// Seconds that are measured, after one that is not
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    #[command(flatten)]
    workers: Workers,
}

#[millstream::main]
fn main() -> Result<()> {
    let (Common { repetitions, quick, .. }, mut options) = options::parse::<Options>();
    if quick {
        options.processes = options.processes.min(6);
        options.rate /= 20;
        options.seconds /= 5.0;
    }
    for _ in 0..repetitions {
        measure(&options)?;
    }
    Ok(())
}

fn measure(options: &Options) -> Result<()> {
    let Options { processes, rate, seconds, workers } = options;
    let conditions = json!({
        "processes": processes, "rate": rate, "seconds": seconds, "record_bytes": 100,
        "channels": processes * (processes - 1), "connections": processes * (processes - 1) / 2,
    });
    let mut report = Run::start(BENCH, workers.conditions(conditions));
    let many = run(options, *processes)?;
    let two = run(options, 2)?;
    let (cpu_many, cpu_two) = (cpu_micros_per_record(&many), cpu_micros_per_record(&two));
    let connect = stamp::seconds_between("began", "connected", &many);
    let connected = many.accumulators().keys().filter(|name| name.starts_with("connected.")).count();
    ensure!(connected == *processes as usize, "only {connected} of {processes} sinks were connected with all sources");
    let memory = many.accumulators().iter().filter(|(name, _)| name.starts_with("memory_kb."));
    let memory = memory.map(|(_, kilobytes)| *kilobytes).max().unwrap_or(0) as f64 / 1e3;
    let latencies = [late_micros(&many, 0.5), late_micros(&many, 0.99), late_micros(&two, 0.99)];
    report.add(json!({
        "workers": processes, "cpu_us_per_record": cpu_many, "cpu_us_per_record_of_two": cpu_two,
        "p99_us_of_two": latencies[2],
    }));
    report.report(&[
        ("connect_s", connect, "s"),
        ("cpu_per_record_ratio", cpu_many / cpu_two, ""),
        ("rss_worker_mb", memory, "MB"),
        ("p50_us", latencies[0], "us"),
        ("p99_us", latencies[1], "us"),
    ]);
    Ok(())
}

fn run(options: &Options, processes: u32) -> Result<JobExecutionResult> {
    let mut env = options.workers.environment_of(processes, 1)?;
    env.set_parallelism(processes);
    let rate = options.rate as f64 / f64::from(processes);
    let deal = Deal { sinks: processes, rate, seconds: options.seconds };
    env.from_source(deal).rebalance().sink_to(Gather { sources: processes });
    let result = env.execute(BENCH)?;
    workers::records_passed(&result)?;
    Ok(result)
}

fn cpu_micros_per_record(result: &JobExecutionResult) -> f64 {
    CpuTime::seconds(result) * 1e6 / result.accumulator("measured") as f64
}

/// Steps of a latency's bucket: 8 to each doubling, so that a quantile is right to some 9 %.
const STEPS: f64 = 8.0;
/// The logarithm of the shortest latency that is told from shorter ones, a microsecond, and how many buckets there are.
const LOG_MIN: f64 = 10.0;
const BUCKETS: usize = 200;

/// A quantile of all sinks' latencies, in microseconds.
fn late_micros(result: &JobExecutionResult, quantile: f64) -> f64 {
    let buckets = result.accumulators().iter().filter_map(|(name, count)| {
        let bucket: u32 = name.strip_prefix("late.")?.parse().ok()?;
        Some((bucket, *count))
    });
    let buckets: BTreeMap<u32, i64> = buckets.collect();
    let wanted = buckets.values().sum::<i64>() as f64 * quantile;
    let mut seen = 0.0;
    let reached = buckets.iter().find(|(_, count)| {
        seen += **count as f64;
        seen >= wanted
    });
    reached.map_or(f64::NAN, |(bucket, _)| (LOG_MIN + f64::from(*bucket) / STEPS).exp2() / 1e3)
}

/// Emits one record for each sink, and later records that are due; `value` is the due time, 0 at first.
#[derive(Serialize, Deserialize)]
struct Deal {
    sinks: u32,
    /// Of this subtask.
    rate: f64,
    seconds: f64,
}

struct DealReader {
    deal: Deal,
    subtask: u64,
    next: u64,
    first_due: Option<u64>,
    began: Stamp,
    cpu: CpuTime,
    sent: Counter,
    measured: Counter,
}

impl Deal {
    fn greetings(&self) -> u64 {
        self.sinks.into()
    }

    /// Paced records before those that are measured.
    fn warm_up(&self) -> u64 {
        self.rate as u64
    }

    fn paced(&self) -> u64 {
        (self.rate * (self.seconds + 1.0)) as u64
    }
}

impl Source for Deal {
    type Out = Event;
    type Reader = DealReader;

    fn reader(self, context: &mut RuntimeContext) -> Result<DealReader, Failure> {
        Ok(DealReader {
            deal: self,
            subtask: context.index_of_this_subtask().into(),
            next: 0,
            first_due: None,
            began: Stamp::new("began", context),
            cpu: CpuTime::new(context),
            sent: context.accumulator("sent"),
            measured: context.accumulator("measured"),
        })
    }
}

impl SourceReader for DealReader {
    type Out = Event;

    fn poll(&mut self, out: &mut SourceOut<'_, Event>) -> Result<SourceStatus, Failure> {
        let first_due = *self.first_due.get_or_insert_with(|| {
            self.began.now();
            now_nanos() + CONNECT_PAUSE.as_nanos() as u64
        });
        let (greetings, warm_up, paced) = (self.deal.greetings(), self.deal.warm_up(), self.deal.paced());
        loop {
            let number = self.next.checked_sub(greetings);
            if number == Some(paced) {
                self.cpu.count();
                self.sent.add(self.next as i64);
                self.measured.add((paced - warm_up) as i64);
                return Ok(SourceStatus::End);
            }
            let due = number.map(|number| first_due + (number as f64 * 1e9 / self.deal.rate) as u64);
            let wait = due.and_then(|due| due.checked_sub(now_nanos())).filter(|wait| *wait > 0);
            if let Some(wait) = wait {
                return Ok(SourceStatus::IdleFor(Duration::from_nanos(wait)));
            }
            if out.should_pause() {
                return Ok(SourceStatus::More);
            }
            if number == Some(warm_up) {
                self.cpu.count();
            }
            let value = due.filter(|_| number >= Some(warm_up)).unwrap_or(0);
            out.emit(&EventParts { key: self.subtask << SOURCE_BITS | self.next, value, payload: &[5; 84] });
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

/// Takes how late the records of all sources are.
#[derive(Serialize, Deserialize)]
struct Gather {
    sources: u32,
}

struct GatherWriter {
    /// The next record of each source is not before this one.
    next: Box<[u64]>,
    missing: usize,
    received: u64,
    /// By bucket.
    late: Box<[(u64, Counter)]>,
    connected: Stamp,
    memory: Counter,
    total: Counter,
}

impl Sink for Gather {
    type In = Event;
    type Writer = GatherWriter;

    fn writer(self, context: &mut RuntimeContext) -> Result<GatherWriter, Failure> {
        Ok(GatherWriter {
            next: vec![0; self.sources as usize].into(),
            missing: self.sources as usize,
            received: 0,
            late: (0..BUCKETS).map(|bucket| (0, context.accumulator(&format!("late.{bucket}")))).collect(),
            connected: Stamp::new("connected", context),
            memory: context.accumulator(&format!("memory_kb.{}", context.index_of_this_subtask())),
            total: context.accumulator("received"),
        })
    }
}

impl SinkWriter for GatherWriter {
    type In = Event;

    fn write(&mut self, record: EventRef<'_>, _: EventTime) -> Result<(), Failure> {
        let (source, number) = (record.key() >> SOURCE_BITS, record.key() & ((1 << SOURCE_BITS) - 1));
        let next = &mut self.next[source as usize];
        if number < *next {
            return Err(Failure::fatal("a record was doubled or overtaken"));
        }
        if *next == 0 {
            self.missing -= 1;
            if self.missing == 0 {
                self.connected.now();
            }
        }
        *next = number + 1;
        self.received += 1;
        if record.value() > 0 {
            let late = now_nanos().saturating_sub(record.value()).max(1);
            // Casting saturates.
            let bucket = (((late as f64).log2() - LOG_MIN) * STEPS) as usize;
            self.late[bucket.min(BUCKETS - 1)].0 += 1;
        }
        Ok(())
    }

    fn finish(&mut self, _: &mut TaskResult) -> Result<(), Failure> {
        for (count, counter) in &self.late {
            counter.add(*count as i64);
        }
        let megabytes = proportional_set_mb(std::process::id()).map_err(|cause| Failure::fatal(cause.to_string()))?;
        self.memory.add((megabytes * 1e3) as i64);
        self.total.add(self.received as i64);
        Ok(())
    }
}
