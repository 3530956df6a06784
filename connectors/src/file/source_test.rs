//! The text file source end to end: readers, enumerator and I/O half in a fake worker.

use std::{
    fs,
    io::Write,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use millstream_api::source::SourceStatus;
use millstream_model::fault::{Failure, Remedy};
use proptest::prelude::*;
use tempfile::TempDir;

use super::TextFileSource;
use crate::{InvalidUtf8, fake::SourceJob};

fn directory(files: &[(&str, &[u8])]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    directory
}

fn source(path: &Path) -> TextFileSource {
    TextFileSource::new([path])
}

fn lines(source: TextFileSource, parallelism: u32) -> Vec<String> {
    let mut job = SourceJob::start(source, parallelism, None).unwrap();
    job.run_to_end().unwrap();
    job.emitted.take()
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

/// How the job fails, at its start or later.
fn failure(source: TextFileSource) -> Failure {
    let ran = SourceJob::start(source, 1, None).and_then(|mut job| job.run_to_end());
    ran.expect_err("this must fail")
}

#[test]
fn the_lines_of_all_files_are_read_in_order_of_their_names() {
    let input = directory(&[("b.txt", b"3\n4"), ("a.txt", b"1\r\n2\n"), ("c/d/e.txt", b"5\n")]);
    assert_eq!(lines(source(input.path()), 1), ["1", "2", "3", "4", "5"]);
    let both = TextFileSource::new([input.path().join("b.txt"), input.path().join("a.txt")]);
    assert_eq!(lines(both, 1), ["1", "2", "3", "4"]);
}

#[test]
fn hidden_names_are_skipped_unless_they_are_given() {
    let input = directory(&[("a", b"1"), (".b", b"2"), ("_c", b"3"), ("_d/e", b"4"), ("f/.part-0-0.inprogress", b"5")]);
    assert_eq!(lines(source(input.path()), 1), ["1"]);
    assert_eq!(lines(source(&input.path().join("_d")), 1), ["4"]);
}

#[test]
fn links_in_a_circle_are_followed_once() {
    let input = directory(&[("a/b", b"1")]);
    symlink(input.path(), input.path().join("a/back")).unwrap();
    assert_eq!(lines(source(input.path()), 1), ["1"]);
}

#[test]
fn nothing_to_read_is_an_empty_stream() {
    let input = directory(&[("empty", b"")]);
    assert_eq!(lines(source(input.path()), 2), [""; 0]);
}

#[test]
fn lines_longer_than_all_blocks_together_are_read() {
    let long = "x".repeat(5 << 20);
    let content = format!("a\n{long}\nb\n{long}");
    let input = directory(&[("long", content.as_bytes())]);
    let found = lines(source(input.path()).split_bytes(1 << 20), 2);
    let found: Vec<usize> = sorted(found).iter().map(String::len).collect();
    assert_eq!(found, [1, 1, 5 << 20, 5 << 20]);
}

#[test]
fn characters_of_any_width_are_read_wherever_blocks_end() {
    // The second line is longer than a block, so that characters are cut in two.
    let text = format!("{}\n{}\n{}", "aßz".repeat(100_000), "€".repeat(200_000), "\u{10ffff}\r\n".repeat(100_000));
    let input = directory(&[("text", text.as_bytes())]);
    let found = lines(source(input.path()).split_bytes(300_000), 1);
    assert!(found.iter().map(String::as_str).eq(text.lines()));
}

#[test]
fn a_reader_stops_at_once_when_there_is_no_room() {
    let input = directory(&[("a", "line\n".repeat(1000).as_bytes())]);
    let mut job = SourceJob::start(source(input.path()), 1, None).unwrap();
    job.flow(0).output_filled();
    while job.step(0, 100).unwrap() != SourceStatus::More {}
    for _ in 0..10 {
        job.step(0, 100).unwrap();
    }
    assert_eq!(job.emitted.borrow().len(), 0);
    job.flow(0).output_freed();
    job.run_to_end().unwrap();
    assert_eq!(job.emitted.borrow().len(), 1000);
}

#[test]
fn invalid_utf8_fails_with_the_file_and_the_byte() {
    let input = directory(&[("bad", b"good\nbe\xff\nafter")]);
    let failure = failure(source(input.path()));
    assert_eq!(failure.remedy, Remedy::FailJob);
    assert!(failure.message.contains("/bad is not UTF-8 text at byte offset 7"), "{failure}");
    assert!(failure.position.unwrap().ends_with("/bad, byte offset 5 (line starting there)"));
}

#[test]
fn invalid_utf8_is_skipped_and_counted_or_replaced_if_wanted() {
    let input = directory(&[("bad", b"1\n\xff\n2\n\xfe\xfe\n3\xff\n")]);
    let mut job = SourceJob::start(source(input.path()).invalid_utf8(InvalidUtf8::Skip), 1, None).unwrap();
    job.run_to_end().unwrap();
    assert_eq!(*job.emitted.borrow(), ["1", "2"]);
    assert_eq!(job.accumulator("invalid-utf8-lines"), 3);
    let replaced = lines(source(input.path()).invalid_utf8(InvalidUtf8::Replace), 1);
    assert_eq!(replaced, ["1", "\u{fffd}", "2", "\u{fffd}\u{fffd}", "3\u{fffd}"]);
}

#[test]
fn a_path_that_does_not_exist_fails_the_job_with_its_name() {
    let failure = failure(source(Path::new("/no/such/input")));
    assert_eq!(failure.remedy, Remedy::FailJob);
    assert!(failure.message.contains("/no/such/input") && failure.message.contains("must exist"), "{failure}");
}

#[test]
fn a_device_is_refused() {
    let failure = failure(source(Path::new("/dev/null")));
    assert!(failure.message.contains("/dev/null") && failure.message.contains("neither a file nor"), "{failure}");
}

#[test]
fn a_file_that_vanishes_after_it_was_listed_fails_the_job_with_its_name() {
    let input = directory(&[("a", b"1\n")]);
    let mut job = SourceJob::start(source(input.path()), 1, None).unwrap();
    fs::remove_file(input.path().join("a")).unwrap();
    let failure = job.run_to_end().unwrap_err();
    assert_eq!(failure.remedy, Remedy::FailJob);
    assert!(failure.message.contains("cannot open") && failure.message.contains("/a"), "{failure}");
    assert!(failure.message.contains("put it back"), "{failure}");
}

#[test]
fn a_file_that_shrinks_after_it_was_listed_fails_the_job_with_its_name() {
    let input = directory(&[("a", b"1\n2\n3\n")]);
    let mut job = SourceJob::start(source(input.path()), 1, None).unwrap();
    fs::write(input.path().join("a"), b"1\n2").unwrap();
    let failure = job.run_to_end().unwrap_err();
    assert_eq!(failure.remedy, Remedy::FailJob);
    assert!(failure.message.contains("/a has become shorter") && failure.message.contains("6 bytes"), "{failure}");
}

#[test]
fn what_is_appended_after_the_file_was_listed_is_not_read() {
    let input = directory(&[("a", b"1\n2")]);
    let mut job = SourceJob::start(source(input.path()), 1, None).unwrap();
    fs::OpenOptions::new().append(true).open(input.path().join("a")).unwrap().write_all(b"22\n3\n").unwrap();
    job.run_to_end().unwrap();
    assert_eq!(*job.emitted.borrow(), ["1", "2"]);
}

#[test]
fn an_unreadable_directory_or_file_fails_the_job_with_its_name() {
    // Root may read everything, so what stands in for a refusal is a component that is no directory.
    let input = directory(&[("a", b"1")]);
    let failure = failure(source(&input.path().join("a/b")));
    assert_eq!(failure.remedy, Remedy::FailJob);
    assert!(failure.message.contains("/a/b") && failure.message.contains("not a directory"), "{failure}");
}

#[test]
fn new_files_are_discovered_while_the_job_runs() {
    let input = directory(&[("a", b"1\n")]);
    let watched = source(input.path()).monitor_continuously(Duration::from_millis(1));
    let mut job = SourceJob::start(watched, 2, None).unwrap();
    let patience = Duration::from_millis(200);
    assert!(!job.run(100, patience).unwrap());
    fs::write(input.path().join("b"), b"2\n").unwrap();
    job.wake_coordinator().unwrap();
    assert!(!job.run(100, patience).unwrap());
    assert_eq!(*job.emitted.borrow(), ["1", "2"]);
    job.wake_coordinator().unwrap();
    assert!(!job.run(100, patience).unwrap(), "nothing is new, and the stream does not end");
    assert_eq!(job.emitted.borrow().len(), 2);
}

#[test]
fn the_position_is_that_of_the_last_line() {
    let input = directory(&[("a", b"one\ntwo\n")]);
    let mut job = SourceJob::start(source(input.path()), 1, None).unwrap();
    while job.emitted.borrow().len() < 2 {
        job.step(0, 1).unwrap();
    }
    let file = input.path().join("a");
    assert_eq!(job.position(0), format!("{}, byte offset 4 (line starting there)", file.display()));
}

fn numbered_files() -> (TempDir, Vec<String>) {
    let mut all = Vec::new();
    let mut files: Vec<(PathBuf, String)> = Vec::new();
    for file in 0..5_usize {
        let mine: Vec<String> =
            (0..file * 40).map(|line| format!("{line}-{}", file.to_string().repeat(line % 17))).collect();
        files.push((format!("file-{file}").into(), mine.join("\n")));
        all.extend(mine);
    }
    let borrowed: Vec<(&str, &[u8])> =
        files.iter().map(|(name, text)| (name.to_str().unwrap(), text.as_bytes())).collect();
    (directory(&borrowed), sorted(all))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn every_line_is_read_once_whatever_the_splits_and_wherever_it_stops(
        split_bytes in 1_u64..300,
        before in 1_u32..5,
        after in 1_u32..5,
        budget in 1_u32..30,
        steps in 0_usize..60,
    ) {
        let (input, expected) = numbered_files();
        let source = || source(input.path()).split_bytes(split_bytes);
        let mut first = SourceJob::start(source(), before, None).unwrap();
        for step in 0..steps {
            first.step(step % before as usize, budget).unwrap();
            // Now and then blocks have had time to arrive.
            if step % 7 == 0 {
                std::thread::yield_now();
            }
        }
        let checkpoint = first.checkpoint();
        let mut lines = first.emitted.borrow().clone();
        // What the first attempt reads after the checkpoint is forgotten with it.
        first.step(0, budget).unwrap();
        let mut second = SourceJob::start(source(), after, Some(&checkpoint)).unwrap();
        second.run_to_end().unwrap();
        lines.extend(second.emitted.take());
        prop_assert_eq!(sorted(lines), expected);
    }
}
