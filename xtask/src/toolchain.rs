//! The parts of the Rust toolchain that the commands need.

use std::process::Command;

use anyhow::Result;

use crate::checkout::{Checkout, run};

const COMPONENTS: [(&str, &str); 2] = [("rustfmt", "fmt"), ("clippy", "clippy")];

/// Installs the components that are missing; asks nobody for those that are there.
///
/// # Errors
/// If one is missing and rustup cannot add it.
pub fn install_missing(checkout: &Checkout) -> Result<()> {
    for (component, subcommand) in COMPONENTS {
        let there = checkout.workspace_cargo([subcommand, "--version"]).output();
        if !there.is_ok_and(|output| output.status.success()) {
            run(Command::new("rustup").args(["component", "add", component]).current_dir(&checkout.root))?;
        }
    }
    Ok(())
}
