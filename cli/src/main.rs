//! The `millstream` command: looks into artifacts, runs them on this machine, starts new job crates, and prints the
//! configuration page.
//!
//! | Look here for | module |
//! |---|---|
//! | `millstream info` | [`info`]: reads the file, asks its `main` for the job ([`plan`]), shows both ([`graphviz`], [`json`]) |
//! | `millstream run` | [`run`]: has a program's jobs run on a cluster |
//! | `millstream list`, `status`, `cancel` | [`jobs`] of a cluster |
//! | `millstream why` | [`why`]: what holds a job back |
//! | `millstream job-cluster` | [`job_cluster`]: a JobManager for one job, which `millstream run` starts |
//! | `millstream logs` | [`logs`] of jobs and of a cluster's processes |
//! | `millstream log-level` | [`log_level`]: what is logged, changed at run time |
//! | `millstream jobmanager`, `taskmanager` | [`daemon`]: the processes of a cluster |
//! | `millstream standalone-job` | [`standalone_job`]: a JobManager for one application |
//! | `millstream config` | [`config`]: what keys are set to |
//! | `millstream local` | [`local`]: becomes the artifact's program, with several worker processes |
//! | `millstream new` | [`scaffold`] |

mod config;
mod daemon;
mod graphviz;
mod info;
mod job_cluster;
mod jobs;
mod json;
mod local;
mod log_level;
mod logs;
mod plain;
mod plan;
mod run;
mod scaffold;
mod settings;
mod standalone_job;
mod why;

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use millstream_cluster::executable::NoArtifact;

#[derive(Parser)]
#[command(name = "millstream", version, about = "Stream processing with Flink's model, in Rust", after_help = EXIT_CODES)]
struct Command {
    #[command(subcommand)]
    verb: Verb,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  it did not work; standard error says why
  2  the command line is wrong
  3  the file is not a Millstream artifact for this machine
  4  the job was cancelled
`millstream local` ends with the exit code of the program.";

#[derive(Subcommand)]
enum Verb {
    /// Show what an artifact says about itself, and the job that its main() describes
    Info(info::Options),
    /// Run an artifact's jobs on a cluster
    Run(run::Options),
    /// Show the jobs of a cluster
    List(jobs::ListOptions),
    /// Show how a job is doing
    Status(jobs::JobOptions),
    /// Say what holds a job back now
    Why(jobs::JobOptions),
    /// End a job
    Cancel(jobs::JobOptions),
    /// Show what a job or a process of a cluster has logged and printed
    Logs(logs::Options),
    /// Show or change what a cluster logs, while it runs
    LogLevel(log_level::Options),
    /// Be the JobManager of a cluster
    Jobmanager(daemon::Options),
    /// Be the JobManager of a cluster for one application, and run that beside it
    StandaloneJob(standalone_job::Options),
    /// Be a TaskManager of a cluster
    Taskmanager(daemon::TaskManagerOptions),
    /// Be the JobManager of a cluster for the job that standard input has, with TaskManagers of its own
    #[command(hide = true)]
    JobCluster(job_cluster::Options),
    /// Run an artifact on this machine, in several worker processes
    Local(local::Options),
    /// Start a crate for a job of your own, in a new folder
    New(scaffold::Options),
    /// Print what configuration keys are set to, one a line
    Config(config::Options),
    /// Print the reference of all configuration keys, as Markdown
    ConfigDocs,
}

/// How a command answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Form {
    Text,
    Json,
}

fn main() -> ExitCode {
    // This program is linked with the engine too, so that it looks like an artifact from outside.
    if std::env::var_os("MILLSTREAM_ROLE").is_some() {
        eprintln!("this is the command `millstream`, which is no job");
        return ExitCode::FAILURE;
    }
    millstream::memory::allow_huge_pages(false);
    let done = match Command::parse().verb {
        Verb::Info(options) => info::run(&options),
        Verb::Run(options) => run::run(&options),
        Verb::List(options) => jobs::list(&options),
        Verb::Status(options) => jobs::job_status(&options),
        Verb::Why(options) => why::run(&options),
        Verb::Cancel(options) => jobs::cancel(&options),
        Verb::Logs(options) => logs::run(&options),
        Verb::LogLevel(options) => log_level::run(&options),
        Verb::Jobmanager(options) => daemon::jobmanager(&options),
        Verb::StandaloneJob(options) => standalone_job::run(&options),
        Verb::Taskmanager(options) => daemon::taskmanager(&options),
        Verb::JobCluster(options) => job_cluster::run(&options),
        Verb::Local(options) => local::run(&options).map(|never| match never {}),
        Verb::New(options) => scaffold::run(&options),
        Verb::Config(options) => config::run(&options),
        Verb::ConfigDocs => show(&millstream::model::config::reference::reference_markdown()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            error.downcast_ref().map_or_else(|| ExitCode::from(exit_code(&error)), run::exit_code)
        }
    }
}

fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<NoArtifact>() {
        3
    } else if error.is::<scaffold::BadName>() {
        2
    } else {
        1
    }
}

/// Writes to standard output. A reader that has seen enough, as `head` does, is no error.
fn show(text: &str) -> anyhow::Result<()> {
    use std::io::{ErrorKind, Write};
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(cause) if cause.kind() != ErrorKind::BrokenPipe => Err(cause.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Command::command().debug_assert();
    }
}
