//! Files appear in a watched folder while a job runs, and while it does not because its process was killed: each line
//! counts exactly once in the committed output.

use std::collections::BTreeMap;

use millstream_tests::{
    counts::{deviation, visible},
    job_process::{JobFolder, JobProcess},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_growing_word_count_job");

/// Puts files into the input, one after the other, and knows how often each word is in them.
struct Author<'f> {
    folder: &'f JobFolder,
    files: u64,
    totals: BTreeMap<String, u64>,
}

impl Author<'_> {
    /// Another file, of so many lines. Every other one lies in a folder of its own.
    fn write(&mut self, lines: u64) {
        self.files += 1;
        let mut text = String::new();
        for line in 0..lines {
            for nth in 0..8 {
                let draw = (line * 8 + nth + 1_000_003 * self.files).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
                let word = format!("word{}", draw % (1 + draw % 499));
                text.push_str(if nth > 0 { " " } else { "" });
                text.push_str(&word);
                *self.totals.entry(word).or_default() += 1;
            }
            text.push('\n');
        }
        // A word that only this file has: a file that is never read shows, whatever the others have.
        let own = format!("file-{}", self.files);
        text.push_str(&own);
        self.totals.insert(own, 1);
        let folder = if self.files.is_multiple_of(2) { format!("day-{}/", self.files) } else { String::new() };
        self.folder.add_input(&format!("{folder}part-{}", self.files), &text);
    }

    /// Waits until all that was written is committed, and stays so for two checkpoints more: what is read twice is
    /// counted too high only afterwards.
    fn wait_until_counted(&self, job: &mut JobProcess) {
        let deviates = || deviation(&visible(&self.folder.output()), &self.totals);
        job.wait_until(self.folder, "all lines in the output", || deviates().is_none());
        let wanted = self.folder.newest_checkpoint() + 2;
        job.wait_until(self.folder, "two checkpoints more", || self.folder.newest_checkpoint() >= wanted);
        assert_eq!(deviates(), None);
    }
}

#[test]
fn files_that_appear_while_a_job_runs_are_each_read_exactly_once() {
    let root = tempfile::tempdir().unwrap();
    let folder = JobFolder::new(root.path());
    let mut author = Author { folder: &folder, files: 0, totals: BTreeMap::new() };
    // The first file is there, the next ones come when the ones before have been counted, alone and several at once.
    author.write(100);
    let mut job = folder.start(PROGRAM, &["parallelism.default=2", "execution.checkpointing.interval=20 ms"]);
    author.wait_until_counted(&mut job);
    for batch in [1, 3, 1] {
        (0..batch).for_each(|_| author.write(2_000));
        author.wait_until_counted(&mut job);
    }
    assert!(!job.has_ended(), "a job that watches a folder does not end");
}

/// `parallelisms` are those of one process after the other; each but the last is killed while there is something to read.
fn grow_and_kill(parallelisms: &[u32]) {
    let root = tempfile::tempdir().unwrap();
    let folder = JobFolder::new(root.path());
    let mut author = Author { folder: &folder, files: 0, totals: BTreeMap::new() };
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
            if deviation(&visible(&folder.output()), &author.totals).is_some() {
                break;
            }
            // It was killed when there was nothing left to read; another one gets more.
            lines *= 2;
        }
    }
    let mut job = start(&mut author, *last);
    author.wait_until_counted(&mut job);
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
