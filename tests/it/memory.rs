//! What jobs may have of a TaskManager's memory: its slots' parts, and nothing of anybody else's.

#![allow(clippy::disallowed_methods, reason = "tests wait for conditions, with a limit on the wall clock")]

use millstream_tests::{has_ended, http::Http, local, standalone::StandaloneCluster, wait_until};
use serde_json::{Value, json};

const HUNGRY: &str = env!("CARGO_BIN_EXE_hungry_job");

/// Of two slots, each has 460 MB, 32 of them for state and 32 for buffers.
const SETTINGS: &[&str] = &[
    "taskmanager.memory.process.size: 1024m",
    "taskmanager.memory.managed.size: 64m",
    "taskmanager.memory.network.max: 64m",
    "restart-strategy.type: none",
];
const MIB: u64 = 1 << 20;
const FLINK_BYTES: u64 = 1024 * MIB - 1024 * MIB / 10;

/// Runs a job to its end, and returns what its user is told.
fn failure(cluster: &StandaloneCluster, what: &str) -> String {
    let output = cluster.ask(&["run", HUNGRY, what, what]);
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{text}");
    text
}

/// Starts a job that goes on without its client, and returns its id.
fn start(cluster: &StandaloneCluster, name: &str, what: &str) -> String {
    let output = cluster.ask(&["run", "-d", HUNGRY, name, what]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split("JobID ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned()
}

/// How many records a job that runs has read.
fn records_read(rest: &Http, job: &str) -> u64 {
    let vertices = rest.get(&format!("/jobs/{job}")).json()["vertices"].clone();
    let read = |vertex: &Value| vertex["metrics"]["read-records"].as_u64().unwrap_or(0);
    vertices.as_array().map_or(0, |vertices| vertices.iter().map(read).sum())
}

#[test]
fn state_that_grows_without_end_fails_with_the_operators_name_the_limit_and_the_key() {
    let cluster = StandaloneCluster::start(1, 2, SETTINGS);
    for what in ["state", "timers"] {
        let told = failure(&cluster, what);
        for part in ["hoard", "keyed state", "33554432 bytes", "taskmanager.memory.managed.size"] {
            assert!(told.contains(part), "{part}: {told}");
        }
        assert!(!told.contains("worker process"), "it was the job that has failed, and not its worker: {told}");
    }
}

#[test]
fn who_allocates_without_end_is_told_so_and_another_job_on_the_taskmanager_goes_on() {
    let cluster = StandaloneCluster::start(1, 2, SETTINGS);
    let rest = Http(cluster.address());
    let other = start(&cluster, "modest", "nothing");
    wait_until("the other job runs", || records_read(&rest, &other) > 0);
    let worker = cluster.workers()[0];
    let told = failure(&cluster, "heap");
    let limit = (FLINK_BYTES / 2).to_string();
    for part in ["out of memory in job 'heap'", &limit, "taskmanager.memory.process.size", "glutton"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(!has_ended(worker), "the other job has lost its worker");
    let before = records_read(&rest, &other);
    wait_until("the other job goes on", || records_read(&rest, &other) > before);
    assert!(!cluster.log("jobmanager").contains("the job restarts"), "{}", cluster.log("jobmanager"));
    let said = cluster.log("taskmanager");
    assert_eq!(said.matches("the memory of this TaskManager is shared out").count(), 1, "{said}");
    assert!(said.contains("RLIMIT_DATA") || said.contains("cgroups in"), "{said}");
}

#[test]
fn rest_shows_whose_the_memory_is_and_what_is_used_of_it() {
    let cluster = StandaloneCluster::start(1, 2, SETTINGS);
    let rest = Http(cluster.address());
    let job = start(&cluster, "modest", "nothing");
    let details = || {
        let all = rest.get("/taskmanagers").json();
        let id = all["taskmanagers"][0]["id"].as_str().unwrap_or_default().to_owned();
        rest.get(&format!("/taskmanagers/{id}")).json()
    };
    wait_until("buffers are used", || details()["metrics"]["nettyShuffleMemorySegmentsUsed"].as_i64() > Some(0));
    let details = details();
    let slots = |count: u64| {
        json!({
            "cpuCores": count as f64, "taskHeapMemory": (FLINK_BYTES - 128 * MIB) / 2 * count / MIB, "taskOffHeapMemory": 0,
            "managedMemory": 32 * count, "networkMemory": 32 * count, "extendedResources": {},
        })
    };
    assert_eq!(details["totalResource"], slots(2), "{details}");
    assert_eq!(details["freeResource"], slots(1), "{details}");
    assert_eq!(details["allocatedSlots"][0]["resource"], slots(1), "{details}");
    assert_eq!(details["allocatedSlots"][0]["jobId"], job, "{details}");
    let configuration = &details["memoryConfiguration"];
    assert_eq!(configuration["totalProcessMemory"], 1024 * MIB);
    assert_eq!(configuration["totalFlinkMemory"], FLINK_BYTES);
    assert_eq!(
        (&configuration["managedMemory"], &configuration["networkMemory"]),
        (&json!(64 * MIB), &json!(64 * MIB))
    );
    assert_eq!(details["metrics"]["nettyShuffleMemoryTotal"], 64 * MIB, "{details}");
    assert_eq!(details["metrics"]["nettyShuffleMemorySegmentsTotal"], 2048, "{details}");
}

#[test]
fn workers_have_huge_pages_only_if_they_are_asked_for() {
    for (setting, expected) in [(&[][..], "0"), (&["taskmanager.memory.huge-pages: true"][..], "1")] {
        let cluster = StandaloneCluster::start(1, 1, &[SETTINGS, setting].concat());
        let job = start(&cluster, "modest", "nothing");
        wait_until("the job runs", || records_read(&Http(cluster.address()), &job) > 0);
        let status = std::fs::read_to_string(format!("/proc/{}/status", cluster.workers()[0])).unwrap();
        let allowed = status.lines().find_map(|line| line.strip_prefix("THP_enabled:")).expect("Linux tells since 5.0");
        assert_eq!(allowed.trim(), expected, "{setting:?}");
    }
}

/// Two pipelines without an edge between them are two regions, and the worker is told of one after the other. Each has four
/// channels, and would take 128 KiB for each: then the second would not get the 64 KiB that each of its channels needs.
#[test]
fn pipelines_of_one_job_share_the_memory_for_buffers_though_one_is_deployed_first() {
    let network = ["taskmanager.memory.network.min=640k", "taskmanager.memory.network.max=640k"];
    let mut env = local(&[&network[..], &["restart-strategy.type=none"]].concat());
    env.set_parallelism(4);
    let pipeline = || env.from_collection(0..1_000_u64).key_by::<u64, _>(|number| *number % 16).count().collect();
    let pipelines = [pipeline(), pipeline()];
    let result = env.execute("two pipelines").expect("both fit");
    for counts in pipelines {
        assert_eq!(result.collected(&counts).len(), 1_000);
    }
}
