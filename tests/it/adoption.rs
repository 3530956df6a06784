//! A JobManager is killed while a job runs, and started again: the job's attempts go on as they are. Where they cannot, the
//! job starts again from its newest checkpoint. Each record counts exactly once in the committed output.

#![allow(clippy::disallowed_methods, reason = "tests wait for conditions, with a limit on the wall clock")]

use std::path::Path;

use millstream_tests::{
    counts::{deviation, visible},
    has_ended,
    http::Http,
    job_process::{JOB_ID, JobFolder},
    signal,
    standalone::StandaloneCluster,
    text::Author,
    wait_until,
};

/// It never ends by itself.
const PROGRAM: &str = env!("CARGO_BIN_EXE_growing_word_count_job");
const FINITE_PROGRAM: &str = env!("CARGO_BIN_EXE_two_pipelines_job");
const ADOPTED: &str = "the job is adopted";
const DEPLOYED: &str = "the job is deployed";

/// A cluster that outlives its JobManager, and a job on two TaskManagers that has completed a checkpoint.
struct Scene<'f> {
    cluster: StandaloneCluster,
    folder: &'f JobFolder,
    author: Author<'f>,
}

impl<'f> Scene<'f> {
    fn start(folder: &'f JobFolder, root: &Path, settings: &[&str]) -> Scene<'f> {
        let storage = format!("high-availability.storageDir: {}", root.join("storage").display());
        let settings = [&["high-availability.type: file", storage.as_str()], settings].concat();
        let cluster = StandaloneCluster::start(2, 1, &settings);
        let mut author = Author::of(folder);
        author.write(5_000);
        let mut arguments = ["run", "-d", "-p", "2", PROGRAM].map(str::to_owned).to_vec();
        arguments.extend(folder.arguments(&[
            "execution.checkpointing.interval=50 ms",
            "restart-strategy.type=fixed-delay",
            "restart-strategy.fixed-delay.attempts=1000",
            "restart-strategy.fixed-delay.delay=10 ms",
        ]));
        let output = cluster.ask(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let scene = Scene { cluster, folder, author };
        scene.wait_for_checkpoints();
        scene
    }

    fn wait_for_checkpoints(&self) {
        let before = self.folder.newest_checkpoint();
        // The pointer has moved to the one before the newest.
        wait_until("two checkpoints", || self.folder.newest_checkpoint() > before + 1);
    }

    fn kill_jobmanager(&self) {
        let jobmanager = *self.cluster.processes("jobmanager").last().unwrap();
        signal("KILL", jobmanager);
        wait_until("its end", || has_ended(jobmanager));
    }

    fn start_jobmanager(&self) {
        self.cluster.run_script("jobmanager.sh", &["start"]);
    }

    /// How often the JobManager has logged this; each begins its log anew.
    fn logged(&self, words: &str) -> usize {
        self.cluster.log("jobmanager").matches(words).count()
    }

    fn status(&self) -> String {
        String::from_utf8_lossy(&self.cluster.ask(&["status", JOB_ID]).stdout).into_owned()
    }

    /// What was written until now, and more, counts exactly once.
    fn counts_exactly(&mut self) {
        self.author.write(5_000);
        wait_until("all counts", || deviation(&visible(&self.folder.output()), self.author.totals()).is_none());
    }

    fn cancel(&self) {
        assert!(self.cluster.ask(&["cancel", JOB_ID]).status.success());
        wait_until("the end of the job", || self.status().contains("CANCELED"));
        wait_until("the end of its workers", || self.cluster.workers().into_iter().all(has_ended));
    }
}

#[test]
fn a_job_runs_on_while_its_jobmanager_is_killed_and_the_next_one_adopts_it() {
    let root = tempfile::tempdir().unwrap();
    let folder = JobFolder::new(root.path());
    let mut scene = Scene::start(&folder, root.path(), &[]);
    let workers = scene.cluster.workers();
    assert_eq!(workers.len(), 2);
    for _ in 0..2 {
        scene.kill_jobmanager();
        // Read by those whom nobody leads.
        scene.author.write(5_000);
        scene.start_jobmanager();
        wait_until("the adoption", || scene.logged(ADOPTED) == 1);
        scene.wait_for_checkpoints();
        scene.counts_exactly();
        assert_eq!(scene.logged(DEPLOYED), 0, "nothing was deployed again");
    }
    assert_eq!(scene.cluster.workers(), workers, "no worker was started");
    assert!(!workers.iter().any(|worker| has_ended(*worker)), "none was ended");
    assert!(scene.status().contains("RUNNING"), "{}", scene.status());
    scene.cancel();
    // It has ended for good: the next JobManager has nothing to take up.
    assert_eq!(scene.logged("is taken up"), 1);
    scene.kill_jobmanager();
    scene.start_jobmanager();
    assert_eq!(scene.logged("is taken up"), 0, "{}", scene.cluster.log("jobmanager"));
}

#[test]
fn what_is_logged_outlives_the_jobmanager_and_ends_with_its_job() {
    let root = tempfile::tempdir().unwrap();
    let folder = JobFolder::new(root.path());
    let scene = Scene::start(&folder, root.path(), &[]);
    let levels = |arguments: &[&str]| {
        let output = scene.cluster.ask(&[&["log-level"], arguments].concat());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    levels(&["millstream_cluster=DEBUG"]);
    levels(&["--job", JOB_ID, "shop=TRACE"]);
    let set = levels(&[]);
    assert!(set.contains("millstream_cluster=DEBUG") && set.contains(JOB_ID) && set.contains("shop=TRACE"), "{set}");
    scene.kill_jobmanager();
    scene.start_jobmanager();
    wait_until("the adoption", || scene.logged(ADOPTED) == 1);
    assert_eq!(levels(&[]), set);
    assert!(scene.logged("DEBUG") > 0, "it holds for the JobManager itself: {}", scene.cluster.log("jobmanager"));
    scene.cancel();
    wait_until("nothing is set for the job", || !levels(&[]).contains(JOB_ID));
    scene.kill_jobmanager();
    scene.start_jobmanager();
    let set = levels(&[]);
    assert!(set.contains("millstream_cluster=DEBUG") && !set.contains(JOB_ID), "{set}");
}

#[test]
fn an_adopted_job_whose_worker_is_killed_gets_another_that_its_peers_trust() {
    let root = tempfile::tempdir().unwrap();
    let folder = JobFolder::new(root.path());
    let mut scene = Scene::start(&folder, root.path(), &[]);
    scene.kill_jobmanager();
    scene.start_jobmanager();
    wait_until("the adoption", || scene.logged(ADOPTED) == 1);
    let workers = scene.cluster.workers();
    signal("KILL", workers[0]);
    wait_until("another deployment", || scene.logged(DEPLOYED) == 1);
    scene.wait_for_checkpoints();
    scene.counts_exactly();
    assert!(!has_ended(workers[1]), "the other one was not started by this JobManager, and is as good as any");
    assert_eq!(scene.cluster.workers().len(), 3);
    assert!(!scene.cluster.log("jobmanager").contains("restored_from=None"), "it has started from nothing");
    scene.cancel();
}

#[test]
fn a_job_that_lost_a_worker_while_nobody_led_it_starts_again_from_its_checkpoint() {
    let root = tempfile::tempdir().unwrap();
    let folder = JobFolder::new(root.path());
    let mut scene = Scene::start(&folder, root.path(), &["recovery.adopt-timeout: 300 ms"]);
    scene.kill_jobmanager();
    let workers = scene.cluster.workers();
    signal("KILL", workers[0]);
    scene.start_jobmanager();
    wait_until("another deployment", || scene.logged(DEPLOYED) == 1);
    scene.counts_exactly();
    assert_eq!(scene.logged(ADOPTED), 0);
    assert_eq!(scene.logged("the job cannot be adopted"), 1);
    assert!(workers.iter().all(|worker| has_ended(*worker)), "what is not adopted is ended");
    scene.cancel();
}

#[test]
fn jobs_that_had_ended_before_are_listed_by_the_next_jobmanager_with_their_ends() {
    let root = tempfile::tempdir().unwrap();
    let storage = root.path().join("storage");
    let setting = format!("high-availability.storageDir: {}", storage.display());
    let cluster = StandaloneCluster::start(1, 2, &["high-availability.type: file", &setting]);
    let http = Http(cluster.address());
    let succeed = |arguments: &[&str]| {
        let output = cluster.ask(arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    succeed(&["run", FINITE_PROGRAM]);
    let folder = JobFolder::new(root.path());
    let [input, output] = [folder.input(), folder.output()];
    succeed(&["run", "-d", PROGRAM, input.to_str().unwrap(), output.to_str().unwrap()]);
    let jobs = || http.get("/jobs/overview").json()["jobs"].as_array().unwrap().clone();
    let id = jobs()[1]["jid"].as_str().unwrap().to_owned();
    succeed(&["cancel", &id]);
    // What is being written has a longer name.
    let is_whole = |entry: &std::fs::DirEntry| !entry.file_name().to_string_lossy().contains('.');
    let results = || storage.join("job-results").read_dir().unwrap().flatten();
    wait_until("both have ended", || results().filter(is_whole).count() == 2);
    let known = |job: &serde_json::Value| {
        ["jid", "name", "state", "start-time", "end-time", "duration"].map(|part| job[part].clone())
    };
    let before: Vec<_> = jobs().iter().map(known).collect();
    assert_eq!([&before[0][2], &before[1][2]], ["FINISHED", "CANCELED"]);

    let jobmanager = cluster.processes("jobmanager")[0];
    signal("KILL", jobmanager);
    wait_until("its end", || has_ended(jobmanager));
    cluster.run_script("jobmanager.sh", &["start"]);
    assert_eq!(jobs().iter().map(known).collect::<Vec<_>>(), before);
    let counts = http.get("/overview").json();
    assert_eq!([&counts["jobs-finished"], &counts["jobs-cancelled"], &counts["jobs-running"]], [1, 1, 0]);
    assert_eq!(http.get(&format!("/jobs/{id}")).json()["state"], "CANCELED");
    let listed = succeed(&["list", "--all"]);
    assert!(listed.contains("(FINISHED)") && listed.contains("(CANCELED)") && listed.contains(&id), "{listed}");
    let status: serde_json::Value = serde_json::from_str(&succeed(&["status", &id, "--output", "json"])).unwrap();
    assert_eq!(status["status"], "CANCELED");
    // Again, and it stays so.
    succeed(&["cancel", &id]);
    assert_eq!(jobs().iter().map(known).collect::<Vec<_>>(), before);
    // None of them runs again.
    assert_eq!(cluster.log("jobmanager").matches("is taken up").count(), 0);
}

#[test]
fn a_taskmanager_that_no_jobmanager_comes_back_to_ends_and_its_workers_with_it() {
    let root = tempfile::tempdir().unwrap();
    let folder = JobFolder::new(root.path());
    let scene = Scene::start(&folder, root.path(), &["taskmanager.registration.timeout: 3 s"]);
    let workers = scene.cluster.workers();
    let task_managers = scene.cluster.processes("taskmanager");
    scene.kill_jobmanager();
    wait_until("their end", || task_managers.iter().chain(&workers).all(|process| has_ended(*process)));
    assert!(scene.cluster.log("taskmanager").contains("taskmanager.registration.timeout"));
}
