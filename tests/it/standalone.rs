//! A cluster of real processes: a JobManager and TaskManagers that `bin/start-cluster.sh` has started, jobs that
//! `millstream run` submits, and what happens when processes are killed.

#![allow(clippy::disallowed_methods, reason = "tests wait for conditions, with a limit on the wall clock")]

use std::{
    fs,
    process::{Child, Output, Stdio},
};

use millstream_tests::{
    counts::{deviation, visible},
    has_ended,
    job_process::{JOB_ID, JobFolder},
    signal,
    standalone::StandaloneCluster,
    text::add_text,
    wait_until,
};

const WORD_COUNT: &str = env!("CARGO_BIN_EXE_word_count_job");
/// It never ends by itself.
const GROWING_WORD_COUNT: &str = env!("CARGO_BIN_EXE_growing_word_count_job");
const TWO_PIPELINES: &str = env!("CARGO_BIN_EXE_two_pipelines_job");

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A word count that checkpoints often, restarts at once and for ever.
fn word_count(folder: &JobFolder, parallelism: u32, more: &[&str]) -> Vec<String> {
    let settings = [
        "execution.checkpointing.interval=50 ms",
        "restart-strategy.type=fixed-delay",
        "restart-strategy.fixed-delay.attempts=1000",
        "restart-strategy.fixed-delay.delay=10 ms",
    ];
    let mut arguments = vec!["run".to_owned(), "-p".to_owned(), parallelism.to_string(), WORD_COUNT.to_owned()];
    arguments.extend(folder.arguments(&[&settings[..], more].concat()));
    arguments
}

fn texts(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

/// Starts a client that goes on by itself.
fn spawned(cluster: &StandaloneCluster, arguments: &[String]) -> Child {
    let mut client = cluster.client(&texts(arguments));
    client.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program can be started")
}

#[test]
fn a_cluster_from_nothing_counts_words_and_leaves_nothing_behind() {
    let cluster = StandaloneCluster::start(2, 2, &[]);
    let processes = [cluster.processes("jobmanager"), cluster.processes("taskmanager")].concat();
    assert_eq!(processes.len(), 3);
    let root = tempfile::tempdir().unwrap();
    let folder = JobFolder::new(root.path());
    let totals = add_text(&folder, 50_000);
    let output = cluster.ask(&texts(&word_count(&folder, 4, &[])));
    assert!(output.status.success(), "{}\n{}", out(&output), err(&output));
    // Flink's words, which scripts look for; and the program's own, which has got its result.
    for words in [
        format!("Job has been submitted with JobID {JOB_ID}"),
        format!("Job with JobID {JOB_ID} has finished."),
        "Job Runtime: ".to_owned(),
        "finished after ".to_owned(),
    ] {
        assert!(out(&output).contains(&words), "{words}: {}", out(&output));
    }
    assert_eq!(deviation(&visible(&folder.output()), &totals), None);
    // Four slots are those of both TaskManagers, each of which has had one worker, and records went from one to the other.
    let workers = cluster.workers();
    wait_until("the end of the workers", || workers.iter().all(|worker| has_ended(*worker)));
    assert_eq!(cluster.workers().len(), 2, "a worker of a job that has ended was replaced");
    assert!(cluster.log("taskmanager").contains("transport=quic"));
    cluster.stop();
    for process in processes.into_iter().chain(workers) {
        assert!(has_ended(process), "{process} is left");
    }
    assert_eq!(cluster.left_behind(), [] as [std::path::PathBuf; 0]);
}

#[test]
fn killed_workers_and_taskmanagers_cost_no_record() {
    // One TaskManager more than the job needs.
    let cluster = StandaloneCluster::start(3, 1, &[]);
    let root = tempfile::tempdir().unwrap();
    let folder = JobFolder::new(root.path());
    let totals = add_text(&folder, 400_000);
    let client = spawned(&cluster, &word_count(&folder, 2, &[]));
    let wait_for_a_checkpoint = || {
        let before = folder.newest_checkpoint();
        wait_until("a checkpoint", || folder.newest_checkpoint() > before);
    };
    wait_for_a_checkpoint();
    let first = cluster.workers();
    signal("KILL", first[0]);
    wait_until("a replacement", || cluster.workers().len() > first.len());
    wait_for_a_checkpoint();
    // The TaskManager of a worker that runs: its parent.
    let worker = *cluster.workers().iter().rfind(|worker| !has_ended(**worker)).unwrap();
    let its_parent = parent(worker);
    assert!(cluster.processes("taskmanager").contains(&its_parent));
    signal("KILL", its_parent);
    let output = client.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{}", out(&output), err(&output));
    assert!(has_ended(worker), "a worker outlives its TaskManager");
    assert_eq!(deviation(&visible(&folder.output()), &totals), None);
    let restarts: u32 = out(&output).split(" and ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(restarts >= 2, "{}", out(&output));
    assert!(cluster.log("jobmanager").contains("killed by signal 9"));
}

#[test]
fn a_task_manager_that_was_taken_for_gone_registers_again() {
    let cluster = StandaloneCluster::start(1, 2, &["heartbeat.interval: 100 ms", "heartbeat.timeout: 1 s"]);
    let [process] = cluster.processes("taskmanager")[..] else { panic!("one was asked for") };
    let said = |what: &str| cluster.log("jobmanager").matches(what).count();
    let is_there = || said("a TaskManager has registered") > said("a TaskManager is gone");
    wait_until("it has registered", is_there);
    // What has come meanwhile is there when it goes on, so that it does not miss anything.
    for _ in 0..2 {
        signal("STOP", process);
        wait_until("its loss is noticed", || !is_there());
        signal("CONT", process);
        wait_until("it has registered again", is_there);
    }
}

/// The process that has started another one.
fn parent(process: u32) -> u32 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    stat.rsplit(") ").next().unwrap().split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_job_that_finds_slots_only_where_it_has_a_worker_gets_one_worker_for_all_of_them() {
    let cluster = StandaloneCluster::start(2, 2, &["cluster.evenly-spread-out-slots: true"]);
    let root = tempfile::tempdir().unwrap();
    let folder = JobFolder::new(root.path());
    let totals = add_text(&folder, 200_000);
    let client = spawned(&cluster, &word_count(&folder, 2, &[]));
    wait_until("a checkpoint", || folder.newest_checkpoint() > 0);
    let [lost, left] = cluster.workers()[..] else { panic!("a worker of each TaskManager: {:?}", cluster.workers()) };
    assert_ne!(parent(lost), parent(left));
    signal("KILL", parent(lost));
    let output = client.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{}", out(&output), err(&output));
    assert_eq!(deviation(&visible(&folder.output()), &totals), None);
    assert_eq!(cluster.workers().len(), 3, "one in place of both");
    assert!(cluster.log("taskmanager").contains("slots=2"), "{}", cluster.log("taskmanager"));
}

#[test]
fn a_detached_job_is_listed_looked_at_and_cancelled() {
    let cluster = StandaloneCluster::start(1, 2, &[]);
    let root = tempfile::tempdir().unwrap();
    let folder = JobFolder::new(root.path());
    let [input, output] = [folder.input(), folder.output()];
    let output = cluster.ask(&["run", "-d", GROWING_WORD_COUNT, input.to_str().unwrap(), output.to_str().unwrap()]);
    assert!(output.status.success(), "{}", err(&output));
    let submitted = out(&output);
    let job = submitted.split("JobID ").nth(1).unwrap().split_whitespace().next().unwrap();
    let status = || -> serde_json::Value {
        let output = cluster.ask(&["status", job, "--output", "json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", err(&output)))
    };
    wait_until("the job runs", || status()["status"] == "RUNNING" && status()["running_tasks"] == status()["tasks"]);
    assert!(out(&cluster.ask(&["list"])).contains(job));
    let cancelled = cluster.ask(&["cancel", job]);
    assert!(cancelled.status.success(), "{}", err(&cancelled));
    wait_until("its end", || status()["status"] == "CANCELED");
    assert!(!out(&cluster.ask(&["list"])).contains(job));
    assert!(out(&cluster.ask(&["list", "--all"])).contains("(CANCELED)"));
}

#[test]
fn exit_codes_tell_success_failure_and_cancellation_apart() {
    let cluster = StandaloneCluster::start(1, 2, &[]);
    let root = tempfile::tempdir().unwrap();
    let folder = JobFolder::new(root.path());
    // What a user cancels.
    let [input, output] = [folder.input(), folder.output()];
    let run = ["run", GROWING_WORD_COUNT, input.to_str().unwrap(), output.to_str().unwrap()];
    let client = spawned(&cluster, &run.map(str::to_owned));
    let listed = || out(&cluster.ask(&["list"]));
    wait_until("the job runs", || listed().contains("(RUNNING)"));
    let job = listed().split(' ').next().unwrap().to_owned();
    assert!(cluster.ask(&["cancel", &job]).status.success());
    let output = client.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}\n{}", out(&output), err(&output));
    // What fails: its input is not there.
    fs::remove_dir(folder.input()).unwrap();
    let output = cluster.ask(&texts(&word_count(&folder, 1, &["restart-strategy.type=none"])));
    assert_eq!(output.status.code(), Some(1), "{}", err(&output));
    assert!(err(&output).contains("input"), "{}", err(&output));
    // What never runs.
    let output = cluster.ask(&["run", "/bin/true"]);
    assert_eq!(output.status.code(), Some(3), "{}", err(&output));
    let output = cluster.ask(&["run", "-m", "localhost:1", TWO_PIPELINES]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("no JobManager can be reached at localhost:1"), "{}", err(&output));
    let output = cluster.ask(&["status", JOB_ID.replace('0', "f").as_str()]);
    assert!(err(&output).contains("there is no job"), "{}", err(&output));
}

#[test]
fn two_jobs_share_a_cluster_and_the_loss_of_ones_worker_does_not_touch_the_other() {
    let cluster = StandaloneCluster::start(2, 2, &["cluster.evenly-spread-out-slots: true"]);
    let root = tempfile::tempdir().unwrap();
    let gate = root.path().join("gate");
    let other = spawned(&cluster, &["run", "-p", "1", TWO_PIPELINES, gate.to_str().unwrap()].map(str::to_owned));
    // Its pipelines are in two slot sharing groups, and so need two slots.
    wait_until("the other's workers", || cluster.workers().len() == 2);
    let others = cluster.workers();
    let folder = JobFolder::new(root.path());
    let totals = add_text(&folder, 100_000);
    let client = spawned(&cluster, &word_count(&folder, 2, &[]));
    wait_until("a checkpoint", || folder.newest_checkpoint() > 0);
    let victim = *cluster.workers().iter().find(|worker| !others.contains(worker)).unwrap();
    signal("KILL", victim);
    let output = client.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{}", out(&output), err(&output));
    assert_eq!(deviation(&visible(&folder.output()), &totals), None);
    assert!(others.iter().all(|worker| !has_ended(*worker)), "the other job has lost its worker");
    fs::write(&gate, "").unwrap();
    let output = other.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{}", out(&output), err(&output));
    assert_eq!(cluster.log("jobmanager").matches("the job restarts").count(), 1, "{}", cluster.log("jobmanager"));
}

#[test]
fn a_job_that_finds_no_slots_says_what_is_missing() {
    let cluster = StandaloneCluster::start(1, 1, &[]);
    let output = cluster.ask(&["run", "-p", "3", "-Dslot.request.timeout=300 ms", TWO_PIPELINES]);
    assert_eq!(output.status.code(), Some(1), "{}", out(&output));
    assert!(err(&output).contains("slots") && err(&output).contains("slot.request.timeout"), "{}", err(&output));
}
