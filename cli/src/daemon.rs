//! `millstream jobmanager` and `millstream taskmanager`: the processes of a cluster. `bin/start-cluster.sh` starts them.

use std::ffi::OsString;

use anyhow::{Context, Result};
use clap::Args;
use millstream::{logging, model::config::Configuration};
use millstream_cluster::{jobmanager, taskmanager};
use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
};

use crate::settings;

#[derive(Args)]
pub struct Options {
    /// Configuration, stronger than conf/config.yaml and the environment
    #[arg(short = 'D', value_name = "key=value")]
    settings: Vec<OsString>,
}

/// Runs a JobManager until it is told to end by SIGTERM or SIGINT. Says on standard output where it can be reached.
///
/// # Errors
/// If it cannot start.
pub fn jobmanager(options: &Options) -> Result<()> {
    let configuration = configuration(&options.settings)?;
    runtime()?.block_on(async {
        let ready = |at: jobmanager::Addresses| {
            println!("JobManager: clients at {}, TaskManagers at {}", at.clients, at.task_managers);
        };
        Ok(jobmanager::run(configuration, ready, told_to_end()?).await?)
    })
}

/// Runs a TaskManager until it is told to end by SIGTERM or SIGINT. Says on standard output when it has registered.
///
/// # Errors
/// If it cannot start, or the JobManager will have none of it.
pub fn taskmanager(options: &Options) -> Result<()> {
    let configuration = configuration(&options.settings)?;
    runtime()?.block_on(async {
        let ready = |at: &str| println!("TaskManager: registered at {at}");
        Ok(taskmanager::run(configuration, ready, told_to_end()?).await?)
    })
}

/// The configuration of a process of a cluster. Logging starts with it.
///
/// # Errors
/// If it cannot be read.
pub fn configuration(given: &[OsString]) -> Result<Configuration> {
    let configuration = settings::load(given)?;
    logging::start(&configuration);
    for warning in configuration.warnings() {
        eprintln!("warning: {warning}");
    }
    Ok(configuration)
}

/// # Errors
/// If no threads can be had.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.context("no threads can be had")
}

/// Is there when the process is told to end.
///
/// # Errors
/// If signals cannot be waited for.
pub fn told_to_end() -> Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("signals cannot be waited for")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("signals cannot be waited for")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
