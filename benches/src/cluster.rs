//! A standalone cluster of real processes on this machine, as `bin/start-cluster.sh` starts it, and what it costs.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use millstream::model::{id::JobId, job_graph::JobGraph};
use millstream_client::{Client, proto::v1};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::machine::now_nanos;

// What the benchmark `operations` does with each engine's cluster.
pub const TASK_MANAGERS: u32 = 2;
pub const SLOTS: u32 = 2;
/// How long a cluster is left alone before its memory is looked at.
pub const SETTLING: Duration = Duration::from_secs(2);
/// Of the job that is to recover, and its records a second.
pub const KEYS: u64 = 1_000_000;
pub const RATE: f64 = 400_000.0;

/// Where `cargo xtask bench` says that the command is.
const COMMAND: &str = "MILLSTREAM_BIN";
const POLL: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(30);

/// A JobManager and TaskManagers. They are stopped when this is dropped.
pub struct Cluster {
    folder: tempfile::TempDir,
    command: PathBuf,
    runtime: Runtime,
    client: Client,
    /// From the start of the script until all slots were registered.
    pub start_ms: f64,
}

impl Cluster {
    /// Starts one and waits for its slots.
    ///
    /// # Errors
    /// If it cannot be started, or its slots do not come.
    pub fn start(task_managers: u32, slots: u32) -> Result<Cluster> {
        let command = std::env::var_os(COMMAND).map(PathBuf::from);
        let command = command.with_context(|| format!("{COMMAND} must name the command `millstream`"))?;
        let folder = tempfile::tempdir()?;
        // Both are held until both are known.
        let ports = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
        let [rest, rpc] = [ports[0].local_addr()?.port(), ports[1].local_addr()?.port()];
        drop(ports);
        fs::create_dir(folder.path().join("conf"))?;
        let text = format!(
            "jobmanager.rpc.port: {rpc}\nrest.address: localhost\nrest.port: {rest}\n\
             taskmanager.numberOfTaskSlots: {slots}\nio.tmp.dirs: {folder}\n\
             execution.checkpointing.dir: {folder}/checkpoints\n",
            folder = folder.path().display()
        );
        fs::write(folder.path().join("conf/config.yaml"), text)?;
        fs::write(folder.path().join("conf/workers"), "localhost\n".repeat(task_managers as usize))?;

        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let address = format!("localhost:{rest}");
        let start = now_nanos();
        let mut script = script(&folder, &command, "start-cluster.sh").spawn()?;
        let (client, ready) = runtime.block_on(registered(&address, task_managers * slots))?;
        ensure!(script.wait()?.success(), "the cluster cannot be started");
        Ok(Cluster { folder, command, runtime, client, start_ms: millis(start, ready) })
    }

    /// Waits for something that the JobManager says of a job.
    ///
    /// # Errors
    /// If it does not come, or the job has ended with something else.
    pub fn wait_for(&mut self, job: JobId, what: &str, is_there: impl Fn(&v1::Job) -> bool) -> Result<v1::Job> {
        let Cluster { runtime, client, .. } = self;
        let until = now_nanos() + PATIENCE.as_nanos() as u64;
        loop {
            let (found, result) = runtime.block_on(client.job(job))?;
            if is_there(&found) {
                return Ok(found);
            }
            ensure!(result.is_none(), "the job ended before {what}: {result:?}");
            ensure!(now_nanos() < until, "{what} does not come: {found:?}");
            thread::sleep(POLL);
        }
    }

    /// Stores an artifact, unless it is there.
    ///
    /// # Errors
    /// If it is refused.
    pub fn upload(&mut self, path: &Path, graph: &JobGraph) -> Result<()> {
        let sha256 = &graph.artifact.as_ref().context("the graph names its artifact")?.sha256;
        self.runtime.block_on(self.client.upload(path, sha256))?;
        Ok(())
    }

    /// # Errors
    /// If the job is refused.
    pub fn submit(&mut self, graph: &JobGraph) -> Result<()> {
        Ok(self.runtime.block_on(self.client.submit(graph))?)
    }

    /// Takes a checkpoint and waits until it is durable.
    ///
    /// # Errors
    /// If none can be taken.
    pub fn checkpoint(&mut self, job: JobId) -> Result<u64> {
        Ok(self.runtime.block_on(self.client.checkpoint(job))?)
    }

    /// Cancels a job and waits for its end.
    ///
    /// # Errors
    /// If it does not end.
    pub fn cancel(&mut self, job: JobId) -> Result<()> {
        self.runtime.block_on(self.client.cancel(job))?;
        let ended = |found: &v1::Job| found.end_time_millis != 0;
        self.wait_for(job, "the end of the job", ended).map(drop)
    }

    /// The command `millstream` as a user of this cluster calls it.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.command);
        command.args(arguments).env("MILLSTREAM_CONF_DIR", self.folder.path().join("conf"));
        command
    }

    /// The job that a program describes.
    ///
    /// # Errors
    /// If it describes none.
    pub fn graph_of(&self, artifact: &Path, arguments: &[&str]) -> Result<JobGraph> {
        let mut info = self.command(&["info", "--json"]);
        let answer = info.arg(artifact).arg("--").args(arguments).stderr(Stdio::inherit()).output()?;
        ensure!(answer.status.success(), "millstream info: {}", answer.status);
        let everything: Value = serde_json::from_slice(&answer.stdout)?;
        Ok(serde_json::from_value(everything["job_graph"].clone())?)
    }

    /// The processes of a kind, `jobmanager` or `taskmanager`.
    ///
    /// # Errors
    /// If the scripts keep no record of them.
    pub fn processes(&self, kind: &str) -> Result<Vec<u32>> {
        let record = fs::read_to_string(self.folder.path().join(format!("pid/{kind}.pid")))?;
        record.lines().map(|line| Ok(line.split(' ').next().unwrap_or_default().parse()?)).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The script says what it could not stop.
        let _ = script(&self.folder, &self.command, "stop-cluster.sh").status();
    }
}

fn script(folder: &tempfile::TempDir, command: &Path, name: &str) -> Command {
    let path = |name: &str| folder.path().join(name);
    let mut script = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../bin").join(name));
    script
        .env("MILLSTREAM_CONF_DIR", path("conf"))
        .env("MILLSTREAM_LOG_DIR", path("log"))
        .env("MILLSTREAM_PID_DIR", path("pid"))
        .env(COMMAND, command)
        // Figures alone belong there.
        .stdout(Stdio::null());
    script
}

/// Waits until so many slots are there: a client, and when they were.
async fn registered(address: &str, slots: u32) -> Result<(Client, u64)> {
    let until = now_nanos() + PATIENCE.as_nanos() as u64;
    let mut known = None;
    loop {
        if known.is_none() {
            known = Client::connect(address).await.ok();
        }
        if let Some(client) = &mut known {
            let there = client.cluster().await?.task_managers.iter().map(|registered| registered.slots).sum::<u32>();
            if there == slots {
                let ready = now_nanos();
                return Ok((known.take().expect("it is connected"), ready));
            }
        }
        ensure!(now_nanos() < until, "the slots do not come");
        tokio::time::sleep(POLL).await;
    }
}

/// From one time to another, both in nanoseconds.
pub fn millis(start: u64, end: u64) -> f64 {
    end.saturating_sub(start) as f64 / 1e6
}

/// Sorts the times.
///
/// # Panics
/// If there are none.
pub fn median(times: &mut [f64]) -> f64 {
    times.sort_unstable_by(f64::total_cmp);
    times[times.len() / 2]
}

/// The processes that a process has started and that run.
pub fn children(process: u32) -> Vec<u32> {
    let mut children = Vec::new();
    for task in fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
        let list = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        children.extend(list.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
    }
    children
}

/// The share of memory that a process has to itself and its part of what it shares, in MB (10^6 bytes).
///
/// # Errors
/// If there is no such process.
pub fn proportional_set_mb(process: u32) -> Result<f64> {
    let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss in smaps_rollup")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024.0 / 1e6)
}
