//! A real Prometheus, which `cargo xtask test` installs, on a port of its own.

use std::{
    fs,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use crate::{cache_folder, http::Http, wait_until};

/// The server. It is ended when this is dropped.
pub struct Prometheus {
    process: Child,
    http: Http,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    /// Starts one that asks these addresses for their numbers, five times a second.
    ///
    /// # Panics
    /// If it is not installed, or does not start.
    pub fn start(targets: &[String]) -> Prometheus {
        let program: PathBuf = cache_folder().join("prometheus/usr/bin/prometheus");
        let place = program.display();
        assert!(program.is_file(), "there is no {place}: `cargo xtask test` installs it there");
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let configuration = folder.path().join("prometheus.yml");
        let text = format!(
            "global: {{scrape_interval: 200ms}}\nscrape_configs:\n- job_name: millstream\n  static_configs:\n  \
             - targets: {targets:?}\n"
        );
        fs::write(&configuration, text).expect("there is room for a file");
        let port = free_port();
        let process = Command::new(&program)
            .arg(format!("--config.file={}", configuration.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.path().join("log")).expect("there is room for a file"))
            .spawn()
            .expect("it can be started");
        let mut server = Prometheus { process, http: Http(format!("127.0.0.1:{port}")), _folder: folder };
        wait_until("Prometheus to be ready", || {
            let ended = server.process.try_wait().expect("it is a child of this process");
            assert!(ended.is_none(), "Prometheus has ended: {ended:?}");
            std::net::TcpStream::connect(&server.http.0).is_ok() && server.http.get("/-/ready").status == 200
        });
        server
    }

    /// The values that a query has now, each with its labels.
    ///
    /// # Panics
    /// If it is no query.
    pub fn query(&self, query: &str) -> Vec<(Value, f64)> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = self.http.get(&format!("/api/v1/query?query={encoded}")).json();
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        let found = answer["data"]["result"].as_array().unwrap_or_else(|| panic!("{query}: {answer}"));
        let value = |sample: &Value| sample["value"][1].as_str().and_then(|text| text.parse().ok());
        let samples = found.iter().map(|sample| (sample["metric"].clone(), value(sample).expect("a number")));
        samples.collect()
    }

    /// The only value of a query; `None` if there is none.
    ///
    /// # Panics
    /// If there is more than one.
    pub fn value(&self, query: &str) -> Option<f64> {
        let values = self.query(query);
        assert!(values.len() <= 1, "{query}: {values:?}");
        values.first().map(|(_, value)| *value)
    }

    /// What was wrong with the last answers of those that it asks; empty for each that was right.
    pub fn errors(&self) -> Vec<String> {
        let answer = self.http.get("/api/v1/targets").json();
        let targets = answer["data"]["activeTargets"].as_array().cloned().unwrap_or_default();
        targets.iter().map(|target| target["lastError"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// One that nobody has now.
fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("there is a free port");
    listener.local_addr().expect("it is bound").port()
}
