//! Any process of a cluster is killed, again and again, at random moments and at named ones: each record counts exactly once
//! in the committed output. 20 rounds; a thousand with `cargo xtask test --nightly --test chaos_processes -- --nocapture`,
//! which shows a report. `MILLSTREAM_CHAOS_SEED` repeats the draws of a run, and as much of its course as they decide.

#![allow(clippy::disallowed_methods, reason = "tests wait for conditions, with a limit on the wall clock")]

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use fastrand::Rng;
use millstream_tests::{
    counts::{deviation, visible},
    has_ended,
    job_process::{JOB_ID, JobFolder},
    signal,
    standalone::StandaloneCluster,
    text::Author,
    wait_until,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_growing_word_count_job");
const TASK_MANAGERS: usize = 2;
/// After the process of the last round was started again.
const LONGEST_PAUSE: Duration = Duration::from_millis(1_000);
/// A moment that has not come until then does not come in this round: nothing that leads to it has happened.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// What may be killed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Kind {
    JobManager,
    TaskManager,
    Worker,
}

/// The table that victims are drawn from.
const KINDS: [Kind; 3] = [Kind::JobManager, Kind::TaskManager, Kind::Worker];

/// A named moment: when a line with these words appears in a log of these processes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Moment {
    log: &'static str,
    words: &'static str,
}

/// The phases of deployment, checkpoint and restart, as they are logged. A checkpoint that is under way is seen by its
/// folder.
const MOMENTS: [Moment; 11] = [
    Moment { log: "jobmanager", words: "is taken up" },
    Moment { log: "jobmanager", words: "a worker has outlived a JobManager" },
    ADOPTED,
    Moment { log: "jobmanager", words: "a TaskManager has registered" },
    Moment { log: "taskmanager", words: "a job gets slots" },
    Moment { log: "taskmanager", words: "a worker process has started" },
    Moment { log: "jobmanager", words: "a worker has joined" },
    Moment { log: "jobmanager", words: "the job is deployed" },
    RESTART,
    COMPLETE,
    UNDER_WAY,
];
const ADOPTED: Moment = Moment { log: "jobmanager", words: "the job is adopted" };
const RESTART: Moment = Moment { log: "jobmanager", words: "the job restarts" };
const COMPLETE: Moment = Moment { log: "jobmanager", words: "checkpoint complete" };
const UNDER_WAY: Moment = Moment { log: "", words: "a checkpoint is under way" };

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words)
    }
}

struct Chaos<'f> {
    cluster: StandaloneCluster,
    folder: &'f JobFolder,
    rng: Rng,
}

impl Chaos<'_> {
    /// The processes of a kind that run.
    fn processes(&self, kind: Kind) -> Vec<u32> {
        let mut processes = match kind {
            Kind::JobManager => self.cluster.processes("jobmanager"),
            Kind::TaskManager => self.cluster.processes("taskmanager"),
            Kind::Worker => self.processes(Kind::TaskManager).into_iter().flat_map(children).collect(),
        };
        processes.retain(|process| !has_ended(*process));
        processes
    }

    /// How often a named moment has come, as far as logs go back.
    fn count(&self, moment: Moment) -> u64 {
        if moment == UNDER_WAY {
            return newest_folder(&self.folder.checkpoints().join(JOB_ID));
        }
        self.cluster.log(moment.log).matches(moment.words).count() as u64
    }

    /// Waits for a random moment, or for a named one. Returns which one has come.
    fn wait(&mut self) -> Option<Moment> {
        if self.rng.bool() {
            thread::sleep(LONGEST_PAUSE.mul_f64(self.rng.f64()));
            return None;
        }
        let moment = MOMENTS[self.rng.usize(..MOMENTS.len())];
        let (before, until) = (self.count(moment), Instant::now() + PATIENCE);
        while Instant::now() < until {
            if self.count(moment) > before {
                return Some(moment);
            }
            thread::sleep(Duration::from_millis(1));
        }
        None
    }

    /// Kills a process of a kind, and starts another one unless its parent does.
    fn kill(&mut self, kind: Kind) {
        let running = self.processes(kind);
        let victim = running[self.rng.usize(..running.len())];
        signal("KILL", victim);
        wait_until("the end of the victim", || has_ended(victim));
        match kind {
            Kind::Worker => {}
            Kind::JobManager => self.cluster.run_script("jobmanager.sh", &["start"]),
            Kind::TaskManager => self.cluster.run_script("taskmanager.sh", &["start"]),
        }
    }
}

/// How often something was killed at a moment, and how long it took until a checkpoint was complete again, where the next
/// kill waited for that.
#[derive(Default)]
struct Row {
    kills: u32,
    recoveries: Vec<Duration>,
}

#[derive(Default)]
struct Report(BTreeMap<(Kind, String), Row>);

impl Report {
    fn row(&mut self, kind: Kind, moment: Option<Moment>) -> &mut Row {
        let moment = moment.map_or_else(|| "at random".to_owned(), |moment| moment.to_string());
        self.0.entry((kind, moment)).or_default()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<12} {:<30} {:>5}   until a checkpoint: median, longest", "killed", "when", "times")?;
        for ((kind, moment), Row { kills, recoveries }) in &self.0 {
            let kind = format!("{kind:?}");
            write!(f, "{kind:<12} {moment:<30} {kills:>5}")?;
            let mut recoveries = recoveries.clone();
            recoveries.sort_unstable();
            if let Some(longest) = recoveries.last() {
                write!(f, "   {:>8.0?} {longest:>8.0?}", recoveries[recoveries.len() / 2])?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

fn children(process: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let lists = tasks.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
    lists.flat_map(|list| list.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<u32>>()).collect()
}

/// The number of the newest checkpoint that has a folder, whether or not it is complete.
fn newest_folder(checkpoints: &Path) -> u64 {
    let entries = fs::read_dir(checkpoints).into_iter().flatten().flatten();
    let number = |name: String| name.strip_prefix("chk-").and_then(|number| number.parse().ok());
    entries.filter_map(|entry| number(entry.file_name().into_string().ok()?)).max().unwrap_or(0)
}

/// A cluster with one job, which reads what its author writes and never ends.
fn start<'f>(root: &Path, folder: &'f JobFolder, seed: u64) -> Chaos<'f> {
    let storage = format!("high-availability.storageDir: {}", root.join("storage").display());
    let cluster = StandaloneCluster::start(
        TASK_MANAGERS,
        1,
        &[
            "high-availability.type: file",
            &storage,
            // A worker that is gone as well is not waited for long.
            "recovery.adopt-timeout: 500 ms",
        ],
    );
    let settings = [
        "execution.checkpointing.interval=50 ms",
        "restart-strategy.type=fixed-delay",
        "restart-strategy.fixed-delay.attempts=1000000",
        "restart-strategy.fixed-delay.delay=10 ms",
    ];
    let mut arguments = ["run", "-d", "-p", "2", PROGRAM].map(str::to_owned).to_vec();
    arguments.extend(folder.arguments(&settings));
    let output = cluster.ask(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Chaos { cluster, folder, rng: Rng::with_seed(seed) }
}

fn rounds(count: u32, seed: u64) {
    let seed = std::env::var("MILLSTREAM_CHAOS_SEED").map_or(seed, |seed| seed.parse().expect("the seed is a number"));
    println!("{count} rounds with MILLSTREAM_CHAOS_SEED={seed}");
    let root = tempfile::tempdir().unwrap();
    let folder = JobFolder::new(root.path());
    let mut author = Author::of(&folder);
    author.write(5_000);
    let mut chaos = start(root.path(), &folder, seed);
    let mut report = Report::default();
    let mut checkpoint = 0;
    for _ in 0..count {
        author.write(500);
        let moment = chaos.wait();
        let kind = KINDS[chaos.rng.usize(..KINDS.len())];
        if kind == Kind::Worker {
            wait_until("a worker", || !chaos.processes(Kind::Worker).is_empty());
        }
        let killed = Instant::now();
        chaos.kill(kind);
        let row = report.row(kind, moment);
        row.kills += 1;
        // Mostly the next one comes while the job has not recovered yet.
        if chaos.rng.u8(..3) == 0 {
            wait_until("a checkpoint", || folder.newest_checkpoint() > checkpoint);
            checkpoint = folder.newest_checkpoint();
            wait_until("another checkpoint", || folder.newest_checkpoint() > checkpoint);
            row.recoveries.push(killed.elapsed());
        }
        checkpoint = folder.newest_checkpoint();
    }
    wait_until("all counts", || deviation(&visible(&folder.output()), author.totals()).is_none());
    // What is read twice is counted too high only afterwards.
    let wanted = folder.newest_checkpoint() + 2;
    wait_until("two checkpoints more", || folder.newest_checkpoint() >= wanted);
    assert_eq!(deviation(&visible(&folder.output()), author.totals()), None);
    println!("{report}");
    assert!(chaos.cluster.ask(&["cancel", JOB_ID]).status.success());
    wait_until("the end of the workers", || chaos.processes(Kind::Worker).is_empty());
}

#[test]
fn whatever_is_killed_whenever_each_record_counts_exactly_once() {
    rounds(20, 0x5eed);
}

#[test]
#[ignore = "long: takes most of an hour"]
fn a_thousand_kills_cost_no_record() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    rounds(1_000, now.map_or(0, |since| since.as_secs()));
}

/// Otherwise a line of a log that has got other words would make the draws of its moment random ones, and nobody would see.
#[test]
fn every_named_moment_comes() {
    let root = tempfile::tempdir().unwrap();
    let folder = JobFolder::new(root.path());
    let mut author = Author::of(&folder);
    author.write(100);
    let mut chaos = start(root.path(), &folder, 0);
    wait_until("a checkpoint", || folder.newest_checkpoint() > 0);
    let mut seen = Vec::new();
    // Logs begin anew with the JobManager, so it is looked before.
    let mut look = |chaos: &Chaos<'_>| seen.extend(MOMENTS.into_iter().filter(|moment| chaos.count(*moment) > 0));
    look(&chaos);
    chaos.kill(Kind::Worker);
    wait_until("a restart", || chaos.count(RESTART) > 0);
    look(&chaos);
    let complete = chaos.count(COMPLETE);
    wait_until("that all tasks run", || chaos.count(COMPLETE) > complete);
    chaos.kill(Kind::JobManager);
    wait_until("the adoption", || chaos.count(ADOPTED) > 0);
    look(&chaos);
    seen.sort_unstable();
    seen.dedup();
    let mut all = MOMENTS.to_vec();
    all.sort_unstable();
    assert_eq!(seen, all);
}

#[test]
fn the_table_names_every_process_of_a_cluster() {
    let root = tempfile::tempdir().unwrap();
    let folder = JobFolder::new(root.path());
    let mut author = Author::of(&folder);
    author.write(100);
    let chaos = start(root.path(), &folder, 0);
    wait_until("both workers", || chaos.processes(Kind::Worker).len() == TASK_MANAGERS);
    let mut named: Vec<u32> = KINDS.iter().flat_map(|kind| chaos.processes(*kind)).collect();
    named.sort_unstable();
    // Whatever a process of the cluster has started has inherited its environment.
    let mark = format!("MILLSTREAM_CONF_DIR={}", chaos.cluster.conf_dir().display());
    let belongs = |process: &u32| {
        let environment = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    };
    let all = fs::read_dir("/proc").unwrap().flatten();
    let mut found: Vec<u32> =
        all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(belongs).collect();
    found.retain(|process| !has_ended(*process));
    found.sort_unstable();
    assert_eq!(found, named);
}
