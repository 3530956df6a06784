//! A program with several executions, for the tests of application mode. Arguments: what it does, and a folder of the test.

#![allow(clippy::disallowed_methods, reason = "a test's job waits for the other one")]

use std::{fs, path::Path, thread, time::Duration};

use millstream::{connectors::TextFileSource, prelude::*};

/// A job that passes a file on the way, which it makes or waits for.
fn through_gate(name: &str, gate: &str, makes_it: bool) -> Result<JobClient, JobError> {
    let env = StreamExecutionEnvironment::get();
    let passed = env.from_collection([1_u64]).map_with((gate.to_owned(), makes_it), |(gate, makes_it), number| {
        if *makes_it {
            fs::write(gate, "").expect("the test's folder can be written to");
        }
        while !Path::new(gate).exists() {
            thread::sleep(Duration::from_millis(2));
        }
        number
    });
    passed.discard();
    env.execute_async(name)
}

fn endless(name: &str, folder: &str) -> Result<JobClient, JobError> {
    let env = StreamExecutionEnvironment::get();
    env.from_source(TextFileSource::new([folder]).monitor_continuously(Duration::from_millis(20))).discard();
    env.execute_async(name)
}

/// How many there are up to a number, counted by a job that is waited for.
fn counted(name: &str, numbers: u64) -> Result<u64, JobError> {
    let env = StreamExecutionEnvironment::get();
    let all = env.from_collection(0..numbers).collect();
    let result = env.execute(name)?;
    Ok(result.collected::<u64>(&all).len() as u64)
}

#[millstream::main]
fn main() -> Result<(), JobError> {
    let arguments: Vec<String> = millstream::args().collect();
    let [what, folder] = &arguments[..] else { panic!("usage: several_jobs WHAT FOLDER") };
    let told =
        |name: &str, text: String| fs::write(format!("{folder}/{name}"), text).expect("the folder can be written to");
    match what.as_str() {
        // Each waits for the one before, and needs its result.
        "one-after-the-other" => {
            let first = counted("first", 10)?;
            let second = counted("second", first * 2)?;
            told("counted", format!("{first} {second}"));
        }
        // The first ends when the second has come.
        "at-the-same-time" => {
            let gate = format!("{folder}/gate");
            let clients = [through_gate("waits", &gate, false)?, through_gate("opens", &gate, true)?];
            for client in clients {
                client.result()?;
            }
        }
        "endless" => {
            endless("one", folder)?;
            endless("other", folder)?;
        }
        "fails" => {
            let env = StreamExecutionEnvironment::get();
            env.from_collection([1_u64]).map(|_| -> u64 { panic!("a function that was told to fail") }).discard();
            env.execute("fails")?;
        }
        "nothing" => {}
        other => panic!("there is no {other}"),
    }
    Ok(())
}
