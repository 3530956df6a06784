//! The real Flink whose command line is tested against a JobManager: its Java distribution, from the Python registry,
//! in the cache folder. `tests/src/flink.rs` looks for it there.

use std::{fs, process::Command};

use anyhow::{Context, Result};

use crate::checkout::{Checkout, run};

const VERSION: &str = "2.3.0";

/// Installs it, unless it is there.
///
/// # Errors
/// If it cannot be had.
pub fn install_missing(checkout: &Checkout) -> Result<()> {
    let folder = checkout.cache.join(format!("flink-{VERSION}"));
    if folder.join("pyflink/bin/flink").is_file() {
        return Ok(());
    }
    // What is cut off half-way has another name.
    let unfinished = checkout.cache.join(format!("flink-{VERSION}.unfinished-{}", std::process::id()));
    // The scripts are in the one and the JARs in the other. What Python programs need besides is not installed.
    let packages = ["apache-flink", "apache-flink-libraries"].map(|package| format!("{package}=={VERSION}"));
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]);
    let installed = run(pip.args(["--only-binary", "apache-flink", "--target"]).arg(&unfinished).args(packages));
    let moved = installed.and_then(|()| {
        // Of a cut-off installation by an older version of this.
        let _ = fs::remove_dir_all(&folder);
        fs::rename(&unfinished, &folder).with_context(|| format!("{} cannot be made", folder.display()))
    });
    if moved.is_err() {
        let _ = fs::remove_dir_all(&unfinished);
    }
    moved.context("Flink's client is needed by the tests of the REST interface")
}
