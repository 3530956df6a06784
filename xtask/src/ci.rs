//! `cargo xtask ci`: exactly what `.ci/run` runs.

use anyhow::Result;

use crate::{
    budget::{Share, Steps},
    checkout::{Checkout, run as run_process},
    test, tidy, toolchain,
};

/// Runs all checks and all tests, and prints the time of each beside its budget.
///
/// # Errors
/// If anything failed; everything that can run has run by then.
pub fn run(checkout: &Checkout) -> Result<()> {
    toolchain::install_missing(checkout)?;
    let mut steps = Steps::default();
    let cargo = |arguments: &[&str]| run_process(&mut checkout.workspace_cargo(arguments));
    steps.run(Share::Build, "format", || {
        cargo(&["fmt", "--all", "--check"])?;
        cargo(&["fmt", "--all", "--check", "--manifest-path", "benches/baselines/Cargo.toml"])
    });
    steps.run(Share::Build, "lints", || cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]));
    steps.run(Share::Build, "tidy", || tidy::run(checkout));
    let options = test::Options { nightly: false, arguments: Vec::new() };
    let listed = test::run_phases(checkout, &options, &mut steps);
    steps.conclude().and(listed)
}
