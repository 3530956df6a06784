//! The job of the metrics test, whose numbers are known beforehand: all texts are as long as each other, every other one
//! is dropped where they are made, and the rest is taken slowly. `it/metrics.rs` repeats these numbers.

use std::{thread, time::Duration};

use millstream::{connectors::GeneratorSource, prelude::*};

/// Texts that are made, a tenth of a millisecond apart.
const TEXTS: u64 = 4_000;

#[millstream::main]
fn main() -> Result<(), JobError> {
    let env = StreamExecutionEnvironment::get();
    let texts = GeneratorSource::new(Some(TEXTS), |index| format!("{index:01000}")).rate(10_000.0);
    let texts = env.from_source(texts).set_parallelism(1);
    let half = texts.name("make").filter(|text| text.ends_with(['0', '2', '4', '6', '8'])).set_parallelism(1);
    let taken = half.key_by::<String, _>(|text| *text).count().name("take").map(|(text, count)| {
        // The 1000th text takes longer than any other.
        let millis = if text.trim_start_matches('0') == "1000" { 1_000 } else { 3 };
        #[expect(clippy::disallowed_methods, reason = "a job that is slow on purpose")]
        thread::sleep(Duration::from_millis(millis));
        count
    });
    taken.discard();
    env.execute("measured")?;
    Ok(())
}
