//! A file whose content was hashed, and how to see later that it is still that content without reading it again: an
//! executable has tens of megabytes, and each worker would read all of its own before it does anything.
//!
//! What the file system says of a file changes whenever the file does: its size and times, or which file is in its place. The
//! time of its last change (`ctime`) cannot be set to what it was. A change within the same tick of the file system's clock, some
//! milliseconds, that keeps the size goes unnoticed; so whoever says that a file has a hash must have its folder to himself, as
//! a TaskManager has, or run the file, which nobody can write to then.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A file and its hash.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HashedFile {
    /// In hexadecimal digits.
    sha256: String,
    stamp: Stamp,
}

/// What changes when a file does. Times are in seconds and nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(file: &Metadata) -> Stamp {
        Stamp {
            device: file.dev(),
            inode: file.ino(),
            bytes: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

impl HashedFile {
    /// Reads all of a file.
    ///
    /// # Errors
    /// If it cannot be read, or changes meanwhile.
    pub fn read(path: &Path) -> io::Result<HashedFile> {
        let file = fs::File::open(path)?;
        let stamp = Stamp::of(&file.metadata()?);
        let sha256 = hash(&file)?;
        if Stamp::of(&file.metadata()?) != stamp {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "it has changed while it was read"));
        }
        Ok(HashedFile { sha256, stamp })
    }

    /// For whoever has written all of the file, and knows that nobody has changed it.
    ///
    /// # Errors
    /// If there is no such file.
    pub fn written(path: &Path, sha256: String) -> io::Result<HashedFile> {
        Ok(HashedFile { sha256, stamp: Stamp::of(&fs::metadata(path)?) })
    }

    /// Whether this is the file, as it was.
    pub fn is(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|file| Stamp::of(&file) == self.stamp)
    }

    /// In hexadecimal digits.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }
}

fn hash(mut file: &fs::File) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut block = vec![0; 1 << 20];
    loop {
        match io::Read::read(&mut file, &mut block)? {
            0 => break,
            read => hasher.update(&block[..read]),
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH_OF_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_file_that_was_changed_or_replaced_is_not_taken_for_the_one_that_was_hashed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("artifact");
        fs::write(&path, "abc").unwrap();
        let hashed = HashedFile::read(&path).unwrap();
        assert_eq!(hashed.sha256(), HASH_OF_ABC);
        assert!(hashed.is(&path));
        assert_eq!(HashedFile::written(&path, HASH_OF_ABC.to_owned()).unwrap(), hashed);
        let text = serde_json::to_string(&hashed).unwrap();
        assert_eq!(serde_json::from_str::<HashedFile>(&text).unwrap(), hashed, "{text}");

        let (modified, replaced) = (fs::metadata(&path).unwrap().modified().unwrap(), folder.path().join("other"));
        let is_changed = |change: &dyn Fn()| {
            // The clock of file systems has ticks: until the next one nothing can be seen.
            let mut tries = 0;
            while hashed.is(&path) {
                tries += 1;
                assert!(tries < 100_000, "the change is never seen");
                change();
            }
        };
        is_changed(&|| {
            fs::write(&path, "abd").unwrap();
            // As whoever wants to hide it would.
            fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        });
        assert!(!hashed.is(&path));

        fs::write(&replaced, "abc").unwrap();
        fs::rename(&replaced, &path).unwrap();
        assert!(!hashed.is(&path), "another file is in its place");
        fs::remove_file(&path).unwrap();
        assert!(!hashed.is(&path));
    }
}
