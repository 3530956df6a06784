//! Workers as processes: started from the artifact and a job graph alone, each runs its share; they come back when they
//! are killed, and end with whoever started them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use millstream::model::{config::Configuration, state::JobStatus};
use millstream_tests::{
    has_ended, signal, wait_until,
    worker_processes::{RemoteJob, planned},
};

const ARTIFACT: &str = env!("CARGO_BIN_EXE_two_pipelines_job");

#[test]
fn two_processes_each_run_their_share_of_the_graph() {
    let graph = planned(Path::new(ARTIFACT), &[]);
    // Two sharing groups of one slot each, and workers with one slot.
    let outcome = RemoteJob::start(Path::new(ARTIFACT), graph, 2, 1).wait();
    assert_eq!(outcome.status, JobStatus::Finished, "{:?}", outcome.failure);
    let bytes: Vec<usize> = outcome.collected.iter().map(|(_, records)| records.len()).filter(|n| *n > 0).collect();
    // Each record is an eight-byte archive behind its eight-byte length.
    assert_eq!(bytes.iter().sum::<usize>(), 16 * 1_500, "{bytes:?}");
}

#[test]
fn a_worker_refuses_the_graph_of_another_executable() {
    let mut graph = planned(Path::new(ARTIFACT), &[]);
    graph.artifact.as_mut().unwrap().sha256 = "0".repeat(64);
    graph.configuration = Configuration::new();
    let outcome = RemoteJob::start(Path::new(ARTIFACT), graph, 2, 1).wait();
    assert_eq!(outcome.status, JobStatus::Failed);
    let message = outcome.failure.unwrap().message;
    assert!(message.contains("SHA-256 0000"), "{message}");
}

/// The job, run directly with two worker processes, and a gate that holds it half-way.
struct Local {
    root: tempfile::TempDir,
    job: Child,
}

impl Local {
    fn start(settings: &[&str]) -> Local {
        let root = tempfile::tempdir().unwrap();
        let job = Command::new(ARTIFACT)
            .arg(root.path().join("gate"))
            .args(["-Dlocal.number-taskmanager=2", "-Dtaskmanager.numberOfTaskSlots=1"])
            .args(settings)
            .current_dir(root.path())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(root.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        Local { root, job }
    }

    fn gate(&self) -> PathBuf {
        self.root.path().join("gate")
    }

    /// The process that waits at the gate, once there is one other than `old`.
    fn waits_at_gate(&self, old: Option<u32>) -> u32 {
        let pid = || fs::read_to_string(self.root.path().join("gate.pid")).ok()?.parse().ok();
        wait_until("a process at the gate", || pid().is_some_and(|pid| Some(pid) != old));
        pid().unwrap()
    }

    /// Opens the gate. All output, which ends with the last process that could write some.
    fn finish(self) -> (bool, String, String) {
        fs::write(self.gate(), b"").unwrap();
        let Local { root, job } = self;
        let output = job.wait_with_output().unwrap();
        let log = fs::read_to_string(root.path().join("log")).unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap(), log)
    }
}

#[test]
fn a_program_that_is_run_directly_starts_its_workers_and_leaves_none() {
    let local = Local::start(&[]);
    let (job, worker) = (local.job.id(), local.waits_at_gate(None));
    assert_ne!(job, worker);
    let (is_success, output, log) = local.finish();
    assert!(is_success, "{log}");
    // What the function printed in the worker comes through, also without the end of a line.
    assert_eq!(output, format!("[{worker}]1000 500\n"), "{log}");
}

#[test]
fn a_worker_that_is_killed_is_replaced_and_the_job_starts_again() {
    let local = Local::start(&["-Drestart-strategy.type=fixed-delay", "-Drestart-strategy.fixed-delay.delay=1 ms"]);
    let first = local.waits_at_gate(None);
    signal("KILL", first);
    let second = local.waits_at_gate(Some(first));
    let (is_success, output, log) = local.finish();
    assert!(is_success, "{log}");
    assert_eq!(output, format!("[{first}][{second}]1000 500\n"), "each record counts once\n{log}");
    assert!(log.contains("killed by signal 9 (SIGKILL)"), "{log}");
}

#[test]
fn without_restarts_a_killed_worker_fails_the_job_with_the_signal() {
    let local = Local::start(&[]);
    signal("KILL", local.waits_at_gate(None));
    let (is_success, output, log) = local.finish();
    assert!(!is_success && !output.contains("1000"), "{output}");
    assert!(log.contains("worker process 0 has ended: killed by signal 9 (SIGKILL)"), "{log}");
}

#[test]
fn workers_end_when_the_program_is_killed_even_if_a_function_blocks() {
    let mut local = Local::start(&[]);
    let worker = local.waits_at_gate(None);
    local.job.kill().unwrap();
    local.job.wait().unwrap();
    wait_until("the end of the worker", || has_ended(worker));
    assert!(!local.gate().exists(), "it was not the gate that let it go");
}

#[test]
fn too_few_slots_are_an_error_at_once() {
    let local = Local::start(&["-Dparallelism.default=4"]);
    let (is_success, _, log) = local.finish();
    assert!(!is_success && log.contains("slots and 2 are there"), "{log}");
}

#[test]
fn a_program_without_roles_does_not_start_itself_as_a_worker() {
    let env = millstream_tests::local(&["local.number-taskmanager=2"]);
    env.from_collection(0..3_u64).map(|number| number).print();
    let error = env.execute("no roles").unwrap_err();
    let message = format!("{error:?}");
    assert!(message.contains("#[millstream::main]"), "{message}");
}
