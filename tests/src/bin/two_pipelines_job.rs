//! The job of the worker process tests: two pipelines that share nothing, so that two workers without a network between
//! them can run it. Prints what it collected.
//!
//! With an argument, the first pipeline waits half-way until there is a file of that name, and writes the id of the process
//! that runs it to a file beside it, whose name ends in `.pid`.

#![allow(clippy::disallowed_methods, reason = "a test waits until the job is where it wants it")]

use std::{
    fs,
    io::{self, Write},
    path::Path,
    process, thread,
    time::Duration,
};

use millstream::prelude::*;

/// Prints without the end of a line, as user functions may: it must not get between the reports of a worker process.
fn loudly_doubled(gate: &str, number: u64) -> u64 {
    if number == 0 {
        print!("[{}]", process::id());
        let _ = io::stdout().flush();
    }
    if number == 500 && !gate.is_empty() {
        wait_at(gate).expect("the test's directory can be written to");
    }
    number * 2
}

fn wait_at(gate: &str) -> io::Result<()> {
    // Whoever reads the file finds a whole number in it.
    fs::write(format!("{gate}.new"), process::id().to_string())?;
    fs::rename(format!("{gate}.new"), format!("{gate}.pid"))?;
    while !Path::new(gate).exists() {
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

#[millstream::main]
fn main() -> Result<(), JobError> {
    let gate = millstream::args().next().unwrap_or_default();
    let env = StreamExecutionEnvironment::get();
    let numbers = env.from_collection(0..1_000_u64).slot_sharing_group("evens");
    let evens = numbers.map_with(gate, |gate, number| loudly_doubled(gate, number)).collect();
    let lines = env.from_collection((0..500).map(|number| format!("line {number}"))).slot_sharing_group("lengths");
    let lengths = lines.map(|line| line.len() as u64).collect();
    let result = env.execute("two pipelines")?;
    println!("{} {}", result.collected(&evens).len(), result.collected(&lengths).len());
    Ok(())
}
