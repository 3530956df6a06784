//! What a writer does with the files that earlier attempts have left, before it writes its own.
//!
//! All that a restored checkpoint names becomes visible now, because the checkpoint is complete: finished parts are
//! renamed; of a part that was being written, the valid beginning is copied and the copy renamed. It is a copy because
//! an attempt that is thought dead may still be appending to the file itself.

use std::path::Path;

use millstream_model::fault::Failure;
use millstream_storage::durable::FileError;

use super::{
    disk::Disk,
    failure_of,
    part_io::commit,
    parts::{Part, PartId, WriterState},
};

/// Which writer recovers, and from what.
#[derive(Clone, Debug)]
pub struct Recovery {
    pub subtask: u32,
    pub parallelism: u32,
    /// `None` if the job starts without a checkpoint. After a change of parallelism a writer may get the states of
    /// several others, or none.
    pub restored: Option<Vec<WriterState>>,
}

impl Recovery {
    /// Returns the number of the first part that may be written. May be repeated after a crash at any point. Blocks.
    ///
    /// # Errors
    /// If the directory cannot be used, or a file that the checkpoint names is not there.
    pub fn run(&self, disk: &impl Disk, directory: &Path) -> Result<u64, Failure> {
        let refused =
            |error: FileError| failure_of(&error, "the text file sink needs a directory that the workers can write to");
        disk.create_directory(directory).map_err(refused)?;
        for state in self.restored.iter().flatten() {
            commit(disk, directory, &state.finished)?;
            if let Some(part) = &state.current {
                salvage(disk, directory, part)?;
            }
        }
        let mut next = 0;
        for name in disk.list(directory).map_err(refused)? {
            let Some((id, hidden)) = PartId::parse(&name) else { continue };
            if hidden && self.may_remove(id) {
                disk.remove(&directory.join(&name)).map_err(refused)?;
            }
            if id.subtask == self.subtask {
                next = next.max(id.number + 1);
            }
        }
        disk.sync_directory(directory).map_err(refused)?;
        let own = self.restored.iter().flatten().filter(|state| state.subtask == self.subtask);
        Ok(own.map(|state| state.next).fold(next, u64::max))
    }

    /// Whether a hidden file is of no use to anybody.
    ///
    /// All that this writer's states name is visible by now. But another writer may hold the state of the subtask
    /// that wrote the file, or may just be that subtask. What must be left because of this is found by the next job
    /// that starts without a checkpoint.
    fn may_remove(&self, id: PartId) -> bool {
        match &self.restored {
            None => id.subtask % self.parallelism == self.subtask,
            Some(states) => {
                states.iter().any(|state| state.subtask == id.subtask)
                    && (id.subtask == self.subtask || id.subtask >= self.parallelism)
            }
        }
    }
}

/// Makes the valid beginning of a part visible that was being written when the checkpoint was taken.
fn salvage(disk: &impl Disk, directory: &Path, part: &Part) -> Result<(), Failure> {
    let hidden = directory.join(part.id.hidden_name());
    let visible = directory.join(part.id.name());
    let refused = |error: FileError| failure_of(&error, "");
    match (disk.length(&hidden).map_err(refused)?, disk.length(&visible).map_err(refused)?) {
        // The salvage was interrupted after it was complete, or this checkpoint was restored before.
        (_, Some(bytes)) if bytes == part.bytes => {}
        (_, Some(bytes)) if bytes > part.bytes => tracing::warn!(
            file = %visible.display(),
            "a later checkpoint than the restored one was committed: the lines after byte {} will be written again",
            part.bytes
        ),
        (Some(bytes), None) if bytes >= part.bytes => {
            let copy = directory.join(part.id.salvage_name());
            disk.copy_beginning(&hidden, part.bytes, &copy).map_err(refused)?;
            disk.rename(&copy, &visible).map_err(refused)?;
            disk.sync_directory(directory).map_err(refused)?;
        }
        (hidden_bytes, visible_bytes) => {
            return Err(super::part_io::lost(&hidden, part, hidden_bytes.or(visible_bytes)));
        }
    }
    disk.remove(&hidden).map_err(refused)
}
