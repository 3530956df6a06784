//! `millstream job-cluster`: the JobManager of a cluster for one job. `millstream run -t standalone-per-job` starts it, and
//! speaks with it over its standard input and output ([`millstream_cluster::job_line`]).

use std::{
    env,
    ffi::OsString,
    fs::File,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result};
use clap::Args;
use millstream::model::{
    config::{HIGH_AVAILABILITY, JOBMANAGER_ADDRESS, JOBMANAGER_BIND_HOST, JOBMANAGER_PORT, REST_ADDRESS, REST_PORT},
    fault::Failure,
};
use millstream_cluster::{
    job_line::{ClientEnd, ClusterResponse},
    jobmanager::{self, OneJob, TaskManagerCommand},
};
use tokio::process::Command;

use crate::{daemon, settings};

#[derive(Args)]
pub struct Options {
    /// Configuration, stronger than conf/config.yaml and the environment
    #[arg(short = 'D', value_name = "key=value")]
    settings: Vec<OsString>,
}

/// This process as a JobManager for one job, with configuration; what it logs goes to the folder `logs`, which is there.
///
/// # Errors
/// If there is no room for the log.
pub fn command(settings: &[OsString], logs: &Path) -> Result<Command, Failure> {
    // Every job has its own cluster on this machine, beside others, and nobody starts its JobManager again.
    let own = [
        (REST_ADDRESS.name(), "localhost"),
        (REST_PORT.name(), "0"),
        (JOBMANAGER_ADDRESS.name(), "localhost"),
        (JOBMANAGER_BIND_HOST.name(), "localhost"),
        (JOBMANAGER_PORT.name(), "0"),
        (HIGH_AVAILABILITY.name(), "NONE"),
    ];
    let mut command = own_process("job-cluster", settings, &logs.join("jobmanager.log"))?;
    command.args(own.map(|(key, value)| format!("-D{key}={value}")));
    Ok(command)
}

/// Runs the cluster until its job has ended, or it is told to by SIGTERM or SIGINT.
///
/// # Errors
/// If the job was not accepted, or has failed.
pub fn run(options: &Options) -> Result<()> {
    let (request, client) = ClientEnd::take()?;
    let ran = daemon::configuration(&options.settings).and_then(|configuration| {
        let (settings, logs) = (options.settings.clone(), request.logs.clone());
        let task_managers = Box::new(move |at| task_managers(settings, logs, at));
        let job = OneJob { request, client, task_managers };
        daemon::runtime()?.block_on(async {
            let stop = daemon::told_to_end()?;
            jobmanager::run_job(configuration, job, stop).await.map_err(anyhow::Error::from)
        })
    });
    if let Err(error) = &ran {
        // If the job was accepted, nobody reads it.
        ClientEnd::answer(&ClusterResponse::Refused(Failure::fatal(format!("{error:#}"))));
    }
    ran.map(drop)
}

fn task_managers(settings: Vec<OsString>, logs: PathBuf, at: SocketAddr) -> TaskManagerCommand {
    Box::new(move |number| {
        let log = logs.join(format!("taskmanager-{number}.log"));
        let mut command = own_process("taskmanager", &settings, &log)?;
        command.arg(format!("-D{}={}", JOBMANAGER_ADDRESS.name(), "localhost"));
        command.arg(format!("-D{}={}", JOBMANAGER_PORT.name(), at.port())).arg("--end-with-input");
        Ok(command)
    })
}

/// Names the file that a process logs to.
const LOG_FILE_VARIABLE: &str = "MILLSTREAM_LOG_FILE";

/// A process of this program, which logs to a file, with what its jobs log beside it, as those that `bin/` starts. What it prints
/// goes to one with the ending `out`.
fn own_process(verb: &str, settings: &[OsString], log: &Path) -> Result<Command, Failure> {
    let failed = |what: &str, cause: std::io::Error| Failure::fatal(format!("{what}: {cause}"));
    let program = env::current_exe().map_err(|cause| failed("this program is not found", cause))?;
    let printed = log.with_extension("out");
    let file = File::create(&printed);
    let file = file.map_err(|cause| failed(&format!("{} cannot be written", printed.display()), cause))?;
    let out = file.try_clone().map_err(|cause| failed("no descriptor can be had", cause))?;
    let mut command = Command::new(program);
    command.env(LOG_FILE_VARIABLE, log).arg(verb).args(settings.iter().cloned().map(settings::argument));
    command.stdout(Stdio::from(out)).stderr(Stdio::from(file));
    Ok(command)
}

/// Where logs of clusters for one job lie: as `MILLSTREAM_LOG_DIR` or env.log.dir says, or with what other programs
/// keep of their state.
///
/// # Errors
/// If nothing says where, or it cannot be made.
pub fn log_folder(configured: Option<String>) -> Result<PathBuf> {
    let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = variable("MILLSTREAM_LOG_DIR")
        .or_else(|| configured.map(PathBuf::from))
        .or_else(|| Some(variable("XDG_STATE_HOME")?.join("millstream/log")))
        .or_else(|| Some(variable("HOME")?.join(".local/state/millstream/log")))
        .context("nothing says where logs are to lie: set env.log.dir")?;
    std::fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made (env.log.dir)", folder.display()))?;
    std::path::absolute(&folder).context("the current folder has no name")
}
