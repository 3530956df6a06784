//! What the commands need besides a compiler: parts of the Rust toolchain, and programs that the tests run.

use std::process::Command;

use anyhow::Result;

use crate::checkout::{Checkout, run};

const COMPONENTS: [(&str, &str); 2] = [("rustfmt", "fmt"), ("clippy", "clippy")];

/// Programs that tests run, how to ask whether they are there, and the package that has them.
const PROGRAMS: [(&str, &str, &str); 4] = [
    ("ip", "-V", "iproute2"),
    ("javac", "-version", "openjdk-17-jdk-headless"),
    ("pip3", "--version", "python3-pip"),
    ("ssh", "-V", "openssh-client"),
];

/// Installs what is missing; asks nobody for what is there.
///
/// # Errors
/// If something is missing and cannot be added.
pub fn install_missing(checkout: &Checkout) -> Result<()> {
    for (component, subcommand) in COMPONENTS {
        let there = checkout.workspace_cargo([subcommand, "--version"]).output();
        if !there.is_ok_and(|output| output.status.success()) {
            run(Command::new("rustup").args(["component", "add", component]).current_dir(&checkout.root))?;
        }
    }
    for (program, question, package) in PROGRAMS {
        if Command::new(program).arg(question).output().is_err() {
            run(Command::new("apt-get").args(["install", "--yes", "--no-install-recommends", package]))?;
        }
    }
    Ok(())
}
