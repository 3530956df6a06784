//! `cargo xtask demo`: the word count, over text that is already on the machine.

mod text;

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::checkout::{Checkout, run as run_process};

#[derive(Args)]
pub struct Options {
    /// A file or a folder of text; may be repeated [default: documentation of the toolchain]
    #[arg(long, value_name = "PATH")]
    input: Vec<PathBuf>,
    /// Folder that the counts are written into, as lines of word, tab, count
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Subtasks of each operator
    #[arg(long, value_name = "N")]
    parallelism: Option<usize>,
}

/// Builds the word count in release and runs it in the user's folder, so that relative paths mean
/// what they look like.
///
/// # Errors
/// If it cannot be built, there is no text, or the job fails.
pub fn run(checkout: &Checkout, options: &Options) -> Result<()> {
    run_process(&mut checkout.workspace_cargo([
        "build",
        "--release",
        "--package",
        "millstream-examples",
        "--bin",
        "word_count",
    ]))?;
    let mut word_count = Command::new(checkout.release_binary("word_count"));
    if options.input.is_empty() {
        let text = text::of_the_toolchain(checkout)?;
        eprintln!("reading {text}; name other text with --input PATH");
        for file in text.files {
            word_count.arg("--input").arg(file);
        }
    }
    for path in &options.input {
        word_count.arg("--input").arg(path);
    }
    if let Some(folder) = &options.output {
        word_count.arg("--output").arg(folder);
    }
    if let Some(parallelism) = options.parallelism {
        word_count.arg("--parallelism").arg(parallelism.to_string());
    }
    run_program(&mut word_count)
}

/// Like `run_process`, without showing what may be a thousand arguments.
fn run_program(program: &mut Command) -> Result<()> {
    let status = program.status().context("the word count cannot start")?;
    ensure!(status.success(), "the word count failed: {status}");
    Ok(())
}
