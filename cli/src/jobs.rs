//! `millstream list`, `status` and `cancel`: the jobs of a cluster.

use std::ffi::OsString;

use anyhow::{Context, Result};
use clap::Args;
use millstream::model::id::JobId;
use millstream_client::{Access, Client, proto::v1};
use serde_json::{Value, json};
use tokio::runtime::Builder;

use crate::{Form, plain::thousands, settings, show};

#[derive(Args)]
pub struct Cluster {
    /// The JobManager (rest.address, rest.port)
    #[arg(short = 'm', long, value_name = "host:port")]
    jobmanager: Option<String>,
    /// How the answer is shown
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) output: Form,
    /// Configuration of this command
    #[arg(short = 'D', value_name = "key=value")]
    settings: Vec<OsString>,
}

#[derive(Args)]
pub struct ListOptions {
    #[command(flatten)]
    cluster: Cluster,
    /// Also those that have ended
    #[arg(short, long)]
    all: bool,
    /// Only those that run or restart
    #[arg(short, long)]
    running: bool,
}

#[derive(Args)]
pub struct JobOptions {
    #[command(flatten)]
    pub(crate) cluster: Cluster,
    /// The job's id, as `millstream list` shows it
    pub(crate) job: JobId,
}

impl Cluster {
    /// Has a client ask it something.
    ///
    /// # Errors
    /// If it cannot be reached, and those of `ask`.
    pub(crate) fn ask<R>(&self, ask: impl AsyncFnOnce(Client) -> Result<R>) -> Result<R> {
        let configuration = settings::load(&self.settings)?;
        let address = settings::jobmanager(self.jobmanager.as_deref(), &configuration)?;
        let access = Access::configured(&configuration)?;
        let runtime = Builder::new_current_thread().enable_all().build().context("no runtime can be had")?;
        runtime.block_on(async { ask(Client::connect_with(&address, &access).await?).await })
    }
}

/// Shows the jobs of a cluster.
///
/// # Errors
/// If it cannot be reached.
pub fn list(options: &ListOptions) -> Result<()> {
    let jobs = options.cluster.ask(async |mut client| Ok(client.jobs().await?))?;
    let is_wanted = |job: &&v1::Job| {
        let runs = !matches!(
            job.status(),
            v1::JobStatus::Failed | v1::JobStatus::Canceled | v1::JobStatus::Finished | v1::JobStatus::Unspecified
        );
        options.all && !options.running || runs
    };
    let jobs: Vec<&v1::Job> = jobs.iter().filter(is_wanted).collect();
    if options.cluster.output == Form::Json {
        return show(&format!("{}\n", Value::from_iter(jobs.into_iter().map(as_json))));
    }
    if jobs.is_empty() {
        return show("No jobs.\n");
    }
    show(&jobs.into_iter().map(|job| format!("{} : {} ({})\n", job.job_id, job.name, status(job))).collect::<String>())
}

/// Shows how a job is doing.
///
/// # Errors
/// If there is none with this id.
pub fn job_status(options: &JobOptions) -> Result<()> {
    let (job, result) = options.cluster.ask(async |mut client| Ok(client.job(options.job).await?))?;
    if options.cluster.output == Form::Json {
        return show(&format!("{}\n", as_json(&job)));
    }
    let mut text = format!(
        "{} ({})\n  status       {}\n  tasks        {} of {} running\n  records read {}\n  checkpoints  {}\n  restarts     {}\n",
        job.name,
        job.job_id,
        status(&job),
        job.running_tasks,
        job.tasks,
        thousands(job.records_read),
        job.completed_checkpoints,
        job.restarts
    );
    let failure = result.and_then(|result| result.failure).or(job.last_failure);
    if let Some(failure) = failure {
        let of = failure.operator.map(|name| format!(" (in {name})")).unwrap_or_default();
        // More lines are what a worker has said last.
        let (first, more) = failure.message.split_once('\n').unwrap_or((&failure.message, ""));
        text.push_str(&format!("  last failure {first}{of}\n"));
        more.lines().for_each(|line| text.push_str(&format!("  {line}\n")));
    }
    show(&text)
}

/// Asks a job to end.
///
/// # Errors
/// If there is none with this id.
pub fn cancel(options: &JobOptions) -> Result<()> {
    options.cluster.ask(async |mut client| Ok(client.cancel(options.job).await?))?;
    match options.cluster.output {
        Form::Text => show(&format!("Cancelled job {}.\n", options.job)),
        Form::Json => show(&format!("{}\n", json!({ "job": options.job.to_string() }))),
    }
}

fn status(job: &v1::Job) -> &'static str {
    job.status().as_str_name().trim_start_matches("JOB_STATUS_")
}

fn as_json(job: &v1::Job) -> Value {
    json!({
        "job": job.job_id, "name": job.name, "status": status(job), "start_time_ms": job.start_time_millis,
        "end_time_ms": (job.end_time_millis != 0).then_some(job.end_time_millis), "restarts": job.restarts,
        "tasks": job.tasks, "running_tasks": job.running_tasks, "records_read": job.records_read,
        "completed_checkpoints": job.completed_checkpoints,
        "last_failure": job.last_failure.as_ref().map(|failure| &failure.message),
        "last_failure_operator": job.last_failure.as_ref().and_then(|failure| failure.operator.as_ref()),
    })
}
