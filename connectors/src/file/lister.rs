//! Finds the files below the paths that a source was given.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
};

use millstream_model::fault::Failure;
use millstream_storage::durable::FileError;

use super::{enumerator::FoundFile, failure_of, path::FilePath};

/// All files below `roots` with their lengths, sorted by path. Directories are searched recursively; below them, names
/// that start with `.` or `_` are skipped, as are things that are neither files nor directories. Blocks.
///
/// # Errors
/// If a root does not exist, or something cannot be listed.
pub fn list(roots: &[FilePath]) -> Result<Vec<FoundFile>, Failure> {
    let mut listing = Listing::default();
    for root in roots {
        let root = root.as_path();
        let metadata = fs::metadata(root).map_err(|cause| {
            let error = FileError::new("look at the input", root, cause);
            let failure = failure_of(&error, "the paths of a text file source must exist when the job starts");
            if error.is_not_found() { Failure::fatal(failure.message) } else { failure }
        })?;
        if metadata.is_dir() {
            listing.directory(root, &metadata)?;
        } else if metadata.is_file() {
            listing.file(root, &metadata);
        } else {
            return Err(Failure::fatal(format!(
                "cannot read {} as text: it is neither a file nor a directory; name a file, or a directory of files",
                root.display()
            )));
        }
    }
    Ok(listing.files.into_iter().collect())
}

#[derive(Default)]
struct Listing {
    files: BTreeSet<FoundFile>,
    /// Device and inode of the directories that were entered, because links may form circles.
    entered: BTreeSet<(u64, u64)>,
}

impl Listing {
    fn file(&mut self, path: &Path, metadata: &fs::Metadata) {
        self.files.insert(FoundFile { path: FilePath::from(path.to_owned()), bytes: metadata.len() });
    }

    fn directory(&mut self, path: &Path, metadata: &fs::Metadata) -> Result<(), Failure> {
        if !self.entered.insert((metadata.dev(), metadata.ino())) {
            return Ok(());
        }
        let refused = |cause| failure_of(&FileError::new("list the directory", path, cause), "");
        let Some(entries) = unless_vanished(fs::read_dir(path)).map_err(refused)? else { return Ok(()) };
        for entry in entries {
            let entry = entry.map_err(refused)?;
            if matches!(entry.file_name().as_bytes().first(), Some(b'.' | b'_')) {
                continue;
            }
            let path = entry.path();
            // Follows links.
            let metadata = unless_vanished(fs::metadata(&path));
            match metadata.map_err(|cause| failure_of(&FileError::new("look at", &path, cause), ""))? {
                Some(metadata) if metadata.is_dir() => self.directory(&path, &metadata)?,
                Some(metadata) if metadata.is_file() => self.file(&path, &metadata),
                _ => {}
            }
        }
        Ok(())
    }
}

/// What was deleted between being listed and being looked at was never there.
fn unless_vanished<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}
