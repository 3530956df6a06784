//! Files appear in a watched folder while a job runs, and while it does not because its process was killed: each line
//! counts exactly once in the committed output.

use millstream_tests::{
    counts::{deviation, visible},
    job_process::{JobFolder, JobProcess},
    text::Author,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_growing_word_count_job");

/// Waits until all that was written is committed, and stays so for two checkpoints more: what is read twice is counted too
/// high only afterwards.
fn wait_until_counted(author: &Author<'_>, job: &mut JobProcess) {
    let folder = author.folder();
    let deviates = || deviation(&visible(&folder.output()), author.totals());
    job.wait_until(folder, "all lines in the output", || deviates().is_none());
    let wanted = folder.newest_checkpoint() + 2;
    job.wait_until(folder, "two checkpoints more", || folder.newest_checkpoint() >= wanted);
    assert_eq!(deviates(), None);
}

#[test]
fn files_that_appear_while_a_job_runs_are_each_read_exactly_once() {
    let root = tempfile::tempdir().unwrap();
    let folder = JobFolder::new(root.path());
    let mut author = Author::of(&folder);
    // The first file is there, the next ones come when the ones before have been counted, alone and several at once.
    author.write(100);
    let mut job = folder.start(PROGRAM, &["parallelism.default=2", "execution.checkpointing.interval=20 ms"]);
    wait_until_counted(&author, &mut job);
    for batch in [1, 3, 1] {
        (0..batch).for_each(|_| author.write(2_000));
        wait_until_counted(&author, &mut job);
    }
    assert!(!job.has_ended(), "a job that watches a folder does not end");
}

/// `parallelisms` are those of one process after the other; each but the last is killed while there is something to read.
fn grow_and_kill(parallelisms: &[u32]) {
    let root = tempfile::tempdir().unwrap();
    let folder = JobFolder::new(root.path());
    let mut author = Author::of(&folder);
    let mut processes = 0;
    let mut start = |author: &mut Author<'_>, parallelism: u32| {
        // One that comes while nothing runs, and one that is there before the job has looked or after: as it happens.
        author.write(5_000);
        let parallelism = format!("parallelism.default={parallelism}");
        let mut job = folder.start(PROGRAM, &[&parallelism, "execution.checkpointing.interval=20 ms"]);
        processes += 1;
        author.write(5_000);
        let wanted = folder.newest_checkpoint() + 2;
        job.wait_until(&folder, "checkpoints of this process", || folder.newest_checkpoint() >= wanted);
        job
    };
    let (last, killed) = parallelisms.split_last().expect("there is one process at least");
    for parallelism in killed {
        let mut lines = 20_000;
        loop {
            let mut job = start(&mut author, *parallelism);
            author.write(lines);
            let wanted = folder.newest_checkpoint() + 1;
            job.wait_until(&folder, "one checkpoint more", || folder.newest_checkpoint() >= wanted);
            job.kill();
            if deviation(&visible(&folder.output()), author.totals()).is_some() {
                break;
            }
            // It was killed when there was nothing left to read; another one gets more.
            lines *= 2;
        }
    }
    let mut job = start(&mut author, *last);
    wait_until_counted(&author, &mut job);
    let restores = folder.logged(&["the job is deployed", "chk-"]);
    assert_eq!(restores, processes - 1, "all but the first go on from a checkpoint:\n{}", folder.log());
}

#[test]
fn files_that_appear_around_kills_are_each_read_exactly_once() {
    grow_and_kill(&[2, 2, 2, 2]);
}

#[test]
fn files_that_appear_around_kills_are_read_once_at_another_parallelism_too() {
    grow_and_kill(&[2, 3, 1, 2]);
}
