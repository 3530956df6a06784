//! `cargo xtask test`: all tests, phase by phase.

use anyhow::Result;
use clap::Args;

use crate::{
    budget::{Share, Steps},
    checkout::{Checkout, run as run_process},
    collector, flink,
    phase::{self, Phase},
    python, servers, toolchain,
};

/// Options that choose packages or targets: with one of them the phases would not fit.
const CHOOSING: [&str; 12] = [
    "-p",
    "--package",
    "--exclude",
    "--lib",
    "--bin",
    "--bins",
    "--test",
    "--tests",
    "--example",
    "--examples",
    "--doc",
    "--all-targets",
];

#[derive(Args)]
pub struct Options {
    /// Run the long tests too: those marked `#[ignore]`
    #[arg(long)]
    pub nightly: bool,
    /// Passed on to `cargo test`: a part of test names, `-p PACKAGE`, `-- --nocapture`, …
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<String>,
}

/// Runs the tests and prints the time of each phase beside its budget.
///
/// # Errors
/// If a test failed or could not be built.
pub fn run(checkout: &Checkout, options: &Options) -> Result<()> {
    if let Err(error) = toolchain::install_missing(checkout) {
        eprintln!("only `cargo xtask ci` will miss it: {error:#}");
    }
    let mut steps = Steps::default();
    if chooses(&options.arguments) {
        steps.run(Share::UnitAndSimulation, "the chosen tests", || {
            let arguments = with_long_tests(&options.arguments, options.nightly);
            run_process(checkout.workspace_cargo(["test"]).args(arguments))
        });
    } else {
        run_phases(checkout, options, &mut steps)?;
    }
    steps.conclude()
}

/// Runs every phase, so that one run shows all that is broken; stops only where nothing builds.
pub fn run_phases(checkout: &Checkout, options: &Options, steps: &mut Steps) -> Result<()> {
    for phase in phase::phases(&phase::test_targets(&checkout.metadata()?)) {
        if phase.share == Share::RealComponents {
            steps.run(phase.share, "what the tests run", || {
                flink::install_missing(&checkout.cache).map(drop)?;
                python::install_client_packages(&checkout.cache)?;
                servers::install_missing(&checkout.cache)?;
                if options.nightly { collector::build_missing(&checkout.cache) } else { Ok(()) }
            });
        }
        let went_well = steps.run(phase.share, phase.name, || {
            let arguments = arguments(&phase, options);
            run_process(checkout.workspace_cargo(["test"]).args(arguments))
        });
        if !went_well && phase.share == Share::Build {
            break;
        }
    }
    Ok(())
}

fn arguments(phase: &Phase, options: &Options) -> Vec<String> {
    let mut all = phase.arguments.clone();
    if phase.share == Share::Build {
        // What follows `--` is for the test programs, and none of them runs.
        all.extend(options.arguments.iter().take_while(|argument| *argument != "--").cloned());
        return all;
    }
    all.push("--no-fail-fast".to_owned());
    all.extend(with_long_tests(&options.arguments, options.nightly && phase.has_long_tests));
    all
}

fn with_long_tests(arguments: &[String], long: bool) -> Vec<String> {
    let mut all = arguments.to_vec();
    if long {
        if !all.iter().any(|argument| argument == "--") {
            all.push("--".to_owned());
        }
        all.push("--include-ignored".to_owned());
    }
    all
}

fn chooses(arguments: &[String]) -> bool {
    arguments.iter().take_while(|argument| *argument != "--").any(|argument| {
        let name = argument.split('=').next().unwrap_or(argument);
        CHOOSING.contains(&name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn phase_arguments(share: Share, doc: bool, options: &str, nightly: bool) -> String {
        let phase = Phase { name: "any", share, arguments: words("--workspace"), has_long_tests: !doc };
        arguments(&phase, &Options { nightly, arguments: words(options) }).join(" ")
    }

    #[test]
    fn a_choice_of_package_replaces_the_phases() {
        assert!(chooses(&words("-p millstream-shuffle credit")));
        assert!(chooses(&words("--package=millstream-shuffle")));
        assert!(!chooses(&words("credit -- --test-threads=1")));
        assert!(!chooses(&words("credit -- --exclude")));
    }

    #[test]
    fn options_of_test_programs_do_not_reach_the_build() {
        assert_eq!(phase_arguments(Share::Build, false, "credit -- --nocapture", false), "--workspace credit");
        assert_eq!(
            phase_arguments(Share::Chaos, false, "credit -- --nocapture", false),
            "--workspace --no-fail-fast credit -- --nocapture"
        );
    }

    #[test]
    fn nightly_runs_long_tests_but_no_ignored_docs() {
        assert_eq!(phase_arguments(Share::Chaos, false, "", true), "--workspace --no-fail-fast -- --include-ignored");
        assert_eq!(
            phase_arguments(Share::Chaos, false, "-- --nocapture", true),
            "--workspace --no-fail-fast -- --nocapture --include-ignored"
        );
        assert_eq!(phase_arguments(Share::UnitAndSimulation, true, "", true), "--workspace --no-fail-fast");
    }
}
