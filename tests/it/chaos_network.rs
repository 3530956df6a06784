//! Jobs whose workers are on different hosts, and what the network between them may do: be slow, lose and reorder, break
//! and heal. Every record must count exactly once in the committed output, and a job must fail over only when it has to.

#![allow(clippy::disallowed_methods, reason = "a network is broken for a time on the wall clock")]

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use millstream::model::config::NetworkIo;
use millstream::model::{message::ShuffleMetrics, state::JobStatus};
use millstream_shuffle::io::Io;
use millstream_tests::{
    counts::{deviation, visible},
    host_workers::{HostedJob, Spread},
    job_process::JobFolder,
    text::add_text,
    wait_until,
    weather::Weather,
    worker_processes::planned,
};

const WORD_COUNT: &str = env!("CARGO_BIN_EXE_word_count_job");
const LINES: u64 = 100_000;

/// Words, counted on hosts.
struct WordCount {
    folder: JobFolder,
    totals: BTreeMap<String, u64>,
    job: HostedJob,
    _root: tempfile::TempDir,
}

impl WordCount {
    /// A subtask of each vertex for each slot. `lines` in each of two files.
    fn start(spread: Spread, lines: u64) -> WordCount {
        WordCount::start_with(spread, lines, &[])
    }

    fn start_with(spread: Spread, lines: u64, settings: &[&str]) -> WordCount {
        let root = tempfile::tempdir().expect("there is room for a folder");
        let folder = JobFolder::new(root.path());
        let totals = add_text(&folder, lines);
        let parallelism = u32::from(spread.hosts) * spread.slots;
        let parallel = format!("parallelism.default={parallelism}");
        let mut arguments = vec![
            &*parallel,
            "execution.checkpointing.interval=50 ms",
            "restart-strategy.type=fixed-delay",
            "restart-strategy.fixed-delay.attempts=1000",
            "restart-strategy.fixed-delay.delay=50 ms",
        ];
        arguments.extend(settings);
        let arguments = folder.arguments(&arguments);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let graph = planned(Path::new(WORD_COUNT), &arguments);
        let spread = Spread { checkpoints: Some(folder.checkpoints()), ..spread };
        let job = HostedJob::start(WORD_COUNT, graph, spread);
        WordCount { folder, totals, job, _root: root }
    }

    fn wait_for_another_checkpoint(&self) {
        let before = self.folder.newest_checkpoint();
        self.job.wait_until("another checkpoint", |_| self.folder.newest_checkpoint() > before);
    }

    /// Waits for the end, which must be a good one. How often the job has restarted.
    fn count(&self) -> u32 {
        let outcome = self.job.end();
        assert_eq!(outcome.status, JobStatus::Finished, "{:?}", outcome.failure);
        assert_eq!(deviation(&visible(&self.folder.output()), &self.totals), None);
        outcome.timings.restarts
    }

    fn sent_bytes(&self) -> u64 {
        self.job.metrics().shuffle.values().map(|peer| peer.sent_bytes).sum()
    }
}

/// Runs in weather, and returns how many datagrams have passed, were lost, and were later than others.
fn in_weather(hosts: u8, weather: Option<Weather>) -> [u64; 3] {
    let words = WordCount::start(Spread { weather, ..Spread::over(hosts, 1) }, LINES);
    assert_eq!(words.count(), 0, "{:?}", words.job.metrics().last_failure);
    // About a half of what is read, or two thirds, goes to another host, as the words of four or five letters and more.
    let text: u64 = words.totals.iter().map(|(word, times)| word.len() as u64 * times).sum();
    let sent = words.sent_bytes();
    assert!(sent > text * u64::from(hosts - 1) / u64::from(hosts), "{sent} bytes of {text} went over the network");
    words.job.tally()
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn two_hosts_count_each_record_exactly_once() {
    in_weather(2, None);
}

#[test]
fn three_hosts_count_each_record_exactly_once() {
    in_weather(3, None);
}

#[test]
fn a_ring_carries_records_between_hosts_where_it_is_asked_for() {
    let has_ring = Io::start(NetworkIo::Uring).has_ring();
    if !has_ring {
        println!("there is no io_uring here: all of it is tested with system calls");
    }
    for transport in ["shuffle.transport=quic", "shuffle.transport=tcp"] {
        for (io, by_ring) in [("taskmanager.network.io=uring", has_ring), ("taskmanager.network.io=syscall", false)] {
            let words = WordCount::start_with(Spread::over(3, 1), LINES / 4, &[transport, io]);
            assert_eq!(words.count(), 0, "{:?}", words.job.metrics().last_failure);
            let submissions = |peer: &ShuffleMetrics| peer.io_submissions > 0;
            let metrics = words.job.metrics().shuffle;
            assert_eq!(metrics.len(), 6, "{metrics:?}");
            assert!(metrics.values().all(|peer| submissions(peer) == by_ring), "{transport}, {io}: {metrics:?}");
        }
    }
}

#[test]
fn two_far_hosts_count_each_record_exactly_once() {
    let [passed, lost, strayed] = in_weather(2, Some(Weather { delay: millis(10), ..Weather::default() }));
    assert!(passed > 1_000 && lost + strayed == 0, "{passed} passed, {lost} were lost and {strayed} strayed");
}

#[test]
fn three_hosts_count_each_record_exactly_once_although_datagrams_are_lost_and_overtake_each_other() {
    let weather = Weather { delay: millis(1), lost_of_thousand: 10, stray_of_thousand: 100, stray: millis(5) };
    let [passed, lost, strayed] = in_weather(3, Some(weather));
    assert!(lost > 10 && strayed > 100, "{passed} passed, {lost} were lost and {strayed} strayed");
}

#[test]
fn every_record_counts_exactly_once_although_a_host_loses_its_worker() {
    let mut words = WordCount::start(Spread::over(3, 1), 2 * LINES);
    for host in [1, 0, 2] {
        words.wait_for_another_checkpoint();
        words.job.kill_and_replace(host);
    }
    let restarts = words.count();
    assert!(restarts >= 3, "{restarts} restarts");
}

/// Cuts a host off for longer than peers are patient, and until a restart could not connect.
fn is_cut_off_and_returns(cut: fn(&HostedJob), heal: fn(&HostedJob)) {
    let patience = Duration::from_secs(2);
    let spread = Spread { idle_timeout: patience, connect_timeout: millis(700), ..Spread::over(2, 1) };
    let words = WordCount::start(spread, 3 * LINES);
    words.wait_for_another_checkpoint();
    let since = Instant::now();
    cut(&words.job);
    let mut messages = Vec::new();
    words.job.wait_until("a restart that could not connect", |metrics| {
        let message = metrics.last_failure.as_ref().map(|failure| failure.to_string());
        if let Some(message) = message.filter(|message| messages.last() != Some(message)) {
            messages.push(message);
        }
        messages.iter().any(|message| message.contains("was not connected within 700ms"))
    });
    assert!(since.elapsed() >= patience, "given up after {:?}: {messages:?}", since.elapsed());
    let names_a_peer =
        |message: &str| message.contains("worker 0 at 10.77.0.1:") || message.contains("worker 1 at 10.77.0.2:");
    assert!(messages.iter().all(|message| names_a_peer(message)), "{messages:?}");
    assert!(messages[0].contains("silent for too long"), "{messages:?}");
    heal(&words.job);
    let restarts = words.count();
    assert!(restarts >= 2, "{restarts} restarts");
}

#[test]
fn a_host_that_is_silent_for_longer_than_peers_are_patient_costs_a_restart_and_no_record() {
    is_cut_off_and_returns(|job| job.hosts.silence(1), |job| job.hosts.hear(1));
}

#[test]
fn a_cable_that_is_out_for_longer_than_peers_are_patient_costs_a_restart_and_no_record() {
    is_cut_off_and_returns(|job| job.hosts.pull_cable(0), |job| job.hosts.plug_cable(0));
}

/// Cuts a host off for less than peers are patient.
fn is_cut_off_for_a_moment(moment: Duration, spread: Spread, cut: fn(&HostedJob), heal: fn(&HostedJob)) {
    let words = WordCount::start(spread, 2 * LINES);
    words.wait_for_another_checkpoint();
    let records = || words.job.metrics().tasks.values().map(|task| task.records_in).sum::<u64>();
    let since = Instant::now();
    cut(&words.job);
    // Until then what has arrived before is counted, and reported.
    wait_until("the middle of the cut", || since.elapsed() > moment * 2 / 3);
    let in_the_middle = records();
    wait_until("the end of the cut", || since.elapsed() > moment);
    let metrics = words.job.metrics();
    assert_eq!(metrics.restarts, 0, "{:?}", metrics.last_failure);
    assert_eq!(records(), in_the_middle, "nothing is cut off");
    heal(&words.job);
    assert_eq!(words.count(), 0, "{:?}", words.job.metrics().last_failure);
}

#[test]
fn a_host_that_is_silent_for_a_moment_costs_no_restart() {
    is_cut_off_for_a_moment(millis(2_000), Spread::over(2, 1), |job| job.hosts.silence(1), |job| job.hosts.hear(1));
}

#[test]
fn a_cable_that_is_out_for_a_moment_costs_no_restart() {
    is_cut_off_for_a_moment(
        millis(2_000),
        Spread::over(2, 1),
        |job| job.hosts.pull_cable(1),
        |job| job.hosts.plug_cable(1),
    );
}

/// On a path that loses as much as this, as much is under way as is allowed.
#[test]
fn a_host_that_is_silent_for_nearly_as_long_as_peers_are_patient_costs_no_restart() {
    let weather = Some(Weather { delay: millis(10), lost_of_thousand: 20, ..Weather::default() });
    let spread = Spread { weather, idle_timeout: millis(5_500), ..Spread::over(2, 2) };
    is_cut_off_for_a_moment(millis(4_000), spread, |job| job.hosts.silence(0), |job| job.hosts.hear(0));
}

/// Local and remote end of each UDP socket of a host whose one process this is.
fn udp_sockets(process: u32) -> Vec<(String, String)> {
    let table = fs::read_to_string(format!("/proc/{process}/net/udp")).unwrap_or_default();
    let ends = |line: &str| {
        let mut columns = line.split_whitespace();
        Some((columns.nth(1)?.to_owned(), columns.next()?.to_owned()))
    };
    table.lines().skip(1).filter_map(ends).collect()
}

#[test]
fn two_workers_have_one_connection_however_many_channels_there_are() {
    let words = WordCount::start(Spread::over(2, 8), LINES);
    let processes = [words.job.process(0), words.job.process(1)];
    let mut most = [Vec::new(), Vec::new()];
    wait_until("the end of the job", || {
        for (most, process) in most.iter_mut().zip(processes) {
            let sockets = udp_sockets(process);
            if sockets.len() > most.len() {
                *most = sockets;
            }
        }
        words.job.handle.outcome().is_some()
    });
    assert_eq!(words.count(), 0);
    assert_eq!(words.job.metrics().tasks_total, 2 * 16);
    for sockets in most {
        let (listening, connected): (Vec<_>, Vec<_>) = sockets.iter().partition(|(_, far)| far == "00000000:0000");
        assert_eq!((listening.len(), connected.len()), (1, 1), "a listener and one connection: {sockets:?}");
    }
}
