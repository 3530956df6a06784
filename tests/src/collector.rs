//! A real collector of OpenTelemetry, which `cargo xtask test --nightly` builds. It prints what it is sent.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use crate::{cache_folder, standalone::free_ports};

const VERSION: &str = "0.125.0";

/// The collector. It is ended when this is dropped.
pub struct Collector {
    process: Child,
    folder: tempfile::TempDir,
    /// Where it takes OTLP over gRPC, and over HTTP.
    pub grpc: u16,
    pub http: u16,
}

impl Collector {
    /// # Panics
    /// If it was not built, or does not start.
    pub fn start() -> Collector {
        let program: PathBuf = cache_folder().join(format!("otelcol-{VERSION}"));
        let place = program.display();
        assert!(program.is_file(), "there is no {place}: `cargo xtask test --nightly` builds it there");
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let [grpc, http] = free_ports();
        let configuration = format!(
            "receivers: {{otlp: {{protocols: {{grpc: {{endpoint: 127.0.0.1:{grpc}}}, http: {{endpoint: 127.0.0.1:{http}}}}}}}}}\n\
             exporters: {{debug: {{verbosity: detailed}}}}\n\
             service:\n  telemetry: {{metrics: {{level: none}}}}\n  pipelines:\n    \
             metrics: {{receivers: [otlp], exporters: [debug]}}\n"
        );
        let path = folder.path().join("collector.yaml");
        fs::write(&path, configuration).expect("there is room for a file");
        let log = fs::File::create(folder.path().join("log")).expect("there is room for a file");
        let process = Command::new(program)
            .arg(format!("--config=file:{}", path.display()))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("it can be started");
        Collector { process, folder, grpc, http }
    }

    /// All that it has printed.
    pub fn printed(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
