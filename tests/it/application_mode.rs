//! Application mode on a standalone cluster: a program's `main()` runs beside the JobManager, which begins and ends with it.

use std::fs;

use millstream_tests::{
    has_ended, http::Http, job_process::JobFolder, signal, standalone::StandaloneCluster, wait_until,
};
use serde_json::Value;

const SEVERAL_JOBS: &str = env!("CARGO_BIN_EXE_several_jobs");
const WORD_COUNT: &str = env!("CARGO_BIN_EXE_word_count_job");
const GROWING_WORD_COUNT: &str = env!("CARGO_BIN_EXE_growing_word_count_job");

/// The cluster of `several_jobs` with these arguments.
fn application(task_managers: usize, slots: u32, settings: &[&str], what: &str, folder: &str) -> StandaloneCluster {
    StandaloneCluster::application(task_managers, slots, settings, SEVERAL_JOBS, &[what, folder])
}

/// Waits until nothing is left of it; returns what its JobManager has logged.
fn ended(cluster: &StandaloneCluster) -> String {
    let processes = [cluster.processes("standalone-job"), cluster.processes("taskmanager")].concat();
    wait_until("the end of the cluster", || processes.iter().all(|process| has_ended(*process)));
    assert_eq!(cluster.left_behind(), [] as [std::path::PathBuf; 0]);
    cluster.log("standalone-job")
}

#[test]
fn a_blocking_execution_waits_and_the_next_one_needs_its_result() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().to_str().unwrap();
    let cluster = application(1, 1, &[], "one-after-the-other", folder);
    let log = ended(&cluster);
    assert!(log.contains("The application has succeeded."), "{log}");
    assert_eq!(fs::read_to_string(root.path().join("counted")).unwrap(), "10 20");
    // A worker for each, from the artifact where it was put.
    assert_eq!(cluster.workers().len(), 2);
    // It is looked for, and hashed, once.
    assert_eq!(cluster.log("taskmanager").matches("an artifact is in place").count(), 1);
}

#[test]
fn an_asynchronous_execution_begins_before_the_one_before_it_ends() {
    let root = tempfile::tempdir().unwrap();
    // A slot for each.
    let cluster = application(2, 1, &[], "at-the-same-time", root.path().to_str().unwrap());
    let log = ended(&cluster);
    assert!(log.contains("The application has succeeded."), "{log}");
}

#[test]
fn one_of_several_jobs_is_cancelled_and_the_whole_application_ends() {
    let root = tempfile::tempdir().unwrap();
    let cluster = application(1, 2, &[], "endless", root.path().to_str().unwrap());
    let http = Http(cluster.address());
    let jobs = || http.get("/jobs/overview").json()["jobs"].as_array().unwrap().clone();
    let run = |jobs: Vec<Value>| jobs.len() == 2 && jobs.iter().all(|job| job["state"] == "RUNNING");
    wait_until("both run", || run(jobs()));
    // It is nobody else's.
    let refused = cluster.ask(&["run", WORD_COUNT, "in", "out"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("for one application"), "{refused:?}");
    assert_eq!(http.get("/jars").status, 404);
    let job = jobs()[0]["jid"].as_str().unwrap().to_owned();
    assert_eq!(http.send("PATCH", &format!("/jobs/{job}"), &[], b"").status, 202);
    let log = ended(&cluster);
    assert!(log.contains("The application was cancelled."), "{log}");
    assert_eq!(log.matches("the application has ended").count(), 1);
}

#[test]
fn an_application_that_fails_or_does_nothing_says_why() {
    // One that executes nothing has ended before any TaskManager comes.
    let cases = [("fails", 1, "a function that was told to fail"), ("nothing", 0, "main() ended without a job")];
    for (what, task_managers, words) in cases {
        let root = tempfile::tempdir().unwrap();
        let cluster =
            application(task_managers, 1, &["restart-strategy.type: none"], what, root.path().to_str().unwrap());
        let log = ended(&cluster);
        assert!(log.contains("error: ") && log.contains(words), "{what}: {log}");
        assert!(!log.contains("The application has"), "{what}: {log}");
    }
    let cluster = StandaloneCluster::start(0, 1, &[]);
    cluster.stop();
    let output = cluster.ask(&["standalone-job", "--artifact", SEVERAL_JOBS, "nothing", "nowhere"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let output = cluster.ask(&["standalone-job", "--artifact", "/bin/true"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
}

#[test]
fn a_task_manager_that_comes_when_the_application_has_ended_does_not_wait_for_ever() {
    let cluster = StandaloneCluster::prepare(0, 1, &[]);
    let late = cluster.ask(&["taskmanager", "-Dtaskmanager.registration.timeout=100 ms"]);
    let said = String::from_utf8_lossy(&late.stderr);
    assert_eq!(late.status.code(), Some(1), "{said}");
    assert!(said.contains("has not taken this TaskManager") && said.contains("registration.timeout"), "{said}");
    assert_eq!(cluster.left_behind(), [] as [std::path::PathBuf; 0]);
}

#[test]
fn with_high_availability_an_application_has_one_job_and_goes_on_after_its_jobmanager() {
    let root = tempfile::tempdir().unwrap();
    let storage = format!("high-availability.storageDir: {}", root.path().join("storage").display());
    let kept = ["high-availability.type: file", storage.as_str()];
    let folder = root.path().to_str().unwrap();
    let log = ended(&application(1, 1, &kept, "one-after-the-other", folder));
    assert!(log.contains("can execute one job"), "{log}");
    assert!(!fs::exists(root.path().join("counted")).unwrap());

    let storage = format!("high-availability.storageDir: {}", root.path().join("another").display());
    let kept = ["high-availability.type: file", storage.as_str(), "execution.checkpointing.interval: 50 ms"];
    let folder = JobFolder::new(root.path());
    folder.add_input("text", &"to be or not to be\n".repeat(100));
    let checkpoints = format!("execution.checkpointing.dir: {}", folder.checkpoints().display());
    let settings = [&kept[..], &[checkpoints.as_str()]].concat();
    let [input, output] = [folder.input(), folder.output()];
    let arguments = [input.to_str().unwrap(), output.to_str().unwrap()];
    let cluster = StandaloneCluster::application(1, 1, &settings, GROWING_WORD_COUNT, &arguments);
    let http = Http(cluster.address());
    let job = "00000000000000000000000000000000";
    let completed = || fs::exists(folder.checkpoints().join(format!("{job}/chk-2/_metadata"))).unwrap();
    wait_until("checkpoints", completed);
    let jobmanager = cluster.processes("standalone-job")[0];
    signal("KILL", jobmanager);
    wait_until("its end", || has_ended(jobmanager));
    cluster.restart_application(&arguments);
    let state = || http.get(&format!("/jobs/{job}/status")).json()["status"].clone();
    wait_until("the job runs again", || state() == "RUNNING");
    assert!(cluster.log("standalone-job").contains("is taken up"));
    assert_eq!(http.send("PATCH", &format!("/jobs/{job}"), &[], b"").status, 202);
    let log = ended(&cluster);
    assert!(log.contains("The application was cancelled."), "{log}");
}
