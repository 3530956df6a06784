//! `cargo xtask miri`: the tests of the modules with `unsafe`, run by an interpreter that sees undefined behaviour.
//!
//! What each module is covered by, and which of them Miri cannot run, is in CONTRIBUTING.md.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, bail};

use crate::checkout::{Checkout, output, run as run_process};

/// Aliasing as Tree Borrows has it: an archive is read through relative pointers, which leave the reference to its root
/// backwards. Stacked Borrows refuses that, in rkyv itself.
const ALIASING: &str = "-Zmiri-tree-borrows";
/// No pointer is made of a number.
const STRICT: &str = "-Zmiri-strict-provenance";
/// Pointers to functions are: a job graph holds offsets.
const EXPOSED: &str = "-Zmiri-permissive-provenance";
/// The clock and the environment of the machine, for tests that ask for them.
const OPEN: &str = "-Zmiri-disable-isolation";

/// Tests of one package that run together.
struct Part {
    about: &'static str,
    package: &'static str,
    flags: &'static [&'static str],
    /// What follows `cargo miri test -p PACKAGE`: the target, and parts of the names of tests.
    tests: &'static [&'static str],
}

const PARTS: &[Part] = &[
    Part {
        about: "records, their handles and frames; keyed state",
        package: "millstream-api",
        flags: &[STRICT],
        tests: &["--lib", "--", "record::", "frame::", "state::"],
    },
    Part {
        about: "records that are derived",
        package: "millstream-api",
        flags: &[STRICT],
        tests: &["--test", "record"],
    },
    Part {
        about: "functions in job graphs, and closures made of their types",
        package: "millstream-api",
        flags: &[EXPOSED],
        tests: &["--lib", "--", "factory::", "plan::", "conjure::"],
    },
    Part {
        about: "segments, and the channels over them",
        package: "millstream-shuffle",
        flags: &[STRICT],
        // What is left out takes minutes, for the same accesses as the tests beside it.
        tests: &["--lib", "--", "segment::", "channel::", "--skip", "senders_without_a_floor"],
    },
    Part {
        about: "blocks of text, and sources built from a job graph",
        package: "millstream-connectors",
        flags: &[EXPOSED, OPEN],
        tests: &["--lib", "--", "text_block::", "generator::"],
    },
];

/// Runs all of them, so that one run shows all that is wrong.
///
/// # Errors
/// If Miri cannot be had, or has found something.
pub fn run(checkout: &Checkout) -> Result<()> {
    install_missing(checkout)?;
    let mut failed = Vec::new();
    for part in PARTS {
        eprintln!("── {}", part.about);
        if let Err(error) = run_process(&mut command(checkout, part)) {
            eprintln!("error: {error:#}");
            failed.push(part.about);
        }
    }
    if !failed.is_empty() {
        bail!("failed under Miri: {}", failed.join("; "));
    }
    Ok(())
}

fn command(checkout: &Checkout, part: &Part) -> Command {
    let mut cargo = nightly_cargo(checkout);
    // Everything has to be built anew for the interpreter.
    cargo.env("CARGO_TARGET_DIR", checkout.target.join("miri"));
    cargo.env("MIRIFLAGS", [&[ALIASING], part.flags].concat().join(" "));
    cargo.args(["miri", "test", "--locked", "-p", part.package]).args(part.tests);
    cargo
}

/// Cargo of the nightly toolchain. The cargo that runs xtask is another toolchain's, so rustup is asked for it.
fn nightly_cargo(checkout: &Checkout) -> Command {
    let mut cargo = Command::new("rustup");
    for name in ["RUSTC", "RUSTDOC", "CARGO", "RUSTUP_TOOLCHAIN", "RUSTFLAGS"] {
        cargo.env_remove(name);
    }
    cargo.current_dir(&checkout.root).args(["run", "nightly", "cargo"]);
    cargo
}

fn install_missing(checkout: &Checkout) -> Result<()> {
    let answers = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    if !answers(nightly_cargo(checkout).arg("--version")) {
        run_process(Command::new("rustup").args(["toolchain", "install", "nightly", "--profile", "minimal"]))
            .context("Miri is part of the nightly toolchain, which is not installed and cannot be")?;
    }
    if !answers(nightly_cargo(checkout).args(["miri", "--version"])) || !has_sources(checkout)? {
        run_process(Command::new("rustup").args(["component", "add", "--toolchain", "nightly", "miri", "rust-src"]))
            .context(
                "not every nightly toolchain comes with Miri; `rustup update nightly` takes the newest, and \
                 https://rust-lang.github.io/rustup-components-history lists those that do",
            )?;
    }
    Ok(())
}

/// Whether the standard library can be built for the interpreter.
fn has_sources(checkout: &Checkout) -> Result<bool> {
    let mut rustc = Command::new("rustup");
    rustc.current_dir(&checkout.root).args(["run", "nightly", "rustc", "--print", "sysroot"]);
    Ok(Path::new(output(&mut rustc)?.trim()).join("lib/rustlib/src/rust/library").exists())
}
