//! Who leads: one election per coordinator process. The winner gets a token that is higher than any before it, and
//! every write to the [`store`](crate::store) and every message to a worker carries it.
//!
//! Safety comes from the token alone: a leader that was replaced and does not know it can neither write nor command.

pub mod file;
pub mod memory;

use std::{any::Any, fmt, io, path::PathBuf};

use millstream_model::id::LeaderEpoch;

use crate::store::StoreError;

pub use file::FileElection;
pub use memory::MemoryElection;

/// A place where coordinators compete.
pub trait Election: Send + Sync + fmt::Debug {
    /// Becomes the leader if there is none; `None` if somebody else is. A standby asks again.
    fn try_acquire(&self) -> Result<Option<Latch>, ElectionError>;
}

/// Leadership. It ends when this is dropped, or with the process.
pub struct Latch {
    epoch: LeaderEpoch,
    /// Releases the leadership when dropped.
    _hold: Box<dyn Any + Send + Sync>,
}

impl Latch {
    fn new(epoch: LeaderEpoch, hold: impl Any + Send + Sync) -> Latch {
        Latch { epoch, _hold: Box::new(hold) }
    }

    /// The token of this leader.
    pub fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }
}

impl fmt::Debug for Latch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Latch").field(&self.epoch).finish()
    }
}

/// Why nobody can be elected.
#[derive(Debug, thiserror::Error)]
pub enum ElectionError {
    #[error(
        "{directory} is on {file_system}, where locks do not keep other machines out: choose a directory on a local \
         disk for high-availability.storageDir, or high-availability.type: etcd",
        directory = .directory.display()
    )]
    NotLocal { directory: PathBuf, file_system: &'static str },
    #[error("the token in {path} is damaged: no leader can be elected safely; restore the file from a backup", path = .path.display())]
    Damaged { path: PathBuf },
    #[error("cannot {attempt} {path}", path = .path.display())]
    Io { attempt: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
}
