//! Per-job mode: `millstream run -t standalone-per-job` starts a cluster for each job, which ends with it, whatever becomes
//! of the client, the JobManager or a TaskManager.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

use millstream_tests::{
    counts::{deviation, visible},
    job_process::JobFolder,
    program::built,
    signal,
    text::add_text,
    wait_until,
};

const SEVERAL_JOBS: &str = env!("CARGO_BIN_EXE_several_jobs");
const WORD_COUNT: &str = env!("CARGO_BIN_EXE_word_count_job");
/// It never ends by itself.
const GROWING_WORD_COUNT: &str = env!("CARGO_BIN_EXE_growing_word_count_job");

/// A folder for configuration, logs and temporary files. All processes have its name in their environment.
struct Place {
    root: tempfile::TempDir,
    program: PathBuf,
}

impl Place {
    fn new(settings: &[&str]) -> Place {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("tmp")).unwrap();
        let settings: String = settings.iter().map(|setting| format!("{setting}\n")).collect();
        // What belongs to a cluster that is there must not keep others from coming up.
        let text = format!(
            "io.tmp.dirs: {}\nenv.log.dir: {}\nrest.port: 1\njobmanager.rpc.port: 1\n{settings}",
            root.path().join("tmp").display(),
            root.path().join("log").display()
        );
        fs::write(root.path().join("config.yaml"), text).unwrap();
        Place { root, program: built("millstream") }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).env("MILLSTREAM_CONF_DIR", self.root.path()).env_remove("MILLSTREAM_LOG_DIR");
        // Where the client has its socket.
        command.env("TMPDIR", self.root.path().join("tmp"));
        command
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.ask(&[&["run", "-t", "standalone-per-job"], arguments].concat())
    }

    fn spawn(&self, arguments: &[&str]) -> Child {
        let mut client = self.command(&[&["run", "-t", "standalone-per-job"], arguments].concat());
        client.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// The processes that have this place in their environment, of a kind: the first argument, or the name of a program.
    fn processes(&self, kind: &str) -> Vec<u32> {
        let own = format!("MILLSTREAM_CONF_DIR={}", self.root.path().display());
        let all = fs::read_dir("/proc").unwrap().flatten();
        let ids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let of_kind = ids.filter(|id| {
            let read = |what: &str| fs::read(format!("/proc/{id}/{what}")).unwrap_or_default();
            let words = |bytes: &[u8]| -> Vec<String> {
                bytes.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
            };
            let line = words(&read("cmdline"));
            let is_kind = kind.is_empty() || line.iter().take(2).any(|word| word == kind || word.ends_with(kind));
            is_kind && words(&read("environ")).contains(&own)
        });
        of_kind.collect()
    }

    /// Waits until nothing is left but the logs.
    fn ended(&self) {
        wait_until("the end of all processes", || self.processes("").is_empty());
        // Logs are elsewhere.
        let left: Vec<_> = fs::read_dir(self.root.path().join("tmp")).unwrap().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }

    /// What has been logged by the processes whose logs end like this.
    fn logs(&self, end: &str) -> Vec<String> {
        let below = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let all = below(self.root.path().join("log")).flat_map(below);
        let of_kind = all.filter(|log| log.to_string_lossy().ends_with(end));
        of_kind.map(|log| fs::read_to_string(log).unwrap()).collect()
    }

    fn job_managers(&self) -> Vec<String> {
        self.logs("/jobmanager.log")
    }

    fn growing(&self) -> Growing {
        let folder = JobFolder::new(self.root.path());
        folder.add_input("text", &"to be or not to be\n".repeat(100));
        let output = folder.output();
        Growing { input: folder.input().display().to_string(), output: output.display().to_string() }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- JobManagers\n{}", self.job_managers().join("\n---\n"));
            eprintln!("--- TaskManagers\n{}", self.logs("taskmanager-0.log").join("\n---\n"));
        }
        for process in self.processes("") {
            let _ = Command::new("sh").args(["-c", &format!("kill -9 {process}")]).output();
        }
    }
}

/// The job that does not end, and its arguments.
struct Growing {
    input: String,
    output: String,
}

impl Growing {
    fn line<'a>(&'a self, options: &[&'a str]) -> Vec<&'a str> {
        [options, &[GROWING_WORD_COUNT, &self.input, &self.output]].concat()
    }
}

fn said(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The only cluster of a place: where clients reach it, and its job, once that runs.
fn running(place: &Place) -> (String, String) {
    let mut found = None;
    wait_until("the job runs", || {
        let at = place.job_managers().into_iter().find_map(|log| {
            let port = log.split("clients=127.0.0.1:").nth(1)?.split_whitespace().next()?.to_owned();
            Some(format!("localhost:{port}"))
        });
        let Some(at) = at else { return false };
        let listed = String::from_utf8_lossy(&place.ask(&["list", "-m", &at]).stdout).into_owned();
        let line = listed.lines().find(|line| line.contains("(RUNNING)"));
        let is_id = |word: &&str| word.len() == 32 && word.bytes().all(|digit| digit.is_ascii_hexdigit());
        found = line.and_then(|line| Some((at, line.split_whitespace().find(is_id)?.to_owned())));
        found.is_some()
    });
    found.unwrap()
}

fn cancel(place: &Place, (at, job): &(String, String)) {
    let cancelled = place.ask(&["cancel", "-m", at, job]);
    assert!(cancelled.status.success(), "{}", said(&cancelled));
}

#[test]
fn each_execution_gets_a_cluster_with_as_many_task_managers_as_it_needs() {
    let place = Place::new(&["taskmanager.numberOfTaskSlots: 2"]);
    let folder = JobFolder::new(place.root.path());
    let totals = add_text(&folder, 1_000);
    let [input, output] = [folder.input(), folder.output()];
    let counted = place.run(&["-p", "3", WORD_COUNT, input.to_str().unwrap(), output.to_str().unwrap()]);
    assert!(counted.status.success(), "{}", said(&counted));
    assert!(said(&counted).contains("finished after"), "{}", said(&counted));
    assert_eq!(deviation(&visible(&folder.output()), &totals), None);
    place.ended();
    assert_eq!((place.job_managers().len(), place.logs("taskmanager-1.log").len()), (1, 1));
    assert!(place.logs("taskmanager-2.log").is_empty());
    // In the folder of the cluster, and what its workers have logged beside it.
    let folders: Vec<_> = fs::read_dir(place.root.path().join("log")).unwrap().flatten().collect();
    let name = folders[0].file_name().into_string().unwrap();
    let job = name.strip_prefix("millstream-job-").unwrap_or_else(|| panic!("{folders:?}"));
    let of_workers = place.logs(&format!("/taskmanager-0-{job}.log"));
    assert!(of_workers.len() == 1 && of_workers[0].contains("worker-"), "{of_workers:?}");

    // The second needs the first one's result, so its cluster comes when that of the first has ended.
    let folder = place.root.path().to_str().unwrap();
    let ran = place.run(&[SEVERAL_JOBS, "one-after-the-other", folder]);
    assert!(ran.status.success(), "{}", said(&ran));
    assert_eq!(fs::read_to_string(place.root.path().join("counted")).unwrap(), "10 20");
    place.ended();
    assert_eq!(place.job_managers().len(), 3);

    // Two at the same time: the one ends when the other has come.
    let ran = place.run(&[SEVERAL_JOBS, "at-the-same-time", folder]);
    assert!(ran.status.success(), "{}", said(&ran));
    place.ended();
    assert_eq!(place.job_managers().len(), 5);
}

#[test]
fn a_job_that_fails_or_is_cancelled_shows_in_the_exit_code_and_ends_its_cluster() {
    let place = Place::new(&["restart-strategy.type: none"]);
    let failed = place.run(&[SEVERAL_JOBS, "fails", "nowhere"]);
    assert_eq!(failed.status.code(), Some(1), "{}", said(&failed));
    assert!(said(&failed).contains("a function that was told to fail"), "{}", said(&failed));
    place.ended();

    let place = Place::new(&[]);
    let growing = place.growing();
    let client = place.spawn(&growing.line(&[]));
    let job = running(&place);
    // It is nobody else's.
    let refused = place.ask(&["run", "-m", &job.0, WORD_COUNT, "in", "out"]);
    assert!(!refused.status.success() && said(&refused).contains("for one job"), "{}", said(&refused));
    cancel(&place, &job);
    let cancelled = client.wait_with_output().unwrap();
    assert_eq!(cancelled.status.code(), Some(4), "{}", said(&cancelled));
    place.ended();
}

#[test]
fn a_detached_job_goes_on_without_its_client_and_its_cluster_ends_with_it() {
    let place = Place::new(&[]);
    let growing = place.growing();
    let submitted = place.run(&growing.line(&["-d", "--output", "json"]));
    assert!(submitted.status.success(), "{}", said(&submitted));
    let submitted: serde_json::Value = serde_json::from_slice(&submitted.stdout).unwrap();
    let job = running(&place);
    assert_eq!((submitted["jobmanager"].as_str(), submitted["job"].as_str()), (Some(&*job.0), Some(&*job.1)));
    cancel(&place, &job);
    place.ended();
}

#[test]
fn a_client_that_is_killed_or_interrupted_leaves_its_job_running_unless_it_was_to_end_with_it() {
    for (name, options, goes_on) in [
        ("KILL", &[][..], true),
        ("INT", &[], true),
        ("KILL", &["--shutdown-on-attached-exit"], false),
        ("INT", &["--sae"], false),
    ] {
        let place = Place::new(&[]);
        let growing = place.growing();
        let client = place.spawn(&growing.line(options));
        let job = running(&place);
        signal(name, client.id());
        let ended = client.wait_with_output().unwrap();
        assert!(!ended.status.success());
        if goes_on {
            let read = |at: &str, job: &str| {
                let status = place.ask(&["status", "-m", at, job, "--output", "json"]);
                serde_json::from_slice::<serde_json::Value>(&status.stdout).unwrap()
            };
            assert_eq!(read(&job.0, &job.1)["status"], "RUNNING");
            cancel(&place, &job);
        }
        place.ended();
    }
}

#[test]
fn nothing_outlives_a_jobmanager_that_is_killed() {
    let place = Place::new(&[]);
    let growing = place.growing();
    let client = place.spawn(&growing.line(&[]));
    running(&place);
    let [job_manager] = place.processes("job-cluster")[..] else { panic!("there is one JobManager") };
    // The client, the program that has executed the job, JobManager, TaskManager and worker.
    wait_until("the worker", || place.processes("").len() == 5);
    signal("KILL", job_manager);
    let ended = client.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(1), "{}", said(&ended));
    wait_until("the end of all processes", || place.processes("").is_empty());
}

#[test]
fn a_task_manager_that_is_killed_is_replaced() {
    let place = Place::new(&["restart-strategy.type: fixed-delay", "restart-strategy.fixed-delay.delay: 10 ms"]);
    let growing = place.growing();
    let client = place.spawn(&growing.line(&[]));
    running(&place);
    let [first] = place.processes("taskmanager")[..] else { panic!("there is one TaskManager") };
    signal("KILL", first);
    wait_until("another one", || place.logs("taskmanager-1.log").iter().any(|log| log.contains("a worker process")));
    let job = running(&place);
    cancel(&place, &job);
    assert_eq!(client.wait_with_output().unwrap().status.code(), Some(4));
    wait_until("the end of all processes", || place.processes("").is_empty());
}

#[test]
fn a_cluster_that_cannot_be_started_says_why_and_leaves_nothing() {
    let place = Place::new(&[]);
    let refused = place.run(&["-Dio.tmp.dirs=/proc/nowhere", SEVERAL_JOBS, "one-after-the-other", "nowhere"]);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(said(&refused).contains("/proc/nowhere"), "{}", said(&refused));
    let refused = place.run(&["-m", "localhost:8081", SEVERAL_JOBS, "nothing", "nowhere"]);
    assert!(!refused.status.success() && said(&refused).contains("standalone-per-job"), "{}", said(&refused));
    place.ended();
}
