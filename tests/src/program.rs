//! Programs of the workspace, as their own processes.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

/// Cargo, as it runs this test: what it has built need not be built again.
///
/// A test's environment describes the test's package. Build scripts that watch that (`ring` has one) would run anew for
/// cargo in a test, and once more for the next `cargo test`, and everything that depends on them would be built each time.
pub fn cargo() -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    for (name, _) in env::vars_os() {
        let of_package = |prefix| name.to_string_lossy().starts_with(prefix);
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].into_iter().any(of_package) {
            cargo.env_remove(&name);
        }
    }
    cargo
}

/// The executable of a program of another package, built in the profile of the tests. For programs of this package there
/// is `env!("CARGO_BIN_EXE_…")`.
///
/// # Panics
/// If it cannot be built.
pub fn built(name: &str) -> PathBuf {
    // Of the whole workspace: so cargo takes the features that `cargo test --workspace` has built everything with.
    let output = cargo()
        .args(["build", "--quiet", "--workspace", "--message-format=json", "--bin", name])
        .current_dir(workspace())
        .output()
        .expect("cargo runs this test, so it can be run");
    let messages = text(&output.stdout);
    assert!(output.status.success(), "{name} cannot be built:\n{messages}\n{}", text(&output.stderr));
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut of_target = messages.filter(|message| message["target"]["name"] == name);
    let executable = of_target.find_map(|message| message["executable"].as_str().map(PathBuf::from));
    executable.unwrap_or_else(|| panic!("cargo names no executable for {name}"))
}

/// The root of the checkout.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package lies in the checkout")
}

/// Runs a program to its end and returns what it wrote to standard output.
///
/// # Panics
/// If it fails.
pub fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|cause| panic!("{command:?} cannot start: {cause}"));
    assert!(output.status.success(), "{command:?} failed ({}):\n{}", output.status, both(&output));
    text(&output.stdout)
}

/// Runs a program to its end and returns its exit code with what it wrote to standard error.
///
/// # Panics
/// If it succeeds, or is ended by a signal.
pub fn fail(command: &mut Command) -> (i32, String) {
    let output = command.output().unwrap_or_else(|cause| panic!("{command:?} cannot start: {cause}"));
    match output.status.code() {
        Some(code) if code != 0 => (code, text(&output.stderr)),
        _ => panic!("{command:?} should have failed ({}):\n{}", output.status, both(&output)),
    }
}

fn both(output: &Output) -> String {
    format!("{}\n{}", text(&output.stdout), text(&output.stderr))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
