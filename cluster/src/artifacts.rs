//! Artifacts in a directory, each under its SHA-256. What has the name has been checked to have the hash.

use std::{
    collections::HashMap,
    fs::Permissions,
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use millstream::hashed_file::HashedFile;
use millstream_model::{
    config::{Configuration, TEMPORARY_DIRECTORY},
    fault::Failure,
};
use sha2::{Digest, Sha256};
use tokio::{
    fs::{self, File},
    io::{AsyncReadExt, AsyncWriteExt},
};

/// The largest that is taken.
const LARGEST: u64 = 4 << 30;

/// The artifacts of one process.
#[derive(Debug)]
pub(crate) struct Artifacts {
    directory: PathBuf,
    /// Whether they outlive the process.
    are_kept: bool,
    /// By their hashes, those that this process has written or found elsewhere.
    known: Mutex<HashMap<String, Located>>,
}

/// An artifact's file.
#[derive(Clone, Debug)]
pub(crate) struct Located {
    pub(crate) path: PathBuf,
    /// What it was when its content was last looked at.
    pub(crate) file: HashedFile,
}

/// Why an artifact was not stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArtifactError {
    #[error("'{0}' is no SHA-256: 64 lower-case hexadecimal digits are expected")]
    BadHash(String),
    #[error("the artifact was to have the SHA-256 {expected} and has {actual}: it was damaged on its way")]
    Damaged { expected: String, actual: String },
    #[error("cannot read the artifact {file}: {source}", file = .file.display())]
    Unreadable { file: PathBuf, source: io::Error },
    #[error("the artifact is larger than {} GiB", LARGEST >> 30)]
    TooLarge,
    #[error("cannot store an artifact in {directory}: {source}", directory = .directory.display())]
    Io { directory: PathBuf, source: io::Error },
}

impl Artifacts {
    /// Makes a directory for a process that nobody but this user can look into.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(crate) fn open(configuration: &Configuration, process: &str) -> Result<Artifacts, Failure> {
        let temporary = configuration.get(&TEMPORARY_DIRECTORY)?.map_or_else(std::env::temp_dir, PathBuf::from);
        // A process of this id may have been killed and have left its own.
        let directory = temporary.join(format!("millstream-{process}-{:032x}", crate::random_id()));
        let made = std::fs::create_dir_all(&temporary)
            .and_then(|()| std::fs::create_dir(&directory))
            .and_then(|()| std::fs::set_permissions(&directory, Permissions::from_mode(0o700)));
        made.map_err(|cause| {
            Failure::fatal(format!("cannot make {} ({}): {cause}", directory.display(), TEMPORARY_DIRECTORY.name()))
        })?;
        Ok(Artifacts { directory, are_kept: false, known: Mutex::default() })
    }

    /// Artifacts that outlive the process, in a directory that nobody but this user can look into.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(crate) fn open_kept(directory: PathBuf) -> Result<Artifacts, Failure> {
        let made = std::fs::create_dir_all(&directory)
            .and_then(|()| std::fs::set_permissions(&directory, Permissions::from_mode(0o700)));
        made.map_err(|cause| Failure::fatal(format!("cannot make {}: {cause}", directory.display())))?;
        Ok(Artifacts { directory, are_kept: true, known: Mutex::default() })
    }

    /// Removes those that nobody needs.
    pub(crate) fn retain(&self, is_needed: impl Fn(&str) -> bool) {
        for entry in std::fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            if !entry.file_name().to_str().is_some_and(&is_needed)
                && let Err(cause) = std::fs::remove_file(entry.path())
            {
                tracing::warn!(path = %entry.path().display(), %cause, "an artifact that nobody needs is left behind");
            }
        }
    }

    /// Where the artifact is, if it is there.
    pub(crate) fn find(&self, sha256: &str) -> Option<PathBuf> {
        let path = self.directory.join(checked(sha256).ok()?);
        path.is_file().then_some(path)
    }

    /// Where an artifact is that this process has written or found elsewhere, if it has not changed since.
    pub(crate) fn locate(&self, sha256: &str) -> Option<Located> {
        let known = self.known().get(sha256).cloned();
        known.filter(|known| known.file.is(&known.path))
    }

    /// From now on this is known.
    pub(crate) fn note(&self, located: Located) {
        self.known().insert(located.file.sha256().to_owned(), located);
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Located>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to store an artifact.
    pub(crate) async fn begin(&self, sha256: &str) -> Result<Incoming<'_>, ArtifactError> {
        checked(sha256)?;
        self.incoming(Some(sha256.to_owned()))
    }

    /// Begins to store an artifact whose hash is not known before it has come.
    pub(crate) async fn begin_unnamed(&self) -> Result<Incoming<'_>, ArtifactError> {
        self.incoming(None)
    }

    /// Stores a file of this machine. Where it is then.
    pub(crate) async fn import(&self, file: &Path) -> Result<(PathBuf, String), ArtifactError> {
        let unreadable = |source| ArtifactError::Unreadable { file: file.to_owned(), source };
        let mut source = File::open(file).await.map_err(unreadable)?;
        let mut incoming = self.begin_unnamed().await?;
        let mut piece = vec![0; 1 << 20];
        loop {
            match source.read(&mut piece).await.map_err(unreadable)? {
                0 => break,
                length => incoming.write(&piece[..length]).await?,
            }
        }
        let sealed = incoming.seal().await?;
        let sha256 = sealed.sha256.clone();
        sealed.keep().await?;
        Ok((self.directory.join(&sha256), sha256))
    }

    /// Removes an artifact, if it is there.
    pub(crate) async fn remove(&self, sha256: &str) {
        let Some(path) = self.find(sha256) else { return };
        if let Err(cause) = fs::remove_file(&path).await {
            tracing::warn!(path = %path.display(), %cause, "an artifact that nobody needs is left behind");
        }
    }

    fn incoming(&self, expected: Option<String>) -> Result<Incoming<'_>, ArtifactError> {
        let (file, path) = match tempfile::NamedTempFile::new_in(&self.directory) {
            Ok(file) => file.into_parts(),
            Err(source) => return Err(self.error(source)),
        };
        let file = File::from_std(file);
        Ok(Incoming { artifacts: self, expected, hasher: Sha256::new(), bytes: 0, file, path })
    }

    fn error(&self, source: io::Error) -> ArtifactError {
        ArtifactError::Io { directory: self.directory.clone(), source }
    }
}

impl Drop for Artifacts {
    fn drop(&mut self) {
        if self.are_kept {
            return;
        }
        if let Err(cause) = std::fs::remove_dir_all(&self.directory) {
            tracing::warn!(directory = %self.directory.display(), %cause, "artifacts are left behind");
        }
    }
}

/// An artifact that is on its way. What is not finished leaves nothing behind.
#[derive(Debug)]
pub(crate) struct Incoming<'a> {
    artifacts: &'a Artifacts,
    expected: Option<String>,
    hasher: Sha256,
    bytes: u64,
    file: File,
    path: tempfile::TempPath,
}

/// An artifact that is whole and has no name yet. What is not kept leaves nothing behind.
#[derive(Debug)]
pub(crate) struct Sealed<'a> {
    artifacts: &'a Artifacts,
    pub(crate) sha256: String,
    bytes: u64,
    path: tempfile::TempPath,
}

impl<'a> Incoming<'a> {
    pub(crate) async fn write(&mut self, chunk: &[u8]) -> Result<(), ArtifactError> {
        self.bytes += chunk.len() as u64;
        if self.bytes > LARGEST {
            return Err(ArtifactError::TooLarge);
        }
        self.hasher.update(chunk);
        self.file.write_all(chunk).await.map_err(|source| self.artifacts.error(source))
    }

    /// Gives the artifact its name, if it is what it was said to be. How large it is.
    pub(crate) async fn finish(self) -> Result<u64, ArtifactError> {
        self.seal().await?.keep().await
    }

    /// Nothing more comes.
    pub(crate) async fn seal(mut self) -> Result<Sealed<'a>, ArtifactError> {
        let actual: String = self.hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if let Some(expected) = self.expected.filter(|expected| actual != *expected) {
            return Err(ArtifactError::Damaged { expected, actual });
        }
        let error = |source| self.artifacts.error(source);
        self.file.flush().await.map_err(error)?;
        self.file.sync_all().await.map_err(error)?;
        // Closed before it gets its name: what is open for writing cannot be started.
        drop(self.file.into_std().await);
        Ok(Sealed { artifacts: self.artifacts, sha256: actual, bytes: self.bytes, path: self.path })
    }
}

impl Sealed<'_> {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it its name. How large it is.
    pub(crate) async fn keep(self) -> Result<u64, ArtifactError> {
        let error = |source| self.artifacts.error(source);
        fs::set_permissions(&self.path, Permissions::from_mode(0o500)).await.map_err(error)?;
        let name = self.artifacts.directory.join(&self.sha256);
        self.path.persist(&name).map_err(|failed| self.artifacts.error(failed.error))?;
        // Its name, too, has to be there after a power loss, if it is kept.
        File::open(&self.artifacts.directory).await.map_err(error)?.sync_all().await.map_err(error)?;
        // One that is gone again is not found.
        if let Ok(file) = HashedFile::written(&name, self.sha256) {
            self.artifacts.note(Located { path: name, file });
        }
        Ok(self.bytes)
    }
}

/// A hash that is none must not become a path.
fn checked(sha256: &str) -> Result<&Path, ArtifactError> {
    let is_hash = sha256.len() == 64 && sha256.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if is_hash { Ok(Path::new(sha256)) } else { Err(ArtifactError::BadHash(sha256.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH_OF_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn artifacts(root: &Path) -> Artifacts {
        let mut configuration = Configuration::new();
        configuration.set_text("io.tmp.dirs", root.to_str().unwrap(), millstream_model::config::Origin::Program);
        Artifacts::open(&configuration, "test").unwrap()
    }

    #[tokio::test]
    async fn an_artifact_is_there_when_it_is_whole_and_what_it_was_said_to_be() {
        let root = tempfile::tempdir().unwrap();
        let artifacts = artifacts(root.path());
        let mut incoming = artifacts.begin(HASH_OF_ABC).await.unwrap();
        incoming.write(b"a").await.unwrap();
        assert_eq!(artifacts.find(HASH_OF_ABC), None);
        incoming.write(b"bc").await.unwrap();
        assert_eq!(incoming.finish().await.unwrap(), 3);
        let path = artifacts.find(HASH_OF_ABC).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"abc");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o500);
        let located = artifacts.locate(HASH_OF_ABC).expect("it is as it was written");
        assert_eq!((&located.path, located.file), (&path, HashedFile::read(&path).unwrap()));
        std::fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
        std::fs::write(&path, b"another").unwrap();
        assert!(artifacts.locate(HASH_OF_ABC).is_none(), "it was changed");
        drop(artifacts);
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0, "nothing is left");
    }

    #[tokio::test]
    async fn what_is_damaged_or_no_hash_is_refused_and_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let artifacts = artifacts(root.path());
        let mut incoming = artifacts.begin(HASH_OF_ABC).await.unwrap();
        incoming.write(b"abd").await.unwrap();
        assert!(matches!(incoming.finish().await, Err(ArtifactError::Damaged { .. })));
        for bad in ["", "../../etc/passwd", &HASH_OF_ABC.to_uppercase(), &HASH_OF_ABC[1..]] {
            assert!(matches!(artifacts.begin(bad).await, Err(ArtifactError::BadHash(_))), "{bad}");
            assert_eq!(artifacts.find(bad), None);
        }
        assert_eq!(std::fs::read_dir(&artifacts.directory).unwrap().count(), 0, "nothing is left");
    }
}
