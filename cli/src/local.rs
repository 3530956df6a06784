//! `millstream local`: runs an artifact on this machine, in several worker processes.
//!
//! This process becomes the program: its exit code is the program's, signals reach it, and its workers end with it. There
//! is nothing to forward and nobody to be left behind.

use std::{
    convert::Infallible,
    ffi::OsString,
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use clap::{Args, value_parser};
use millstream::model::config::{LOCAL_TASK_MANAGERS, TASK_SLOTS};
use millstream_cluster::executable::Executable;

use crate::{plan, settings};

#[derive(Args)]
#[command(override_usage = "millstream local [--workers N] [--slots M] [-Dkey=value]... ARTIFACT [ARGS]...")]
pub struct Options {
    /// How many worker processes run the job (local.number-taskmanager); with 1 it runs in the program's own process,
    /// with all the slots that it needs
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=1024))]
    workers: Option<u32>,
    /// How many slots each of several workers offers (taskmanager.numberOfTaskSlots)
    #[arg(long, value_name = "M", value_parser = value_parser!(u32).range(1..=32768))]
    slots: Option<u32>,
    /// Configuration of the job, stronger than conf/config.yaml and the environment
    #[arg(short = 'D', value_name = "key=value")]
    settings: Vec<OsString>,
    /// The executable, and arguments for its main(), -Dkey=value among them
    #[arg(value_name = "ARTIFACT [ARGS]", required = true, trailing_var_arg = true)]
    artifact: Vec<OsString>,
}

/// The program could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start {path}{}", if source.kind() == io::ErrorKind::PermissionDenied { " (try `chmod +x`)" } else { "" })]
struct Unstartable {
    path: PathBuf,
    source: io::Error,
}

/// Becomes the program.
///
/// # Errors
/// If it is not an artifact for this machine, or cannot be started.
pub fn run(options: &Options) -> Result<Infallible> {
    let (path, arguments) = options.artifact.split_first().context("ARTIFACT is missing")?;
    let path = Path::new(path);
    Executable::read(path)?;
    become_program(path, options.dynamic(), arguments)
}

/// Becomes a program that is an artifact, with configuration before its own arguments.
///
/// # Errors
/// If it cannot be started.
pub fn become_program(path: &Path, dynamic: Vec<OsString>, arguments: &[OsString]) -> Result<Infallible> {
    let source = Command::new(plan::program(path)).args(dynamic).args(arguments).env("MILLSTREAM_ROLE", "run").exec();
    Err(Unstartable { path: path.to_owned(), source }.into())
}

impl Options {
    /// The configuration as arguments of the program, before its own ones, which win.
    fn dynamic(&self) -> Vec<OsString> {
        let number = |key: &str, value: Option<u32>| value.map(|value| format!("-D{key}={value}").into());
        let settings = self.settings.iter().cloned().map(settings::argument);
        let (workers, slots) =
            (number(LOCAL_TASK_MANAGERS.name(), self.workers), number(TASK_SLOTS.name(), self.slots));
        workers.into_iter().chain(slots).chain(settings).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn parsed(line: &str) -> Result<(String, String), clap::Error> {
        let options = Line::try_parse_from(["local"].into_iter().chain(line.split(' ')))?.options;
        let text = |parts: &[OsString]| parts.join("+".as_ref()).into_string().expect("it was a text");
        Ok((text(&options.dynamic()), text(&options.artifact)))
    }

    #[test]
    fn what_comes_before_the_artifact_is_configuration_and_what_follows_is_the_programs() {
        let is = |line: &str, dynamic: &str, artifact: &str| {
            assert_eq!(parsed(line).expect(line), (dynamic.to_owned(), artifact.to_owned()), "{line}");
        };
        is("job", "", "job");
        is(
            "--workers 3 --slots 2 -Da.b=c=d job --workers 9 -Dx=y",
            "-Dlocal.number-taskmanager=3+-Dtaskmanager.numberOfTaskSlots=2+-Da.b=c=d",
            "job+--workers+9+-Dx=y",
        );
        is("-D a=b job --help", "-Da=b", "job+--help");
    }

    #[test]
    fn no_workers_and_no_slots_are_refused() {
        for line in ["--workers 0 job", "--slots 0 job", "--workers many job", "--workers 2"] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }
}
