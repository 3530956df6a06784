//! The directories and files of one job's checkpoints.
//!
//! A checkpoint's files lie in its own directory and are named by its `_metadata` alone, so that no two checkpoints
//! share one: what a deleted checkpoint names is named by no other.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

use millstream_model::{
    deployment::{CompletedCheckpoint, FileHandle},
    fault::Remedy,
    id::{CheckpointId, JobId},
};

use crate::{
    durable::{self, FileError},
    metadata::{self, MetadataError},
};

/// What `_metadata` is called while its checkpoint is deleted.
const DOOMED_METADATA: &str = "_metadata.deleted";

/// `<execution.checkpointing.dir>/<job id>`, with a directory `chk-<n>` for each checkpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CheckpointDirectory {
    path: PathBuf,
}

impl CheckpointDirectory {
    /// The directory of a job below `root`, the value of `execution.checkpointing.dir`. Touches nothing.
    pub fn new(root: &Path, job: JobId) -> CheckpointDirectory {
        let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
        CheckpointDirectory { path: root.join(job.to_string()) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a checkpoint's files are, whether or not it exists.
    pub fn of(&self, checkpoint: CheckpointId) -> PathBuf {
        self.path.join(format!("chk-{checkpoint}"))
    }

    /// Whether a checkpoint has metadata, be it whole or damaged.
    pub fn is_complete(&self, checkpoint: CheckpointId) -> bool {
        self.of(checkpoint).join(metadata::FILE_NAME).exists()
    }

    /// Makes room for a checkpoint, before any worker is told to take it. A number is of whoever creates its directory:
    /// a coordinator that was replaced and has not noticed never writes into a checkpoint of its successor.
    ///
    /// # Errors
    /// Also if a checkpoint of this number, complete or not, is there.
    pub fn begin(&self, checkpoint: CheckpointId) -> Result<PathBuf, CheckpointFileError> {
        let directory = self.of(checkpoint);
        durable::create_directory(&self.path)?;
        match fs::create_dir(&directory) {
            Ok(()) => durable::sync_directory(&self.path)?,
            Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {
                return Err(CheckpointFileError::Exists { directory });
            }
            Err(source) => return Err(FileError::new("create the directory", &directory, source).into()),
        }
        Ok(directory)
    }

    /// Writes a file of a checkpoint that was begun; durable when this returns. Called by workers, off the slots'
    /// threads. It creates no directory, so that a late write to a checkpoint that was given up fails.
    ///
    /// `name` is a plain file name, unique within the checkpoint: the subtask and its generation belong into it.
    pub fn write(&self, checkpoint: CheckpointId, name: &str, bytes: &[u8]) -> Result<FileHandle, CheckpointFileError> {
        let path = file_in(&self.of(checkpoint), name)?;
        durable::write(&path, bytes)?;
        Ok(FileHandle { path: name.to_owned(), bytes: bytes.len() as u64, crc32: crc32fast::hash(bytes) })
    }

    /// Makes the checkpoint complete. Whatever it names must be durable already.
    pub fn write_metadata(&self, checkpoint: &CompletedCheckpoint) -> Result<PathBuf, CheckpointFileError> {
        let path = self.of(checkpoint.id).join(metadata::FILE_NAME);
        durable::write(&path, &metadata::encode(checkpoint))?;
        Ok(path)
    }

    /// The metadata of one of the job's checkpoints.
    pub fn read_metadata(&self, checkpoint: CheckpointId) -> Result<CompletedCheckpoint, MetadataError> {
        metadata::read_metadata(&self.of(checkpoint).join(metadata::FILE_NAME))
    }

    /// Deletes a checkpoint: what its metadata names, then the metadata, then the directory if nothing else is in it.
    /// One without metadata is [discarded](Self::discard). Deleting one that is gone, or that a crash deleted half, is
    /// no error.
    ///
    /// # Errors
    /// If its metadata is damaged: then nobody knows what belongs to it, and all of it stays.
    pub fn delete(&self, checkpoint: CheckpointId) -> Result<(), CheckpointFileError> {
        let directory = self.of(checkpoint);
        let (metadata, doomed) = (directory.join(metadata::FILE_NAME), directory.join(DOOMED_METADATA));
        if !metadata.exists() && !doomed.exists() {
            return self.discard(checkpoint);
        }
        if metadata.exists() {
            metadata::read_metadata(&metadata)?;
            // From here on it is no checkpoint, whatever a crash leaves of it, and its files are still known.
            fs::rename(&metadata, &doomed).map_err(|source| FileError::new("rename", &metadata, source))?;
        }
        let completed = metadata::read_metadata(&doomed)?;
        for handle in completed.subtasks.iter().filter_map(|subtask| subtask.file.as_ref()) {
            remove_file(&file_in(&directory, &handle.path)?)?;
        }
        remove_file(&doomed)?;
        remove_directory(&directory)
    }

    /// Deletes all files of a checkpoint without metadata: one that was given up.
    pub fn discard(&self, checkpoint: CheckpointId) -> Result<(), CheckpointFileError> {
        let directory = self.of(checkpoint);
        if self.is_complete(checkpoint) {
            return Err(CheckpointFileError::Exists { directory });
        }
        for path in entries(&directory)? {
            // A directory in here is not ours.
            if path.is_file() {
                remove_file(&path)?;
            }
        }
        remove_directory(&directory)
    }

    /// Deletes the job's directory if no checkpoint is in it.
    pub fn delete_if_empty(&self) -> Result<(), CheckpointFileError> {
        remove_directory(&self.path)
    }

    /// The numbers of all checkpoints that have a directory, complete or not, ascending.
    pub fn list(&self) -> Result<Vec<CheckpointId>, CheckpointFileError> {
        let mut numbers: Vec<_> = entries(&self.path)?.iter().filter_map(|path| number_of(path)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }
}

/// Reads a file of a checkpoint and checks it against its handle.
///
/// # Errors
/// If it is missing, shorter, longer or other than what was written; each names the file.
pub fn read_file(checkpoint: &CompletedCheckpoint, handle: &FileHandle) -> Result<Vec<u8>, CheckpointFileError> {
    let path = file_in(Path::new(&checkpoint.directory), &handle.path)?;
    let bytes = durable::read(&path)?;
    if bytes.len() as u64 != handle.bytes {
        return Err(CheckpointFileError::Length { path, expected: handle.bytes, actual: bytes.len() as u64 });
    }
    let actual = crc32fast::hash(&bytes);
    if actual != handle.crc32 {
        return Err(CheckpointFileError::Checksum { path, expected: handle.crc32, actual });
    }
    Ok(bytes)
}

/// Reads and checks every file of a checkpoint.
pub fn verify(checkpoint: &CompletedCheckpoint) -> Result<(), CheckpointFileError> {
    let handles = checkpoint.subtasks.iter().filter_map(|subtask| subtask.file.as_ref());
    handles.into_iter().try_for_each(|handle| read_file(checkpoint, handle).map(drop))
}

/// The number in a path that ends in `chk-<n>`.
pub(crate) fn number_of(path: &Path) -> Option<CheckpointId> {
    path.file_name()?.to_str()?.strip_prefix("chk-")?.parse().ok().map(CheckpointId)
}

/// The paths in a directory; none if it does not exist.
pub(crate) fn entries(directory: &Path) -> Result<Vec<PathBuf>, FileError> {
    let failed = |source| FileError::new("list", directory, source);
    match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path()).map_err(failed)).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed(error)),
    }
}

/// Metadata may come from anywhere, so a name in it must not lead out of the directory.
fn file_in(directory: &Path, name: &str) -> Result<PathBuf, CheckpointFileError> {
    let mut components = Path::new(name).components();
    let is_plain =
        matches!((components.next(), components.next()), (Some(Component::Normal(part)), None) if part == name);
    if !is_plain || name == metadata::FILE_NAME {
        return Err(CheckpointFileError::Name { directory: directory.to_owned(), name: name.to_owned() });
    }
    Ok(directory.join(name))
}

fn remove_file(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FileError::new("delete", path, error)),
        _ => Ok(()),
    }
}

/// Removes an empty directory. One that is not empty stays: something in it is not ours.
fn remove_directory(path: &Path) -> Result<(), CheckpointFileError> {
    match fs::remove_dir(path) {
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
            Err(FileError::new("delete", path, error).into())
        }
        _ => Ok(()),
    }
}

/// Why a file of a checkpoint could not be written, read or deleted.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointFileError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    #[error("{path} has {actual} bytes, {expected} were written: the checkpoint is damaged", path = .path.display())]
    Length { path: PathBuf, expected: u64, actual: u64 },
    #[error(
        "{path} has the checksum {actual:08x}, {expected:08x} was written: the checkpoint is damaged",
        path = .path.display()
    )]
    Checksum { path: PathBuf, expected: u32, actual: u32 },
    #[error("'{name}' cannot be a file of the checkpoint in {directory}", directory = .directory.display())]
    Name { directory: PathBuf, name: String },
    #[error(
        "{directory} already holds a checkpoint; is another job with this id running?",
        directory = .directory.display()
    )]
    Exists { directory: PathBuf },
}

impl CheckpointFileError {
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::File(error) => error.remedy(),
            Self::Metadata(error) => error.remedy(),
            Self::Length { .. } | Self::Checksum { .. } | Self::Name { .. } | Self::Exists { .. } => Remedy::FailJob,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use millstream_model::{
        deployment::SubtaskState,
        id::{JobVertexId, Subtask},
    };

    use super::*;

    /// Writes a checkpoint of one file.
    pub(crate) fn complete(directory: &CheckpointDirectory, number: u64) -> CompletedCheckpoint {
        let id = CheckpointId(number);
        let path = directory.begin(id).unwrap();
        let file = directory.write(id, "state", &number.to_le_bytes()).unwrap();
        let subtask = Subtask { vertex: JobVertexId(1), index: 0 };
        let checkpoint = CompletedCheckpoint {
            format_version: CompletedCheckpoint::FORMAT_VERSION,
            id,
            directory: path.to_str().unwrap().to_owned(),
            vertices: Vec::new(),
            subtasks: vec![SubtaskState { subtask, file: Some(file) }],
            coordinators: Vec::new(),
        };
        directory.write_metadata(&checkpoint).unwrap();
        checkpoint
    }

    fn directory() -> (tempfile::TempDir, CheckpointDirectory) {
        let root = tempfile::tempdir().unwrap();
        let directory = CheckpointDirectory::new(root.path(), JobId(5));
        (root, directory)
    }

    fn handle_of(checkpoint: &CompletedCheckpoint) -> FileHandle {
        checkpoint.subtasks[0].file.clone().unwrap()
    }

    #[test]
    fn what_was_written_is_read_back() {
        let (_root, directory) = directory();
        let written = complete(&directory, 1);
        let read = directory.read_metadata(CheckpointId(1)).unwrap();
        assert_eq!(read, written);
        assert_eq!(read_file(&read, &handle_of(&read)).unwrap(), 1u64.to_le_bytes());
        verify(&read).unwrap();
    }

    #[test]
    fn a_checkpoint_that_was_moved_is_read_where_it_is() {
        let (root, directory) = directory();
        complete(&directory, 1);
        let elsewhere = root.path().join("elsewhere");
        fs::rename(directory.of(CheckpointId(1)), &elsewhere).unwrap();
        let moved = metadata::read_metadata(&elsewhere.join("_metadata")).unwrap();
        verify(&moved).unwrap();
    }

    #[test]
    fn a_damaged_file_is_named_with_what_was_expected() {
        let (_root, directory) = directory();
        let checkpoint = complete(&directory, 1);
        let path = directory.of(CheckpointId(1)).join("state");

        fs::write(&path, [1, 0, 0, 0, 0, 0, 0, 1]).unwrap();
        let error = verify(&checkpoint).unwrap_err();
        assert!(matches!(error, CheckpointFileError::Checksum { .. }), "{error}");
        assert!(error.to_string().contains("chk-1/state"), "{error}");

        fs::write(&path, [1, 0]).unwrap();
        let error = verify(&checkpoint).unwrap_err();
        assert!(matches!(error, CheckpointFileError::Length { expected: 8, actual: 2, .. }), "{error}");

        fs::remove_file(&path).unwrap();
        assert!(verify(&checkpoint).unwrap_err().to_string().contains("does not exist"));
    }

    #[test]
    fn a_name_that_leads_out_of_the_directory_is_refused() {
        let (_root, directory) = directory();
        let checkpoint = complete(&directory, 1);
        for name in ["../chk-2/state", "/etc/passwd", "..", ".", "", "a/b", "state/", "_metadata"] {
            let handle = FileHandle { path: name.to_owned(), ..handle_of(&checkpoint) };
            let error = read_file(&checkpoint, &handle).unwrap_err();
            assert!(matches!(error, CheckpointFileError::Name { .. }), "{name}: {error}");
            assert!(directory.write(CheckpointId(1), name, b"").is_err(), "{name}");
        }
    }

    #[test]
    fn a_checkpoint_that_is_there_is_never_begun_again() {
        let (_root, directory) = directory();
        complete(&directory, 1);
        directory.begin(CheckpointId(2)).unwrap();
        for number in [1, 2] {
            let error = directory.begin(CheckpointId(number)).unwrap_err();
            assert!(matches!(error, CheckpointFileError::Exists { .. }), "{error}");
        }
    }

    #[test]
    fn a_late_write_to_a_checkpoint_that_was_given_up_fails() {
        let (_root, directory) = directory();
        directory.begin(CheckpointId(1)).unwrap();
        directory.write(CheckpointId(1), "a", b"a").unwrap();
        directory.discard(CheckpointId(1)).unwrap();
        assert!(directory.write(CheckpointId(1), "b", b"b").is_err());
        assert!(directory.list().unwrap().is_empty());
    }

    #[test]
    fn deleting_takes_the_checkpoint_and_nothing_else() {
        let (_root, directory) = directory();
        complete(&directory, 1);
        let kept = complete(&directory, 2);
        directory.delete(CheckpointId(1)).unwrap();
        directory.delete(CheckpointId(1)).unwrap();
        assert_eq!(directory.list().unwrap(), [CheckpointId(2)]);
        verify(&kept).unwrap();
        directory.delete_if_empty().unwrap();
        assert!(directory.path().exists());
        directory.delete(CheckpointId(2)).unwrap();
        directory.delete_if_empty().unwrap();
        assert!(!directory.path().exists());
    }

    #[test]
    fn a_file_that_no_metadata_names_survives_the_checkpoint_it_lies_in() {
        let (_root, directory) = directory();
        complete(&directory, 1);
        let foreign = directory.of(CheckpointId(1)).join("notes.txt");
        fs::write(&foreign, b"of a person").unwrap();
        directory.delete(CheckpointId(1)).unwrap();
        assert!(foreign.exists());
        assert!(!directory.of(CheckpointId(1)).join("state").exists());
    }

    #[test]
    fn a_deletion_that_a_crash_interrupted_is_finished() {
        let (_root, directory) = directory();
        complete(&directory, 1);
        let path = directory.of(CheckpointId(1));
        fs::rename(path.join("_metadata"), path.join(DOOMED_METADATA)).unwrap();
        directory.delete(CheckpointId(1)).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_checkpoint_whose_metadata_is_damaged_is_not_deleted() {
        let (_root, directory) = directory();
        complete(&directory, 1);
        fs::write(directory.of(CheckpointId(1)).join("_metadata"), b"nonsense").unwrap();
        directory.delete(CheckpointId(1)).unwrap_err();
        assert!(directory.of(CheckpointId(1)).join("state").exists());
        directory.discard(CheckpointId(1)).unwrap_err();
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let directory = CheckpointDirectory::new(file.path(), JobId(5));
        let error = directory.begin(CheckpointId(1)).unwrap_err();
        assert!(error.to_string().contains(file.path().to_str().unwrap()), "{error}");
        assert_eq!(error.remedy(), Remedy::FailJob);
    }
}
