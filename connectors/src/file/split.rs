//! Splits: the pieces of files that readers read, and the words in which they ask for them and get them.
//!
//! The rule by which neighbours share a line (Hadoop's, and Flink's): a split that does not start at the file's start
//! skips to the first line end at or after its start; every split reads through the line that crosses its end, and the
//! line that starts exactly there. So a line that starts at byte n belongs to the split with `start < n <= end` (or
//! `n = start = 0`), and to no other.

use serde::{Deserialize, Serialize};

use super::path::FilePath;

/// A range of one file, and how far it has been read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileSplit {
    pub path: FilePath,
    /// Where reading starts or goes on, in bytes from the file's start.
    pub next: u64,
    /// Whether a line starts at `next`; if not, reading starts after the first line end at or after it.
    pub at_line_start: bool,
    /// No line that starts after this is read.
    pub end: u64,
    /// The file's length when it was discovered. Nothing beyond it is read.
    pub file_bytes: u64,
}

/// What a reader says to the enumerator.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ToEnumerator {
    /// I have nothing to read.
    RequestSplit,
}

/// What the enumerator says to a reader.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ToReader {
    Assign(FileSplit),
    /// There is nothing left, and there never will be.
    NoMoreSplits,
}
