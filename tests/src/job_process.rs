//! A job in a process of its own, and the folder in which it lives: input, output, checkpoints, log.
//!
//! ```text
//!  root/input/…        what it reads; files appear whole, under their final names
//!  root/output/…       what it writes: see `counts`
//!  root/checkpoints/   may be a file system of its own
//!  root/log            standard error of all its processes, one after the other
//! ```

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use millstream_dataplane::SEGMENTS_LEAKED;

use crate::wait_until;

/// The same for each of a job's processes.
pub const JOB_ID: &str = "0123456789abcdef0123456789abcdef";

/// The folder of a job.
pub struct JobFolder(PathBuf);

impl JobFolder {
    /// Makes the folders in `root`.
    ///
    /// # Panics
    /// If they cannot be made.
    pub fn new(root: &Path) -> JobFolder {
        for folder in ["input", "output", "checkpoints"] {
            fs::create_dir(root.join(folder)).expect("there is room for a folder");
        }
        JobFolder(root.to_owned())
    }

    pub fn input(&self) -> PathBuf {
        self.0.join("input")
    }

    pub fn output(&self) -> PathBuf {
        self.0.join("output")
    }

    pub fn checkpoints(&self) -> PathBuf {
        self.0.join("checkpoints")
    }

    /// What the job's processes have logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.0.join("log")).unwrap_or_default()
    }

    /// How many lines of the log have all these parts.
    pub fn logged(&self, parts: &[&str]) -> usize {
        self.log().lines().filter(|line| parts.iter().all(|part| line.contains(part))).count()
    }

    /// The number of the newest complete checkpoint; 0 if there is none.
    pub fn newest_checkpoint(&self) -> u64 {
        let entries = fs::read_dir(self.checkpoints().join(JOB_ID)).into_iter().flatten().flatten();
        let complete = entries.filter(|entry| entry.path().join("_metadata").exists());
        let number = |name: String| name.strip_prefix("chk-").and_then(|number| number.parse().ok());
        complete.filter_map(|entry| number(entry.file_name().into_string().ok()?)).max().unwrap_or(0)
    }

    /// Puts a file into the input, which appears when it is complete. `path` may have folders in it.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn add_input(&self, path: &str, text: &str) {
        let path = self.input().join(path);
        let parent = path.parent().expect("it is in the input folder");
        fs::create_dir_all(parent).expect("there is room for a folder");
        let hidden = parent.join(".being-written");
        fs::write(&hidden, text).expect("there is room for a file");
        fs::rename(hidden, path).expect("there is room for a name");
    }

    /// What a program of the job gets: input and output, then settings.
    pub fn arguments(&self, settings: &[&str]) -> Vec<String> {
        let places = [self.input(), self.output()];
        let places = places.iter().map(|place| place.to_str().expect("temporary folders have plain names").to_owned());
        let job = format!("-Dpipeline.jobid={JOB_ID}");
        let checkpoints = format!("-Dexecution.checkpointing.dir={}", self.checkpoints().display());
        let settings = settings.iter().map(|setting| format!("-D{setting}"));
        places.chain([job, checkpoints]).chain(settings).collect()
    }

    /// Starts `program` with input and output as its arguments; from the newest checkpoint, if there is one.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(&self, program: &str, settings: &[&str]) -> JobProcess {
        let checkpoints = self.checkpoints();
        let log = fs::File::options().append(true).create(true).open(self.0.join("log"));
        let mut command = Command::new(program);
        command
            .args(self.arguments(settings))
            .current_dir(&self.0)
            .stdout(Stdio::null())
            .stderr(log.expect("there is room for a log"));
        if self.newest_checkpoint() > 0 {
            command.arg(format!("-Dexecution.state-recovery.path={}", checkpoints.display()));
        }
        let child = command.spawn().unwrap_or_else(|cause| panic!("{program} cannot start: {cause}"));
        JobProcess { child, log: self.0.join("log") }
    }
}

/// The process of a job. It is killed when this is dropped.
pub struct JobProcess {
    child: Child,
    log: PathBuf,
}

impl JobProcess {
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_some()
    }

    /// Waits for `condition`, which must come while the job runs.
    ///
    /// # Panics
    /// If the job ends, or after a minute. Both print the log.
    pub fn wait_until(&mut self, folder: &JobFolder, what: &str, mut condition: impl FnMut() -> bool) {
        let limit = Instant::now() + Duration::from_secs(60);
        loop {
            let ended = self.has_ended();
            if condition() {
                return;
            }
            assert!(!ended, "the job has ended before: {what}\n{}", folder.log());
            assert!(Instant::now() < limit, "waited a minute for: {what}\n{}", folder.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// After a minute.
    pub fn end(mut self) -> ExitStatus {
        wait_until("the end of the job", || self.has_ended());
        self.child.wait().expect("it is our child")
    }

    /// Ends the process as a power cut would.
    pub fn kill(self) {}
}

impl Drop for JobProcess {
    fn drop(&mut self) {
        // If it has ended already, there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !thread::panicking() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            assert!(!log.contains(SEGMENTS_LEAKED), "a worker has leaked segments:\n{log}");
        }
    }
}
