//! `millstream run`: has a program's jobs run on a cluster.
//!
//! ```text
//!  this process ──starts, in the role `plan`──► the artifact's main(), once
//!       ▲                                          │ each execute()
//!       └───────────── a Unix socket ◄─────────────┘
//!       ▼
//!  JobManager: artifact (once), job graph, progress, result
//! ```
//! With `-t standalone-per-job` each `execute()` starts a JobManager of its own first, as a process of this machine.
//! Attached (the default), a blocking `execute()` waits for its job; with `-d` it returns when the job is accepted.

mod clusters;
mod program;
mod progress;

use std::{
    ffi::OsString,
    path::Path,
    process::{ExitCode, ExitStatus},
    sync::{Arc, Mutex},
};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use millstream::model::{
    config::{
        Configuration, HIGH_AVAILABILITY, HighAvailability, LOG_DIRECTORY, PARALLELISM, REST_ADDRESS,
        STATE_RECOVERY_PATH,
    },
    id::JobId,
    state::JobStatus,
};
use millstream_client::{Access, Client};
use millstream_cluster::{executable::Executable, program::ProgramLine};
use tokio::{runtime::Builder, signal};

use self::{
    clusters::{Clusters, PerJob},
    program::Program,
};
use crate::{Form, job_cluster, local, plan, settings};

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
    /// Each on a cluster of its own on this machine, which ends with it
    StandalonePerJob,
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
    let target = options.target(&configuration);
    if target == Target::Local {
        return local::become_program(path, options.dynamic(), arguments).map(|never| match never {});
    }
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.context("no threads can be had")?.block_on(async {
        let clusters = match target {
            Target::StandalonePerJob => Clusters::PerJob(options.per_job(&configuration)?),
            _ => Clusters::Session(Box::new(options.session(&configuration).await?)),
        };
        options.run_on(clusters, path, arguments).await
    })
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

    async fn session(&self, configuration: &Configuration) -> Result<Client> {
        let address = settings::jobmanager(self.jobmanager.as_deref(), configuration)?;
        Ok(Client::connect_with(&address, &Access::configured(configuration)?).await?)
    }

    fn per_job(&self, configuration: &Configuration) -> Result<PerJob> {
        if let Some(address) = &self.jobmanager {
            bail!("-m {address} names a cluster that is there, and with -t standalone-per-job each job gets its own");
        }
        if configuration.get(&HIGH_AVAILABILITY)? != HighAvailability::None {
            eprintln!(
                "warning: {} is not for clusters of one job, whose JobManager nobody starts again",
                HIGH_AVAILABILITY.name()
            );
        }
        Ok(PerJob {
            access: Access::configured(configuration)?,
            settings: self.settings.clone(),
            log_folder: job_cluster::log_folder(configuration.get(&LOG_DIRECTORY)?)?,
            ends_with_client: self.shutdown_on_attached_exit && !self.detached,
        })
    }

    async fn run_on(&self, clusters: Clusters, path: &Path, arguments: &[OsString]) -> Result<()> {
        let line = ProgramLine::open().context("no socket for the program can be had")?;
        let mut child = line
            .command(&plan::program(path))
            .args(self.dynamic())
            .args(arguments)
            .spawn()
            .with_context(|| format!("cannot start {}", path.display()))?;
        let program = Arc::new(Program {
            clusters,
            artifact: std::path::absolute(path).context("the current folder has no name")?,
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
            self.on_interrupt(&program).await?;
            program.let_go().await;
            return Err(NotFinished::Interrupted.into());
        };
        program.let_go().await;
        program.verdict(status).map_err(Into::into)
    }

    /// As Flink does: the jobs of an attached client that is interrupted go on, unless it was told to take them with it.
    async fn on_interrupt(&self, program: &Program) -> Result<()> {
        for (job, mut client) in program.running() {
            if self.shutdown_on_attached_exit {
                client.cancel(job).await?;
                eprintln!("Job {job} is cancelled.");
            } else {
                eprintln!("Job {job} goes on; `millstream cancel -m {} {job}` ends it.", client.address());
            }
        }
        Ok(())
    }
}

impl Program {
    /// The jobs of whose end nothing is known, and who can be asked about them.
    fn running(&self) -> Vec<(JobId, Client)> {
        let jobs = self.jobs();
        let running = jobs.iter().filter(|known| known.ended_as().is_none());
        running.map(|known| (known.job, known.client.clone())).collect()
    }

    /// What the command ends with: how its jobs ended comes before what the program made of it.
    fn verdict(&self, status: ExitStatus) -> Result<(), NotFinished> {
        let jobs = self.jobs();
        let ended_as = |wanted: JobStatus| jobs.iter().find(|known| known.ended_as() == Some(wanted));
        if let Some(known) = ended_as(JobStatus::Failed) {
            return Err(NotFinished::Failed(known.job));
        }
        if let Some(known) = ended_as(JobStatus::Canceled) {
            return Err(NotFinished::Cancelled(known.job));
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
