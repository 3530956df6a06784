//! `millstream logs`: what a job's workers log and print, and what the processes of a cluster log.

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use millstream::{
    logging::wall_millis,
    model::{
        config::{LogLevel, duration},
        id::JobId,
        log::{LogForm, LogLine, parse_time},
    },
};
use millstream_client::{
    Client,
    proto::v1::{self, read_logs_request::Of},
};
use serde_json::Value;

use crate::{Form, jobs::Cluster, show};

#[derive(Args)]
#[command(group = clap::ArgGroup::new("of").required(true).args(["job", "taskmanager", "jobmanager_log"]))]
pub struct Options {
    #[command(flatten)]
    cluster: Cluster,
    /// The job's id, as `millstream list` shows it
    job: Option<JobId>,
    /// The log of a TaskManager instead: its id, the beginning of that, or its address
    #[arg(long, value_name = "ID")]
    taskmanager: Option<String>,
    /// The log of the JobManager instead
    #[arg(long)]
    jobmanager_log: bool,
    /// Only of tasks whose name contains NAME, or whose vertex has this id; SUBTASK counts from 0
    #[arg(long, value_name = "NAME[:SUBTASK]")]
    task: Option<String>,
    /// Only lines that are at least so important; what was printed to standard output counts as info, to standard error as
    /// warn
    #[arg(long, value_enum)]
    level: Option<Level>,
    /// Only lines of the last while, as in 10min, or since a time, as in 2026-11-30T14:00:00Z
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<i64>,
    /// Only the last N lines
    #[arg(short = 'n', long, value_name = "N")]
    lines: Option<u32>,
    /// Show lines as they come, until the job has ended
    #[arg(short, long)]
    follow: bool,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl From<Level> for LogLevel {
    fn from(level: Level) -> LogLevel {
        match level {
            Level::Error => LogLevel::Error,
            Level::Warn => LogLevel::Warn,
            Level::Info => LogLevel::Info,
            Level::Debug => LogLevel::Debug,
            Level::Trace => LogLevel::Trace,
        }
    }
}

/// Milliseconds since 1970.
fn since(text: &str) -> Result<i64, String> {
    if let Some(time) = parse_time(text) {
        return Ok(time);
    }
    let ago =
        duration::parse(text).map_err(|_| "a duration, as 10min, or a time, as 2026-11-30T14:00:00Z, is expected")?;
    Ok(wall_millis() - i64::try_from(ago.as_millis()).unwrap_or(i64::MAX))
}

/// Shows lines.
///
/// # Errors
/// If there is no such job or TaskManager, or the cluster cannot be reached.
pub fn run(options: &Options) -> Result<()> {
    options.cluster.ask(async |mut client| {
        let of = match (options.job, &options.taskmanager) {
            (Some(job), _) => Of::JobId(job.to_string()),
            (None, Some(name)) => Of::TaskManagerId(task_manager(&mut client, name).await?),
            (None, None) => Of::JobManager(v1::JobManagerLog {}),
        };
        let request = v1::ReadLogsRequest {
            of: Some(of),
            filter: Some(options.filter()),
            last: options.lines,
            follow: options.follow,
        };
        let mut lines = client.read_logs(request).await?;
        while let Some(line) = lines.next().await? {
            show(&options.text(line)?)?;
        }
        Ok(())
    })
}

/// The id of the only TaskManager that is meant.
async fn task_manager(client: &mut Client, name: &str) -> Result<String> {
    let all = client.cluster().await?.task_managers;
    let meant: Vec<_> = all.iter().filter(|one| one.id.starts_with(name) || one.address == name).collect();
    match meant[..] {
        [one] => Ok(one.id.clone()),
        _ => {
            let known: Vec<_> = all.iter().map(|one| format!("{} ({})", one.id, one.address)).collect();
            bail!(
                "'{name}' is {} of the TaskManagers: {}",
                if meant.is_empty() { "none" } else { "several" },
                known.join(", ")
            )
        }
    }
}

impl Options {
    fn filter(&self) -> v1::LogFilter {
        let (task, subtask) = self.task.as_deref().map(named_task).unwrap_or_default();
        let level = self.level.map(|level| v1::LogLevel::from(LogLevel::from(level))).unwrap_or_default();
        v1::LogFilter {
            task: task.to_owned(),
            subtask,
            level: level.into(),
            since_millis: self.since,
            ..v1::LogFilter::default()
        }
    }

    fn text(&self, line: v1::LogLine) -> Result<String> {
        let task_manager = line.task_manager_id.clone();
        let line = LogLine::try_from(line)?;
        if self.cluster.output == Form::Text {
            return Ok(LogForm::Text.write(&line));
        }
        let mut object: Value = serde_json::from_str(&LogForm::Json.write(&line)).context("a line is no JSON")?;
        if !task_manager.is_empty() {
            object["task_manager"] = task_manager.into();
        }
        Ok(format!("{object}\n"))
    }
}

/// `NAME` or `NAME:SUBTASK`. Names may have colons.
fn named_task(text: &str) -> (&str, Option<u32>) {
    match text.rsplit_once(':').map(|(name, subtask)| (name, subtask.parse())) {
        Some((name, Ok(subtask))) => (name, Some(subtask)),
        _ => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_named_with_or_without_its_subtask() {
        assert_eq!(named_task("count"), ("count", None));
        assert_eq!(named_task("count:3"), ("count", Some(3)));
        assert_eq!(named_task("Source: text"), ("Source: text", None));
        assert_eq!(named_task("Source: text:0"), ("Source: text", Some(0)));
    }

    #[test]
    fn a_time_is_one_or_a_while_ago() {
        assert_eq!(since("2026-11-30T13:59:59.999Z"), Ok(1_796_047_199_999));
        let (ago, now) = (since("10 min").unwrap(), wall_millis());
        assert!((now - 601_000..=now - 599_000).contains(&ago), "{ago} {now}");
        assert!(since("soon").is_err());
    }
}
