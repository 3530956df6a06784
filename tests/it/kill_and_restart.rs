//! A job's process is killed, again and again, and started again from its latest checkpoint: every record must count
//! exactly once in the committed output.

#![allow(clippy::disallowed_methods, reason = "tests wait for conditions, with a limit on the wall clock")]

use std::{
    collections::HashMap,
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use millstream_tests::wait_until;

const JOB_ID: &str = "0123456789abcdef0123456789abcdef";

/// Text of words whose frequencies differ, in two files; returns the number of each.
fn write_text(directory: &Path, lines: u64) -> HashMap<String, u64> {
    let mut counts = HashMap::new();
    for file in 0..2 {
        let mut text = String::new();
        for line in 0..lines {
            for nth in 0..8 {
                let draw = (line * 8 + nth + file).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
                let word = format!("word{}", draw % (1 + draw % 997));
                if nth > 0 {
                    text.push(' ');
                }
                text += &word;
                *counts.entry(word).or_default() += 1;
            }
            text.push('\n');
        }
        fs::write(directory.join(format!("text-{file}")), text).unwrap();
    }
    counts
}

const WORD_COUNT: &str = env!("CARGO_BIN_EXE_word_count_job");
/// The same, with an async function in front.
const ASYNC_WORD_COUNT: &str = env!("CARGO_BIN_EXE_async_word_count_job");

fn start(job: &str, root: &Path, parallelism: u32, restore: bool) -> Child {
    let checkpoints = root.join("checkpoints");
    let mut command = Command::new(job);
    command
        .args([root.join("input"), root.join("output")])
        .arg(format!("-Dparallelism.default={parallelism}"))
        .arg(format!("-Dpipeline.jobid={JOB_ID}"))
        .arg("-Dexecution.checkpointing.interval=50 ms")
        .arg(format!("-Dexecution.checkpointing.dir={}", checkpoints.display()))
        .current_dir(root)
        .stdout(Stdio::piped())
        .stderr(Stdio::from(fs::File::options().append(true).create(true).open(root.join("log")).unwrap()));
    if restore {
        command.arg(format!("-Dexecution.state-recovery.path={}", checkpoints.display()));
    }
    command.spawn().unwrap()
}

/// The number of the newest complete checkpoint.
fn newest_checkpoint(root: &Path) -> u64 {
    let job = root.join("checkpoints").join(JOB_ID);
    let entries = fs::read_dir(job).into_iter().flatten().flatten();
    let complete = entries.filter(|entry| entry.path().join("_metadata").exists());
    let number = |name: String| name.strip_prefix("chk-").and_then(|number| number.parse().ok());
    complete.filter_map(|entry| number(entry.file_name().into_string().ok()?)).max().unwrap_or(0)
}

/// The committed lines: of each word, how often each running count occurs.
fn committed(root: &Path) -> HashMap<String, Vec<u64>> {
    let mut counts = HashMap::<String, Vec<u64>>::new();
    for entry in fs::read_dir(root.join("output")).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        for line in fs::read_to_string(entry.path()).unwrap().lines() {
            let (word, count) = line.split_once('\t').unwrap_or_else(|| panic!("no count in {line:?}"));
            counts.entry(word.to_owned()).or_default().push(count.parse().unwrap());
        }
    }
    counts
}

fn run_with_kills(job: &str, lines: u64, parallelisms: &[u32]) {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    fs::create_dir(root.join("input")).unwrap();
    let expected = write_text(&root.join("input"), lines);
    let mut kills = 0;
    for (round, parallelism) in parallelisms.iter().enumerate() {
        let is_last = round + 1 == parallelisms.len();
        let before = newest_checkpoint(root);
        let mut job = start(job, root, *parallelism, round > 0);
        if !is_last {
            let wanted = before + 1;
            wait_until("a checkpoint, or the end", || {
                newest_checkpoint(root) >= wanted || job.try_wait().unwrap().is_some()
            });
            if job.try_wait().unwrap().is_none() {
                job.kill().unwrap();
                kills += 1;
                job.wait().unwrap();
                continue;
            }
        }
        wait_until("the end of the job", || job.try_wait().unwrap().is_some());
        let output = job.wait_with_output().unwrap();
        let log = fs::read_to_string(root.join("log")).unwrap();
        assert!(output.status.success(), "the job failed in round {round}:\n{log}");
        break;
    }
    assert!(kills > 0, "the job was too fast to be killed");
    let committed = committed(root);
    for (word, total) in &expected {
        let mut counts = committed.get(word).cloned().unwrap_or_default();
        counts.sort_unstable();
        let exact = counts.iter().copied().eq(1..=*total);
        assert!(exact, "after {kills} kills, '{word}' ({total} times) has {} committed counts", counts.len());
    }
    assert_eq!(committed.len(), expected.len());
}

#[test]
fn every_record_counts_exactly_once_however_often_the_process_is_killed() {
    run_with_kills(WORD_COUNT, 150_000, &[2, 2, 2, 2]);
}

#[test]
fn a_killed_job_goes_on_at_another_parallelism() {
    run_with_kills(WORD_COUNT, 150_000, &[2, 3, 1]);
}

#[test]
fn records_that_an_async_function_works_on_are_neither_lost_nor_doubled_by_kills() {
    run_with_kills(ASYNC_WORD_COUNT, 20_000, &[2, 2, 3, 1]);
}

#[test]
fn a_damaged_checkpoint_is_passed_over_for_the_one_before() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    fs::create_dir(root.join("input")).unwrap();
    let expected = write_text(&root.join("input"), 150_000);
    let mut job = start(WORD_COUNT, root, 2, false);
    wait_until("two checkpoints", || newest_checkpoint(root) >= 2 || job.try_wait().unwrap().is_some());
    assert!(job.try_wait().unwrap().is_none(), "the job was too fast to be killed");
    job.kill().unwrap();
    job.wait().unwrap();

    let newest = root.join("checkpoints").join(JOB_ID).join(format!("chk-{}", newest_checkpoint(root)));
    let files = fs::read_dir(&newest).unwrap().flatten().map(|entry| entry.path());
    let states: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "state")).collect();
    let mut bytes = fs::read(&states[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    fs::write(&states[0], bytes).unwrap();

    let mut job = start(WORD_COUNT, root, 2, true);
    wait_until("the end of the job", || job.try_wait().unwrap().is_some());
    let log = fs::read_to_string(root.join("log")).unwrap();
    assert!(job.wait().unwrap().success(), "{log}");
    let name = states[0].file_name().unwrap().to_str().unwrap();
    assert!(log.lines().any(|line| line.contains("WARN") && line.contains(name)), "no warning names {name}:\n{log}");
    // What the damaged checkpoint had committed is written again, so lines repeat; totals must still be right.
    let committed = committed(root);
    for (word, total) in &expected {
        assert_eq!(committed.get(word).and_then(|counts| counts.iter().max()), Some(total), "{word}");
    }
}
