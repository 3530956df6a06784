//! What it takes to run jobs on a standalone cluster: to start it, to submit a job, to hold it idle, and to go on after a
//! worker was killed or a TaskManager was frozen. This program is the artifact of those jobs, too.

#![allow(clippy::disallowed_methods, reason = "the program waits while a cluster is watched")]

use std::{net::UdpSocket, path::Path, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use millstream::{connectors::generator::GeneratorSource, model::id::JobId, prelude::*};
use millstream_benches::{
    cluster::{Cluster, KEYS, RATE, SETTLING, SLOTS, TASK_MANAGERS, children, median, millis, proportional_set_mb},
    machine::now_nanos,
    options::{self, Common},
    report::Run,
};
use millstream_client::proto::v1;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;

const BENCH: &str = "operations";
const SUBMISSIONS: u32 = 10;
/// At once: what is measured is not the pause that a user has asked for.
const RESTARTS: [&str; 4] = [
    "-Drestart-strategy.type=fixed-delay",
    "-Drestart-strategy.fixed-delay.attempts=10",
    "-Drestart-strategy.fixed-delay.delay=0 ms",
    "-Dexecution.checkpointing.interval=10 s",
];
const RECOVERY_PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, Args)]
struct Own {
    /// Be a job instead
    #[arg(long, hide = true)]
    job: Option<Job>,
    /// Where the job tells that it goes on
    #[arg(long, hide = true, default_value_t = 0)]
    port: u16,
    /// Of the job
    #[arg(long, hide = true, default_value_t = KEYS)]
    keys: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Job {
    Trivial,
    Counting,
}

#[millstream::main]
fn main() -> Result<()> {
    let (Common { repetitions, quick, .. }, own) = options::parse::<Own>();
    match own.job {
        Some(Job::Trivial) => return trivial_job(),
        Some(Job::Counting) => return counting_job(own.port, own.keys),
        None => {}
    }
    let keys = if quick { KEYS / 20 } else { KEYS };
    for _ in 0..repetitions {
        let conditions = json!({ "task_managers": TASK_MANAGERS, "slots_each": SLOTS, "keys": keys, "rate": RATE,
                                 "path": "loopback" });
        let report = Run::start(BENCH, conditions);
        let figures = measure(keys)?;
        report.report(&figures);
    }
    Ok(())
}

/// A source that emits a record now and then, and a sink.
fn trivial_job() -> Result<()> {
    let mut env = StreamExecutionEnvironment::get();
    env.set_parallelism(1);
    env.from_source(GeneratorSource::new(None, |number| number).rate(1.0)).discard();
    env.execute("trivial")?;
    Ok(())
}

/// Counts by key at parallelism 2, and tells by datagram that it goes on: with each 100th record, the start of the
/// subtask that has sent it.
fn counting_job(port: u16, keys: u64) -> Result<()> {
    let mut env = StreamExecutionEnvironment::get();
    env.set_parallelism(2);
    let counts = env
        .from_source(GeneratorSource::new(None, |number| number).rate(RATE))
        .uid("numbers")
        .map_with(keys, |keys, number| number % keys)
        .key_by::<u64, _>(|key| *key)
        .count()
        .uid("counts");
    counts.rich_map::<u16, Teller, u64, _, _>(port, Teller::open, |teller, (_, count)| teller.tell(count)).discard();
    env.execute("counting")?;
    Ok(())
}

struct Teller {
    socket: UdpSocket,
    started: u64,
    records: u64,
}

impl Teller {
    fn open(port: u16, _: &mut RuntimeContext) -> Result<Teller, Failure> {
        let opened = UdpSocket::bind("127.0.0.1:0").and_then(|socket| {
            socket.connect(("127.0.0.1", port))?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        let socket = opened.map_err(|cause| Failure::new(format!("no socket: {cause}")))?;
        Ok(Teller { socket, started: now_nanos(), records: 0 })
    }

    fn tell(&mut self, count: u64) -> u64 {
        if self.records.is_multiple_of(100) {
            // Who listens may be gone, or slow: one of them will get through.
            let _ = self.socket.send(&self.started.to_le_bytes());
        }
        self.records += 1;
        count
    }
}

type Figures = Vec<(&'static str, f64, &'static str)>;

fn measure(keys: u64) -> Result<Figures> {
    let artifact = std::env::current_exe()?;
    let mut cluster = Cluster::start(TASK_MANAGERS, SLOTS)?;
    let mut figures = vec![("start_ms", cluster.start_ms, "ms")];
    thread::sleep(SETTLING);
    let managers = cluster.processes("taskmanager")?;
    let job_manager = *cluster.processes("jobmanager")?.first().context("there is a JobManager")?;
    figures.push(("rss_jobmanager_mb", proportional_set_mb(job_manager)?, "MB"));
    let of_managers: Vec<f64> = managers.iter().map(|id| proportional_set_mb(*id)).collect::<Result<_>>()?;
    figures.push(("rss_taskmanager_mb", of_managers.iter().copied().fold(0.0, f64::max), "MB"));

    submissions(&mut cluster, &artifact, &mut figures)?;
    figures.push(("recovery_ms", recovery(&mut cluster, &artifact, keys, Trouble::KilledWorker)?, "ms"));
    figures.push(("recovery_frozen_ms", recovery(&mut cluster, &artifact, keys, Trouble::FrozenTaskManager)?, "ms"));
    Ok(figures)
}

/// Submits trivial jobs, one after the other. The cluster has the artifact after the first of them.
fn submissions(cluster: &mut Cluster, artifact: &Path, figures: &mut Figures) -> Result<()> {
    let mut graph = cluster.graph_of(artifact, &["--job", "trivial"])?;
    let is_running = |job: &v1::Job| job.status() == v1::JobStatus::Running && job.running_tasks == job.tasks;
    let start = now_nanos();
    cluster.upload(artifact, &graph)?;
    cluster.submit(&graph)?;
    cluster.wait_for(graph.job_id, "RUNNING", is_running)?;
    figures.push(("submit_first_ms", millis(start, now_nanos()), "ms"));
    thread::sleep(SETTLING);
    let workers: Vec<u32> = cluster.processes("taskmanager")?.into_iter().flat_map(children).collect();
    ensure!(workers.len() == 1, "one worker runs the job, not {workers:?}");
    figures.push(("rss_worker_mb", proportional_set_mb(workers[0])?, "MB"));
    cluster.cancel(graph.job_id)?;

    let mut times = Vec::new();
    for number in 1..=SUBMISSIONS {
        graph.job_id = job_id(number.into())?;
        let start = now_nanos();
        cluster.submit(&graph)?;
        cluster.wait_for(graph.job_id, "RUNNING", is_running)?;
        times.push(millis(start, now_nanos()));
        cluster.cancel(graph.job_id)?;
    }
    figures.push(("submit_grpc_ms", median(&mut times), "ms"));

    let mut times = Vec::new();
    let path = artifact.to_str().context("the artifact's path is text")?;
    for number in 1..=SUBMISSIONS {
        let id = job_id(1000 + u128::from(number))?;
        let named = format!("-Dpipeline.jobid={id}");
        let mut command = cluster.command(&["run", "-d", &named, path, "--job", "trivial"]);
        let start = now_nanos();
        ensure!(command.stdout(std::process::Stdio::null()).status()?.success(), "the job was not taken");
        cluster.wait_for(id, "RUNNING", is_running)?;
        times.push(millis(start, now_nanos()));
        cluster.cancel(id)?;
    }
    figures.push(("submit_cli_ms", median(&mut times), "ms"));
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Trouble {
    KilledWorker,
    /// With its workers, as if its machine stood still.
    FrozenTaskManager,
}

/// From the trouble to the first output of the job that goes on, in milliseconds.
fn recovery(cluster: &mut Cluster, artifact: &Path, keys: u64, trouble: Trouble) -> Result<f64> {
    let ear = UdpSocket::bind("127.0.0.1:0")?;
    ear.set_read_timeout(Some(RECOVERY_PATIENCE))?;
    let port = ear.local_addr()?.port().to_string();
    let keys_text = keys.to_string();
    let program = ["--job", "counting", "--port", &port, "--keys", &keys_text];
    let mut graph = cluster.graph_of(artifact, &[&RESTARTS[..], &program].concat())?;
    graph.job_id = job_id(2000 + trouble as u128)?;
    let job = graph.job_id;
    cluster.upload(artifact, &graph)?;
    cluster.submit(&graph)?;
    cluster.wait_for(job, "every key", |job| job.records_read > keys + keys / 10)?;
    cluster.checkpoint(job)?;

    let managers = cluster.processes("taskmanager")?;
    let manager = *managers.iter().rev().find(|id| !children(**id).is_empty()).context("a TaskManager has a worker")?;
    let workers = children(manager);
    let (start, frozen) = match trouble {
        Trouble::KilledWorker => {
            let start = now_nanos();
            send(Signal::SIGKILL, workers[0])?;
            (start, Vec::new())
        }
        Trouble::FrozenTaskManager => {
            let frozen: Vec<u32> = std::iter::once(manager).chain(workers).collect();
            let start = now_nanos();
            frozen.iter().try_for_each(|process| send(Signal::SIGSTOP, *process))?;
            (start, frozen)
        }
    };
    let mut message = [0; 8];
    let first = loop {
        let heard = ear.recv(&mut message);
        if heard.is_err() || u64::from_le_bytes(message) > start {
            break heard.map(|_| now_nanos());
        }
    };
    frozen.iter().try_for_each(|process| send(Signal::SIGCONT, *process))?;
    let recovered = millis(start, first.context("the job does not go on")?);
    cluster.wait_for(job, "a restart", |job| job.restarts > 0)?;
    cluster.cancel(job)?;
    Ok(recovered)
}

fn send(signal: Signal, process: u32) -> Result<()> {
    Ok(kill(Pid::from_raw(process.try_into()?), signal)?)
}

fn job_id(number: u128) -> Result<JobId> {
    format!("{number:032x}").parse().map_err(|cause| anyhow::anyhow!("no job id: {cause}"))
}
