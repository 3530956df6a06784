//! The job of the log tests: each of its records is logged and some are printed. Arguments: a name that is in all of it, how
//! many records there are and how many a second, and what happens at the fifth: `nothing`, or the worker ends by `abort`,
//! by `exit`, by `kill` or by `fault`, an access to memory that is not there. `flood` prints a kilobyte for each record instead.

use std::{
    process,
    sync::atomic::{AtomicPtr, Ordering},
};

use millstream::{connectors::GeneratorSource, prelude::*};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

static NOWHERE: AtomicPtr<u64> = AtomicPtr::new(std::ptr::without_provenance_mut(8));

fn talk(name: &str, ending: &str, number: u64) -> u64 {
    if ending == "flood" {
        println!("{name} {number:01000}");
        return number;
    }
    tracing::info!(name, number, "a record is here");
    tracing::debug!(name, number, "a closer look");
    if number.is_multiple_of(5) {
        println!("{name} prints {number}");
        eprintln!("{name} complains about {number}");
    }
    if number == 5 && ending != "nothing" {
        tracing::error!(name, "this is the end");
        eprintln!("last words of {name}");
        match ending {
            "abort" => process::abort(),
            "exit" => process::exit(7),
            "kill" => {
                let killed = kill(Pid::this(), Signal::SIGKILL);
                process::exit(if killed.is_ok() { 8 } else { 9 })
            }
            _ => {
                // SAFETY: it is not: this ends the process, which is what it is for.
                unsafe { NOWHERE.load(Ordering::Relaxed).write_volatile(1) }
            }
        }
    }
    number
}

#[millstream::main]
fn main() -> Result<(), JobError> {
    let arguments: Vec<String> = millstream::args().collect();
    let [name, count, per_second, ending] = &arguments[..] else {
        eprintln!("usage: talking_job NAME COUNT PER-SECOND nothing|abort|exit|kill|fault|flood");
        process::exit(2);
    };
    let number = |text: &str| text.parse::<u64>().unwrap_or_else(|_| panic!("'{text}' is no number"));
    let ticks = GeneratorSource::new(Some(number(count)), |index| index).rate(number(per_second) as f64);
    let env = StreamExecutionEnvironment::get();
    let ticks = env.from_source(ticks).name("ticks").set_parallelism(1);
    let configured = (name.clone(), ending.clone());
    let talked = ticks.map_with(configured, |(name, ending), number| talk(name, ending, number)).name("talk");
    talked.set_parallelism(2).discard();
    env.execute(name)?;
    Ok(())
}
