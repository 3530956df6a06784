//! What a cluster of real processes tells those who watch it: a real Prometheus that asks for numbers, a collector that
//! is sent them, and people who ask what holds a job back.

use std::{fs, path::Path};

use millstream_tests::{
    collector::Collector,
    prometheus::Prometheus,
    signal,
    standalone::{StandaloneCluster, free_ports},
    wait_until,
};
use serde_json::Value;

const TELLING: &str = env!("CARGO_BIN_EXE_telling_job");

/// Starts the job on some slots of a cluster; its id.
fn submitted(cluster: &StandaloneCluster, parallelism: &str, manner: &str, settings: &[&str]) -> String {
    let settings: Vec<String> = settings.iter().map(|setting| format!("-D{setting}")).collect();
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let arguments = [&["run", "-d", "-p", parallelism][..], &settings, &["--output", "json", TELLING, manner]].concat();
    let output = cluster.ask(&arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let ids =
        text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()?["job"].as_str().map(str::to_owned));
    ids.collect::<Vec<_>>().pop().unwrap_or_else(|| panic!("no job in {text}"))
}

fn why(cluster: &StandaloneCluster, job: &str) -> Vec<Value> {
    let output = cluster.ask(&["why", "--output", "json", job]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("a list of findings")
}

fn has(findings: &[Value], severity: &str, kind: &str, words: &str) -> bool {
    let is_it = |finding: &Value| {
        let text = finding["text"].as_str().unwrap_or_default();
        finding["severity"] == severity && finding["kind"] == kind && text.contains(words)
    };
    findings.iter().any(is_it)
}

/// Where the processes of a kind say that their numbers are.
fn endpoints(cluster: &StandaloneCluster) -> Vec<String> {
    let logs = cluster.log("jobmanager") + &cluster.log("taskmanager");
    let found = logs.lines().filter_map(|line| line.split("metrics are at http://").nth(1)?.split("/metrics").next());
    found.map(str::to_owned).collect()
}

#[test]
fn prometheus_gets_flinks_names_from_each_process() {
    let [first, _] = free_ports();
    let port = format!("metrics.reporter.prom.port: {first}-{}", first + 60);
    let class = "metrics.reporter.prom.factory.class: org.apache.flink.metrics.prometheus.PrometheusReporterFactory";
    let checkpoints = tempfile::tempdir().unwrap();
    let cluster = StandaloneCluster::start(2, 2, &[class, &port, "cluster.evenly-spread-out-slots: true"]);
    let endpoints = endpoints(&cluster);
    assert_eq!(endpoints.len(), 3, "{}", cluster.log("manager"));
    let settings = [
        "execution.checkpointing.interval=100 ms".to_owned(),
        format!("execution.checkpointing.dir={}", checkpoints.path().display()),
        "restart-strategy.type=fixed-delay".to_owned(),
        "restart-strategy.fixed-delay.delay=10 ms".to_owned(),
    ];
    let job = submitted(&cluster, "2", "never", &settings.each_ref().map(String::as_str));
    let prometheus = Prometheus::start(&endpoints);
    let is = |query: &str, value: f64| wait_until(query, || prometheus.value(query) == Some(value));
    let exceeds =
        |query: &str, value: f64| wait_until(query, || prometheus.value(query).is_some_and(|now| now > value));

    is("count(up == 1)", 3.0);
    is("flink_jobmanager_numRegisteredTaskManagers", 2.0);
    is("flink_jobmanager_taskSlotsTotal", 4.0);
    is("flink_jobmanager_taskSlotsAvailable", 2.0);
    is("flink_jobmanager_numRunningJobs", 1.0);
    let of_job = format!("{{job_id=\"{job}\", job_name=\"telling\"}}");
    exceeds(&format!("flink_jobmanager_job_uptime{of_job}"), 0.0);
    exceeds(&format!("flink_jobmanager_job_numberOfCompletedCheckpoints{of_job}"), 2.0);
    exceeds("flink_jobmanager_job_lastCheckpointDuration", 0.0);
    // Of the tasks: as many as were read are there, at the rate that the source has.
    exceeds("sum(flink_taskmanager_job_task_numRecordsIn{task_name=~\"numbers.*\"})", 3_000.0);
    wait_until("the rate of the source", || {
        let rate = prometheus.value("sum(flink_taskmanager_job_task_numRecordsOutPerSecond{task_name=~\"numbers.*\"})");
        rate.is_some_and(|rate| (900.0..1_100.0).contains(&rate))
    });
    // All of a task's time is something.
    wait_until("the times of tasks", || {
        let times = prometheus.query(
            "flink_taskmanager_job_task_busyTimeMsPerSecond + flink_taskmanager_job_task_idleTimeMsPerSecond \
             + flink_taskmanager_job_task_backPressuredTimeMsPerSecond",
        );
        assert!(times.iter().all(|(_, sum)| (sum - 1_000.0).abs() < 1.0), "{times:?}");
        times.len() == 3
    });
    // A function's own numbers, with Flink's labels.
    let own = "flink_taskmanager_job_task_operator_numSeen";
    exceeds(own, 3_000.0);
    let (labels, _) = prometheus.query(own).pop().expect("it was there");
    for (label, value) in
        [("operator_name", "tell"), ("subtask_index", "0"), ("job_id", &job), ("task_attempt_num", "1")]
    {
        assert_eq!(labels[label], value, "{labels}");
    }
    exceeds("flink_taskmanager_job_task_operator_last_seen", 3_000.0);
    // What goes through each operator of a chain.
    for query in ["numRecordsOut{operator_name=\"numbers\"}", "numRecordsIn{operator_name=\"tell\"}"] {
        exceeds(&format!("flink_taskmanager_job_task_operator_{query}"), 3_000.0);
    }
    exceeds("sum(flink_taskmanager_job_task_operator_numRecordsIn{operator_name=\"slowly\"})", 3_000.0);
    // Two workers, and what goes between them.
    exceeds("min(flink_taskmanager_job_worker_Status_JVM_Memory_Heap_Used)", 1e6);
    exceeds("sum(flink_taskmanager_job_shuffle_credit_granted)", 0.0);
    exceeds("min(flink_taskmanager_Status_JVM_Memory_Heap_Used)", 1e6);
    assert_eq!(prometheus.errors(), ["", "", ""]);

    // After a restart it is another attempt, and the one before is gone.
    signal("KILL", cluster.workers()[0]);
    is("flink_jobmanager_job_numRestarts", 1.0);
    wait_until("the next attempt", || {
        let attempts = prometheus.query(own);
        attempts.len() == 1 && attempts[0].0["task_attempt_num"] != "1"
    });
    cluster.ask(&["cancel", &job]);
    wait_until("the end of the job's numbers", || {
        prometheus.query("flink_taskmanager_job_task_numRecordsIn").is_empty()
            && prometheus.value("flink_jobmanager_taskSlotsAvailable") == Some(4.0)
    });
}

#[test]
#[ignore = "long: a collector of OpenTelemetry has to be built"]
fn a_real_collector_takes_what_is_sent_by_either_protocol() {
    let collector = Collector::start();
    let (grpc, http) = (collector.grpc, collector.http);
    let settings = [
        "metrics.reporter.grpc.factory.class: org.apache.flink.metrics.otel.OpenTelemetryMetricReporterFactory"
            .to_owned(),
        format!("metrics.reporter.grpc.exporter.endpoint: http://127.0.0.1:{grpc}"),
        "metrics.reporter.grpc.interval: 200 ms".to_owned(),
        "metrics.reporter.grpc.service.name: by-grpc".to_owned(),
        "metrics.reporter.http.factory.class: otlp".to_owned(),
        "metrics.reporter.http.exporter.protocol: HTTP".to_owned(),
        format!("metrics.reporter.http.exporter.endpoint: http://127.0.0.1:{http}/v1/metrics"),
        "metrics.reporter.http.interval: 200 ms".to_owned(),
        "metrics.reporter.http.service.name: by-http".to_owned(),
    ];
    let cluster = StandaloneCluster::start(1, 2, &settings.each_ref().map(String::as_str));
    let job = submitted(&cluster, "2", "never", &[]);
    for words in [
        "service.name: Str(by-grpc)",
        "service.name: Str(by-http)",
        "-> Name: flink.jobmanager.job.uptime",
        "-> Name: flink.taskmanager.job.task.numRecordsIn",
        "-> Name: flink.taskmanager.job.task.operator.numSeen",
        &format!("-> job_id: Str({job})"),
        "-> IsMonotonic: true",
    ] {
        wait_until(words, || collector.printed().contains(words));
    }
}

#[test]
fn a_port_that_is_taken_is_an_error_that_names_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = format!("metrics.reporter.prom.port: {}", taken.local_addr().unwrap().port());
    let cluster = StandaloneCluster::prepare(1, 1, &["metrics.reporter.prom.factory.class: prometheus", &port]);
    let output = cluster.ask(&["jobmanager"]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains("metrics.reporter.prom.port"), "{error}");
}

#[test]
fn why_says_who_is_too_slow() {
    let cluster = StandaloneCluster::start(1, 2, &[]);
    let job = submitted(&cluster, "2", "evenly", &[]);
    wait_until("the task that is too slow", || has(&why(&cluster, &job), "problem", "Bottleneck", "'take -> slowly"));
    // It is not the keys.
    assert!(!has(&why(&cluster, &job), "warning", "Skew", ""), "{:?}", why(&cluster, &job));
    // As people read it.
    let text = cluster.ask(&["why", &job]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.starts_with("problem  '") && text.contains("is busy"), "{text}");
    // A second job finds no slots, and says how many it misses.
    let waiting = submitted(&cluster, "2", "never", &[]);
    wait_until("the slots that are missing", || has(&why(&cluster, &waiting), "problem", "NotRunning", "2 more slots"));
    cluster.ask(&["cancel", &job]);
    wait_until("the job that waited", || {
        has(&why(&cluster, &waiting), "note", "Nothing", "Nothing holds the job back")
    });
    wait_until("the end", || has(&why(&cluster, &job), "note", "Ended", "canceled"));
    let unknown = cluster.ask(&["why", "0123456789abcdef0123456789abcdef"]);
    assert!(!unknown.status.success() && String::from_utf8_lossy(&unknown.stderr).contains("0123456789abcdef"));
}

#[test]
fn why_says_that_keys_are_skewed_and_that_more_parallelism_would_not_help() {
    let cluster = StandaloneCluster::start(1, 4, &[]);
    let job = submitted(&cluster, "4", "skewed", &[]);
    wait_until("the skew", || {
        let findings = why(&cluster, &job);
        has(&findings, "problem", "Bottleneck", "More parallelism would not help")
            && has(&findings, "warning", "Skew", "some keys have far more records")
    });
}

#[test]
fn a_checkpoint_that_waits_behind_records_says_so() {
    let checkpoints = tempfile::tempdir().unwrap();
    let cluster = StandaloneCluster::start(1, 2, &[]);
    let directory = format!("execution.checkpointing.dir={}", checkpoints.path().display());
    let settings = ["execution.checkpointing.interval=200 ms", &directory];
    let job = submitted(&cluster, "2", "evenly", &settings);
    wait_until("the phases of a checkpoint", || {
        let findings = why(&cluster, &job);
        findings.iter().any(|finding| {
            let text = finding["text"].as_str().unwrap_or_default();
            finding["kind"] == "Checkpoint" && text.contains(" took ") && text.contains("behind other records")
        })
    });
    assert!(fs::read_dir(Path::new(checkpoints.path())).unwrap().next().is_some());
}
