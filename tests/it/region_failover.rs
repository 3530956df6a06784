//! A job of two word counts with nothing between them, on a cluster of real processes: what befalls one of them restarts its
//! tasks and leaves the other's alone, attempt, process and all. Each record counts exactly once in the output of both.

#![allow(clippy::disallowed_methods, reason = "tests wait for conditions, with a limit on the wall clock")]

use std::{collections::BTreeMap, fs, path::Path};

use millstream_tests::{
    counts::{deviation, visible},
    has_ended,
    http::Http,
    job_process::{JOB_ID, JobFolder},
    signal,
    standalone::{StandaloneCluster, free_ports},
    text::Author,
    wait_until,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_two_counts_job");

/// One of the two counts.
struct Side<'f> {
    name: &'static str,
    folder: &'f JobFolder,
    author: Author<'f>,
    /// Words that somebody else has written.
    more: BTreeMap<String, u64>,
}

impl<'f> Side<'f> {
    fn of(name: &'static str, folder: &'f JobFolder) -> Side<'f> {
        let mut author = Author::of(folder);
        author.write(2_000);
        Side { name, folder, author, more: BTreeMap::new() }
    }

    /// The process that counts.
    fn process(&self) -> u32 {
        let path = self.folder.output().with_file_name("pid");
        fs::read_to_string(path).unwrap_or_default().parse().unwrap_or(0)
    }

    fn panics_once(&mut self) {
        self.folder.add_input("panic", "panic once");
        self.more.extend([("panic".to_owned(), 1), ("once".to_owned(), 1)]);
        wait_until("the panic", || self.folder.output().with_file_name("panicked").exists());
    }

    fn write_more(&mut self) {
        self.author.write(2_000);
    }

    /// What was written until now counts exactly once.
    fn counts_exactly(&self) {
        let mut totals = self.author.totals().clone();
        totals.extend(self.more.clone());
        let wrong = || deviation(&visible(&self.folder.output()), &totals);
        wait_until("all counts", || wrong().is_none());
    }
}

struct Scene {
    cluster: StandaloneCluster,
}

impl Scene {
    /// The job runs on two TaskManagers of one slot, and has completed a checkpoint.
    fn start(left: &JobFolder, right: &JobFolder, settings: &[&str]) -> Scene {
        let [first, _] = free_ports();
        let port = format!("metrics.reporter.prom.port: {first}-{}", first + 60);
        let class =
            "metrics.reporter.prom.factory.class: org.apache.flink.metrics.prometheus.PrometheusReporterFactory";
        let cluster = StandaloneCluster::start(2, 1, &[&[class, port.as_str()], settings].concat());
        let mut arguments = ["run", "-d", "-p", "1", PROGRAM].map(str::to_owned).to_vec();
        arguments.extend(left.arguments(&[
            "execution.checkpointing.interval=50 ms",
            "restart-strategy.type=fixed-delay",
            "restart-strategy.fixed-delay.attempts=3",
            "restart-strategy.fixed-delay.delay=10 ms",
        ]));
        arguments.extend([right.input(), right.output()].map(|path| path.to_str().unwrap().to_owned()));
        let output = cluster.ask(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let scene = Scene { cluster };
        scene.wait_for_checkpoints(left);
        scene
    }

    /// All checkpoints are in the folder of the left side.
    fn wait_for_checkpoints(&self, left: &JobFolder) {
        let before = left.newest_checkpoint();
        wait_until("two checkpoints", || left.newest_checkpoint() > before + 1);
    }

    /// What all processes that are there say of themselves.
    fn numbers(&self) -> String {
        let logs = self.cluster.log("jobmanager") + &self.cluster.log("taskmanager");
        let found =
            logs.lines().filter_map(|line| line.split("metrics are at http://").nth(1)?.split("/metrics").next());
        found
            .map(|endpoint| String::from_utf8_lossy(&Http(endpoint.to_owned()).get("/metrics").body).into_owned())
            .collect()
    }

    fn restarts(&self) -> Vec<String> {
        let numbers = self.numbers();
        let of_job = |line: &&str| {
            ["numRestarts", "fullRestarts"]
                .iter()
                .any(|name| line.starts_with(&format!("flink_jobmanager_job_{name}{{")))
        };
        numbers.lines().filter(of_job).filter_map(|line| Some(line.rsplit_once(' ')?.1.to_owned())).collect()
    }

    /// The numbers of the attempts that run, of the two tasks of each side.
    fn attempts(&self) -> BTreeMap<&'static str, Vec<String>> {
        let mut attempts = BTreeMap::<_, Vec<String>>::new();
        for line in self.numbers().lines().filter(|line| line.starts_with("flink_taskmanager_job_task_numRecordsIn{")) {
            let label = |name: &str| line.split(&format!("{name}=\"")).nth(1).and_then(|rest| rest.split('"').next());
            let side = ["left", "right"].into_iter().find(|side| label("task_name").unwrap_or("").contains(side));
            attempts
                .entry(side.expect("all tasks are of a side"))
                .or_default()
                .push(label("task_attempt_num").expect("tasks have attempts").to_owned());
        }
        attempts
    }

    fn attempts_become(&self, left: &str, right: &str) {
        let of = |attempt: &str| vec![attempt.to_owned(), attempt.to_owned()];
        let expected = BTreeMap::from([("left", of(left)), ("right", of(right))]);
        wait_until(&format!("attempts {left} and {right}"), || self.attempts() == expected);
    }

    fn logged(&self, words: &str) -> usize {
        self.cluster.log("jobmanager").matches(words).count()
    }

    fn cancel(&self) {
        assert!(self.cluster.ask(&["cancel", JOB_ID]).status.success());
        wait_until("the end of its workers", || self.cluster.workers().into_iter().all(has_ended));
    }
}

/// Folders of both sides below a root.
fn folders(root: &Path) -> [JobFolder; 2] {
    ["left", "right"].map(|side| {
        fs::create_dir(root.join(side)).unwrap();
        JobFolder::new(&root.join(side))
    })
}

#[test]
fn a_panic_and_a_killed_worker_restart_the_pipeline_that_they_hit_and_not_the_other() {
    let root = tempfile::tempdir().unwrap();
    let [left, right] = folders(root.path());
    let (mut one, mut two) = (Side::of("left", &left), Side::of("right", &right));
    let scene = Scene::start(&left, &right, &[]);
    wait_until("both count", || one.process() != 0 && two.process() != 0);
    let processes = [one.process(), two.process()];
    assert_ne!(processes[0], processes[1], "each has a TaskManager of its own");
    scene.attempts_become("1", "1");

    // A function of one panics: its tasks start again, in the same process.
    one.panics_once();
    scene.attempts_become("2", "1");
    scene.wait_for_checkpoints(&left);
    for side in [&mut one, &mut two] {
        side.write_more();
        side.counts_exactly();
    }
    assert_eq!([one.process(), two.process()], processes);
    assert!(!processes.iter().any(|process| has_ended(*process)));
    assert_eq!(scene.restarts(), ["1", "1"], "Flink counts each restart under both names");

    // The worker of the other is killed: it gets another one, and the first knows nothing of it.
    two.write_more();
    fs::remove_file(right.output().with_file_name("pid")).unwrap();
    signal("KILL", processes[1]);
    scene.attempts_become("2", "2");
    for side in [&mut one, &mut two] {
        side.write_more();
        side.counts_exactly();
    }
    scene.wait_for_checkpoints(&left);
    assert_eq!(one.process(), processes[0], "{} counts where it did", one.name);
    assert!(!has_ended(processes[0]));
    assert!(![0, processes[1]].contains(&two.process()), "{} counts in another process", two.name);
    assert_eq!(scene.restarts(), ["2", "2"]);
    assert_eq!(scene.logged(": the job is deployed"), 1, "{}", scene.cluster.log("jobmanager"));
    assert_eq!(scene.logged("a part of the job is deployed"), 2, "{}", scene.cluster.log("jobmanager"));
    scene.cancel();
}

#[test]
fn a_jobmanager_that_comes_back_adopts_the_pipeline_that_runs_and_restarts_the_one_that_does_not() {
    let root = tempfile::tempdir().unwrap();
    let [left, right] = folders(root.path());
    let (mut one, mut two) = (Side::of("left", &left), Side::of("right", &right));
    let storage = format!("high-availability.storageDir: {}", root.path().join("storage").display());
    let settings = ["high-availability.type: file", &storage, "recovery.adopt-timeout: 1 s"];
    let scene = Scene::start(&left, &right, &settings);
    wait_until("both count", || one.process() != 0 && two.process() != 0);
    let processes = [one.process(), two.process()];
    let jobmanager = *scene.cluster.processes("jobmanager").last().unwrap();
    signal("KILL", jobmanager);
    wait_until("its end", || has_ended(jobmanager));
    signal("KILL", processes[1]);
    // Read by those whom nobody leads.
    one.write_more();
    two.write_more();
    scene.cluster.run_script("jobmanager.sh", &["start"]);
    wait_until("the adoption", || scene.logged("the job is adopted in part") == 1);
    scene.attempts_become("1", "2");
    scene.wait_for_checkpoints(&left);
    for side in [&mut one, &mut two] {
        side.write_more();
        side.counts_exactly();
    }
    assert_eq!(one.process(), processes[0]);
    assert!(!has_ended(processes[0]));
    assert_eq!(scene.logged(": the job is deployed"), 0);
    assert_eq!(scene.logged("a part of the job is deployed"), 1, "{}", scene.cluster.log("jobmanager"));
    scene.cancel();
}
