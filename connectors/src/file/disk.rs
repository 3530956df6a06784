//! The few things that a sink does with a directory, so that tests can put a disk under it that loses what was not
//! synced.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::Path,
};

use millstream_storage::durable::{self, FileError};

/// Such a disk. Everything blocks.
pub trait Disk: Send + 'static {
    type File: Send;

    /// Makes the directory and those above it.
    fn create_directory(&self, path: &Path) -> Result<(), FileError>;
    /// The names in a directory that are UTF-8.
    fn list(&self, path: &Path) -> Result<Vec<String>, FileError>;
    /// Makes the names in a directory survive a power loss.
    fn sync_directory(&self, path: &Path) -> Result<(), FileError>;
    /// Opens a file that must not exist yet.
    fn create(&self, path: &Path) -> Result<Self::File, FileError>;
    fn append(&self, file: &mut Self::File, path: &Path, bytes: &[u8]) -> Result<(), FileError>;
    /// Makes the bytes of a file survive a power loss.
    fn sync(&self, file: &mut Self::File, path: &Path) -> Result<(), FileError>;
    /// `None` if there is no such file.
    fn length(&self, path: &Path) -> Result<Option<u64>, FileError>;
    /// Writes the first `bytes` of a file to another, which is replaced, and syncs that.
    fn copy_beginning(&self, from: &Path, bytes: u64, to: &Path) -> Result<(), FileError>;
    fn rename(&self, from: &Path, to: &Path) -> Result<(), FileError>;
    /// Removes a file if it is there.
    fn remove(&self, path: &Path) -> Result<(), FileError>;
}

/// The file system of this machine.
#[derive(Clone, Copy, Debug)]
pub struct LocalDisk;

impl Disk for LocalDisk {
    type File = File;

    fn create_directory(&self, path: &Path) -> Result<(), FileError> {
        durable::create_directory(path)
    }

    fn list(&self, path: &Path) -> Result<Vec<String>, FileError> {
        let names = fs::read_dir(path).and_then(|entries| {
            entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<io::Result<Vec<_>>>()
        });
        let names = names.map_err(|cause| FileError::new("list the directory", path, cause))?;
        Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect())
    }

    fn sync_directory(&self, path: &Path) -> Result<(), FileError> {
        durable::sync_directory(path)
    }

    fn create(&self, path: &Path) -> Result<File, FileError> {
        let file = OpenOptions::new().append(true).create_new(true).open(path);
        file.map_err(|cause| FileError::new("create", path, cause))
    }

    fn append(&self, file: &mut File, path: &Path, bytes: &[u8]) -> Result<(), FileError> {
        file.write_all(bytes).map_err(|cause| FileError::new("write", path, cause))
    }

    fn sync(&self, file: &mut File, path: &Path) -> Result<(), FileError> {
        file.sync_all().map_err(|cause| FileError::new("sync", path, cause))
    }

    fn length(&self, path: &Path) -> Result<Option<u64>, FileError> {
        match fs::metadata(path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(FileError::new("look at", path, cause)),
        }
    }

    fn copy_beginning(&self, from: &Path, bytes: u64, to: &Path) -> Result<(), FileError> {
        let source = File::open(from).map_err(|cause| FileError::new("open", from, cause))?;
        let copied = File::create(to).and_then(|mut target| {
            io::copy(&mut source.take(bytes), &mut target)?;
            target.sync_all()
        });
        copied.map_err(|cause| FileError::new("write", to, cause))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), FileError> {
        fs::rename(from, to).map_err(|cause| FileError::new("rename", from, cause))
    }

    fn remove(&self, path: &Path) -> Result<(), FileError> {
        match fs::remove_file(path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(FileError::new("remove", path, cause)),
            _ => Ok(()),
        }
    }
}
