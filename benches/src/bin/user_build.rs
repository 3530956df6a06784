//! What a user waits for: the first build of a scaffolded job crate, and from an edit to its output, in the dev profile.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use millstream_benches::{
    machine::now_nanos,
    options::{self, Common, NoneOfItsOwn},
    report::Run,
};
use serde_json::json;

const BENCH: &str = "user-build";
const NAME: &str = "my-job";
/// What the edit adds, to be seen in the output.
const MARK: &str = "edited";

fn main() -> Result<()> {
    let (Common { repetitions, .. }, NoneOfItsOwn {}) = options::parse();
    for _ in 0..repetitions {
        measure()?;
    }
    Ok(())
}

fn measure() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let job = scaffold(folder.path())?;
    // Downloading is the network's time.
    succeed(&mut cargo(&job, &["fetch"]))?;
    let mut report = Run::start(BENCH, json!({ "profile": "dev" }));

    let started = now_nanos();
    succeed(&mut cargo(&job, &["build"]))?;
    let cold = since(started);

    let program = job.join("src/main.rs");
    let text = fs::read_to_string(&program)?;
    let edited = text.replacen("out.emit(word)", &format!("out.emit(&*format!(\"{MARK} {{word}}\"))"), 1);
    ensure!(edited != text, "the scaffolded program has no `out.emit(word)` to edit");
    fs::write(&program, edited)?;
    let started = now_nanos();
    run_until(&mut cargo(&job, &["run"]), MARK)?;
    let edit = since(started);

    let tree = cargo(&job, &["tree", "--prefix", "none", "--edges", "normal,build", "--format", "{p}"]).output()?;
    let tree = String::from_utf8(tree.stdout)?;
    let mut packages: Vec<&str> = tree.lines().map(|line| line.trim_end_matches(" (*)")).collect();
    packages.sort_unstable();
    packages.dedup();
    let (dependencies, own) =
        (packages.len() - 1, packages.iter().filter(|package| package.contains("millstream")).count());
    let size = fs::metadata(job.join("target/debug").join(NAME))?.len();
    report.add(json!({ "engine_packages": own }));
    report.report(&[
        ("cold_s", cold, "s"),
        ("edit_s", edit, "s"),
        ("dependencies", dependencies as f64, "packages"),
        ("artifact_bytes", size as f64, "bytes"),
    ]);
    Ok(())
}

/// Has `millstream new` write the crate; gives it the versions that the engine was tested with, and its compiler.
fn scaffold(folder: &Path) -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the checkout")?;
    let mut new = Command::new(cargo_program());
    new.args(["run", "--quiet", "--package", "millstream-cli", "--manifest-path"]).arg(root.join("Cargo.toml"));
    new.args(["--", "new", NAME, "--path-dependency"]).arg(root).current_dir(folder);
    succeed(&mut new)?;
    let job = folder.join(NAME);
    for file in ["Cargo.lock", "rust-toolchain.toml"] {
        if root.join(file).exists() {
            fs::copy(root.join(file), job.join(file))?;
        }
    }
    Ok(job)
}

fn cargo_program() -> PathBuf {
    std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

/// Cargo as a user has it: with the crate's own target directory.
fn cargo(job: &Path, arguments: &[&str]) -> Command {
    let mut cargo = Command::new(cargo_program());
    cargo.args(arguments).current_dir(job).stdin(Stdio::null());
    for variable in ["CARGO_TARGET_DIR", "CARGO_BUILD_TARGET_DIR", "RUSTC_WRAPPER", "RUSTFLAGS"] {
        cargo.env_remove(variable);
    }
    cargo
}

fn succeed(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Runs until a line of the output contains `mark`, then to the end.
fn run_until(command: &mut Command, mark: &str) -> Result<()> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let output = child.stdout.take().context("it is piped")?;
    let seen = BufReader::new(output).lines().map_while(Result::ok).any(|line| line.contains(mark));
    let output = child.wait_with_output()?;
    ensure!(seen, "{command:?} did not print {mark:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn since(started: u64) -> f64 {
    (now_nanos() - started) as f64 / 1e9
}
