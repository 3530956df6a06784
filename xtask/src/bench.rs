//! `cargo xtask bench NAME`: the engine and its opponents, in turn, on the same machine.
//!
//! Programs print one JSON object a line: `bench`, `engine`, `metric`, `value`, `unit`,
//! `conditions`. Repetitions are interleaved, engine first, so that what a machine does to one of
//! them over the minutes it does to all.

mod figure;
mod program;
mod table;

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::{
    checkout::{Checkout, run as run_process, shown},
    flink,
};
use figure::Figure;
use program::{BENCHMARKS, Benchmark, Opponents, Size};

#[derive(Args)]
pub struct Options {
    /// Which benchmark, or `all`; without it they are listed
    name: Option<String>,
    /// Print the programs' JSON, one object a line, instead of a table
    #[arg(long)]
    json: bool,
    /// Measure other engines too: Timely, Renoir, Flink
    #[arg(long)]
    peers: bool,
    /// A twentieth of the work, once: does it run?
    #[arg(long)]
    quick: bool,
    /// What is between two worker processes: `loopback`, `mtu1500` as pods see it, or `lossy`, which also loses one
    /// datagram of 1,000 and delays all by 1 ms
    #[arg(long, default_value = "loopback", value_parser = ["loopback", "mtu1500", "lossy"])]
    path: String,
}

/// Builds and runs the programs of a benchmark.
///
/// # Errors
/// If there is no such benchmark, or a program failed; then what the others measured is shown first.
pub fn run(checkout: &Checkout, options: &Options) -> Result<()> {
    let Some(name) = options.name.as_deref() else {
        print!("{}", program::list());
        return Ok(());
    };
    let chosen: Vec<_> = BENCHMARKS.iter().filter(|bench| name == "all" || bench.name == name).collect();
    ensure!(!chosen.is_empty(), "there is no benchmark {name:?}; these there are:\n{}", program::list());
    if options.path != "loopback" {
        let without: Vec<_> = chosen.iter().filter(|bench| !bench.has_paths()).map(|bench| bench.name).collect();
        ensure!(without.is_empty(), "there is no path in {}", without.join(", "));
    }
    let mut failed = Vec::new();
    for bench in chosen {
        let figures = measure(checkout, bench, options, &mut failed)?;
        if !options.json {
            println!("{}", table::table(&figures));
        }
    }
    ensure!(failed.is_empty(), "failed:\n  {}", failed.join("\n  "));
    Ok(())
}

fn measure(checkout: &Checkout, bench: &Benchmark, options: &Options, failed: &mut Vec<String>) -> Result<Vec<Figure>> {
    let size = if options.quick { Size::Quick } else { Size::Full };
    let opponents = if options.peers { Opponents::WithPeers } else { Opponents::Near };
    let engine = engine_program(checkout, bench)?;
    let mut baselines = PathBuf::new();
    if bench.has_opponents() {
        baselines = baselines_program(checkout)?;
    }
    let flink = bench.flink_program().filter(|_| options.peers);
    let flink = flink.map(|program| flink_program(checkout, program)).transpose()?;
    let mut text = Vec::new();
    if bench.needs_text() {
        text = prepare_text(checkout, &baselines, size)?;
    }
    let mut figures = Vec::new();
    for _ in 0..size.repetitions() {
        for line in bench.engine_lines(size, &options.path) {
            let mut program = Command::new(&engine);
            program.args(line);
            if bench.needs_command() {
                program.env("MILLSTREAM_BIN", checkout.release_binary("millstream"));
            }
            for file in &text {
                program.arg("--input").arg(file);
            }
            collect(&mut program, options.json, &mut figures, failed)?;
        }
        for line in bench.opponent_lines(size, opponents, &options.path) {
            let mut program = Command::new(&baselines);
            program.args(&line);
            // The yardstick reads no text.
            if bench.needs_text() && line.first().is_some_and(|bench| bench != "memcpy") {
                program.arg("--dir").arg(text_folder(checkout));
            }
            collect(&mut program, options.json, &mut figures, failed)?;
        }
        if let Some((program, home)) = &flink {
            let mut program = Command::new(program);
            program.args(["--json", "--home"]).arg(home).args((size == Size::Quick).then_some("--quick"));
            collect(&mut program, options.json, &mut figures, failed)?;
        }
    }
    Ok(figures)
}

fn engine_program(checkout: &Checkout, bench: &Benchmark) -> Result<PathBuf> {
    let program = bench.engine_program();
    if bench.needs_command() {
        run_process(&mut checkout.workspace_cargo([
            "build",
            "--release",
            "--package",
            "millstream-cli",
            "--bin",
            "millstream",
        ]))?;
    }
    run_process(
        checkout.workspace_cargo(["build", "--release", "--package", "millstream-benches", "--bin"]).arg(&program),
    )?;
    Ok(checkout.release_binary(&program))
}

/// A program that has Flink do the same, and the Flink.
fn flink_program(checkout: &Checkout, name: &str) -> Result<(PathBuf, PathBuf)> {
    let home = flink::install_missing(&checkout.cache)?;
    run_process(&mut checkout.workspace_cargo([
        "build",
        "--release",
        "--package",
        "millstream-benches",
        "--bin",
        name,
    ]))?;
    Ok((checkout.release_binary(name), home))
}

/// The opponents are a workspace of their own, built as their authors build them.
fn baselines_program(checkout: &Checkout) -> Result<PathBuf> {
    let target = checkout.cache.join("baselines-target");
    run_process(
        checkout
            .cargo()
            .args(["build", "--release"])
            .current_dir(checkout.root.join("benches/baselines"))
            .env("CARGO_TARGET_DIR", &target),
    )?;
    Ok(target.join("release/baselines"))
}

fn text_folder(checkout: &Checkout) -> PathBuf {
    checkout.cache.join("bench-text")
}

/// Has the opponents write the text that both sides read, unless it is there, and names its files.
fn prepare_text(checkout: &Checkout, baselines: &Path, size: Size) -> Result<Vec<PathBuf>> {
    let folder = text_folder(checkout);
    let bytes = size.text_bytes().to_string();
    run_process(
        Command::new(baselines).args(["word-count-local", "--write-only", "--bytes", &bytes, "--dir"]).arg(&folder),
    )?;
    let start = format!("words-{bytes}-");
    let mut files = Vec::new();
    for entry in folder.read_dir().context("the text's folder")? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(&start) && name.ends_with(".txt") {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        bail!("the opponents wrote no text of {bytes} bytes into {}", folder.display());
    }
    Ok(files)
}

/// Runs one program and takes its figures. A program that fails is noted and does not end the
/// comparison: the figures before it took minutes.
fn collect(program: &mut Command, json: bool, figures: &mut Vec<Figure>, failed: &mut Vec<String>) -> Result<()> {
    eprintln!("$ {}", shown(program));
    let mut child =
        program.stdout(Stdio::piped()).spawn().with_context(|| format!("{} cannot start", shown(program)))?;
    for line in BufReader::new(child.stdout.take().expect("it is piped")).lines() {
        let line = line?;
        match figure::parse(&line) {
            Ok(figure) => {
                if json {
                    println!("{line}");
                }
                figures.push(figure);
            }
            Err(error) => {
                eprintln!("{line}");
                // Programs may talk; a line that begins as a figure must be one.
                if line.starts_with('{') {
                    failed.push(format!("{}: {error}", shown(program)));
                }
            }
        }
    }
    let status = child.wait()?;
    if !status.success() {
        failed.push(format!("{}: {status}", shown(program)));
    }
    Ok(())
}
