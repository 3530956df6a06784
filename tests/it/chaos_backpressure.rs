//! A task that takes slowly, or not at all for a while, on another host than what it takes from: its source waits, memory
//! stays bounded, and whatever else shares the connection goes on. See `src/bin/slow_taker_job.rs`.

#![allow(clippy::disallowed_methods, reason = "what the job says of its time is compared with the wall clock")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use millstream::model::{
    id::{JobVertexId, WorkerId},
    job_graph::JobGraph,
    message::TaskMetrics,
    state::JobStatus,
};
use millstream_controlplane::JobMetrics;
use millstream_tests::{
    host_workers::{HostedJob, Spread},
    wait_until,
    worker_processes::planned,
};

const ARTIFACT: &str = env!("CARGO_BIN_EXE_slow_taker_job");
/// What the job says of itself.
const SLOW: u64 = 100_000;
const STEADY: u64 = 20_000;
const STEADY_TIME: Duration = Duration::from_secs(4);
const FIRST_STEADY: u64 = 1_000_000;
/// The default of `taskmanager.network.memory.channel-window`.
const WINDOW_BYTES: u64 = 128 << 10;
/// The default of `taskmanager.network.memory.max-overdraft-buffers-per-gate`, in segments of default size.
const OVERDRAFT_BYTES: u64 = 5 * (32 << 10);

/// The job with so many of each source and taker.
struct SlowJob {
    job: HostedJob,
    graph: JobGraph,
    gate: PathBuf,
    parallelism: u64,
    _root: tempfile::TempDir,
}

impl SlowJob {
    fn start(manner: &str, parallelism: u64, spread: Spread) -> SlowJob {
        let root = tempfile::tempdir().expect("there is room for a folder");
        let gate = root.path().join("gate");
        let gate_name = gate.to_str().expect("temporary folders have plain names");
        let parallelism_key = format!("-Dparallelism.default={parallelism}");
        // Channels to another worker get no more than those within one.
        let window_key = "-Dtaskmanager.network.memory.remote-window=128kb";
        let graph = planned(Path::new(ARTIFACT), &[gate_name, manner, &parallelism_key, window_key]);
        let job = HostedJob::start(ARTIFACT, graph.clone(), spread);
        SlowJob { job, graph, gate, parallelism, _root: root }
    }

    fn vertex(&self, head: &str) -> JobVertexId {
        let vertex = self.graph.vertices.iter().find(|vertex| vertex.operators[0].name == head);
        vertex.unwrap_or_else(|| panic!("no vertex begins with {head}")).id
    }

    /// The numbers of all subtasks of a vertex.
    fn sum(&self, metrics: &JobMetrics, head: &str, number: fn(&TaskMetrics) -> u64) -> u64 {
        let vertex = self.vertex(head);
        metrics.tasks.iter().filter(|(subtask, _)| subtask.vertex == vertex).map(|(_, task)| number(task)).sum()
    }

    fn taken(&self, metrics: &JobMetrics, head: &str) -> u64 {
        self.sum(metrics, head, |task| task.records_in)
    }

    /// Lets the slow takers go on, and checks that nothing is missing, doubled or out of order.
    fn finish(&self) {
        fs::write(&self.gate, b"").expect("there is room for a file");
        let outcome = self.job.end();
        assert_eq!(outcome.status, JobStatus::Finished, "{:?}", outcome.failure);
        assert_eq!(outcome.timings.restarts, 0, "{:?}", self.job.metrics().last_failure);
        let mut all = Vec::new();
        for (_, records) in &outcome.collected {
            // Each is an eight-byte archive behind its eight-byte length.
            let numbers = records.chunks_exact(16).map(|record| record[8..].try_into().expect("eight bytes"));
            let numbers: Vec<u64> = numbers.map(u64::from_le_bytes).collect();
            let mut last_of = BTreeMap::new();
            for number in &numbers {
                // Source s of p makes s, s + p, s + 2p, ….
                let last = last_of.insert((*number < FIRST_STEADY, number % self.parallelism), *number);
                assert!(last.is_none_or(|last| last < *number), "{number} comes after {last:?}");
            }
            all.extend(numbers);
        }
        all.sort_unstable();
        assert!(
            all.into_iter().eq((0..SLOW).chain(FIRST_STEADY..FIRST_STEADY + STEADY)),
            "records are lost or doubled"
        );
    }

    /// Waits until the steady pipeline has taken all of its texts, and checks that it took no longer than it should.
    fn wait_for_steady(&self) {
        self.job.wait_until("the first steady texts", |metrics| self.taken(metrics, "steady taker") > 0);
        let since = Instant::now();
        self.job.wait_until("all steady texts", |metrics| self.taken(metrics, "steady taker") == STEADY);
        let took = since.elapsed();
        assert!(took < STEADY_TIME + Duration::from_secs(2), "the steady pipeline took {took:?}");
    }
}

fn resident_bytes(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("the process is there");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("it is a number") << 10
}

/// Datagrams that have left the host of a process.
fn sent_datagrams(process: u32) -> u64 {
    let counts = fs::read_to_string(format!("/proc/{process}/net/snmp")).expect("the process is there");
    let mut lines = counts.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let names = lines.next().expect("there are names");
    let at = names.split(' ').position(|name| name == "OutDatagrams").expect("it is counted");
    let values = lines.next().expect("there are values");
    values.split(' ').nth(at).and_then(|value| value.parse().ok()).expect("it is a number")
}

#[test]
fn a_slow_taker_on_another_host_slows_its_source_and_nobody_else() {
    let parallelism = 2;
    let job = SlowJob::start("slow", parallelism, Spread::over(2, 2 * parallelism as u32));
    job.wait_for_steady();
    let processes = [job.job.process(0), job.job.process(1)];
    let state = || (Instant::now(), job.job.metrics(), processes.map(resident_bytes));
    let (began, before, memory_before) = state();
    assert!(job.taken(&before, "slow taker") < SLOW / 20, "the taker is not slow: {before:?}");
    let mut highest_backlog = 0;
    wait_until("two seconds of numbers", || {
        let peer = job.job.metrics().shuffle[&(WorkerId(0), WorkerId(1))].clone();
        assert!(peer.credit_spent <= peer.credit_granted, "{peer:?}");
        highest_backlog = highest_backlog.max(peer.backlog_bytes);
        began.elapsed() > Duration::from_secs(2)
    });
    let (_, after, memory_after) = state();

    // What has left the source and is not taken: in each channel as much as a window there and here; what sources that
    // wait have made besides; and what is taken between the reports of the two workers.
    let way = |head, number| job.sum(&after, head, number);
    let (out, taken) = (way("slow source", |task| task.bytes_out), way("slow taker", |task| task.bytes_in));
    let channels = parallelism * parallelism;
    let bound = channels * 2 * WINDOW_BYTES + parallelism * OVERDRAFT_BYTES + (256 << 10);
    assert!(out - taken < bound, "{out} bytes were sent, {taken} taken");
    assert!(highest_backlog > 0 && highest_backlog < bound, "{highest_backlog} bytes wait");
    // Room is granted as far as it was made.
    let grown = |metrics: fn(&JobMetrics) -> u64| metrics(&after) - metrics(&before);
    let granted = grown(|metrics| metrics.shuffle[&(WorkerId(0), WorkerId(1))].credit_granted);
    let taken = taken - job.sum(&before, "slow taker", |task| task.bytes_in);
    assert!(taken > 0 && granted < taken * 5 / 4 + channels * WINDOW_BYTES, "{granted} granted for {taken}");
    let starved = grown(|metrics| metrics.shuffle[&(WorkerId(0), WorkerId(1))].starved_nanos);
    assert!(starved > 1_000_000_000, "starved for {starved} ns of two seconds");
    // The sources wait nearly all of the time.
    let spent = |number: fn(&TaskMetrics) -> u64| {
        job.sum(&after, "slow source", number) - job.sum(&before, "slow source", number)
    };
    let (waited, worked) = (spent(|task| task.backpressured_nanos), spent(|task| task.busy_nanos + task.idle_nanos));
    assert!(waited > 4 * worked, "the sources waited for {waited} ns and did something else for {worked} ns");
    for (before, after) in memory_before.into_iter().zip(memory_after) {
        assert!(after < before + (8 << 20), "from {before} to {after} bytes of memory");
    }
    // What is under way follows the speed of the takers: of eight windows of 128 KiB less than half is left.
    job.job.wait_until("less to be under way", |metrics| {
        let way = |head, number| job.sum(metrics, head, number);
        let (out, taken) = (way("slow source", |task| task.bytes_out), way("slow taker", |task| task.bytes_in));
        out - taken.min(out) < channels * WINDOW_BYTES + OVERDRAFT_BYTES
    });
    job.finish();
}

/// Takers that block a slot for much longer than peers are patient, with `slots` per host.
fn is_blocked_for_long(hosts: u8, slots: u32, idle_timeout: Duration) {
    let job = SlowJob::start("blocked", 1, Spread { idle_timeout, ..Spread::over(hosts, slots) });
    job.job.wait_until("a taker to be blocked", |metrics| {
        job.sum(metrics, "slow source", |task| task.backpressured_nanos) > 0
    });
    let since = Instant::now();
    job.wait_for_steady();
    let processes: Vec<u32> = (0..hosts).map(|host| job.job.process(host)).collect();
    let datagrams = || processes.iter().map(|process| sent_datagrams(*process)).sum::<u64>();
    let (quiet_since, before) = (Instant::now(), datagrams());
    wait_until("the end of any patience", || {
        since.elapsed() > idle_timeout * 5 / 2 && quiet_since.elapsed() > Duration::from_secs(1)
    });
    // What shows that a peer lives, and is answered; but nothing is sent again and again that a slot does not take.
    let a_second = (datagrams() - before) as f64 / quiet_since.elapsed().as_secs_f64();
    let connections = u32::from(hosts) * u32::from(hosts - 1) / 2;
    assert!(a_second < 40.0 * f64::from(connections), "{a_second} datagrams a second over {connections} connections");
    let metrics = job.job.metrics();
    assert_eq!((metrics.restarts, job.job.handle.status()), (0, JobStatus::Running), "{:?}", metrics.last_failure);
    assert!(job.taken(&metrics, "slow taker") < SLOW / 100, "the taker is not blocked: {metrics:?}");
    job.finish();
}

#[test]
fn a_function_that_blocks_its_slot_keeps_the_connection_and_holds_up_no_other_channel_of_it() {
    is_blocked_for_long(2, 2, Duration::from_secs(2));
}

#[test]
fn a_function_that_blocks_the_only_slot_of_a_worker_keeps_its_connections() {
    is_blocked_for_long(4, 1, Duration::from_secs(2));
}

#[test]
#[ignore = "long: blocks for 25 s"]
fn a_function_that_blocks_its_slot_for_longer_than_the_default_patience_keeps_the_connection() {
    is_blocked_for_long(2, 2, Duration::from_secs(10));
}
