//! A collector of OpenTelemetry for the long tests, built with Go by the project's own builder, in the cache folder.
//! `tests/src/collector.rs` looks for it there.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};

use crate::checkout::run;

const VERSION: &str = "0.125.0";

/// What is in it: it takes what is sent by OTLP, and prints it.
const MANIFEST: &str = "\
dist: {name: otelcol, output_path: ./dist}
receivers:
  - gomod: go.opentelemetry.io/collector/receiver/otlpreceiver v0.125.0
exporters:
  - gomod: go.opentelemetry.io/collector/exporter/debugexporter v0.125.0
providers:
  - gomod: go.opentelemetry.io/collector/confmap/provider/fileprovider v1.31.0
  - gomod: go.opentelemetry.io/collector/confmap/provider/yamlprovider v1.31.0
  - gomod: go.opentelemetry.io/collector/confmap/provider/envprovider v1.31.0
";

/// Builds it, unless it is there. Takes minutes.
///
/// # Errors
/// If there is no Go, or it cannot be built.
pub fn build_missing(cache: &Path) -> Result<()> {
    let program = cache.join(format!("otelcol-{VERSION}"));
    if program.is_file() {
        return Ok(());
    }
    let folder = cache.join(format!("otelcol.unfinished-{}", std::process::id()));
    let built = build(&folder, &program);
    let _ = fs::remove_dir_all(&folder);
    built.context("a collector of OpenTelemetry is needed by a long test of metrics, and Go to build it")
}

fn build(folder: &Path, program: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    fs::write(folder.join("manifest.yaml"), MANIFEST)?;
    let builder = format!("go.opentelemetry.io/collector/cmd/builder@v{VERSION}");
    run(Command::new("go").args(["install", &builder]).env("GOBIN", folder).env("GOFLAGS", "-mod=mod"))?;
    run(Command::new(folder.join("builder")).args(["--config", "manifest.yaml"]).current_dir(folder))?;
    fs::rename(folder.join("dist/otelcol"), program).with_context(|| format!("{} cannot be made", program.display()))
}
