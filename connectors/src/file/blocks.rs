//! The I/O half of reading: fills blocks with what lies in a range of a file, ahead of the reader.
//!
//! ```text
//!  reader ──── empty blocks ───► fill (I/O runtime)
//!         ◄─── filled blocks ───
//! ```
//! There are [`BLOCKS`] blocks at most, so neither channel is ever full, and a reader that does not return any stops
//! the reading. Dropping the reader's end ends it.

use std::{fs::File, os::unix::fs::FileExt, path::Path};

use memchr::memrchr;
use millstream_api::context::TaskWaker;
use millstream_model::fault::Failure;
use millstream_storage::durable::FileError;
use tokio::sync::mpsc::{self, error::TryRecvError};

use super::{failure_of, split::FileSplit};

/// How many blocks go round between a reader and its I/O half.
pub const BLOCKS: usize = 4;
/// A thread is asked for when there are so many empty ones. A reader that waits has given back all of them.
const BLOCKS_AT_ONCE: usize = 2;
/// As large as the second-level cache can hold a few of.
const BLOCK_BYTES: usize = 256 << 10;
/// Behind the end of a split only the rest of one line is wanted.
const TAIL_BYTES: u64 = 16 << 10;

/// A piece of a file. It ends with a line, unless a line is longer than a block.
pub type Block = Vec<u8>;

/// The reader's end.
#[derive(Debug)]
pub struct Blocks {
    filled: mpsc::Receiver<Result<Block, Failure>>,
    empty: mpsc::Sender<Block>,
}

/// The other end, which belongs to the I/O runtime.
pub struct Filler {
    split: FileSplit,
    spare: Vec<Block>,
    filled: mpsc::Sender<Result<Block, Failure>>,
    empty: mpsc::Receiver<Block>,
    waker: TaskWaker,
}

impl Blocks {
    /// Reads `split` from where it is to the end of its file; the reader stops when it has seen enough. `spare` are
    /// blocks of an earlier split.
    pub fn new(split: FileSplit, mut spare: Vec<Block>, waker: TaskWaker) -> (Blocks, Filler) {
        spare.resize_with(BLOCKS, || Vec::with_capacity(BLOCK_BYTES));
        let (filled_sender, filled) = mpsc::channel(BLOCKS + 1);
        let (empty, empty_receiver) = mpsc::channel(BLOCKS);
        (Blocks { filled, empty }, Filler { split, spare, filled: filled_sender, empty: empty_receiver, waker })
    }

    /// The next block, if it is at hand. After the last byte of the file there is none, and an error.
    pub fn next(&mut self) -> Result<Option<Block>, Failure> {
        match self.filled.try_recv() {
            Ok(block) => block.map(Some),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => {
                Err(Failure::new("the I/O half of the text file source has ended early"))
            }
        }
    }

    /// Gives a block back to be filled again.
    pub fn recycle(&mut self, block: Block) {
        // If the other end is gone, the block is too.
        let _ = self.empty.try_send(block);
    }

    /// Ends the reading; returns the blocks that are at hand.
    pub fn into_spare(mut self) -> Vec<Block> {
        self.filled.close();
        std::iter::from_fn(|| self.filled.try_recv().ok()).flatten().collect()
    }
}

impl Filler {
    /// Reads until the file's end, an error, or until nobody wants more.
    pub async fn run(self) {
        let Filler { split, mut spare, filled, mut empty, waker } = self;
        let mut at = split.next;
        let mut file = None;
        while at < split.file_bytes {
            while spare.len() < BLOCKS_AT_ONCE {
                match empty.recv().await {
                    Some(block) => spare.push(block),
                    None => return,
                }
            }
            let mut work = Fill { file, at, spare, split: split.clone(), filled: filled.clone(), waker: waker.clone() };
            let done = tokio::task::spawn_blocking(move || work.run().then_some(work)).await;
            match done {
                Ok(Some(work)) => (file, at, spare) = (work.file, work.at, work.spare),
                // Told the reader already, or the runtime is shutting down.
                Ok(None) | Err(_) => return,
            }
        }
    }
}

/// One stay on a thread that may block.
struct Fill {
    file: Option<File>,
    at: u64,
    spare: Vec<Block>,
    split: FileSplit,
    filled: mpsc::Sender<Result<Block, Failure>>,
    waker: TaskWaker,
}

impl Fill {
    /// Fills all spare blocks, or as many as the file has bytes for. Returns whether to go on.
    fn run(&mut self) -> bool {
        while self.at < self.split.file_bytes {
            let Some(mut block) = self.spare.pop() else { break };
            let outcome = self.fill(&mut block).map(|()| block);
            let failed = outcome.is_err();
            // There is room for every block and one failure, so this fails only if the reader is gone.
            let sent = self.filled.try_send(outcome).is_ok();
            self.waker.wake();
            if failed || !sent {
                return false;
            }
        }
        true
    }

    fn fill(&mut self, block: &mut Block) -> Result<(), Failure> {
        let FileSplit { path, end, file_bytes, .. } = &self.split;
        let path = path.as_path();
        if self.file.is_none() {
            self.file = Some(File::open(path).map_err(|cause| {
                let error = FileError::new("open", path, cause);
                let failure = failure_of(&error, "it was there when the input was listed; put it back and restart");
                if error.is_not_found() { Failure::fatal(failure.message) } else { failure }
            })?);
        }
        let file = self.file.as_ref().expect("just opened");
        let wanted =
            (end.saturating_sub(self.at) + TAIL_BYTES).min(BLOCK_BYTES as u64).min(file_bytes - self.at) as usize;
        // Fills with zeros only what is longer than what the block held before.
        block.resize(wanted, 0);
        let mut filled = 0;
        while filled < wanted {
            match file.read_at(&mut block[filled..], self.at) {
                Ok(0) => return Err(truncated(path, *file_bytes, self.at)),
                Ok(read) => {
                    filled += read;
                    self.at += read as u64;
                }
                Err(cause) if cause.kind() == std::io::ErrorKind::Interrupted => {}
                Err(cause) => {
                    let error = FileError::new("read", path, cause);
                    return Err(failure_of(&error, &format!("at byte offset {}", self.at)));
                }
            }
        }
        // What comes after the last line end is read again with the next block, so that few lines straddle two.
        if self.at < *file_bytes
            && let Some(line_feed) = memrchr(b'\n', block)
        {
            self.at -= (wanted - line_feed - 1) as u64;
            block.truncate(line_feed + 1);
        }
        Ok(())
    }
}

fn truncated(path: &Path, expected: u64, found: u64) -> Failure {
    Failure::fatal(format!(
        "{} has become shorter while it was read: it had {expected} bytes when it was discovered, and ends at {found} \
         now; restore it and restart. Input files must not be changed in place: write a new one under a hidden name \
         (`.name`), then rename it",
        path.display()
    ))
}
