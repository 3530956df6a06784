//! The project's own commands: `cargo xtask help` lists them.
//!
//! | look here for | file |
//! |---|---|
//! | where build output goes, how cargo is started | `checkout` |
//! | the word count that a newcomer runs first | `demo`, `demo/cluster`, `demo/text` |
//! | which tests run in which phase, and the time each may take | `phase`, `budget` |
//! | what `.ci/run` runs | `ci` |
//! | which tests of `unsafe` code run under Miri | `miri` |
//! | which programs a benchmark compares, and the table it prints | `bench` |
//! | what must hold of the source tree beyond what the compiler checks | `tidy` |
#![allow(clippy::disallowed_methods, reason = "a command-line program is a driver: it owns a clock")]

mod bench;
mod budget;
mod checkout;
mod ci;
mod collector;
mod demo;
mod flink;
mod miri;
mod phase;
mod python;
mod servers;
mod test;
mod tidy;
mod toolchain;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use checkout::Checkout;

/// Build, run, test, measure and check Millstream
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = CACHE_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const CACHE_HELP: &str = "\
Build output goes to the first of $MILLSTREAM_CACHE_DIR, $XDG_CACHE_HOME/millstream and \
$HOME/.cache/millstream. A CARGO_TARGET_DIR that is already set is kept.";

#[derive(Subcommand)]
enum Command {
    /// Count the words of real text with the streaming engine
    Demo(demo::Options),
    /// Run all tests, and show how long each phase took beside its budget
    Test(test::Options),
    /// Run the tests of modules with `unsafe` under Miri, which sees undefined behaviour
    Miri,
    /// Measure the engine beside its opponents
    Bench(bench::Options),
    /// Check what the compiler cannot: arrows between crates, documents, links, names
    Tidy,
    /// Everything that `.ci/run` does: format, lints, tidy, test
    Ci,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    let checkout = Checkout::find()?;
    match command {
        Command::Demo(options) => demo::run(&checkout, &options),
        Command::Test(options) => test::run(&checkout, &options),
        Command::Miri => miri::run(&checkout),
        Command::Bench(options) => bench::run(&checkout, &options),
        Command::Tidy => tidy::run(&checkout),
        Command::Ci => ci::run(&checkout),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn what_follows_the_tests_own_options_reaches_cargo() {
        let line = ["xtask", "test", "--nightly", "credit", "--", "--nocapture"];
        let arguments = Arguments::try_parse_from(line).expect("it is understood");
        let Command::Test(options) = arguments.command else { panic!("not a test") };
        assert!(options.nightly);
        assert_eq!(options.arguments, ["credit", "--", "--nocapture"]);
    }
}
