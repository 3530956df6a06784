//! The programs that the engine is measured against. See README.md.

mod all;

use std::{path::PathBuf, time::Duration};

use clap::{Parser, Subcommand, ValueEnum};
use harness::{
    latency::{Pace, Percentiles},
    pair,
    path::Path,
    records::{KeyedSum, Share, Totals},
    report::{Figure, Reporting, Run},
    text::Text,
};
use raw::means::Means;
use serde_json::{Value, json};
use transport::{Transport, Tuning};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Baselines for a stream-processing engine
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    reporting: Reporting,
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Running sum by key, two threads of one process
    KeyedSumLocal {
        #[arg(long, value_enum, default_value_t = Engine::Hand)]
        engine: Engine,
        #[command(flatten)]
        work: KeyedSum,
    },
    /// Running sum by key, two processes of one thread; only `hand` has QUIC
    KeyedSumTwoProcess {
        #[arg(long, value_enum, default_value_t = Engine::Hand)]
        engine: Engine,
        #[command(flatten)]
        work: KeyedSum,
        #[command(flatten)]
        tuning: Tuning,
    },
    /// Running count by word, two threads of one process
    WordCountLocal {
        #[command(flatten)]
        text: Text,
        /// Only write the text, for an engine that runs first
        #[arg(long)]
        write_only: bool,
    },
    /// Bytes that two threads copy, the yardstick between machines
    Memcpy,
    /// Bytes that one connection carries
    ShuffleBulk {
        /// QUIC streams
        #[arg(long, default_value_t = 1)]
        streams: usize,
        /// Seconds of sending
        #[arg(long, default_value_t = 2.0)]
        seconds: f64,
        #[command(flatten)]
        tuning: Tuning,
    },
    /// Round trips of 64 bytes
    ShufflePingPong {
        /// Spin instead of waiting in the kernel
        #[arg(long)]
        busy: bool,
        /// Round trips that are measured
        #[arg(long, default_value_t = 50_000)]
        rounds: u64,
        #[command(flatten)]
        tuning: Tuning,
    },
    /// Latency of paced records between two processes
    ShuffleLatency {
        /// The sink spins instead of waiting in the kernel
        #[arg(long)]
        busy: bool,
        #[command(flatten)]
        pace: Pace,
        #[command(flatten)]
        tuning: Tuning,
    },
    /// Latency of paced records between two threads of one process
    LatencyLocal {
        /// Microseconds that the sink spins before it parks
        #[arg(long, default_value_t = 50)]
        spin_micros: u64,
        #[command(flatten)]
        pace: Pace,
    },
    /// One thread with many sockets: system calls and tokio-uring, in turns
    NetworkIo {
        /// Connections to the other thread
        #[arg(long, default_value_t = 16)]
        peers: usize,
        /// Seconds of each measurement
        #[arg(long, default_value_t = 1.0)]
        seconds: f64,
        /// Only this [default: both]
        #[arg(long = "with", value_enum)]
        means: Option<Means>,
    },
    /// A file that is written, made durable and read back: system calls and tokio-uring, in turns
    FileIo {
        /// MiB of it
        #[arg(long, default_value_t = 256)]
        pieces: usize,
        /// Directory of the file [default: a temporary one]
        #[arg(long)]
        dir: Option<PathBuf>,
        /// Only this [default: both]
        #[arg(long = "with", value_enum)]
        means: Option<Means>,
    },
    /// Every benchmark with every engine, each in a fresh process
    All {
        /// Directory that the word-count text is written into, once [default: a temporary one]
        #[arg(long)]
        dir: Option<PathBuf>,
        /// A twentieth of the work: for checking that everything runs, not for figures
        #[arg(long)]
        smoke: bool,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Engine {
    Hand,
    Timely,
    Renoir,
}

fn main() {
    let Arguments { reporting, bench } = Arguments::parse();
    match bench {
        Bench::KeyedSumLocal { engine, work } => keyed_sum_local(&reporting, engine, work),
        Bench::KeyedSumTwoProcess { engine, work, tuning } => {
            keyed_sum_two_process(&reporting, engine, work, &tuning);
        }
        Bench::WordCountLocal { text, write_only } => {
            prepare(&text);
            if !write_only {
                word_count_local(&reporting, &text);
            }
        }
        Bench::Memcpy => {
            let conditions = json!({ "transport": "memory", "threads": 2 });
            reporting
                .report("memcpy", "raw", conditions, || raw::memcpy::run(Duration::from_secs(1)));
        }
        Bench::ShuffleBulk { streams, seconds, tuning } => {
            let conditions = json!({ "streams": streams, "write_bytes": 64 << 10 });
            let time = Duration::from_secs_f64(seconds);
            reporting.report("shuffle-bulk", "raw", with_transport(conditions, &tuning), || {
                raw::bulk::figures(pair::run(tuning.path, |side, control| {
                    raw::bulk::half(time, streams, &tuning, side, control)
                }))
            });
        }
        Bench::ShufflePingPong { busy, rounds, tuning } => {
            let conditions = json!({ "busy": busy, "rounds": rounds, "record_bytes": 64 });
            reporting.report(
                "shuffle-ping-pong",
                "raw",
                with_transport(conditions, &tuning),
                || {
                    latency_run(pair::run(tuning.path, |side, control| {
                        raw::ping_pong::half(rounds, busy, &tuning, side, control)
                    }))
                },
            );
        }
        Bench::ShuffleLatency { busy, pace, tuning } => {
            let mut conditions = with_transport(pace.conditions(), &tuning);
            conditions["busy"] = json!(busy);
            reporting.report("shuffle-latency", "hand", conditions, || {
                latency_run(pair::run(tuning.path, |side, control| {
                    hand::shuffle_latency::half(&pace, &tuning, busy, side, control)
                }))
            });
        }
        Bench::LatencyLocal { spin_micros, pace } => {
            let mut conditions = pace.conditions();
            conditions["spin_micros"] = json!(spin_micros);
            let spin = Duration::from_micros(spin_micros);
            reporting.report("latency-local", "hand", conditions, || {
                latency_run([Some(hand::latency_local::run(pace, spin)), None])
            });
        }
        Bench::NetworkIo { peers, seconds, means } => {
            let conditions = json!({
                "transport": "tcp", "processes": 1, "threads": 2, "peers": peers,
                "ping_bytes": 64, "seconds": seconds,
            });
            let time = Duration::from_secs_f64(seconds);
            reporting.report_in_turns("network-io", &conditions, &engines(means), |engine| {
                raw::network_io::run(Means::named(engine), peers, time)
            });
        }
        Bench::FileIo { pieces, dir, means } => {
            let conditions = json!({ "pieces": pieces, "piece_bytes": raw::file_io::PIECE_BYTES });
            let dir = dir.unwrap_or_else(std::env::temp_dir);
            reporting.report_in_turns("file-io", &conditions, &engines(means), |engine| {
                raw::file_io::run(Means::named(engine), &dir, pieces)
            });
        }
        Bench::All { dir, smoke } => all::run(&reporting, dir, smoke),
    }
}

fn keyed_sum_local(reporting: &Reporting, engine: Engine, work: KeyedSum) {
    let expected = work.expected();
    let conditions = json!({
        "transport": "memory", "processes": 1, "threads": 2,
        "records": work.records, "keys": work.keys, "record_bytes": 100,
    });
    reporting.report("keyed-sum-local", engine.name(), conditions, || match engine {
        Engine::Hand => keyed_sum_run(hand::keyed_sum_local::run(work), expected, json!({})),
        Engine::Timely => keyed_sum_run(peers::timely::local(work), expected, json!({})),
        Engine::Renoir => {
            keyed_sum_run(peers::renoir::local(work), expected, json!({ "pinned": false }))
        }
    });
}

fn keyed_sum_two_process(reporting: &Reporting, engine: Engine, work: KeyedSum, tuning: &Tuning) {
    if engine != Engine::Hand && tuning.transport == Transport::Quic {
        usage("only --engine hand has QUIC");
    }
    if engine != Engine::Hand && tuning.path != Path::Loopback {
        usage("only --engine hand has other paths");
    }
    let expected = if pair::is_second() { Totals::default() } else { work.expected() };
    let conditions = with_transport(
        json!({
            "processes": 2, "threads": 1,
            "records": work.records, "keys": work.keys, "record_bytes": 100,
        }),
        tuning,
    );
    reporting.report("keyed-sum-two-process", engine.name(), conditions, || {
        let [(first, facts), (second, _)] = pair::run(tuning.path, |side, control| match engine {
            Engine::Hand => hand::keyed_sum_two_process::half(work, tuning, side, control),
            Engine::Timely => peers::timely::half(work, side, control),
            Engine::Renoir => peers::renoir::half(work, side, control),
        });
        keyed_sum_run(Share::join([first, second]), expected, facts)
    });
}

/// # Panics
/// If the engine lost, doubled or misplaced a record.
fn keyed_sum_run(share: Share, expected: Totals, mut facts: Value) -> Run {
    assert_eq!(share.totals, expected, "the engine's answer is wrong");
    facts["distinct_keys"] = json!(share.totals.distinct_keys);
    facts["sum"] = json!(share.totals.sum);
    let value = share.totals.updates as f64 / share.seconds();
    Run { figures: vec![Figure { metric: "records_per_s", value, unit: "1/s" }], facts }
}

fn prepare(text: &Text) {
    if let Err(error) = text.prepare() {
        usage(&format!("the text cannot be written into {}: {error}", text.dir.display()));
    }
}

fn word_count_local(reporting: &Reporting, text: &Text) {
    let bytes = text.written_bytes();
    let conditions = json!({
        "transport": "memory", "processes": 1, "threads": 2,
        "text_bytes": bytes, "seed": text.seed,
    });
    reporting.report("word-count-local", "hand", conditions, || {
        let share = hand::word_count::run(text);
        let Totals { updates, distinct_keys, sum } = share.totals;
        let words_per_s = updates as f64 / share.seconds();
        let figures = vec![
            Figure { metric: "words_per_s", value: words_per_s, unit: "1/s" },
            Figure { metric: "seconds", value: share.seconds(), unit: "s" },
        ];
        Run { figures, facts: json!({ "words": updates, "distinct": distinct_keys, "sum": sum }) }
    });
}

/// The one means that was asked for, or both.
fn engines(means: Option<Means>) -> Vec<&'static str> {
    let asked = means.map_or(Means::ALL.to_vec(), |means| vec![means]);
    for means in &asked {
        if let Err(error) = means.is_there() {
            let name = means.name();
            usage(&format!("this kernel has no {name}, try --with syscalls: {error}"));
        }
    }
    asked.into_iter().map(Means::name).collect()
}

/// The percentiles of whichever side measured them.
fn latency_run(sides: [Option<Percentiles>; 2]) -> Run {
    let percentiles = sides.into_iter().flatten().next().expect("one side measures");
    Run { figures: percentiles.figures(), facts: json!({}) }
}

fn with_transport(mut conditions: Value, tuning: &Tuning) -> Value {
    if tuning.path == Path::Lossy && tuning.transport == Transport::Tcp {
        usage("a lossy path carries datagrams only");
    }
    conditions["transport"] = json!(tuning.name());
    conditions["path"] = json!(tuning.path.name());
    if tuning.transport == Transport::Quic {
        conditions["mtu_max"] = json!(tuning.mtu());
        conditions["rcvbuf"] = json!(tuning.rcvbuf());
    }
    conditions
}

fn usage(problem: &str) -> ! {
    eprintln!("error: {problem}");
    std::process::exit(2)
}

impl Engine {
    fn name(self) -> &'static str {
        match self {
            Engine::Hand => "hand",
            Engine::Timely => "timely",
            Engine::Renoir => "renoir",
        }
    }
}
