//! Fifty small jobs side by side on a session cluster of two TaskManagers: what the last submission takes beside the first,
//! and what a job costs. This program is the artifact of those jobs, too.

#![allow(clippy::disallowed_methods, reason = "the program waits while a cluster is watched")]

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use clap::Args;
use millstream::{connectors::generator::GeneratorSource, prelude::*};
use millstream_benches::{
    cluster::{Cluster, children, median, millis, proportional_set_mb},
    machine::{cpu_seconds_of_process, now_nanos},
    options::{self, Common},
    report::Run,
};
use millstream_client::proto::v1;
use serde_json::json;

const BENCH: &str = "session-50";
const JOBS: u32 = 50;
const TASK_MANAGERS: u32 = 2;
/// Records a second of each job.
const RATE: f64 = 10.0;
/// Submissions whose median stands for the first and for the last.
const ENDS: usize = 5;
const SETTLING: Duration = Duration::from_secs(3);
const WATCHED: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, Args)]
struct Own {
    /// Be one of the jobs instead
    #[arg(long, hide = true)]
    job: bool,
}

#[millstream::main]
fn main() -> Result<()> {
    let (Common { repetitions, .. }, own) = options::parse::<Own>();
    if own.job {
        return job();
    }
    for _ in 0..repetitions {
        let conditions = json!({ "jobs": JOBS, "task_managers": TASK_MANAGERS, "rate": RATE, "path": "loopback" });
        let report = Run::start(BENCH, conditions);
        report.report(&measure()?);
    }
    Ok(())
}

fn job() -> Result<()> {
    let mut env = StreamExecutionEnvironment::get();
    env.set_parallelism(1);
    let numbers = env.from_source(GeneratorSource::new(None, |number| number).rate(RATE));
    numbers.key_by::<u64, _>(|number| *number % 16).count().discard();
    env.execute(BENCH)?;
    Ok(())
}

fn measure() -> Result<Vec<(&'static str, f64, &'static str)>> {
    let artifact = std::env::current_exe()?;
    let mut cluster = Cluster::start(TASK_MANAGERS, JOBS / TASK_MANAGERS)?;
    let managers = cluster.processes("taskmanager")?;
    let daemons = [cluster.processes("jobmanager")?, managers.clone()].concat();
    let sum = |processes: &[u32]| -> Result<f64> { processes.iter().map(|id| proportional_set_mb(*id)).sum() };
    let idle_mb = sum(&daemons)?;

    let mut graph = cluster.graph_of(&artifact, &["--job"])?;
    cluster.upload(&artifact, &graph)?;
    let is_running = |job: &v1::Job| job.status() == v1::JobStatus::Running && job.running_tasks == job.tasks;
    let mut times = Vec::new();
    for number in 1..=JOBS {
        graph.job_id = format!("{number:032x}").parse().map_err(|cause| anyhow::anyhow!("no job id: {cause}"))?;
        let start = now_nanos();
        cluster.submit(&graph)?;
        cluster.wait_for(graph.job_id, "RUNNING", is_running)?;
        times.push(millis(start, now_nanos()));
    }
    thread::sleep(SETTLING);
    let workers: Vec<u32> = managers.iter().flat_map(|manager| children(*manager)).collect();
    ensure!(workers.len() == JOBS as usize, "each job has a worker: {}", workers.len());
    let all = [daemons.clone(), workers.clone()].concat();
    let cpu = |processes: &[u32]| processes.iter().map(|id| cpu_seconds_of_process(*id)).sum::<std::io::Result<f64>>();
    let before = cpu(&all)?;
    thread::sleep(WATCHED);
    let cpu_fraction = (cpu(&all)? - before) / WATCHED.as_secs_f64();
    let jobs = f64::from(JOBS);
    let end = times.len() - ENDS;
    let (first, last) = (median(&mut times[..ENDS]), median(&mut times[end..]));
    Ok(vec![
        ("submit_first_ms", first, "ms"),
        ("submit_50th_ms", last, "ms"),
        ("submit_50th_of_first", last / first, "1"),
        ("rss_worker_mb", sum(&workers)? / jobs, "MB"),
        ("rss_daemons_per_job_mb", (sum(&daemons)? - idle_mb) / jobs, "MB"),
        ("cpu_fraction_per_job", cpu_fraction / jobs, "1"),
    ])
}
