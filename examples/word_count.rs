//! Counts the words of text files. A word is a maximal run of ASCII letters and digits, in lower case.
//!
//! ```text
//! cargo run --release -p millstream-examples --bin word_count -- --input README.md --input docs
//! ```
//!
//! | option | |
//! |---|---|
//! | `--input PATH` | a file, or a folder with everything below it; may be repeated |
//! | `--output DIR` | writes a line `word<TAB>count` each time a count changes: the highest one is the word's total |
//! | `--parallelism N` | subtasks of each operator; 2 without it |
//! | `-Dkey=value` | configuration, for example `-Dexecution.checkpointing.interval='10 s'` |
//!
//! ```text
//!  TextFileSource ─► sample times ─► flat_map ══by word══► count ─┬─► TopWords (top 10, latency)
//!    lines                            words                       └─► TextFileSink, with --output
//! ```
#![allow(clippy::disallowed_methods, reason = "a program that shows how long it takes looks at the clock")]

#[path = "word_count/latency.rs"]
mod latency;
#[path = "word_count/options.rs"]
mod options;
#[path = "word_count/progress.rs"]
mod progress;
#[path = "word_count/top_words.rs"]
mod top_words;

use std::{error::Error, process::ExitCode};

use millstream::{
    connectors::{InvalidUtf8, TextFileSink, TextFileSource},
    prelude::*,
};

use crate::{latency::LatencySummary, options::Options, progress::grouped, top_words::TopWords};

/// The number of words seen, added up over all subtasks of flat_map.
const WORDS: &str = "words";

// main() describes the job and waits for it. It does not run on the workers of a cluster: what operators need there
// comes to them as configuration or is opened there, never as a variable that a closure captures.
#[millstream::main]
fn main() -> ExitCode {
    let options = match Options::parse(millstream::args()) {
        Ok(options) => options,
        Err(wrong) => {
            eprintln!("{wrong}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("word count: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let mut env = StreamExecutionEnvironment::get();
    env.set_parallelism(options.parallelism);

    let counts = env
        // Lines that are not UTF-8 are read all the same, with U+FFFD for what is invalid: that ends a word.
        .from_source(TextFileSource::new(&options.inputs).invalid_utf8(InvalidUtf8::Replace))
        .name("read lines")
        // Every now and then a line gets the time at which the source emits it; its words carry it to the sink.
        .assign_timestamps_and_watermarks(WatermarkStrategy::for_monotonous_timestamps(), |_| latency::sample())
        .name("sample times")
        // The buffer is opened on the worker, once per subtask, so that there is no allocation per line or word.
        .rich_flat_map((), |(), context| Ok(Splitter::open(context)), |splitter, line, out| splitter.split(line, out))
        .name("split into words")
        // Equal words go to the same subtask, which keeps their count as its state and emits it whenever it changes.
        // The uid names that state in checkpoints, whatever else changes in this program.
        .key_by::<String, _>(|word| *word)
        .count()
        .name("count")
        .uid("count");

    counts.sink_to(TopWords).name("top words").uid("top-words");
    if let Some(folder) = &options.output {
        counts.sink_to(TextFileSink::tab_separated(folder)).name("write counts").uid("write-counts");
    }

    // Nothing has run so far. execute_async() starts the job and leaves us with a client for it.
    let job = env.execute_async("word count")?;
    progress::show_until_end(&job);
    let result = job.result()?;

    for (word, count) in top_words::of(result.accumulators()) {
        println!("{:>15}  {word}", grouped(count));
    }
    let words = result.accumulator(WORDS).unsigned_abs();
    let seconds = result.net_runtime().as_secs_f64();
    let per_second = grouped((words as f64 / seconds) as u64);
    println!("{} words in {seconds:.2} s: {per_second} words/s at parallelism {}", grouped(words), options.parallelism);
    println!("{}", LatencySummary::of(result.accumulators()));
    Ok(())
}

/// Cuts lines into words.
struct Splitter {
    /// The line in lower case.
    lowered: String,
    words: Counter,
}

impl Splitter {
    fn open(context: &mut RuntimeContext) -> Splitter {
        Splitter { lowered: String::new(), words: context.accumulator(WORDS) }
    }

    fn split(&mut self, line: &str, out: &mut Out<'_, String>) {
        self.lowered.clear();
        self.lowered.push_str(line);
        self.lowered.make_ascii_lowercase();
        let mut words = 0;
        for word in words_of(&self.lowered) {
            out.emit(word);
            words += 1;
        }
        self.words.add(words);
    }
}

fn words_of(line: &str) -> impl Iterator<Item = &str> {
    line.split(|character: char| !character.is_ascii_alphanumeric()).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::words_of;

    #[test]
    fn a_word_is_a_maximal_run_of_ascii_letters_and_digits() {
        let words = |line| words_of(line).collect::<Vec<_>>();
        assert_eq!(words("it's 2 o'clock, x86_64"), ["it", "s", "2", "o", "clock", "x86", "64"]);
        assert_eq!(words("na\u{ef}ve\u{fffd}end"), ["na", "ve", "end"]);
        assert_eq!(words(" -- \t"), [""; 0]);
    }
}
