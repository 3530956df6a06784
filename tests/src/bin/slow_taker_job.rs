//! The job of the backpressure tests: two pipelines that share nothing but the way between their workers. One is as fast
//! as its taker, which is slow or blocks until there is a certain file; the other one has a rate. Both keep the numbers of
//! what they have taken, in order. Arguments: that file, and how the taker is (`slow` or `blocked`).
//!
//! All sources need one set of slots and all takers another one. `it/chaos_backpressure.rs` repeats these numbers.

use std::{path::Path, thread, time::Duration};

use millstream::{connectors::GeneratorSource, prelude::*};

/// Texts of the pipeline with the slow taker.
const SLOW: u64 = 100_000;
/// Texts of the other one, a second and all in all; their numbers begin at `FIRST_STEADY`.
const RATE: f64 = 5_000.0;
const STEADY: u64 = 20_000;
const FIRST_STEADY: u64 = 1_000_000;
/// Between two texts, for a slow taker.
const PAUSE: Duration = Duration::from_millis(5);
/// The text at which a taker is blocked.
const BLOCKED_AT: u64 = 100;

fn number(text: &str) -> u64 {
    text.trim_start_matches('x').parse().expect("a text ends with its number")
}

#[expect(clippy::disallowed_methods, reason = "a job that is slow on purpose")]
fn take(gate: &str, manner: &str, text: &str) -> u64 {
    let number = number(text);
    let is_closed = || !Path::new(gate).exists();
    if manner == "slow" && number % 8 < 2 && is_closed() {
        thread::sleep(4 * PAUSE);
    }
    while manner == "blocked" && number / 2 == BLOCKED_AT / 2 && is_closed() {
        thread::sleep(PAUSE);
    }
    number
}

#[millstream::main]
fn main() -> Result<(), JobError> {
    let arguments: Vec<String> = millstream::args().collect();
    let [gate, manner] = &arguments[..] else {
        eprintln!("usage: slow_taker_job FILE slow|blocked");
        std::process::exit(2);
    };
    let env = StreamExecutionEnvironment::get();
    let slow = env.from_source(GeneratorSource::new(Some(SLOW), |index| format!("{index:x>1000}")));
    let slow = slow.name("slow source").slot_sharing_group("slow sources");
    let steady = GeneratorSource::new(Some(STEADY), |index| format!("{:x>1000}", FIRST_STEADY + index)).rate(RATE);
    let steady = env.from_source(steady).name("steady source").slot_sharing_group("steady sources");
    let how = (gate.clone(), manner.clone());
    let taken = slow.rebalance().map_with(how, |(gate, manner), text| take(gate, manner, text));
    let _ = taken.name("slow taker").slot_sharing_group("slow takers").collect();
    let taken = steady.rebalance().map(|text| take("", "steady", text));
    let _ = taken.name("steady taker").slot_sharing_group("steady takers").collect();
    env.execute("slow taker")?;
    Ok(())
}
