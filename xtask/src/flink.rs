//! The real Flink whose command line is tested against a JobManager: its Java distribution, from the Python registry,
//! in the cache folder. `tests/src/flink.rs` looks for it there.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::python;

const VERSION: &str = "2.3.0";

/// Installs it, unless it is there. Where it is.
///
/// # Errors
/// If it cannot be had.
pub fn install_missing(cache: &Path) -> Result<PathBuf> {
    let folder = cache.join(format!("flink-{VERSION}"));
    if folder.join("pyflink/bin/flink").is_file() {
        return Ok(folder.join("pyflink"));
    }
    // The scripts are in the one and the JARs in the other. What Python programs need besides is not installed.
    let packages = ["apache-flink", "apache-flink-libraries"].map(|package| format!("{package}=={VERSION}"));
    python::install(&folder, &packages, "apache-flink")
        .context("Flink is needed by the tests of the REST interface, and by benchmarks beside it")?;
    Ok(folder.join("pyflink"))
}
