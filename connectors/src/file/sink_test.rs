//! The text file sink end to end: writers and their I/O half in a fake worker, on real directories.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use millstream_api::state::Section;
use millstream_model::fault::Remedy;
use nix::sys::{
    resource::{RLIM_INFINITY, Resource, setrlimit},
    signal::{SigHandler, Signal, signal},
};

use super::TextFileSink;
use crate::fake::SinkSubtask;

fn start(directory: &Path, restored: Option<Vec<Section>>) -> SinkSubtask<String> {
    SinkSubtask::start(TextFileSink::new(directory), (0, 1), restored).unwrap()
}

/// Names and contents, in the order of the names.
fn files(directory: &Path) -> Vec<(String, String)> {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    let mut files: Vec<_> = entries
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

fn named(files: &[(&str, &str)]) -> Vec<(String, String)> {
    files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

#[test]
fn output_is_hidden_until_its_checkpoint_is_complete() {
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("made/on/demand");
    let mut sink = start(&output, None);
    sink.write("one").unwrap();
    sink.write("two").unwrap();
    sink.checkpoint(1).unwrap();
    assert_eq!(files(&output), named(&[(".part-0-0.inprogress", "one\ntwo\n")]));
    sink.complete(1).unwrap();
    sink.write("three").unwrap();
    sink.checkpoint(2).unwrap();
    let expected = named(&[(".part-0-1.inprogress", "three\n"), ("part-0-0", "one\ntwo\n")]);
    assert_eq!(files(&output), expected);
}

#[test]
fn without_checkpoints_output_is_there_when_the_job_is_complete() {
    let directory = tempfile::tempdir().unwrap();
    let mut sink = start(directory.path(), None);
    sink.write("one").unwrap();
    sink.finish().unwrap();
    sink.close().unwrap();
    assert_eq!(files(directory.path()), named(&[("part-0-0", "one\n")]));
}

#[test]
fn what_a_crashed_run_has_left_is_removed_by_the_next() {
    let directory = tempfile::tempdir().unwrap();
    for name in [".part-0-4.inprogress", ".part-3-1.inprogress", ".part-0-4.salvaged.inprogress", "mine.txt"] {
        fs::write(directory.path().join(name), "x").unwrap();
    }
    let mut sink = start(directory.path(), None);
    assert_eq!(files(directory.path()), named(&[("mine.txt", "x")]));
    sink.write("one").unwrap();
    sink.finish().unwrap();
    assert_eq!(files(directory.path())[1..], named(&[("part-0-5", "one\n")]));
}

#[test]
fn a_restarted_writer_commits_what_was_prepared_and_drops_what_came_later() {
    let directory = tempfile::tempdir().unwrap();
    let mut sink = start(directory.path(), None);
    sink.write("one").unwrap();
    let state = sink.checkpoint(1).unwrap();
    sink.write("lost").unwrap();
    sink.checkpoint(2).unwrap();
    drop(sink);
    let mut sink = start(directory.path(), Some(state));
    assert_eq!(files(directory.path()), named(&[("part-0-0", "one\n")]));
    sink.write("two").unwrap();
    sink.finish().unwrap();
    assert_eq!(files(directory.path()), named(&[("part-0-0", "one\n"), ("part-0-2", "two\n")]));
}

#[test]
fn without_rolling_on_checkpoints_the_valid_beginning_is_kept_and_the_rest_written_again() {
    let directory = tempfile::tempdir().unwrap();
    let sink = || TextFileSink::new(directory.path()).roll_on_checkpoint(false);
    let mut first = SinkSubtask::start(sink(), (0, 1), None).unwrap();
    first.write("one").unwrap();
    let state = first.checkpoint(1).unwrap();
    first.complete(1).unwrap();
    first.write("two").unwrap();
    first.checkpoint(2).unwrap();
    assert_eq!(files(directory.path()), named(&[(".part-0-0.inprogress", "one\ntwo\n")]));
    drop(first);
    let mut second = SinkSubtask::start(sink(), (0, 1), Some(state.clone())).unwrap();
    assert_eq!(files(directory.path()), named(&[("part-0-0", "one\n")]));
    second.write("two").unwrap();
    drop(second);
    // The same checkpoint once more.
    let mut third = SinkSubtask::start(sink(), (0, 1), Some(state)).unwrap();
    third.write("two").unwrap();
    third.finish().unwrap();
    let text: String = files(directory.path()).into_iter().map(|(_, text)| text).collect();
    assert_eq!(text, "one\ntwo\n");
}

#[test]
fn files_roll_when_they_are_large_enough() {
    let directory = tempfile::tempdir().unwrap();
    let mut sink = SinkSubtask::start(TextFileSink::new(directory.path()).rolling(8), (2, 3), None).unwrap();
    for line in ["1234", "5678", "90", "a line that is longer than a file", "b"] {
        sink.write(line).unwrap();
    }
    sink.finish().unwrap();
    let expected =
        [("part-2-0", "1234\n5678\n"), ("part-2-1", "90\na line that is longer than a file\n"), ("part-2-2", "b\n")];
    assert_eq!(files(directory.path()), named(&expected));
}

#[test]
fn many_buffers_pass_through_a_small_ring_and_arrive_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let mut sink = start(directory.path(), None);
    let mut expected = String::new();
    for number in 0..400_000 {
        let line = format!("line {number:20}");
        sink.write(&line).unwrap();
        expected.push_str(&line);
        expected.push('\n');
    }
    sink.finish().unwrap();
    assert!(files(directory.path()) == named(&[("part-0-0", &expected)]));
}

#[test]
fn records_become_lines_by_a_format() {
    let directory = tempfile::tempdir().unwrap();
    let sink = TextFileSink::tab_separated::<(String, u64)>(directory.path());
    let mut sink = SinkSubtask::<(String, u64)>::start(sink, (0, 2), None).unwrap();
    sink.write(("word", 3)).unwrap();
    sink.finish().unwrap();
    let sink = TextFileSink::with_format::<(String, u64), _>(directory.path(), |(word, count), line| {
        line.push_str(word);
        line.push_str(&"!".repeat(count as usize));
    });
    let mut sink = SinkSubtask::<(String, u64)>::start(sink, (1, 2), None).unwrap();
    sink.write(("word", 3)).unwrap();
    sink.finish().unwrap();
    assert_eq!(files(directory.path()), named(&[("part-0-0", "word\t3\n"), ("part-1-0", "word!!!\n")]));
}

#[test]
fn a_file_in_the_directorys_place_fails_the_job() {
    let directory = tempfile::tempdir().unwrap();
    let taken = directory.path().join("taken");
    fs::write(&taken, "").unwrap();
    let failure = SinkSubtask::start(TextFileSink::new(taken.join("below")), (0, 1), None).err().unwrap();
    assert_eq!(failure.remedy, Remedy::FailJob);
    assert!(failure.message.contains("taken/below") && failure.message.contains("not a directory"), "{failure}");
}

/// A test that changes its whole process runs alone in one. Returns whether this is that process.
fn in_a_process_of_its_own(test: &str) -> bool {
    const MARK: &str = "MILLSTREAM_TEST_ALONE";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let name = format!("{}::{test}", module_path!().split_once("::").unwrap().1);
    let run = Command::new(std::env::current_exe().unwrap()).args(["--exact", &name]).env(MARK, "1").output().unwrap();
    let text = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && text.contains("1 passed"), "{text}");
    false
}

/// A disk that is full for a while.
enum SmallDisk {
    /// A file system of its own, and a file that fills it.
    Mounted { ballast: PathBuf },
    /// What may be done without being root: no file may have any bytes.
    Limited,
}

impl SmallDisk {
    fn at(path: &Path) -> SmallDisk {
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(path).output();
        match mount {
            Ok(output) if output.status.success() => SmallDisk::Mounted { ballast: path.join("ballast") },
            _ => SmallDisk::Limited,
        }
    }

    fn fill(&self) {
        match self {
            SmallDisk::Mounted { ballast } => _ = fs::write(ballast, vec![0; 1 << 20]).unwrap_err(),
            SmallDisk::Limited => {
                // SAFETY: ignoring a signal runs no code of ours. It would end the process.
                unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }.unwrap();
                setrlimit(Resource::RLIMIT_FSIZE, 0, RLIM_INFINITY).unwrap();
            }
        }
    }

    fn make_room(&self) {
        match self {
            SmallDisk::Mounted { ballast } => fs::remove_file(ballast).unwrap(),
            SmallDisk::Limited => setrlimit(Resource::RLIMIT_FSIZE, RLIM_INFINITY, RLIM_INFINITY).unwrap(),
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let SmallDisk::Mounted { ballast } = self {
            let _ = Command::new("umount").arg("-l").arg(ballast.parent().unwrap()).output();
        }
    }
}

#[test]
fn a_full_disk_fails_with_path_and_remedy_and_nothing_is_lost() {
    if !in_a_process_of_its_own("a_full_disk_fails_with_path_and_remedy_and_nothing_is_lost") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let disk = SmallDisk::at(directory.path());
    let output = directory.path().join("out");
    let mut sink = start(&output, None);
    sink.write("one").unwrap();
    let state = sink.checkpoint(1).unwrap();
    sink.complete(1).unwrap();
    disk.fill();
    sink.write(&"two".repeat(10_000)).unwrap();
    let failure = sink.checkpoint(2).unwrap_err();
    assert_eq!(failure.remedy, Remedy::Failover);
    assert!(failure.message.contains("cannot write") && failure.message.contains(".part-0-1.inprogress"), "{failure}");
    assert!(failure.message.contains("nothing is lost"), "{failure}");
    if let SmallDisk::Mounted { .. } = disk {
        assert!(failure.message.contains("no room is left"), "{failure}");
    }
    // It goes on failing, also while idle.
    assert!(sink.signal(&mut millstream_api::signal::Signal::Flush).is_err());
    drop(sink);
    disk.make_room();
    let mut sink = start(&output, Some(state));
    sink.write("two").unwrap();
    sink.finish().unwrap();
    let text: String = files(&output).into_iter().map(|(_, text)| text).collect();
    assert_eq!(text, "one\ntwo\n");
}
