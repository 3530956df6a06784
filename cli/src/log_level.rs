//! `millstream log-level`: what a cluster logs, changed while it runs.

use anyhow::Result;
use clap::Args;
use millstream::model::{id::JobId, log::LogLevels};
use millstream_client::proto::v1;
use serde_json::json;

use crate::{Form, jobs::Cluster, show};

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    cluster: Cluster,
    /// What is logged from now on: OFF, ERROR, WARN, INFO, DEBUG or TRACE, for all, or for a module and all in it. Without
    /// any, what was set is shown
    #[arg(value_name = "[MODULE=]LEVEL")]
    levels: Vec<LogLevels>,
    /// In the workers of this job alone
    #[arg(long, value_name = "JOB")]
    job: Option<JobId>,
    /// Forget first what was set
    #[arg(long)]
    reset: bool,
}

/// Shows or changes what is logged.
///
/// # Errors
/// If there is no such job, or the cluster cannot be reached.
pub fn run(options: &Options) -> Result<()> {
    if options.levels.is_empty() && !options.reset {
        return show_set(options);
    }
    let levels = options.levels.iter().fold(LogLevels::default(), |all, levels| all.with(levels));
    let job_id = options.job.map(|job| job.to_string()).unwrap_or_default();
    let request = v1::SetLogLevelsRequest { job_id, levels: levels.to_string(), reset: options.reset };
    let set = options.cluster.ask(async |mut client| Ok(client.set_log_levels(request.clone()).await?))?;
    match options.cluster.output {
        Form::Text => show(&format!("Set at run time: {}\n", or_nothing(&set))),
        Form::Json => show(&format!("{}\n", json!({ "set": set }))),
    }
}

fn show_set(options: &Options) -> Result<()> {
    let v1::GetLogLevelsResponse { levels, set, jobs } =
        options.cluster.ask(async |mut client| Ok(client.log_levels().await?))?;
    let wanted = options.job.map(|job| job.to_string());
    let jobs = jobs.into_iter().filter(|job| wanted.as_ref().is_none_or(|wanted| *wanted == job.job_id));
    if options.cluster.output == Form::Json {
        let jobs: serde_json::Map<_, _> = jobs.map(|job| (job.job_id, job.set.into())).collect();
        return show(&format!("{}\n", json!({ "levels": levels, "set": set, "jobs": jobs })));
    }
    let mut text = format!("The JobManager logs {levels}\nSet at run time: {}\n", or_nothing(&set));
    jobs.for_each(|job| text.push_str(&format!("  for job {}: {}\n", job.job_id, job.set)));
    show(&text)
}

fn or_nothing(set: &str) -> &str {
    if set.is_empty() { "nothing" } else { set }
}
