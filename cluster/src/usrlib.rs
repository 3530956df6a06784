//! Artifacts that were put in place before a cluster of an application is started: Flink's `usrlib`. A TaskManager that has
//! the artifact of a job there need not download it.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use millstream::hashed_file::HashedFile;

use crate::artifacts::Located;

/// Names the folder; without it, `usrlib` in the working directory is looked at.
const VARIABLE: &str = "MILLSTREAM_USRLIB_DIR";

/// No artifact can be chosen.
#[derive(Debug, thiserror::Error)]
pub enum NoChoice {
    #[error("there is no artifact in {folder}: put the application's executable there, or name it (--artifact)")]
    Empty { folder: PathBuf },
    #[error("there are several files in {folder}: name the application's executable (--artifact): {}", .names.join(", "))]
    Several { folder: PathBuf, names: Vec<String> },
    #[error("cannot read {folder}")]
    Unreadable { folder: PathBuf, source: io::Error },
}

/// The folder.
pub fn folder() -> PathBuf {
    env::var_os(VARIABLE).map_or_else(|| PathBuf::from("usrlib"), PathBuf::from)
}

/// A file of this name in the folder, or else at this path; without a name, the only file in the folder.
///
/// # Errors
/// If there is none, or there are several.
pub fn choose(folder: &Path, name: Option<&Path>) -> Result<PathBuf, NoChoice> {
    if let Some(name) = name {
        let inside = folder.join(name);
        return Ok(if inside.is_file() { inside } else { name.to_owned() });
    }
    let files = files(folder).map_err(|source| NoChoice::Unreadable { folder: folder.to_owned(), source })?;
    match &files[..] {
        [] => Err(NoChoice::Empty { folder: folder.to_owned() }),
        [only] => Ok(only.clone()),
        several => {
            let name = |file: &PathBuf| file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Err(NoChoice::Several { folder: folder.to_owned(), names: several.iter().map(name).collect() })
        }
    }
}

/// The file in the folder that has this hash. Reads all of them.
pub(crate) fn find(folder: &Path, sha256: &str) -> Option<Located> {
    let mut hashed = files(folder).unwrap_or_default().into_iter().filter_map(|path| {
        let file = HashedFile::read(&path).ok()?;
        Some(Located { path, file })
    });
    hashed.find(|located| located.file.sha256() == sha256)
}

/// In the order of their names. A folder that is not there has none.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let paths: io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
    let mut files: Vec<PathBuf> = paths?.into_iter().filter(|path| path.is_file()).collect();
    files.sort();
    Ok(files)
}
