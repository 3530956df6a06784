//! The job of the worker process test: two pipelines that share nothing, so that two workers without a network between
//! them can run it. Prints what it collected when it is run directly.

use millstream::prelude::*;

/// Prints without the end of a line, as user functions may: it must not get between the reports of a worker process.
fn loudly_doubled(number: u64) -> u64 {
    if number.is_multiple_of(250) {
        print!("[{number}]");
        let _ = std::io::Write::flush(&mut std::io::stdout());
    }
    number * 2
}

#[millstream::main]
fn main() -> Result<(), JobError> {
    let env = StreamExecutionEnvironment::get();
    let evens = env.from_collection(0..1_000_u64).slot_sharing_group("evens").map(loudly_doubled).collect();
    let lines = env.from_collection((0..500).map(|number| format!("line {number}"))).slot_sharing_group("lengths");
    let lengths = lines.map(|line| line.len() as u64).collect();
    let result = env.execute("two pipelines")?;
    println!("{} {}", result.collected(&evens).len(), result.collected(&lengths).len());
    Ok(())
}
