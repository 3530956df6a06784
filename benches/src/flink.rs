//! A real Flink as its users start it, for benchmarks of operations: its scripts, its command line and its REST interface.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{cluster::millis, machine::now_nanos};

const POLL: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(120);

/// A JobManager and TaskManagers. They are stopped when this is dropped.
pub struct FlinkCluster {
    home: PathBuf,
    folder: tempfile::TempDir,
    rest: u16,
    /// From the start of the first script until all slots were registered.
    pub start_ms: f64,
}

impl FlinkCluster {
    /// Starts one with default memory, from an installation of Flink, and waits for its slots.
    ///
    /// # Errors
    /// If it cannot be started, or its slots do not come.
    pub fn start(home: &Path, task_managers: u32, slots: u32) -> Result<FlinkCluster> {
        let folder = tempfile::tempdir()?;
        let ports = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
        let [rest, rpc] = [ports[0].local_addr()?.port(), ports[1].local_addr()?.port()];
        drop(ports);
        let conf = folder.path().join("conf");
        ["conf", "log", "pid"].iter().try_for_each(|name| fs::create_dir(folder.path().join(name)))?;
        for file in ["log4j.properties", "log4j-console.properties", "log4j-cli.properties", "logback.xml"] {
            // Those that this version has.
            let _ = fs::copy(home.join("conf").join(file), conf.join(file));
        }
        let text = format!(
            "jobmanager.rpc.address: localhost\njobmanager.rpc.port: {rpc}\njobmanager.bind-host: localhost\n\
             jobmanager.memory.process.size: 1600m\ntaskmanager.host: localhost\ntaskmanager.bind-host: localhost\n\
             taskmanager.memory.process.size: 1728m\ntaskmanager.numberOfTaskSlots: {slots}\nrest.address: localhost\n\
             rest.bind-address: localhost\nrest.port: {rest}\nrestart-strategy.type: fixed-delay\n\
             restart-strategy.fixed-delay.attempts: 10\nrestart-strategy.fixed-delay.delay: 0 ms\n\
             execution.checkpointing.interval: 10 s\nexecution.checkpointing.dir: file://{folder}/checkpoints\n\
             env.java.opts.all: {}\n",
            java_options(home)?,
            folder = folder.path().display()
        );
        fs::write(conf.join("config.yaml"), text)?;
        let mut cluster = FlinkCluster { home: home.to_owned(), folder, rest, start_ms: 0.0 };
        let start = now_nanos();
        cluster.script("jobmanager.sh", &["start"])?;
        (0..task_managers).try_for_each(|_| cluster.script("taskmanager.sh", &["start"]))?;
        let all = u64::from(task_managers * slots);
        cluster.wait_for("the slots", "/overview", |overview| overview["slots-total"].as_u64() == Some(all))?;
        cluster.start_ms = millis(start, now_nanos());
        Ok(cluster)
    }

    /// A JAR with a program whose class is `Job`.
    ///
    /// # Errors
    /// If it cannot be compiled.
    pub fn jar(&self, source: &Path) -> Result<PathBuf> {
        let (classes, jar) = (self.folder.path().join("classes"), self.folder.path().join("job.jar"));
        let class_path = format!("{}/*", self.home.join("lib").display());
        run(Command::new("javac").args(["-Xlint:none", "-cp", &class_path, "-d"]).arg(&classes).arg(source))?;
        run(Command::new("jar").args(["-cfe"]).arg(&jar).args(["Job", "-C"]).arg(&classes).arg("."))?;
        Ok(jar)
    }

    /// `flink`, as a user of this cluster calls it.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.process("flink");
        command.args(arguments);
        command
    }

    /// What REST answers.
    ///
    /// # Errors
    /// If it answers nothing, or no JSON.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.ask("GET", path)
    }

    /// Has a job end, and waits for it.
    ///
    /// # Errors
    /// If it does not.
    pub fn cancel(&self, job: &str) -> Result<()> {
        // It answers with nothing.
        let _ = self.ask("PATCH", &format!("/jobs/{job}?mode=cancel"));
        self.wait_for("the end of a job", &format!("/jobs/{job}/status"), |answer| answer["status"] == "CANCELED")
    }

    /// Waits until something is answered.
    ///
    /// # Errors
    /// If it is not.
    pub fn wait_for(&self, what: &str, path: &str, is_there: impl Fn(&Value) -> bool) -> Result<()> {
        let until = now_nanos() + PATIENCE.as_nanos() as u64;
        loop {
            let answer = self.get(path);
            if answer.as_ref().is_ok_and(&is_there) {
                return Ok(());
            }
            ensure!(now_nanos() < until, "{what}: it does not come: {answer:?}");
            thread::sleep(POLL);
        }
    }

    /// The processes of a kind, `standalonesession` or `taskexecutor`, by the scripts' own record.
    ///
    /// # Errors
    /// If there is none.
    pub fn processes(&self, kind: &str) -> Result<Vec<u32>> {
        let files = fs::read_dir(self.folder.path().join("pid"))?.flatten();
        let own = files.filter(|file| file.file_name().to_string_lossy().contains(kind));
        let text: String = own.map(|file| fs::read_to_string(file.path()).unwrap_or_default()).collect();
        text.split_whitespace().map(|id| Ok(id.parse()?)).collect()
    }

    fn ask(&self, method: &str, path: &str) -> Result<Value> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.rest))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        )?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let body = text.split_once("\r\n\r\n").context("no answer")?.1;
        Ok(serde_json::from_str(body)?)
    }

    fn script(&self, name: &str, arguments: &[&str]) -> Result<()> {
        // What it starts has its output still when it has ended, so nobody may wait for that.
        run(self.process(name).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()))
    }

    fn process(&self, name: &str) -> Command {
        let mut command = Command::new("bash");
        command
            .arg(self.home.join("bin").join(name))
            .env("FLINK_HOME", &self.home)
            .env("FLINK_CONF_DIR", self.folder.path().join("conf"))
            .env("FLINK_LOG_DIR", self.folder.path().join("log"))
            .env("FLINK_PID_DIR", self.folder.path().join("pid"));
        command
    }
}

/// What this version needs of Java, by the configuration that it comes with.
fn java_options(home: &Path) -> Result<String> {
    let path = home.join("conf/config.yaml");
    let text = fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    let options = text.lines().find_map(|line| line.trim_start().strip_prefix("all: "));
    Ok(options.unwrap_or_default().to_owned())
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?} cannot be started"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

impl Drop for FlinkCluster {
    fn drop(&mut self) {
        let _ = self.script("taskmanager.sh", &["stop-all"]);
        let _ = self.script("jobmanager.sh", &["stop-all"]);
    }
}
