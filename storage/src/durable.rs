//! Files that are either whole or absent, and stay so through a power loss.
//!
//! A file is written under a temporary name, synced, renamed, and its directory synced: without the last step the
//! name may be gone after a power loss although the bytes are there.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use millstream_model::fault::Remedy;

/// The suffix of files that are being written. Readers never look at them.
pub const TEMPORARY_SUFFIX: &str = ".inprogress";

/// Writes `bytes` to `path`, which replaces what was there. When this returns, the file survives a power loss; if it
/// fails, what was there before is untouched.
///
/// The parent directory must exist. Two writers of the same path at the same time are the caller's mistake.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    write_as(0o666, path, bytes)
}

/// The same for what nobody but the user of this process may read.
pub fn write_secret(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    write_as(0o600, path, bytes)
}

fn write_as(mode: u32, path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let temporary = temporary_name(path);
    let written = write_synced(mode, &temporary, bytes)
        .and_then(|()| fs::rename(&temporary, path).map_err(|source| FileError::new("rename", &temporary, source)));
    if let Err(error) = written {
        // Best effort: on a full disk the half-written file would only make matters worse.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    sync_parent(path)
}

/// Creates a directory with its parents, each durable in the one above.
pub fn create_directory(path: &Path) -> Result<(), FileError> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = parent_of(path) {
        create_directory(parent)?;
    }
    match fs::create_dir(path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            Err(FileError::new("create the directory", path, source))
        }
        // Whoever created it at the same time may not have synced it yet.
        _ => sync_parent(path),
    }
}

/// Reads a whole file.
pub fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    fs::read(path).map_err(|source| FileError::new("read", path, source))
}

/// Makes the names in a directory durable.
pub fn sync_directory(path: &Path) -> Result<(), FileError> {
    let synced = File::open(path).and_then(|directory| directory.sync_all());
    synced.map_err(|source| FileError::new("sync the directory", path, source))
}

fn write_synced(mode: u32, path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let open = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path);
    let mut file = open.map_err(|source| FileError::new("create", path, source))?;
    file.write_all(bytes).map_err(|source| FileError::new("write", path, source))?;
    file.sync_all().map_err(|source| FileError::new("sync", path, source))
}

fn temporary_name(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(TEMPORARY_SUFFIX);
    path.with_file_name(name)
}

fn sync_parent(path: &Path) -> Result<(), FileError> {
    sync_directory(parent_of(path).unwrap_or(Path::new("/")))
}

fn parent_of(path: &Path) -> Option<&Path> {
    // The parent of a plain name is the working directory, which `Path` spells as nothing.
    path.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
}

/// The operating system refused something; says what, where, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt} {path}{advice}", path = .path.display())]
pub struct FileError {
    /// As a verb: "write", "read", "create the directory".
    pub attempt: &'static str,
    pub path: PathBuf,
    advice: &'static str,
    pub source: io::Error,
}

impl FileError {
    pub fn new(attempt: &'static str, path: &Path, source: io::Error) -> FileError {
        use io::ErrorKind::*;
        let advice = match source.kind() {
            StorageFull | QuotaExceeded => ": no room is left; free some, or choose a directory on another disk",
            PermissionDenied => ": no permission; give the user that runs this process access, or choose another",
            ReadOnlyFilesystem => ": it is on a read-only file system; choose another",
            NotFound => ": it does not exist",
            NotADirectory => ": a part of it is a file, not a directory",
            _ => "",
        };
        FileError { attempt, path: path.to_owned(), advice, source }
    }

    /// Another attempt may succeed when the disk has room again; nothing half-done is left behind.
    pub fn remedy(&self) -> Remedy {
        use io::ErrorKind::*;
        match self.source.kind() {
            PermissionDenied | ReadOnlyFilesystem | NotADirectory => Remedy::FailJob,
            _ => Remedy::Failover,
        }
    }

    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_what_was_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        write(&path, b"old").unwrap();
        // A directory in the place of the temporary file makes the write fail.
        fs::create_dir(temporary_name(&path)).unwrap();
        assert!(write(&path, b"new").is_err());
        assert_eq!(read(&path).unwrap(), b"old");
    }

    #[test]
    fn a_write_leaves_no_temporary_file() {
        let directory = tempfile::tempdir().unwrap();
        write(&directory.path().join("file"), b"bytes").unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_full_disk_is_named_with_the_path_and_the_way_out() {
        // The kernel's own full device: opening succeeds, every write fails.
        let error = write_synced(0o600, Path::new("/dev/full"), b"bytes").unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::StorageFull);
        let text = error.to_string();
        assert!(text.contains("/dev/full") && text.contains("free some"), "{text}");
        assert_eq!(error.remedy(), Remedy::Failover);
    }

    #[test]
    fn a_file_in_place_of_a_directory_is_the_users_to_mend() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        write(&file, b"").unwrap();
        let error = create_directory(&file.join("below")).unwrap_err();
        assert_eq!(error.remedy(), Remedy::FailJob);
        assert!(error.to_string().contains("not a directory"), "{error}");
    }
}
