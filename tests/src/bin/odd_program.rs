//! A program whose main() does not do what one that is run on a cluster is expected to do. Arguments: what it does
//! instead, and a file for the id of its process.

#![allow(clippy::disallowed_methods, reason = "a test waits until the program is ended from outside")]

use std::{fs, process, thread, time::Duration};

use millstream::prelude::*;

fn execute() -> Result<JobClient, JobError> {
    let env = StreamExecutionEnvironment::get();
    env.from_collection([1_u64, 2, 3]).discard();
    env.execute_async("odd")
}

#[millstream::main]
fn main() -> Result<(), JobError> {
    let arguments: Vec<String> = millstream::args().collect();
    let what = arguments.first().map(String::as_str).unwrap_or_default();
    match what {
        "panics" => panic!("it was told to panic"),
        "exits" => {
            eprintln!("it was told to exit");
            process::exit(3)
        }
        "executes-nothing" => return Ok(()),
        "executes" => drop(execute()?),
        "executes-twice" => {
            execute()?;
            let second = execute();
            fs::write(&arguments[1], format!("{:?}", second.map(drop))).expect("the test's folder can be written to");
        }
        _ => {}
    }
    if what == "goes-on" {
        execute()?;
    }
    if matches!(what, "goes-on" | "hangs") {
        if let Some(file) = arguments.get(1) {
            fs::write(file, process::id().to_string()).expect("the test's folder can be written to");
        }
        loop {
            thread::sleep(Duration::from_secs(60));
        }
    }
    Ok(())
}
