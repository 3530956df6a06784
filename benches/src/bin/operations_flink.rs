//! The benchmark `operations` with Flink: how long its cluster takes to start, its command line to submit a job, what its
//! processes hold idle, and how long a job stands still when a TaskManager was killed.

#![allow(clippy::disallowed_methods, reason = "the program waits while a cluster is watched")]

use std::{
    net::UdpSocket,
    path::{Path, PathBuf},
    process::Stdio,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Parser;
use millstream_benches::{
    cluster::{KEYS, RATE, SETTLING, SLOTS, TASK_MANAGERS, median, millis, proportional_set_mb},
    flink::FlinkCluster,
    machine::now_nanos,
    report::Run,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

/// It takes seconds.
const SUBMISSIONS: u32 = 3;
const RECOVERY_PATIENCE: Duration = Duration::from_secs(120);

#[derive(Parser)]
struct Options {
    /// An installation of Flink
    #[arg(long)]
    home: PathBuf,
    #[arg(long)]
    json: bool,
    #[arg(long)]
    quick: bool,
    #[arg(long, default_value_t = 1)]
    repetitions: u32,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let keys = if options.quick { KEYS / 20 } else { KEYS };
    for _ in 0..options.repetitions {
        let conditions = json!({ "task_managers": TASK_MANAGERS, "slots_each": SLOTS, "keys": keys, "rate": RATE,
                                 "path": "loopback" });
        let report = Run::of("operations", "flink", conditions);
        let figures = measure(&options.home, keys)?;
        report.report(&figures);
    }
    Ok(())
}

fn measure(home: &Path, keys: u64) -> Result<Vec<(&'static str, f64, &'static str)>> {
    let cluster = FlinkCluster::start(home, TASK_MANAGERS, SLOTS)?;
    let mut figures = vec![("start_ms", cluster.start_ms, "ms")];
    thread::sleep(SETTLING);
    let of =
        |kind: &str| -> Result<Vec<f64>> { cluster.processes(kind)?.into_iter().map(proportional_set_mb).collect() };
    figures.push(("rss_jobmanager_mb", of("standalonesession")?.into_iter().fold(0.0, f64::max), "MB"));
    figures.push(("rss_taskmanager_mb", of("taskexecutor")?.into_iter().fold(0.0, f64::max), "MB"));

    let jar = cluster.jar(&Path::new(env!("CARGO_MANIFEST_DIR")).join("flink/Job.java"))?;
    let jar = jar.to_str().context("the JAR's path is text")?.to_owned();
    let mut times = Vec::new();
    for _ in 0..SUBMISSIONS {
        let start = now_nanos();
        let job = submit(&cluster, &[&jar, "trivial"])?;
        times.push(millis(start, now_nanos()));
        cluster.cancel(&job)?;
    }
    figures.push(("submit_cli_ms", median(&mut times), "ms"));
    figures.push(("recovery_ms", recovery(&cluster, &jar, keys)?, "ms"));
    Ok(figures)
}

/// Has a job run, detached; its id once all of its tasks run.
fn submit(cluster: &FlinkCluster, program: &[&str]) -> Result<String> {
    let mut command = cluster.command(&[&["run", "-d"], program].concat());
    let answer = command.stderr(Stdio::inherit()).output()?;
    let text = String::from_utf8_lossy(&answer.stdout);
    let id = text.split("JobID ").nth(1).and_then(|rest| rest.split_whitespace().next());
    let id = id.with_context(|| format!("the job was not taken: {text}"))?.to_owned();
    let runs = |job: &Value| {
        let vertices = job["vertices"].as_array().map_or(&[][..], Vec::as_slice);
        job["state"] == "RUNNING" && !vertices.is_empty() && vertices.iter().all(|vertex| vertex["status"] == "RUNNING")
    };
    cluster.wait_for("a job that runs", &format!("/jobs/{id}"), runs)?;
    Ok(id)
}

/// From the end of a TaskManager with tasks to the first output of the job that goes on elsewhere, in milliseconds.
fn recovery(cluster: &FlinkCluster, jar: &str, keys: u64) -> Result<f64> {
    let ear = UdpSocket::bind("127.0.0.1:0")?;
    ear.set_read_timeout(Some(RECOVERY_PATIENCE))?;
    let (port, keys_text, rate) = (ear.local_addr()?.port().to_string(), keys.to_string(), RATE.to_string());
    let job = submit(cluster, &[jar, "counting", &port, &keys_text, &rate])?;
    let details = format!("/jobs/{job}");
    let has_read = |job: &Value| job["vertices"][1]["metrics"]["read-records"].as_u64() > Some(keys + keys / 10);
    cluster.wait_for("every key", &details, has_read)?;
    let checkpoints = format!("/jobs/{job}/checkpoints");
    let before = cluster.get(&checkpoints)?["counts"]["completed"].as_u64();
    cluster.wait_for("a checkpoint", &checkpoints, |answer| answer["counts"]["completed"].as_u64() > before)?;

    let vertex = cluster.get(&details)?["vertices"][1]["id"].as_str().context("a vertex")?.to_owned();
    let subtasks = cluster.get(&format!("{details}/vertices/{vertex}/taskmanagers"))?;
    let busy = subtasks["taskmanagers"][0]["taskmanager-id"].as_str().context("a TaskManager")?.to_owned();
    let victim = process_of(cluster, &busy)?;
    let start = now_nanos();
    kill(Pid::from_raw(victim.try_into()?), Signal::SIGKILL)?;
    let mut message = [0; 8];
    loop {
        ear.recv(&mut message).context("the job does not go on")?;
        if u64::from_le_bytes(message) > start {
            break;
        }
    }
    let recovered = millis(start, now_nanos());
    cluster.cancel(&job)?;
    Ok(recovered)
}

/// The process of a TaskManager, by the port in its id, at which it listens.
fn process_of(cluster: &FlinkCluster, id: &str) -> Result<u32> {
    let port: u16 = id.rsplit(':').next().and_then(|rest| rest.split('-').next()).context("a port")?.parse()?;
    let sockets = std::fs::read_to_string("/proc/net/tcp")? + &std::fs::read_to_string("/proc/net/tcp6")?;
    let listens = |line: &&str| line.split_whitespace().nth(1).is_some_and(|at| at.ends_with(&format!(":{port:04X}")));
    let inodes: Vec<String> = sockets
        .lines()
        .filter(listens)
        .filter_map(|line| Some(format!("socket:[{}]", line.split_whitespace().nth(9)?)))
        .collect();
    for process in cluster.processes("taskexecutor")? {
        let files = std::fs::read_dir(format!("/proc/{process}/fd"))?.flatten();
        let mut targets = files.filter_map(|file| std::fs::read_link(file.path()).ok());
        if targets.any(|target| inodes.iter().any(|inode| target.as_os_str() == inode.as_str())) {
            return Ok(process);
        }
    }
    bail!("no TaskManager listens at {port}")
}
