//! Records cross from one worker process to another; worker processes are killed, again and again, and the job starts
//! again from its latest checkpoint with replacements: every record must count exactly once in the committed output.

use millstream_tests::{
    counts::{deviation, visible},
    job_process::JobFolder,
    signal,
    text::add_text,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_word_count_job");

/// The processes of workers that were started, in order.
fn workers(folder: &JobFolder) -> Vec<u32> {
    let started = |line: &str| line.contains("a worker process has started");
    let log = folder.log();
    let process = |line: &str| line.split("process=").nth(1)?.split_whitespace().next()?.parse().ok();
    log.lines().filter(|line| started(line)).filter_map(process).collect()
}

fn run_with_kills(transport: &str, workers_wanted: u32, slots: u32, parallelism: u32, kills: usize) {
    let root = tempfile::tempdir().unwrap();
    let folder = JobFolder::new(root.path());
    let totals = add_text(&folder, 400_000);
    let settings = [
        &format!("parallelism.default={parallelism}"),
        &format!("local.number-taskmanager={workers_wanted}"),
        &format!("taskmanager.numberOfTaskSlots={slots}"),
        &format!("shuffle.transport={transport}"),
        &format!("security.ssl.internal.enabled={}", transport != "tcp"),
        "execution.checkpointing.interval=50 ms",
        "restart-strategy.type=fixed-delay",
        "restart-strategy.fixed-delay.attempts=100",
        "restart-strategy.fixed-delay.delay=1 ms",
    ];
    let mut job = folder.start(PROGRAM, &settings);
    let mut dead = Vec::new();
    while dead.len() < kills {
        let wanted = folder.newest_checkpoint() + 1;
        job.wait_until(&folder, "a checkpoint after the last kill", || folder.newest_checkpoint() >= wanted);
        let started = workers(&folder);
        // By turns the oldest, which has the coordinator of the source, and the newest.
        let running: Vec<u32> = started.iter().copied().filter(|worker| !dead.contains(worker)).collect();
        let victim = if dead.len().is_multiple_of(2) { running[0] } else { running[running.len() - 1] };
        signal("KILL", victim);
        dead.push(victim);
        job.wait_until(&folder, "a replacement", || workers(&folder).len() > started.len());
    }
    assert!(job.end().success(), "{}", folder.log());
    assert_eq!(folder.logged(&["killed by signal 9"]) > 0, kills > 0, "{}", folder.log());
    // `auto` is for QUIC on loopback, whose packets are large.
    let carrier = if transport == "tcp" { "transport=tcp" } else { "transport=quic" };
    assert!(folder.logged(&["connected", carrier]) > 0, "{}", folder.log());
    let deviation = deviation(&visible(&folder.output()), &totals);
    assert_eq!(deviation, None, "{}", folder.log());
}

#[test]
fn two_workers_count_each_record_exactly_once() {
    run_with_kills("quic", 2, 1, 2, 0);
}

#[test]
fn every_record_counts_exactly_once_however_often_a_worker_is_killed() {
    run_with_kills("quic", 2, 1, 2, 4);
}

#[test]
fn several_slots_of_several_workers_share_connections_and_survive_kills() {
    run_with_kills("auto", 3, 2, 6, 2);
}

#[test]
fn the_same_holds_over_tcp_without_encryption() {
    run_with_kills("tcp", 2, 1, 2, 2);
}
