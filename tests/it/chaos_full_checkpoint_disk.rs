//! The disk for checkpoints fills up under a running job: a small file system of the kernel's, in a mount namespace of
//! the test's own. The job goes on without checkpoints, restarts, or fails, as it is configured; what it then has is
//! still the checkpoint before, and in the end each line counts exactly once.

use std::{
    collections::BTreeMap,
    env, fs,
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
};

use millstream_tests::{
    counts::{deviation, visible},
    job_process::{JobFolder, JobProcess},
    wait_until,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_growing_word_count_job");
/// Room for a few checkpoints of [`Scene::add`]'s words.
const ROOM_BYTES: u64 = 8 << 20;
/// What [`Scene::fill`] leaves: enough for a checkpoint's metadata, too little for its state. So what fails is storing a
/// subtask's part, and a checkpoint that counted without it would show.
const LEFT_BYTES: u64 = 64 << 10;
/// What the failure says of a full disk.
const FULL: &str = "no room is left";

/// Runs a test alone, in a process that sees file systems which nobody else sees. Returns whether this is it.
fn in_a_mount_namespace(test: &str) -> bool {
    const MARK: &str = "MILLSTREAM_TEST_MOUNTS";
    if env::var_os(MARK).is_some() {
        return true;
    }
    // As root; or as root of a user namespace, where unprivileged users may make one.
    let ways = [&["--mount"][..], &["--user", "--map-root-user", "--mount"]];
    let may = |way: &&&[&str]| {
        let mount = ["mount", "-t", "tmpfs", "tmpfs", "/mnt"];
        let tried = Command::new("unshare").args(**way).args(mount).stderr(Stdio::null()).status();
        tried.is_ok_and(|status| status.success())
    };
    let way = ways.iter().find(may).expect(
        "this test needs a small file system: neither root's `unshare --mount` nor that of a user namespace may mount a \
         tmpfs here. Run it as root, or allow user namespaces (kernel.unprivileged_userns_clone)",
    );
    let mut alone = Command::new("unshare");
    alone.args(*way).arg(env::current_exe().unwrap()).args(["--exact", test, "--nocapture"]).env(MARK, "1");
    let output = alone.output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    false
}

/// A job whose checkpoints have little room.
struct Scene {
    root: tempfile::TempDir,
    folder: JobFolder,
    totals: BTreeMap<String, u64>,
}

impl Scene {
    fn new() -> Scene {
        let root = tempfile::tempdir().unwrap();
        let folder = JobFolder::new(root.path());
        let size = format!("size={ROOM_BYTES}");
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.checkpoints()).status();
        assert!(mount.unwrap().success());
        Scene { root, folder, totals: BTreeMap::new() }
    }

    fn start(&self, settings: &[&str]) -> JobProcess {
        let always = [
            "parallelism.default=2",
            "execution.checkpointing.interval=20 ms",
            // Those of a job that has failed are what another process goes on from.
            "execution.checkpointing.externalized-checkpoint-retention=DELETE_ON_CANCELLATION",
        ];
        self.folder.start(PROGRAM, &[&always, settings].concat())
    }

    /// Another file of input, with many words of its own and a few that all have.
    fn add(&mut self, name: &str) {
        let mut text = String::new();
        for line in 0..6_000 {
            for word in [format!("{name}-{line}"), format!("common-{}", line % 7)] {
                text += &format!("{word} all\n");
                *self.totals.entry(word).or_default() += 1;
                *self.totals.entry("all".to_owned()).or_default() += 1;
            }
        }
        self.folder.add_input(name, &text);
    }

    fn is_counted(&self) -> bool {
        deviation(&visible(&self.folder.output()), &self.totals).is_none()
    }

    /// Waits until all input is counted, and stays so.
    fn wait_until_counted(&self, job: &mut JobProcess) {
        job.wait_until(&self.folder, "all lines in the output", || self.is_counted());
        let wanted = self.folder.newest_checkpoint() + 2;
        job.wait_until(&self.folder, "two checkpoints more", || self.folder.newest_checkpoint() >= wanted);
        assert_eq!(deviation(&visible(&self.folder.output()), &self.totals), None);
    }

    fn ballast(&self) -> PathBuf {
        self.folder.checkpoints().join("ballast")
    }

    /// Takes almost all room that is left; what a given-up checkpoint gives back is taken by the next call.
    fn fill(&self) {
        let mut ballast = fs::File::options().append(true).create(true).open(self.ballast()).unwrap();
        let block = vec![0; 4096];
        while ballast.write_all(&block).is_ok() {}
        let left = ballast.metadata().unwrap().len().saturating_sub(LEFT_BYTES);
        ballast.set_len(left).unwrap();
    }

    fn make_room(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.folder.checkpoints()).status();
        let _ = fs::remove_dir_all(self.root.path().join("checkpoints"));
    }
}

#[test]
fn a_job_that_tolerates_failed_checkpoints_goes_on_and_catches_up_when_there_is_room() {
    if !in_a_mount_namespace("a_job_that_tolerates_failed_checkpoints_goes_on_and_catches_up_when_there_is_room") {
        return;
    }
    let mut scene = Scene::new();
    scene.add("before");
    let mut job = scene.start(&["execution.checkpointing.tolerable-failed-checkpoints=1000000"]);
    scene.wait_until_counted(&mut job);

    let given_up = |scene: &Scene| scene.folder.logged(&["checkpoint given up", FULL]);
    job.wait_until(&scene.folder, "checkpoints that fail for want of room", || {
        scene.fill();
        given_up(&scene) >= 3
    });
    let kept = scene.folder.newest_checkpoint();
    scene.add("meanwhile");
    let more = given_up(&scene) + 10;
    job.wait_until(&scene.folder, "further checkpoints that fail", || {
        scene.fill();
        given_up(&scene) >= more
    });
    // No checkpoint, so nothing of the new file is committed; and the old checkpoint is still there.
    assert!(!scene.is_counted());
    assert!(!visible(&scene.folder.output()).contains_key("meanwhile-0"));
    assert_eq!(scene.folder.newest_checkpoint(), kept);
    assert!(!job.has_ended());
    assert_eq!(scene.folder.logged(&["the job restarts"]), 0, "{}", scene.folder.log());

    scene.make_room();
    scene.wait_until_counted(&mut job);
    assert_eq!(scene.folder.logged(&["the job restarts"]), 0, "{}", scene.folder.log());

    // Killed with a full disk, it goes on from the checkpoint before.
    scene.add("later");
    job.wait_until(&scene.folder, "checkpoints that fail again", || {
        scene.fill();
        given_up(&scene) >= more + 3
    });
    job.kill();
    scene.make_room();
    let mut job = scene.start(&[]);
    scene.wait_until_counted(&mut job);
}

#[test]
fn a_job_that_tolerates_none_restarts_until_there_is_room_and_loses_nothing() {
    if !in_a_mount_namespace("a_job_that_tolerates_none_restarts_until_there_is_room_and_loses_nothing") {
        return;
    }
    let mut scene = Scene::new();
    scene.add("before");
    // No strategy is named: with checkpoints, a failed job restarts.
    let backoff = ["restart-strategy.exponential-delay.initial-backoff=10 ms"];
    let backoff = [&backoff[..], &["restart-strategy.exponential-delay.max-backoff=50 ms"]].concat();
    let mut job = scene.start(&backoff);
    scene.wait_until_counted(&mut job);
    job.wait_until(&scene.folder, "three restarts", || {
        scene.fill();
        scene.folder.logged(&["the job restarts"]) >= 3
    });
    scene.add("meanwhile");
    scene.make_room();
    scene.wait_until_counted(&mut job);
}

#[test]
fn a_job_that_must_not_restart_fails_with_the_cause_and_its_checkpoint_stays_usable() {
    if !in_a_mount_namespace("a_job_that_must_not_restart_fails_with_the_cause_and_its_checkpoint_stays_usable") {
        return;
    }
    let mut scene = Scene::new();
    scene.add("before");
    let mut job = scene.start(&[
        "restart-strategy.type=none",
        // The third one in a row that fails is one too many.
        "execution.checkpointing.tolerable-failed-checkpoints=2",
    ]);
    scene.wait_until_counted(&mut job);
    wait_until("the end of the job", || {
        scene.fill();
        job.has_ended()
    });
    assert_eq!(job.end().code(), Some(1));
    let log = scene.folder.log();
    let error = log.lines().find(|line| line.starts_with("Error: ")).unwrap_or_else(|| panic!("no error:\n{log}"));
    for part in [
        "job failed",
        FULL,
        &scene.folder.checkpoints().display().to_string(),
        "2 in a row may (execution.checkpointing.tolerable-failed-checkpoints)",
    ] {
        assert!(error.contains(part), "no '{part}' in: {error}");
    }
    assert!(scene.folder.logged(&["checkpoint given up", FULL]) >= 3, "{log}");

    let kept = scene.folder.newest_checkpoint();
    assert!(kept > 0, "the checkpoint before is gone:\n{log}");
    scene.add("later");
    scene.make_room();
    let mut job = scene.start(&[]);
    scene.wait_until_counted(&mut job);
    let restored = format!("chk-{kept}");
    assert_eq!(scene.folder.logged(&["the job is deployed", &restored]), 1, "{}", scene.folder.log());
}
