//! The folder of `web.upload.dir`: what was uploaded is kept there under its id, and is there again for the JobManager
//! that comes next.
//!
//! What has another name than an upload is left alone: the folder is the user's.

use std::{
    io,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use millstream_model::{
    config::{Configuration, WEB_UPLOAD_DIRECTORY},
    fault::Failure,
};
use tokio::fs;

use super::jars::{Jar, name_of};
use crate::artifacts::Artifacts;

/// The folder in the one that was configured, as Flink has its `flink-web-upload` there.
const FOLDER: &str = "millstream-web-upload";

#[derive(Debug)]
pub(super) struct UploadFolder(PathBuf);

impl UploadFolder {
    /// The configured folder, if there is one.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(super) fn open(configuration: &Configuration) -> Result<Option<UploadFolder>, Failure> {
        let Some(directory) = configuration.get(&WEB_UPLOAD_DIRECTORY)? else { return Ok(None) };
        let folder = Path::new(&directory).join(FOLDER);
        std::fs::create_dir_all(&folder).map_err(|cause| {
            Failure::fatal(format!("cannot make {} ({}): {cause}", folder.display(), WEB_UPLOAD_DIRECTORY.name()))
        })?;
        Ok(Some(UploadFolder(folder)))
    }

    /// Keeps an artifact that is stored at `path`.
    ///
    /// # Errors
    /// Such as a full disk; nothing is left behind then.
    pub(super) async fn keep(&self, id: &str, path: &Path) -> io::Result<()> {
        let place = self.0.join(id);
        // Of one file system it takes no room of its own.
        if fs::hard_link(path, &place).await.is_ok() {
            return Ok(());
        }
        let unfinished = tempfile::NamedTempFile::new_in(&self.0)?.into_temp_path();
        fs::copy(path, &unfinished).await?;
        unfinished.persist(&place).map_err(|failed| failed.error)
    }

    pub(super) async fn remove(&self, id: &str) {
        let path = self.0.join(id);
        if let Err(cause) = fs::remove_file(&path).await {
            tracing::warn!(path = %path.display(), %cause, "an uploaded artifact is left behind");
        }
    }

    /// Stores what earlier JobManagers have kept; its ids, and what each stands for.
    pub(super) async fn load(&self, artifacts: &Artifacts) -> Vec<(String, Jar)> {
        let mut found = Vec::new();
        let entries = std::fs::read_dir(&self.0);
        let entries = entries.inspect_err(|cause| {
            tracing::warn!(path = %self.0.display(), %cause, "what was uploaded before cannot be listed");
        });
        for entry in entries.into_iter().flatten().flatten() {
            let Ok(id) = entry.file_name().into_string() else { continue };
            let Some(name) = name_of(&id).map(str::to_owned) else { continue };
            match artifacts.import(&entry.path()).await {
                Ok((_, sha256)) => found.push((id, Jar { name, sha256, uploaded_millis: written_millis(&entry) })),
                Err(cause) => tracing::warn!(id, %cause, "an artifact that was uploaded before cannot be had"),
            }
        }
        found
    }
}

fn written_millis(entry: &std::fs::DirEntry) -> i64 {
    let written = entry.metadata().and_then(|metadata| metadata.modified()).ok();
    let since = written.and_then(|written| written.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |since| since.as_millis() as i64)
}
