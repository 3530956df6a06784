//! Lines of text files: whole files to each subtask in turn, as the hand-written opponent reads them.

use std::{fs::File, io::Read, path::PathBuf};

use millstream::{
    context::RuntimeContext,
    prelude::*,
    source::{Source, SourceOut, SourceReader, SourceSnapshot, SourceStatus},
};
use serde::{Deserialize, Serialize};

use crate::span;

const CHUNK_BYTES: usize = 1 << 20;

/// Emits each line without its end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Lines {
    pub files: Vec<PathBuf>,
}

impl Source for Lines {
    type Out = String;
    type Reader = LinesReader;

    fn reader(self, context: &mut RuntimeContext) -> Result<LinesReader, Failure> {
        let (subtask, of) = (context.index_of_this_subtask() as usize, context.number_of_parallel_subtasks() as usize);
        let mut files: Vec<PathBuf> = self.files.into_iter().skip(subtask).step_by(of).collect();
        files.reverse();
        Ok(LinesReader {
            files,
            file: None,
            chunk: vec![0; CHUNK_BYTES],
            filled: 0,
            whole: 0,
            at: 0,
            read: 0,
            started: false,
        })
    }
}

/// Reads files in chunks.
pub struct LinesReader {
    /// The next one is the last.
    files: Vec<PathBuf>,
    file: Option<File>,
    chunk: Vec<u8>,
    filled: usize,
    /// Invariant: `at ≤ whole ≤ filled`; `chunk[..whole]` is whole lines of valid UTF-8, emitted up to `at`.
    whole: usize,
    at: usize,
    read: u64,
    started: bool,
}

impl LinesReader {
    /// Reads another chunk; false at the end of the last file.
    fn refill(&mut self) -> Result<bool, Failure> {
        let failed = |cause: std::io::Error| Failure::fatal(format!("the text cannot be read: {cause}"));
        self.chunk.copy_within(self.whole..self.filled, 0);
        self.filled -= self.whole;
        (self.whole, self.at) = (0, 0);
        loop {
            if self.file.is_none() {
                let Some(path) = self.files.pop() else { return Ok(false) };
                self.file = Some(File::open(path).map_err(failed)?);
            }
            let file = self.file.as_mut().expect("just opened");
            let read = file.read(&mut self.chunk[self.filled..]).map_err(failed)?;
            self.filled += read;
            self.read += read as u64;
            if read == 0 {
                self.file = None;
                self.whole = self.filled;
            } else {
                self.whole = memchr::memrchr(b'\n', &self.chunk[..self.filled]).map_or(0, |end| end + 1);
            }
            if self.whole > 0 {
                let valid = std::str::from_utf8(&self.chunk[..self.whole]);
                return valid.map(|_| true).map_err(|cause| Failure::fatal(format!("the text is no UTF-8: {cause}")));
            }
            if self.filled == self.chunk.len() {
                return Err(Failure::fatal("a line must fit into a chunk"));
            }
        }
    }
}

impl SourceReader for LinesReader {
    type Out = String;

    fn poll(&mut self, out: &mut SourceOut<'_, String>) -> Result<SourceStatus, Failure> {
        if !std::mem::replace(&mut self.started, true) {
            span::started();
        }
        while !out.should_pause() {
            if self.at == self.whole && !self.refill()? {
                return Ok(SourceStatus::End);
            }
            let rest = &self.chunk[self.at..self.whole];
            let length = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
            // SAFETY: `refill` has checked all of `chunk[..whole]`, and a line is cut where an ASCII byte is.
            out.emit(unsafe { std::str::from_utf8_unchecked(&rest[..length]) });
            self.at = (self.at + length + 1).min(self.whole);
        }
        Ok(SourceStatus::More)
    }

    fn snapshot(&mut self, _: &mut SourceSnapshot<'_>) {
        // The benchmark takes no checkpoints.
    }

    fn position(&self) -> String {
        format!("byte {} or so", self.read)
    }
}
