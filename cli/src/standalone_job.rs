//! `millstream standalone-job`: a JobManager for one application, whose `main()` runs beside it. The cluster ends with it.
//! `bin/standalone-job.sh` starts it, `bin/taskmanager.sh` its TaskManagers.

use std::{ffi::OsString, path::PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use millstream::model::{
    config::{PIPELINE_JOB_ID, STATE_RECOVERY_PATH},
    id::JobId,
};
use millstream_cluster::{
    executable::Executable,
    jobmanager::{self, Application, ApplicationStatus},
    usrlib,
};

use crate::daemon;

#[derive(Args)]
#[command(override_usage = "millstream standalone-job [OPTIONS] [-Dkey=value]... [ARGS]...")]
pub struct Options {
    /// The executable, in the folder usrlib ($MILLSTREAM_USRLIB_DIR) or at a path; without it, the only one in usrlib
    #[arg(long, value_name = "NAME")]
    artifact: Option<PathBuf>,
    /// The id of the application's job (pipeline.jobid)
    #[arg(long, value_name = "ID")]
    job_id: Option<JobId>,
    /// A checkpoint or savepoint to start from (execution.state-recovery.path)
    #[arg(short = 's', long = "from-savepoint", visible_alias = "fromSavepoint", value_name = "PATH")]
    from_savepoint: Option<String>,
    /// Configuration of the cluster and of the application, stronger than conf/config.yaml and the environment
    #[arg(short = 'D', value_name = "key=value")]
    settings: Vec<OsString>,
    /// Arguments for the application's main(), -Dkey=value among them
    #[arg(value_name = "ARGS", trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Runs the application and its JobManager, until the one has ended or the other is told to by SIGTERM or SIGINT.
///
/// # Errors
/// If they cannot start, or the application has failed.
pub fn run(options: &Options) -> Result<()> {
    let configuration = daemon::configuration(&options.settings)?;
    let artifact = usrlib::choose(&usrlib::folder(), options.artifact.as_deref())?;
    Executable::read(&artifact)?;
    let application = Application { artifact, arguments: options.arguments()? };
    daemon::runtime()?.block_on(async {
        let ready = |at: jobmanager::Addresses| {
            println!("JobManager: clients at {}, TaskManagers at {}", at.clients, at.task_managers);
        };
        let stop = daemon::told_to_end()?;
        let ended = jobmanager::run_application(configuration, application, ready, stop).await?;
        match ended {
            Some(ApplicationStatus::Succeeded) => println!("The application has succeeded."),
            // No reason for whoever looks after this process to start it again.
            Some(ApplicationStatus::Canceled) => println!("The application was cancelled."),
            None => println!("The application was stopped."),
        }
        Ok(())
    })
}

impl Options {
    /// Configuration first, so that the program's own arguments win.
    fn arguments(&self) -> Result<Vec<String>> {
        let mut all = Vec::new();
        for setting in &self.settings {
            all.push(format!("-D{}", setting.to_str().context("a -D setting is no text")?));
        }
        all.extend(self.job_id.map(|id| format!("-D{}={id}", PIPELINE_JOB_ID.name())));
        all.extend(self.from_savepoint.as_ref().map(|path| format!("-D{}={path}", STATE_RECOVERY_PATH.name())));
        all.extend(self.arguments.iter().cloned());
        Ok(all)
    }
}
