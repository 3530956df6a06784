//! `cargo xtask demo`: the word count, over text that is already on the machine, on a cluster of real processes.

mod cluster;
mod text;

use std::{
    path::{Path, PathBuf, absolute},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use clap::Args;

use self::cluster::Cluster;
use crate::checkout::{Checkout, run as run_process};

const PARALLELISM: usize = 2;

#[derive(Args)]
pub struct Options {
    /// A file or a folder of text; may be repeated [default: documentation of the toolchain]
    #[arg(long, value_name = "PATH")]
    input: Vec<PathBuf>,
    /// Folder that the counts are written into, as lines of word, tab, count
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Subtasks of each operator
    #[arg(long, value_name = "N", default_value_t = PARALLELISM)]
    parallelism: usize,
    /// Run it in the program's own process (the MiniCluster), and start no cluster
    #[arg(long)]
    embedded: bool,
}

/// Builds the word count in release and runs it: on a JobManager and two TaskManagers that are there for the demo only, or
/// in its own process.
///
/// # Errors
/// If it cannot be built, there is no text, or the job fails.
pub fn run(checkout: &Checkout, options: &Options) -> Result<()> {
    build(checkout, "millstream-examples", "word_count")?;
    let word_count = checkout.release_binary("word_count");
    if options.embedded {
        return run_program(&mut with_arguments(Command::new(word_count), checkout, options)?);
    }
    build(checkout, "millstream-cli", "millstream")?;
    let cluster = Cluster::start(checkout, checkout.release_binary("millstream"), options.parallelism)?;
    run_program(&mut with_arguments(cluster.run(&word_count), checkout, options)?)
}

fn build(checkout: &Checkout, package: &str, program: &str) -> Result<()> {
    run_process(&mut checkout.workspace_cargo(["build", "--release", "--package", package, "--bin", program]))
}

/// Paths are made absolute: workers run elsewhere.
fn with_arguments(mut word_count: Command, checkout: &Checkout, options: &Options) -> Result<Command> {
    if options.input.is_empty() {
        let text = text::of_the_toolchain(checkout)?;
        eprintln!("reading {text}; name other text with --input PATH");
        for file in text.files {
            word_count.arg("--input").arg(file);
        }
    }
    let whole = |path: &Path| absolute(path).with_context(|| format!("{} is no path", path.display()));
    for path in &options.input {
        word_count.arg("--input").arg(whole(path)?);
    }
    if let Some(folder) = &options.output {
        word_count.arg("--output").arg(whole(folder)?);
    }
    word_count.arg("--parallelism").arg(options.parallelism.to_string());
    Ok(word_count)
}

/// Like `run_process`, without showing what may be a thousand arguments.
fn run_program(program: &mut Command) -> Result<()> {
    let status = program.status().context("the word count cannot start")?;
    ensure!(status.success(), "the word count failed: {status}");
    Ok(())
}
