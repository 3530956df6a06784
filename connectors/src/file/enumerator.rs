//! Which subtask reads what: a decider. Discovered files and requests go in, assignments come out.
//!
//! A split is in exactly one place: cut from a pending file only when it is assigned, and from then on in the state of
//! the reader that has it. So a checkpoint of the enumerator and the readers together names every byte once.

use std::collections::{BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::{
    path::FilePath,
    split::{FileSplit, ToReader},
};

/// A file as a directory lists it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct FoundFile {
    pub path: FilePath,
    pub bytes: u64,
}

/// A file that is not yet handed out to its end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct PendingFile {
    path: FilePath,
    bytes: u64,
    /// Where the next split starts.
    handed_out: u64,
}

/// What an enumerator needs to go on after a restart.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct EnumeratorState {
    pending: VecDeque<PendingFile>,
    /// Every file that was ever discovered.
    seen: BTreeSet<FilePath>,
    /// Whether the files have been listed and will not be listed again.
    complete: bool,
}

/// Hands out splits.
#[derive(Debug)]
pub struct Enumerator {
    split_bytes: u64,
    bounded: bool,
    state: EnumeratorState,
    /// Readers that have asked when nothing was pending, longest first. Not part of the state: readers ask again
    /// after a restart.
    waiting: VecDeque<u32>,
}

/// An answer to one reader.
pub type Answer = (u32, ToReader);

impl Enumerator {
    pub fn new(split_bytes: u64, bounded: bool, restored: EnumeratorState) -> Enumerator {
        Enumerator { split_bytes: split_bytes.max(1), bounded, state: restored, waiting: VecDeque::new() }
    }

    /// Whether the files are to be listed (again).
    pub fn wants_listing(&self) -> bool {
        !self.bounded || !self.state.complete
    }

    /// The paths that hold all input have been listed.
    pub fn discovered(&mut self, found: Vec<FoundFile>) -> Vec<Answer> {
        for FoundFile { path, bytes } in found {
            if self.state.seen.insert(path.clone()) && bytes > 0 {
                self.state.pending.push_back(PendingFile { path, bytes, handed_out: 0 });
            }
        }
        self.state.complete = self.bounded;
        let mut answers = Vec::new();
        while let Some(&subtask) = self.waiting.front() {
            let Some(answer) = self.answer() else { break };
            self.waiting.pop_front();
            answers.push((subtask, answer));
        }
        answers
    }

    /// A reader has nothing to read.
    pub fn requested(&mut self, subtask: u32) -> Option<Answer> {
        let answer = self.answer();
        if answer.is_none() && !self.waiting.contains(&subtask) {
            self.waiting.push_back(subtask);
        }
        answer.map(|answer| (subtask, answer))
    }

    pub fn state(&self) -> &EnumeratorState {
        &self.state
    }

    fn answer(&mut self) -> Option<ToReader> {
        let Some(file) = self.state.pending.front_mut() else {
            return self.state.complete.then_some(ToReader::NoMoreSplits);
        };
        let start = file.handed_out;
        // The last split takes what would be too little for one of its own.
        let rest = file.bytes - start;
        let length = if rest < self.split_bytes + self.split_bytes / 2 { rest } else { self.split_bytes };
        file.handed_out += length;
        let split = FileSplit {
            path: file.path.clone(),
            next: start,
            at_line_start: start == 0,
            end: file.handed_out,
            file_bytes: file.bytes,
        };
        if file.handed_out == file.bytes {
            self.state.pending.pop_front();
        }
        Some(ToReader::Assign(split))
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn found(files: &[(&str, u64)]) -> Vec<FoundFile> {
        let file = |(path, bytes): &(&str, u64)| FoundFile { path: PathBuf::from(path).into(), bytes: *bytes };
        files.iter().map(file).collect()
    }

    fn enumerator(bounded: bool) -> Enumerator {
        Enumerator::new(100, bounded, EnumeratorState::default())
    }

    /// Path, start and end of the split that an answer assigns.
    fn assigned(answer: Option<Answer>) -> (String, u64, u64) {
        match answer {
            Some((_, ToReader::Assign(split))) => (split.path.to_string(), split.next, split.end),
            other => panic!("expected a split: {other:?}"),
        }
    }

    #[test]
    fn splits_cover_a_file_without_gap_or_overlap() {
        let mut enumerator = enumerator(true);
        enumerator.discovered(found(&[("/a", 320)]));
        let splits: Vec<_> = (0..3).map(|_| assigned(enumerator.requested(0))).collect();
        assert_eq!(splits, [("/a".into(), 0, 100), ("/a".into(), 100, 200), ("/a".into(), 200, 320)]);
        assert_eq!(enumerator.requested(0), Some((0, ToReader::NoMoreSplits)));
    }

    #[test]
    fn an_empty_file_is_no_work() {
        let mut enumerator = enumerator(true);
        enumerator.discovered(found(&[("/a", 0)]));
        assert_eq!(enumerator.requested(0), Some((0, ToReader::NoMoreSplits)));
    }

    #[test]
    fn a_file_is_read_once_however_often_it_is_listed() {
        let mut enumerator = enumerator(false);
        enumerator.discovered(found(&[("/a", 10)]));
        assigned(enumerator.requested(0));
        assert_eq!(enumerator.discovered(found(&[("/a", 50)])), []);
        assert_eq!(enumerator.requested(0), None);
    }

    #[test]
    fn readers_that_wait_are_served_in_the_order_in_which_they_asked() {
        let mut enumerator = enumerator(false);
        enumerator.discovered(Vec::new());
        assert_eq!(enumerator.requested(1), None);
        assert_eq!(enumerator.requested(0), None);
        assert_eq!(enumerator.requested(1), None, "asking twice, as a restarted reader does, does not count twice");
        let answers = enumerator.discovered(found(&[("/a", 10), ("/b", 10), ("/c", 10)]));
        assert_eq!(answers.iter().map(|(subtask, _)| *subtask).collect::<Vec<_>>(), [1, 0]);
        assert_eq!(assigned(enumerator.requested(0)).0, "/c");
    }

    #[test]
    fn after_a_restart_only_what_was_not_assigned_is_handed_out() {
        let mut first = enumerator(true);
        first.discovered(found(&[("/a", 200), ("/b", 10)]));
        assigned(first.requested(0));
        let state = postcard::from_bytes(&postcard::to_allocvec(first.state()).unwrap()).unwrap();
        let mut second = Enumerator::new(100, true, state);
        assert!(!second.wants_listing(), "files that appeared later are not part of a bounded input");
        assert_eq!(assigned(second.requested(5)), ("/a".into(), 100, 200));
        assert_eq!(assigned(second.requested(5)), ("/b".into(), 0, 10));
        assert_eq!(second.requested(5), Some((5, ToReader::NoMoreSplits)));
    }

    #[test]
    fn an_unbounded_source_never_says_that_there_is_no_more() {
        let mut enumerator = enumerator(false);
        enumerator.discovered(Vec::new());
        assert_eq!(enumerator.requested(0), None);
        assert!(enumerator.wants_listing());
    }
}
