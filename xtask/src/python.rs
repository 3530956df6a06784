//! Packages from the Python registry, each set in a folder of its own in the cache.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};

use crate::checkout::run;

/// What a client in Python needs that is made from `client/proto`, with everything that these need. `tests/src/python.rs`
/// looks for them.
const OF_CLIENT: [&str; 7] = [
    "grpcio==1.85.1",
    "grpcio-tools==1.85.1",
    "grpcio-reflection==1.85.1",
    "grpcio-health-checking==1.85.1",
    "protobuf==7.36.2",
    "setuptools==84.2.1",
    "typing_extensions==4.16.0",
];

/// Installs what a client in Python needs, unless it is there and this Python can use it.
///
/// # Errors
/// If it cannot be had.
pub fn install_client_packages(cache: &Path) -> Result<()> {
    let folder = cache.join("python-grpc-1.85.1");
    let imports = "import grpc, grpc_tools.protoc, grpc_reflection, grpc_health";
    // They have parts that are for one version of Python. Of what is not there only the answer matters.
    let usable = Command::new("python3").args(["-c", imports]).env("PYTHONPATH", &folder).output();
    if usable.is_ok_and(|output| output.status.success()) {
        return Ok(());
    }
    install(&folder, &OF_CLIENT, ":all:").context("a client in Python is a test of the gRPC interface")
}

/// Makes `folder`, with these packages and nothing that they depend on; no code of those in `only_binary` is run.
///
/// # Errors
/// If they cannot be had.
pub fn install(folder: &Path, packages: &[impl AsRef<str>], only_binary: &str) -> Result<()> {
    // What is cut off half-way has another name.
    let unfinished = folder.with_added_extension(format!("unfinished-{}", std::process::id()));
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]);
    pip.args(["--only-binary", only_binary, "--target"]).arg(&unfinished);
    let installed = run(pip.args(packages.iter().map(AsRef::as_ref)));
    let moved = installed.and_then(|()| {
        // Of another Python, or of a cut-off installation by an older version of this.
        let _ = fs::remove_dir_all(folder);
        fs::rename(&unfinished, folder).with_context(|| format!("{} cannot be made", folder.display()))
    });
    if moved.is_err() {
        let _ = fs::remove_dir_all(&unfinished);
    }
    moved
}
