//! What jobs log and print, and what a cluster's processes log, read from outside.

#![allow(clippy::disallowed_methods, reason = "tests wait for conditions, with a limit on the wall clock")]

use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
};

use millstream_tests::{http::Http, standalone::StandaloneCluster, wait_until};
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
    output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(object).collect()
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
        assert_eq!((&record["task"]["parallelism"], &record["level"]), (&2.into(), &"INFO".into()), "{record}");
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
fn the_failure_of_a_job_has_the_last_lines_of_its_worker_and_the_operator_that_has_crashed() {
    let cluster = StandaloneCluster::start(1, 2, &["restart-strategy.type: none"]);
    for (ending, how, crashed) in [
        ("abort", "killed by signal 6 (SIGABRT)", true),
        ("fault", "killed by signal 11 (SIGSEGV)", true),
        ("exit", "exit code 7", false),
        ("kill", "killed by signal 9 (SIGKILL)", false),
    ] {
        let job = start(&cluster, &["victim", "1000", "100", ending], &[]);
        wait_until("the job fails", || status(&cluster, &job)["status"] == "FAILED");
        let status = status(&cluster, &job);
        let failure = status["last_failure"].as_str().unwrap();
        for words in [how, "last words of victim", "this is the end", "victim prints 0"] {
            assert!(failure.contains(words), "{words}: {failure}");
        }
        assert_eq!(failure.contains("the kernel"), ending == "kill", "{failure}");
        let operator = status["last_failure_operator"].as_str();
        assert_eq!(operator.map(|name| name.contains("talk")), crashed.then_some(true), "{operator:?}");
        let shown = cluster.ask(&["status", &job]);
        assert_eq!(String::from_utf8_lossy(&shown.stdout).contains("(in "), crashed, "{shown:?}");
        let lines = lines(&cluster, &[&job, "--level", "error", "--task", "talk"]);
        assert_eq!(has(&lines, "while this task was running"), crashed, "{lines:?}");
    }
}

#[test]
fn levels_change_while_jobs_run() {
    let cluster = StandaloneCluster::start(1, 4, &[]);
    let one = start(&cluster, &["one", "1000000", "100", "nothing"], &[]);
    let other = start(&cluster, &["other", "1000000", "100", "nothing"], &[]);
    let newest = |job: &str| lines(&cluster, &[job, "--task", "talk", "-n", "20"]);
    let logs_closely = |job: &str| has(&newest(job), "a closer look");
    wait_until("both talk", || newest(&one).len() == 20 && newest(&other).len() == 20);
    assert!(!logs_closely(&one) && !logs_closely(&other));
    let set = |arguments: &[&str]| {
        let output = cluster.ask(&[&["log-level"], arguments].concat());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    // Of one job.
    assert!(set(&["--job", &one, "talking_job=debug"]).contains("talking_job=DEBUG"));
    wait_until("one says more", || logs_closely(&one));
    assert!(!logs_closely(&other));
    // Of all.
    set(&["talking_job=debug", "millstream_shuffle=WARN"]);
    wait_until("the other says more", || logs_closely(&other));
    let shown = set(&[]);
    assert!(shown.contains("millstream_shuffle=WARN,talking_job=DEBUG") && shown.contains(&one), "{shown}");
    assert!(has(&lines(&cluster, &["--jobmanager-log"]), "what is logged was changed"));
    // Back again, but for the one.
    set(&["--reset"]);
    wait_until("the other says less", || !logs_closely(&other));
    assert!(logs_closely(&one));
    set(&["--job", &one, "--reset", "off"]);
    let count = || lines(&cluster, &[&one, "--task", "talk"]).len();
    let mut before = count();
    wait_until("the one is silent", || std::mem::replace(&mut before, count()) == count());
    let output = cluster.ask(&["log-level", "loud"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

/// An answer of `LogListInfo`'s shape, as Flink's description of its interface has it.
fn names(answer: &Value) -> Vec<String> {
    let logs = answer["logs"].as_array().unwrap_or_else(|| panic!("{answer}"));
    let name = |log: &Value| {
        let keys: Vec<&String> = log.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["mtime", "name", "size"]);
        assert!(log["mtime"].as_i64().unwrap() > 1_700_000_000_000 && log["size"].is_u64(), "{log}");
        log["name"].as_str().unwrap().to_owned()
    };
    logs.iter().map(name).collect()
}

#[test]
fn files_of_processes_are_served_at_flinks_paths() {
    let cluster = StandaloneCluster::start(2, 2, &[]);
    let job = start(&cluster, &["one", "20", "1000", "nothing"], &[]);
    wait_until("the job ends", || status(&cluster, &job)["status"] == "FINISHED");
    let http = Http(cluster.address());
    let text = |path: &str| {
        let answer = http.get(path);
        assert_eq!(answer.status, 200, "{path}: {}", String::from_utf8_lossy(&answer.body));
        String::from_utf8(answer.body).unwrap()
    };
    let own = names(&http.get("/jobmanager/logs").json());
    assert!(own.iter().any(|name| name.ends_with(".log")) && own.iter().any(|name| name.ends_with(".out")), "{own:?}");
    assert!(own.iter().all(|name| !name.contains("taskmanager")), "{own:?}");
    assert!(text("/jobmanager/log").contains("the JobManager is ready"));
    assert!(text("/v1/jobmanager/stdout").contains("JobManager: clients at"));
    let log = own.iter().find(|name| name.ends_with(".log")).unwrap();
    assert!(text(&format!("/jobmanager/logs/{log}")).contains("the JobManager is ready"));

    let mut printed = 0;
    for task_manager in http.get("/taskmanagers").json()["taskmanagers"].as_array().unwrap() {
        let base = format!("/taskmanagers/{}", task_manager["id"].as_str().unwrap());
        assert!(text(&format!("{base}/log")).contains("registered"));
        let stdout = text(&format!("{base}/stdout"));
        assert!(stdout.contains("TaskManager: registered at"), "{stdout}");
        printed += stdout.matches("one prints ").count();
        let files = names(&http.get(&format!("{base}/logs")).json());
        for file in files.iter().filter(|name| name.contains(&job)) {
            assert!(text(&format!("{base}/logs/{file}")).contains("a record is here"));
        }
        // Neither another process's, nor anything else.
        for file in [log.as_str(), "..%2Fconf%2Fconfig.yaml", "none"] {
            let answer = http.get(&format!("{base}/logs/{file}"));
            assert_eq!(answer.status, 404, "{file}");
            let errors = answer.json()["errors"].to_string();
            assert!(errors.contains("Failed to transfer file from TaskExecutor"), "{errors}");
        }
    }
    assert_eq!(printed, 4, "what workers print is at the standard output of their TaskManager, as in Flink");
    for (path, words) in [
        ("/jobmanager/logs/none", "This file does not exist in JobManager log dir."),
        ("/taskmanagers/none/logs", "Could not find TaskExecutor none."),
        ("/taskmanagers/none/log", "Failed to transfer file from TaskExecutor none because it was unknown."),
    ] {
        let answer = http.get(path);
        assert_eq!((answer.status, &answer.json()["errors"][0]), (404, &words.into()), "{path}");
    }
}

#[test]
fn a_job_that_prints_much_keeps_the_newest_of_it() {
    let limit: u64 = 4 << 20;
    let cluster = StandaloneCluster::start(1, 2, &["log.job.max-size: 4 mb", "log.format: json"]);
    let job = start(&cluster, &["flood", "100000", "100000000", "flood"], &[]);
    wait_until("the job ends", || status(&cluster, &job)["status"] == "FINISHED");
    let files: Vec<_> = std::fs::read_dir(cluster.log_dir()).unwrap().flatten().collect();
    let of_job: Vec<_> = files.iter().filter(|file| file.file_name().to_string_lossy().contains(&job)).collect();
    let bytes: u64 = of_job.iter().map(|file| file.metadata().unwrap().len()).sum();
    assert!((limit / 2..=limit).contains(&bytes), "{bytes}");
    let first = std::fs::read_to_string(of_job[0].path()).unwrap();
    assert_eq!(object(first.lines().next().unwrap().as_bytes())["origin"], "stdout");
    // The last record of one of the subtasks, and not only of the JobManager.
    let last = lines(&cluster, &[&job, "-n", "20"]);
    let is_there = |number: u64| has(&last, &format!("flood {number:01000}"));
    assert!(is_there(99_998) || is_there(99_999), "{last:?}");
}
