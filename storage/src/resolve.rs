//! Which checkpoints a path means that a user gave: `execution.state-recovery.path`, or `-s` on the command line.

use std::path::{Path, PathBuf};

use millstream_model::{deployment::CompletedCheckpoint, fault::Remedy, id::JobId};

use crate::{
    checkpoint_directory::{entries, number_of},
    durable::FileError,
    metadata::{self, MetadataError, read_metadata},
};

/// What was found behind a path.
#[derive(Debug)]
pub struct Resolved {
    /// Checkpoints whose metadata is whole, newest first; at least one. Their files have not been looked at.
    pub candidates: Vec<CompletedCheckpoint>,
    /// Checkpoints that are passed over, because their metadata is damaged.
    pub damaged: Vec<MetadataError>,
}

/// Finds the checkpoints that `path` means. It may be
/// - a `_metadata` file, or the directory it is in: that checkpoint and no other;
/// - the directory of a job: its checkpoints;
/// - the directory of many jobs, `execution.checkpointing.dir`: those of the job that completed one last.
///
/// Unfinished checkpoints are passed over silently, damaged ones are reported.
pub fn resolve(path: &Path) -> Result<Resolved, ResolveError> {
    if path.is_file() {
        return one(path);
    }
    if let Err(source) = std::fs::read_dir(path) {
        return Err(ResolveError::File(FileError::new("open", path, source)));
    }
    let metadata = path.join(metadata::FILE_NAME);
    if metadata.is_file() {
        return one(&metadata);
    }
    let mut jobs = vec![path.to_owned()];
    jobs.extend(entries(path)?.into_iter().filter(|path| is_job(path)));
    let mut newest: Option<(std::time::SystemTime, Vec<PathBuf>)> = None;
    for job in jobs {
        let complete = complete_checkpoints(&job)?;
        let written = complete.iter().filter_map(|path| path.metadata().ok()?.modified().ok()).max();
        if let Some(written) = written.filter(|written| newest.as_ref().is_none_or(|(other, _)| other < written)) {
            newest = Some((written, complete));
        }
    }
    let Some((_, complete)) = newest else {
        return Err(ResolveError::Nothing { path: path.to_owned() });
    };
    let mut resolved = Resolved { candidates: Vec::new(), damaged: Vec::new() };
    for path in complete {
        match read_metadata(&path) {
            Ok(checkpoint) => resolved.candidates.push(checkpoint),
            Err(error) => resolved.damaged.push(error),
        }
    }
    if resolved.candidates.is_empty() {
        // Not empty, since a job without metadata files is not chosen.
        return Err(ResolveError::Damaged(resolved.damaged.swap_remove(0)));
    }
    Ok(resolved)
}

fn one(metadata: &Path) -> Result<Resolved, ResolveError> {
    let checkpoint = read_metadata(metadata).map_err(ResolveError::Damaged)?;
    Ok(Resolved { candidates: vec![checkpoint], damaged: Vec::new() })
}

/// The metadata files in a job's directory, that of the highest number first.
fn complete_checkpoints(job: &Path) -> Result<Vec<PathBuf>, FileError> {
    let mut numbered: Vec<_> = entries(job)?.into_iter().filter_map(|path| Some((number_of(&path)?, path))).collect();
    numbered.sort_unstable_by(|one, other| other.cmp(one));
    let metadata = numbered.into_iter().map(|(_, path)| path.join(metadata::FILE_NAME));
    Ok(metadata.filter(|path| path.is_file()).collect())
}

fn is_job(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.parse::<JobId>().is_ok())
}

/// Why a path leads to no checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Damaged(MetadataError),
    #[error(
        "there is no complete checkpoint in {path}: give a chk-<n> directory, its _metadata file, a job's directory, \
         or the directory of all checkpoints",
        path = .path.display()
    )]
    Nothing { path: PathBuf },
}

impl ResolveError {
    /// The path is the user's, and so is the remedy.
    pub fn remedy(&self) -> Remedy {
        Remedy::FailJob
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use millstream_model::id::CheckpointId;

    use super::*;
    use crate::checkpoint_directory::{CheckpointDirectory, tests::complete};

    fn numbers(path: &Path) -> Vec<u64> {
        resolve(path).unwrap().candidates.iter().map(|checkpoint| checkpoint.id.0).collect()
    }

    fn job_with(root: &Path, job: u128, numbers: &[u64]) -> CheckpointDirectory {
        let directory = CheckpointDirectory::new(root, JobId(job));
        numbers.iter().for_each(|number| drop(complete(&directory, *number)));
        directory
    }

    /// Makes a job's newest checkpoint this much younger than it is.
    fn rejuvenate(directory: &CheckpointDirectory, number: u64, by: Duration) {
        let file = fs::File::open(directory.of(CheckpointId(number)).join("_metadata")).unwrap();
        file.set_modified(file.metadata().unwrap().modified().unwrap() + by).unwrap();
    }

    #[test]
    fn every_form_of_the_path_is_understood() {
        let root = tempfile::tempdir().unwrap();
        let job = job_with(root.path(), 1, &[9, 10, 8]);
        let nine = job.of(CheckpointId(9));
        assert_eq!(numbers(&nine), [9]);
        assert_eq!(numbers(&nine.join("_metadata")), [9]);
        assert_eq!(numbers(job.path()), [10, 9, 8]);
        assert_eq!(numbers(root.path()), [10, 9, 8]);
    }

    #[test]
    fn the_checkpoints_of_two_jobs_are_never_mixed() {
        let root = tempfile::tempdir().unwrap();
        let one = job_with(root.path(), 1, &[7, 8]);
        job_with(root.path(), 2, &[100]);
        rejuvenate(&one, 7, Duration::from_secs(60));
        assert_eq!(numbers(root.path()), [8, 7]);
    }

    #[test]
    fn unfinished_checkpoints_are_passed_over_and_damaged_ones_reported() {
        let root = tempfile::tempdir().unwrap();
        let job = job_with(root.path(), 1, &[1, 2]);
        job.begin(CheckpointId(3)).unwrap();
        fs::write(job.of(CheckpointId(2)).join("_metadata"), b"nonsense").unwrap();
        let resolved = resolve(job.path()).unwrap();
        assert_eq!(resolved.candidates[0].id, CheckpointId(1));
        assert_eq!(resolved.damaged.len(), 1);
        // Named by itself, a damaged checkpoint is not silently replaced by another.
        assert!(matches!(resolve(&job.of(CheckpointId(2))), Err(ResolveError::Damaged(_))));
    }

    #[test]
    fn a_path_without_checkpoints_is_an_error_that_names_it() {
        let root = tempfile::tempdir().unwrap();
        for path in [root.path().to_owned(), root.path().join("missing")] {
            let text = resolve(&path).unwrap_err().to_string();
            assert!(text.contains(path.to_str().unwrap()), "{text}");
        }
    }
}
