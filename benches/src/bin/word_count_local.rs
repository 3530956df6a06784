//! Running count by word over two slots: text files, split on ASCII whitespace, every new count emitted.
//!
//! Built without the feature `engine-allocator` it measures allocations per word instead, after a warm-up: see
//! `millstream_benches::allocations`.

use std::{
    collections::HashMap,
    fs,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use millstream::{
    connectors::TextFileSource,
    context::RuntimeContext,
    metrics::Counter,
    model::message::TaskResult,
    prelude::*,
    sink::{Sink, SinkWriter},
};
use millstream_benches::{
    allocations,
    options::{self, Common},
    report::Run,
    span,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

const BENCH: &str = "word-count-local";
const SLOTS: u32 = 2;

#[derive(Args)]
struct Options {
    /// A file of the text; may be given several times
    #[arg(long, required = true)]
    input: Vec<PathBuf>,
    /// Do not compare the counts with those of a plain hash map
    #[arg(long)]
    unchecked: bool,
}

#[millstream::main]
fn main() -> Result<()> {
    let (Common { repetitions, .. }, options) = options::parse::<Options>();
    let mut bytes = 0;
    for file in &options.input {
        // Read once, so that no run waits for a disk.
        let mut file = fs::File::open(file).with_context(|| format!("{} cannot be opened", file.display()))?;
        bytes += std::io::copy(&mut file, &mut std::io::sink())?;
    }
    let expected = if options.unchecked { None } else { Some(count(&options.input)?) };
    for _ in 0..repetitions {
        measure(&options.input, bytes, expected)?;
    }
    Ok(())
}

fn measure(input: &[PathBuf], bytes: u64, expected: Option<Totals>) -> Result<()> {
    let conditions = json!({ "bytes": bytes, "files": input.len(), "parallelism": SLOTS, "transport": "memory" });
    let mut report = Run::start(BENCH, conditions);
    let mut env = StreamExecutionEnvironment::get();
    env.set_parallelism(SLOTS);
    env.from_source(TextFileSource::new(input))
        .flat_map::<String, _>(|line, out| line.split_ascii_whitespace().for_each(|word| out.emit(word)))
        .key_by::<String, _>(|word| *word)
        .count()
        .sink_to(CheckSum { warm_up: expected.map_or(u64::MAX, |expected| expected.words / 4 * 3 / u64::from(SLOTS)) });
    span::start();
    WARM.store(0, Relaxed);
    let result = env.execute(BENCH)?;
    let total = |name| result.accumulator(name) as u64;
    let totals = Totals { words: total("words"), distinct: total("distinct"), sum: total("sum") };
    ensure!(expected.is_none_or(|expected| expected == totals), "{totals:?} where {expected:?} was expected");
    let seconds = span::seconds();
    report.add(json!({ "words": totals.words, "distinct_keys": totals.distinct, "sum": totals.sum,
                       "job_seconds": result.net_runtime().as_secs_f64() }));
    if allocations::COUNTED {
        let (warm_words, warm) = (total("warm_words"), WARM.load(Relaxed));
        report.add(json!({ "variant": "allocations", "warm_words": warm_words }));
        report.report(&[("allocations_per_word", warm as f64 / warm_words as f64, "1")]);
    } else {
        report.report(&[("words_per_s", totals.words as f64 / seconds, "words/s"), ("seconds", seconds, "s")]);
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Totals {
    words: u64,
    distinct: u64,
    /// Of all running counts.
    sum: u64,
}

/// The answer, by a plain hash map.
fn count(input: &[PathBuf]) -> Result<Totals> {
    let mut counts = HashMap::<Vec<u8>, u64>::new();
    for file in input {
        for word in fs::read(file)?.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
            match counts.get_mut(word) {
                Some(count) => *count += 1,
                None => drop(counts.insert(word.to_vec(), 1)),
            }
        }
    }
    let sum = counts.values().map(|count| count * (count + 1) / 2).sum();
    Ok(Totals { words: counts.values().sum(), distinct: counts.len() as u64, sum })
}

/// Allocations between the end of the warm-up of one sink and the end of its input: of all threads, so those of the
/// slowest sink count.
static WARM: AtomicU64 = AtomicU64::new(0);

/// Adds all running counts up.
#[derive(Serialize, Deserialize)]
struct CheckSum {
    /// Words after which allocations are counted.
    warm_up: u64,
}

impl Sink for CheckSum {
    type In = (String, u64);
    type Writer = CheckSumWriter;

    fn writer(self, context: &mut RuntimeContext) -> Result<CheckSumWriter, Failure> {
        let totals = ["words", "distinct", "sum", "warm_words"].map(|name| context.accumulator(name));
        Ok(CheckSumWriter {
            warm_up: self.warm_up,
            words: 0,
            distinct: 0,
            sum: 0,
            warm_since: 0,
            last_flush: 0,
            totals,
        })
    }
}

struct CheckSumWriter {
    warm_up: u64,
    words: u64,
    distinct: u64,
    sum: u64,
    warm_since: u64,
    last_flush: u64,
    totals: [Counter; 4],
}

impl SinkWriter for CheckSumWriter {
    type In = (String, u64);

    #[inline]
    fn write(&mut self, (_, count): (&str, u64), _: EventTime) -> Result<(), Failure> {
        self.words += 1;
        self.distinct += u64::from(count == 1);
        self.sum = self.sum.wrapping_add(count);
        if allocations::COUNTED && self.words == self.warm_up {
            self.warm_since = allocations::so_far();
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        span::ended();
        self.last_flush = allocations::so_far();
        Ok(())
    }

    fn finish(&mut self, _: &mut TaskResult) -> Result<(), Failure> {
        let warm_words = self.words.saturating_sub(self.warm_up);
        if warm_words > 0 {
            WARM.fetch_max(self.last_flush - self.warm_since, Relaxed);
        }
        for (total, value) in self.totals.iter().zip([self.words, self.distinct, self.sum, warm_words]) {
            total.add(value as i64);
        }
        Ok(())
    }
}
