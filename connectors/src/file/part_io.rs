//! The I/O half of the sink: writes, syncs and renames part files, one command after the other.

use std::path::{Path, PathBuf};

use millstream_model::fault::Failure;
use millstream_storage::durable::FileError;

use super::{
    disk::Disk,
    failure_of,
    parts::{Command, Part, PartId},
};

/// Carries out the commands of one writer.
#[derive(Debug)]
pub struct PartIo<D: Disk> {
    disk: D,
    directory: PathBuf,
    open: Option<Open<D::File>>,
    /// A file was created since the directory was last synced.
    names_unsynced: bool,
}

/// The part that is being written.
#[derive(Debug)]
struct Open<F> {
    id: PartId,
    file: F,
    path: PathBuf,
    unsynced: bool,
}

impl<D: Disk> PartIo<D> {
    pub fn new(disk: D, directory: PathBuf) -> PartIo<D> {
        PartIo { disk, directory, open: None, names_unsynced: false }
    }

    /// # Errors
    /// After one, the part files are in an unknown state: only a restart from a checkpoint helps.
    pub fn obey(&mut self, command: &Command) -> Result<(), Failure> {
        match command {
            Command::Append(id, bytes) => self.append(*id, bytes),
            Command::Finish(id) => self.finish(*id),
            Command::Sync => self.sync(),
            Command::Commit(parts) => commit(&self.disk, &self.directory, parts),
        }
    }

    fn append(&mut self, id: PartId, bytes: &[u8]) -> Result<(), Failure> {
        if self.open.is_none() {
            self.open = Some(self.create(id)?);
        }
        let open = self.open.as_mut().expect("just opened");
        assert_eq!(open.id, id, "a part was begun before the one before was finished");
        open.unsynced = true;
        self.disk.append(&mut open.file, &open.path, bytes).map_err(|error| refused(&error))
    }

    fn finish(&mut self, id: PartId) -> Result<(), Failure> {
        assert!(self.open.as_ref().is_some_and(|open| open.id == id), "a part was finished that was not begun");
        self.sync_file()?;
        self.open = None;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Failure> {
        self.sync_file()?;
        if self.names_unsynced {
            self.disk.sync_directory(&self.directory).map_err(|error| refused(&error))?;
            self.names_unsynced = false;
        }
        Ok(())
    }

    fn sync_file(&mut self) -> Result<(), Failure> {
        match &mut self.open {
            Some(open) if open.unsynced => {
                open.unsynced = false;
                self.disk.sync(&mut open.file, &open.path).map_err(|error| refused(&error))
            }
            _ => Ok(()),
        }
    }

    fn create(&mut self, id: PartId) -> Result<Open<D::File>, Failure> {
        let path = self.directory.join(id.hidden_name());
        let file = self.disk.create(&path).map_err(|error| match error.source.kind() {
            std::io::ErrorKind::AlreadyExists => somebody_else(&path),
            _ => refused(&error),
        })?;
        // In this order: whoever renames an older file of this name makes one of the two checks fail.
        let visible = self.directory.join(id.name());
        if self.disk.length(&visible).map_err(|error| refused(&error))?.is_some() {
            return Err(somebody_else(&visible));
        }
        self.names_unsynced = true;
        Ok(Open { id, file, path, unsynced: false })
    }
}

/// Renames finished parts to their visible names, durably. Parts that are visible already are left alone.
///
/// # Errors
/// If a part is neither there under its hidden name nor under its visible one, or has another length.
pub fn commit(disk: &impl Disk, directory: &Path, parts: &[Part]) -> Result<(), Failure> {
    for part in parts {
        let hidden = directory.join(part.id.hidden_name());
        let visible = directory.join(part.id.name());
        let hidden_bytes = disk.length(&hidden).map_err(|error| refused(&error))?;
        let visible_bytes = disk.length(&visible).map_err(|error| refused(&error))?;
        match (hidden_bytes, visible_bytes) {
            (Some(_), Some(_)) => return Err(somebody_else(&visible)),
            (Some(bytes), None) if bytes == part.bytes => {
                disk.rename(&hidden, &visible).map_err(|error| refused(&error))?;
            }
            (None, Some(bytes)) if bytes == part.bytes => {}
            (hidden_bytes, visible_bytes) => return Err(lost(&hidden, part, hidden_bytes.or(visible_bytes))),
        }
    }
    if parts.is_empty() { Ok(()) } else { disk.sync_directory(directory).map_err(|error| refused(&error)) }
}

fn refused(error: &FileError) -> Failure {
    failure_of(error, "nothing is lost: the job goes on from its last checkpoint once that is mended")
}

fn somebody_else(path: &Path) -> Failure {
    Failure::new(format!(
        "{} exists already, though this sink has not written it: another job, or an attempt of this one that was given \
         up, writes to the same directory; let every sink have a directory of its own",
        path.display()
    ))
}

pub(super) fn lost(hidden: &Path, part: &Part, found_bytes: Option<u64>) -> Failure {
    let found = match found_bytes {
        Some(bytes) => format!("has {bytes} bytes"),
        None => "does not exist".to_owned(),
    };
    let (hidden, name, bytes) = (hidden.display(), part.id.name(), part.bytes);
    Failure::fatal(format!(
        "the checkpoint says that {hidden} (or {name} beside it) has {bytes} bytes, but it {found}: its lines would be \
         lost. If it was taken away after it had become visible, put a file named {name} of that length in its place and \
         restart; if not, restart from another checkpoint"
    ))
}
