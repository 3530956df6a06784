//! What the integration tests in `it/` share: local environments, conditions to wait for, and other processes.
//!
//! | Look here for | module |
//! |---|---|
//! | programs as processes of their own | [`program`] |
//! | jobs in processes that are watched, killed and started again | [`job_process`] |
//! | jobs on worker processes | [`worker_processes`] |
//! | the command line of a real Flink | [`flink`] |
//! | a real Prometheus, a real collector of OpenTelemetry | [`prometheus`], [`collector`] |
//! | an SSH server | [`ssh`] |
//! | clients in Python, generated | [`python`] |
//! | hosts that have nothing but a network in common | [`hosts`] |
//! | a worker on such a host | [`hosted_worker`] |
//! | jobs on worker processes of several hosts | [`host_workers`] |
//! | paths between hosts that delay, lose and reorder | [`weather`] |
//! | clusters of real processes, by the scripts in `bin/` | [`standalone`] |
//! | requests over HTTP | [`http`] |
//! | certificates, and requests over TLS | [`tls`] |
//! | connections to a worker by somebody else | [`dial`] |
//! | what a job reads whose words are counted | [`text`] |
//! | decoders of bytes from outside, for their corpus | [`decoders`] |
//! | what a job has written and committed | [`counts`] |

#![allow(clippy::disallowed_methods, reason = "tests wait for conditions, with a limit on the wall clock")]

use std::{
    env, fs,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use millstream::prelude::*;

pub mod collector;
pub mod counts;
pub mod decoders;
pub mod dial;
pub mod flink;
pub mod host_workers;
pub mod hosted_worker;
pub mod hosts;
pub mod http;
pub mod job_process;
pub mod program;
pub mod prometheus;
pub mod python;
pub mod ssh;
pub mod standalone;
pub mod text;
pub mod tls;
pub mod weather;
pub mod worker_processes;

/// An environment with an embedded cluster, configured by `key=value` texts.
///
/// # Panics
/// If one of them is no `key=value`.
pub fn local(settings: &[&str]) -> StreamExecutionEnvironment {
    let mut configuration = Configuration::new();
    let arguments = settings.iter().map(|setting| format!("-D{setting}"));
    configuration.apply_dynamic(arguments).expect("settings are key=value");
    StreamExecutionEnvironment::local(configuration)
}

/// Waits until `condition` holds.
///
/// # Panics
/// If it does not within a minute.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < limit, "waited a minute for: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Sends a process a signal, such as `KILL`.
///
/// # Panics
/// If there is no such process.
pub fn signal(name: &str, pid: u32) {
    let kill = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status();
    assert!(kill.is_ok_and(|status| status.success()), "process {pid} cannot be sent {name}");
}

/// Whether there is no such process, or it waits for its parent to look at its exit status.
pub fn has_ended(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.map_or(true, |stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')))
}

/// The folder for everything that can be made again, as `cargo xtask` finds it.
pub fn cache_folder() -> PathBuf {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("MILLSTREAM_CACHE_DIR")
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("millstream")))
        .or_else(|| Some(set("HOME")?.join(".cache/millstream")))
        .expect("HOME is set")
}
