//! `millstream jobmanager` and `millstream taskmanager`: the processes of a cluster. `bin/start-cluster.sh` starts them.

use std::ffi::OsString;

use anyhow::{Context, Result};
use clap::Args;
use millstream::{logging, model::config::Configuration};
use millstream_cluster::{jobmanager, taskmanager};
use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use crate::settings;

#[derive(Args)]
pub struct Options {
    /// Configuration, stronger than conf/config.yaml and the environment
    #[arg(short = 'D', value_name = "key=value")]
    settings: Vec<OsString>,
}

#[derive(Args)]
pub struct TaskManagerOptions {
    #[command(flatten)]
    common: Options,
    /// End when standard input ends: with the process that has started this one
    #[arg(long, hide = true)]
    end_with_input: bool,
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
pub fn taskmanager(options: &TaskManagerOptions) -> Result<()> {
    let configuration = configuration(&options.common.settings)?;
    runtime()?.block_on(async {
        let ready = |at: &str| println!("TaskManager: registered at {at}");
        let (told, input) = (told_to_end()?, end_of_input(options.end_with_input)?);
        let stop = async {
            tokio::select! {
                () = told => {}
                () = input => {}
            }
        };
        Ok(taskmanager::run(configuration, ready, stop).await?)
    })
}

/// Is there when standard input has ended, if that counts.
fn end_of_input(counts: bool) -> Result<impl Future<Output = ()>> {
    let (sender, ended) = oneshot::channel();
    if counts {
        let wait = move || {
            // Nothing ever comes there.
            let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
            let _ = sender.send(());
        };
        // Not by the runtime, which would wait for it at its end.
        let thread = std::thread::Builder::new().name("input-watch".to_owned()).spawn(wait);
        thread.context("no thread can be had")?;
    }
    Ok(async move {
        match counts {
            true => drop(ended.await),
            false => std::future::pending().await,
        }
    })
}

/// The configuration of a process of a cluster. Logging starts with it.
///
/// # Errors
/// If it cannot be read.
pub fn configuration(given: &[OsString]) -> Result<Configuration> {
    let configuration = settings::load(given)?;
    logging::start_daemon(&configuration);
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
