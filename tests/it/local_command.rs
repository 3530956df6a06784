//! The command `millstream local`: runs an artifact in several worker processes, and leaves nothing behind.

#![allow(clippy::disallowed_methods, reason = "tests wait for conditions, with a limit on the wall clock")]

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

use millstream_tests::{has_ended, program::built, signal, wait_until};

const ARTIFACT: &str = env!("CARGO_BIN_EXE_two_pipelines_job");

fn millstream() -> Command {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    Command::new(BUILT.get_or_init(|| built("millstream")))
}

fn local(arguments: &[&str]) -> Output {
    millstream().arg("local").args(arguments).current_dir(env!("CARGO_TARGET_TMPDIR")).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn an_artifact_runs_in_as_many_workers_as_were_asked_for() {
    let output = local(&["--workers", "3", "--slots", "1", "-Drest.port=0", ARTIFACT]);
    let log = text(&output.stderr);
    assert!(output.status.success(), "{log}");
    assert!(text(&output.stdout).ends_with("]1000 500\n"), "{}", text(&output.stdout));
    assert_eq!(log.matches("a worker process has started").count(), 3, "{log}");
}

#[test]
fn the_exit_code_is_the_programs() {
    // The program refuses its configuration with code 2, which the command itself has for its own command line alone.
    let output = local(&["--workers", "2", "-Dtaskmanager.numberOfTaskSlots=none", ARTIFACT]);
    let log = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{log}");
    assert!(log.contains("taskmanager.numberOfTaskSlots"), "{log}");
}

#[test]
fn what_is_no_artifact_is_refused_by_name() {
    let refused = |path: &str, code: i32, why: &str| {
        let output = local(&["--workers", "2", path]);
        let log = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{log}");
        assert!(log.contains(path) && log.contains(why), "{log}");
    };
    refused("/no/such/artifact", 3, "cannot read");
    refused("/bin/true", 3, "no Millstream artifact");
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("job");
    // Not `copy`, which would make it executable.
    fs::write(&copy, fs::read(ARTIFACT).unwrap()).unwrap();
    refused(copy.to_str().unwrap(), 1, "chmod +x");
}

#[test]
fn a_signal_ends_the_program_and_its_workers() {
    for (name, number) in [("INT", 2), ("TERM", 15)] {
        let directory = tempfile::tempdir().unwrap();
        let gate = directory.path().join("gate");
        let mut running = millstream()
            .args(["local", "--workers", "2", ARTIFACT])
            .arg(&gate)
            .current_dir(directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let pid = || fs::read_to_string(directory.path().join("gate.pid")).ok()?.parse().ok();
        wait_until("a worker at the gate", || pid().is_some());
        let worker: u32 = pid().unwrap();
        signal(name, running.id());
        let status = running.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(number), "{status}");
        wait_until("the end of the worker", || has_ended(worker));
    }
}
