//! What jobs log and print, and what a cluster's processes log, read from outside.

#![allow(clippy::disallowed_methods, reason = "tests wait for conditions, with a limit on the wall clock")]

use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
};

use millstream_tests::{standalone::StandaloneCluster, wait_until};
use serde_json::Value;

const TALKING: &str = env!("CARGO_BIN_EXE_talking_job");

/// Starts a job that goes on without its client, and returns its id.
fn start(cluster: &StandaloneCluster, arguments: &[&str], settings: &[&str]) -> String {
    let mut all = vec!["run", "-d"];
    all.push(TALKING);
    all.extend(arguments);
    all.extend(settings);
    let output = cluster.ask(&all);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split("JobID ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned()
}

/// What `millstream logs` shows, as objects.
fn lines(cluster: &StandaloneCluster, arguments: &[&str]) -> Vec<Value> {
    let output = cluster.ask(&[&["logs", "--output", "json"], arguments].concat());
    assert!(output.status.success(), "{output:?}");
    output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(|line| object(line)).collect()
}

fn object(line: &[u8]) -> Value {
    serde_json::from_slice(line).unwrap_or_else(|cause| panic!("{cause}: {}", String::from_utf8_lossy(line)))
}

fn has(lines: &[Value], words: &str) -> bool {
    lines.iter().any(|line| line["message"].as_str().unwrap().contains(words))
}

fn status(cluster: &StandaloneCluster, job: &str) -> Value {
    let output = cluster.ask(&["status", job, "--output", "json"]);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

/// A client that follows a job. It is killed when this is dropped.
struct Follower(Child, BufReader<std::process::ChildStdout>);

impl Follower {
    fn start(cluster: &StandaloneCluster, arguments: &[&str]) -> Follower {
        let mut client = cluster.client(&[&["logs", "-f"], arguments].concat());
        let mut client = client.stdout(Stdio::piped()).spawn().expect("the program can be started");
        let stdout = BufReader::new(client.stdout.take().unwrap());
        Follower(client, stdout)
    }

    /// The next line; nothing at the end.
    fn next(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        line
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn jobs_side_by_side_have_their_own_lines_and_followers_end_with_them() {
    let cluster = StandaloneCluster::start(2, 2, &["cluster.evenly-spread-out-slots: true"]);
    let one = start(&cluster, &["one", "40", "20", "nothing"], &[]);
    let other = start(&cluster, &["other", "1000000", "50", "nothing"], &[]);
    // Ends with the job, and has seen all of it.
    let mut follower = Follower::start(&cluster, &[&one]);
    let mut followed = String::new();
    loop {
        let line = follower.next();
        if line.is_empty() {
            break;
        }
        followed.push_str(&line);
    }
    assert!(follower.0.wait().unwrap().success());
    assert_eq!(followed.matches("a record is here").count(), 40, "{followed}");
    assert!(followed.contains("OUT   worker-") && followed.contains("one prints 35"), "{followed}");
    assert!(!followed.contains("name=other") && !followed.contains("other prints"), "{followed}");

    let all = lines(&cluster, &[&one]);
    assert!(has(&all, "the job has ended"), "what the JobManager logs about it is there, too");
    let of_job = |line: &Value| line["job"] == one.as_str();
    assert!(all.iter().all(of_job), "{all:?}");
    let records: Vec<&Value> = all.iter().filter(|line| line["message"] == "a record is here").collect();
    assert_eq!(records.len(), 40);
    for record in &records {
        assert_eq!(record["fields"]["name"], "one");
        assert_eq!((&record["task"]["parallelism"], &record["level"]), (&2.into(), &"Info".into()), "{record}");
        assert!(record["target"].as_str().unwrap().contains("talking_job"), "{record}");
        assert!(record["thread"].as_str().unwrap().starts_with("slot-"), "{record}");
    }
    let times: Vec<&str> = all.iter().map(|line| line["time"].as_str().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");

    // A task, and a subtask of it; the fifth of each is printed, which nobody knows the task of.
    let of_task = lines(&cluster, &[&one, "--task", "TALK:1"]);
    assert_eq!(of_task.len(), 20, "{of_task:?}");
    assert!(of_task.iter().all(|line| line["task"]["subtask"] == 1 && line["message"] == "a record is here"));
    let last = lines(&cluster, &[&one, "--task", "talk", "-n", "3"]);
    let numbers: Vec<&Value> = last.iter().map(|line| &line["fields"]["number"]).collect();
    assert_eq!(numbers, [37, 38, 39]);
    assert!(lines(&cluster, &[&one, "--since", "2100-01-01T00:00:00Z"]).is_empty());
    let warnings = lines(&cluster, &[&one, "--level", "warn"]);
    assert!(has(&warnings, "one complains about 5") && !has(&warnings, "one prints 5"), "{warnings:?}");

    // The other one runs, and is followed by its newest lines on.
    let mut follower = Follower::start(&cluster, &[&other, "-n", "1", "--task", "talk"]);
    for _ in 0..100 {
        let line = follower.next();
        assert!(line.contains("name=other"), "{line}");
    }
    assert!(cluster.ask(&["cancel", &other]).status.success());
    while !follower.next().is_empty() {}

    // And those of the processes themselves.
    assert!(has(&lines(&cluster, &["--jobmanager-log"]), "the JobManager is ready"));
    let output = cluster.ask(&["logs", "--taskmanager", "nothing-like-it"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    let address =
        error.split('(').nth(1).and_then(|rest| rest.split(')').next()).expect("it names those that there are");
    assert!(has(&lines(&cluster, &["--taskmanager", address]), "a worker process has started"));
    let output = cluster.ask(&["logs", &"0".repeat(32)]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no job"), "{output:?}");
}

#[test]
fn the_last_lines_of_a_worker_that_aborts_are_in_its_jobs_failure() {
    let cluster = StandaloneCluster::start(1, 3, &["restart-strategy.type: none"]);
    let job = start(&cluster, &["victim", "1000", "100", "abort"], &[]);
    wait_until("the job fails", || status(&cluster, &job)["status"] == "FAILED");
    let failure = status(&cluster, &job)["last_failure"].as_str().unwrap().to_owned();
    for words in ["killed by signal 6 (SIGABRT)", "last words of victim", "this is the end", "victim prints 0"] {
        assert!(failure.contains(words), "{words}: {failure}");
    }
    assert!(has(&lines(&cluster, &[&job]), "last words of victim"));
}

#[test]
fn a_job_that_prints_much_keeps_the_newest_of_it() {
    let limit: u64 = 4 << 20;
    let cluster = StandaloneCluster::start(1, 3, &["log.job.max-size: 4 mb"]);
    let job = start(&cluster, &["flood", "100000", "100000000", "flood"], &[]);
    wait_until("the job ends", || status(&cluster, &job)["status"] == "FINISHED");
    let files: Vec<_> = std::fs::read_dir(cluster.log_dir()).unwrap().flatten().collect();
    let of_job = files.iter().filter(|file| file.file_name().to_string_lossy().contains(&job));
    let bytes: u64 = of_job.map(|file| file.metadata().unwrap().len()).sum();
    assert!((limit / 2..=limit).contains(&bytes), "{bytes}");
    let last = lines(&cluster, &[&job, "-n", "3"]);
    assert!(
        has(&last, &format!("flood {:01000}", 99_999)) || has(&last, &format!("flood {:01000}", 99_998)),
        "{last:?}"
    );
}
