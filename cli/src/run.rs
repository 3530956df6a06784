//! `millstream run`: has a program's jobs run on a cluster.
//!
//! ```text
//!  this process ──starts, in the role `plan`──► the artifact's main(), once
//!       ▲                                          │ each execute()
//!       └───────────── a Unix socket ◄─────────────┘
//!       ▼
//!  JobManager: artifact (once), job graph, progress, result
//! ```
//! Attached (the default), a blocking `execute()` waits for its job; with `-d` it returns when the job is accepted.

mod program;
mod progress;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{ExitCode, ExitStatus},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use millstream::model::{
    config::{Configuration, PARALLELISM, REST_ADDRESS, STATE_RECOVERY_PATH},
    id::JobId,
    state::JobStatus,
};
use millstream_client::{Access, Client};
use millstream_cluster::{executable::Executable, program::ProgramLine};
use tokio::{runtime::Builder, signal};

use self::program::Program;
use crate::{Form, local, plan, settings};

#[derive(Args)]
#[command(override_usage = "millstream run [OPTIONS] [-Dkey=value]... ARTIFACT [ARGS]...")]
pub struct Options {
    /// Return when the job is accepted, and do not wait for its end
    #[arg(short, long)]
    detached: bool,
    /// Cancel the job if this command is interrupted; without it the job goes on
    #[arg(long, visible_alias = "sae")]
    shutdown_on_attached_exit: bool,
    /// The JobManager (rest.address, rest.port)
    #[arg(short = 'm', long, value_name = "host:port")]
    jobmanager: Option<String>,
    /// How many subtasks operators have that do not say otherwise (parallelism.default)
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=32768))]
    parallelism: Option<u32>,
    /// A checkpoint or savepoint to start from (execution.state-recovery.path)
    #[arg(short = 's', long = "from-savepoint", value_name = "PATH")]
    from_savepoint: Option<OsString>,
    /// Where the jobs run; without it, on a cluster if -m or rest.address names one, else in the program's own process
    #[arg(short, long)]
    target: Option<Target>,
    /// How the result is shown
    #[arg(long, value_enum, default_value = "text")]
    output: Form,
    /// Configuration of the job, stronger than conf/config.yaml and the environment
    #[arg(short = 'D', value_name = "key=value")]
    settings: Vec<OsString>,
    /// The executable, and arguments for its main(), -Dkey=value among them
    #[arg(value_name = "ARTIFACT [ARGS]", required = true, trailing_var_arg = true)]
    artifact: Vec<OsString>,
}

/// Where jobs run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Target {
    /// In the program's own process
    Local,
    /// On the cluster of a JobManager
    Remote,
}

/// The program's jobs have not all finished.
#[derive(Debug, thiserror::Error)]
pub enum NotFinished {
    #[error("job {0} was cancelled")]
    Cancelled(JobId),
    #[error("job {0} has failed")]
    Failed(JobId),
    #[error("the program has ended with {0}")]
    Program(ExitStatus),
    #[error("interrupted")]
    Interrupted,
}

/// Runs the program, and its jobs.
///
/// # Errors
/// If the artifact is none, the cluster cannot be reached, or a job has not finished.
pub fn run(options: &Options) -> Result<()> {
    let (path, arguments) = options.artifact.split_first().context("ARTIFACT is missing")?;
    let path = Path::new(path);
    Executable::read(path)?;
    let configuration = settings::load(&options.settings)?;
    if options.target(&configuration) == Target::Local {
        return local::become_program(path, options.dynamic(), arguments).map(|never| match never {});
    }
    let address = settings::jobmanager(options.jobmanager.as_deref(), &configuration)?;
    let access = Access::configured(&configuration)?;
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.context("no threads can be had")?.block_on(options.run_remote(path, arguments, &address, &access))
}

impl Options {
    fn target(&self, configuration: &Configuration) -> Target {
        let names_cluster = self.jobmanager.is_some() || configuration.origin(&REST_ADDRESS).is_some();
        self.target.unwrap_or(if names_cluster { Target::Remote } else { Target::Local })
    }

    /// The configuration as arguments of the program, before its own ones, which win.
    fn dynamic(&self) -> Vec<OsString> {
        let parallelism = self.parallelism.map(|count| format!("{}={count}", PARALLELISM.name()).into());
        let savepoint = self.from_savepoint.as_ref().map(|path| {
            let mut text = OsString::from(format!("{}=", STATE_RECOVERY_PATH.name()));
            text.push(path);
            text
        });
        parallelism.into_iter().chain(savepoint).chain(self.settings.iter().cloned()).map(settings::argument).collect()
    }

    async fn run_remote(&self, path: &Path, arguments: &[OsString], address: &str, access: &Access) -> Result<()> {
        let client = Client::connect_with(address, access).await?;
        let line = ProgramLine::open().context("no socket for the program can be had")?;
        let mut child = line
            .command(&plan::program(path))
            .args(self.dynamic())
            .args(arguments)
            .spawn()
            .with_context(|| format!("cannot start {}", path.display()))?;
        let program = Arc::new(Program {
            client: client.clone(),
            artifact: PathBuf::from(path),
            is_detached: self.detached,
            form: self.output,
            jobs: Mutex::default(),
        });
        let serving = tokio::spawn(line.serve(program.clone()));
        let ended = tokio::select! {
            ended = child.wait() => Some(ended.context("the program cannot be waited for")?),
            _ = signal::ctrl_c() => None,
        };
        serving.abort();
        let Some(status) = ended else {
            self.on_interrupt(client, &program).await?;
            return Err(NotFinished::Interrupted.into());
        };
        program.verdict(status).map_err(Into::into)
    }

    /// As Flink does: the jobs of an attached client that is interrupted go on, unless it was told to take them with it.
    async fn on_interrupt(&self, mut client: Client, program: &Program) -> Result<()> {
        for job in program.running() {
            if self.shutdown_on_attached_exit {
                client.cancel(job).await?;
                eprintln!("Job {job} is cancelled.");
            } else {
                eprintln!("Job {job} goes on; `millstream cancel {job}` ends it.");
            }
        }
        Ok(())
    }
}

/// What is known of a job that the program has submitted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Running,
    Ended(JobStatus),
}

impl Program {
    fn running(&self) -> Vec<JobId> {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.iter().filter(|(_, fate)| *fate == Fate::Running).map(|(job, _)| *job).collect()
    }

    /// What the command ends with: how its jobs ended comes before what the program made of it.
    fn verdict(&self, status: ExitStatus) -> Result<(), NotFinished> {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let ended_as = |wanted: JobStatus| jobs.iter().find(|(_, fate)| *fate == Fate::Ended(wanted));
        if let Some((job, _)) = ended_as(JobStatus::Failed) {
            return Err(NotFinished::Failed(*job));
        }
        if let Some((job, _)) = ended_as(JobStatus::Canceled) {
            return Err(NotFinished::Cancelled(*job));
        }
        if !status.success() {
            return Err(NotFinished::Program(status));
        }
        if jobs.is_empty() {
            eprintln!("The program has executed no job.");
        }
        Ok(())
    }
}

/// The exit code of a command whose jobs have not finished.
pub fn exit_code(why: &NotFinished) -> ExitCode {
    ExitCode::from(match why {
        NotFinished::Failed(_) | NotFinished::Program(_) => 1,
        NotFinished::Cancelled(_) => 4,
        NotFinished::Interrupted => 130,
    })
}
