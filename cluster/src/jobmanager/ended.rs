//! What is left of jobs that have ended, in files that outlive this process: who asks the next JobManager is told how they
//! ended, and when. Only with `high-availability.type: file`. Whether a job may run again does not hang on these files: that
//! is in the store.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use millstream_client::proto::v1;
use millstream_model::{config::Configuration, fault::Failure, id::JobId, state::JobStatus};
use millstream_storage::durable;
use prost::Message;

use super::accepted::storage;

/// Below `high-availability.storageDir`.
const RESULTS: &str = "job-results";

/// A job that has ended with an earlier JobManager, and its result without what sinks have collected.
#[derive(Clone, Debug)]
pub(super) struct EndedJob {
    pub(super) job: v1::Job,
    pub(super) result: v1::JobResult,
}

impl EndedJob {
    /// `None` if a later release has written a status that this one does not know.
    pub(super) fn status(&self) -> Option<JobStatus> {
        self.job.status().try_into().ok()
    }
}

/// The files.
#[derive(Debug)]
pub(super) struct EndedJobs {
    /// `None` if nothing outlives this process.
    directory: Option<PathBuf>,
}

impl EndedJobs {
    /// # Errors
    /// If the directory cannot be made.
    pub(super) fn open(configuration: &Configuration) -> Result<EndedJobs, Failure> {
        let directory = storage(configuration)?.map(|storage| storage.join(RESULTS));
        if let Some(directory) = &directory {
            durable::create_directory(directory).map_err(|error| {
                Failure::fatal(format!("results of jobs cannot be kept (high-availability.storageDir): {error}"))
            })?;
        }
        Ok(EndedJobs { directory })
    }

    /// Keeps what is left of a job. That it could not be kept is no reason to fail anything.
    pub(super) fn store(&self, ended: EndedJob) {
        let (Some(directory), EndedJob { job, mut result }) = (&self.directory, ended) else { return };
        // Records may be many, and are for who has waited.
        result.collected.clear();
        let id = job.job_id.clone();
        let message = v1::GetJobResponse { job: Some(job), result: Some(result) };
        if let Err(error) = durable::write(&directory.join(&id), &message.encode_to_vec()) {
            tracing::warn!(job = id, %error, "the end of a job will not be known to the next JobManager");
        }
    }

    /// The newest `most` of them. Those beyond are removed, and one that cannot be read is passed over.
    pub(super) fn load(&self, most: usize) -> BTreeMap<JobId, EndedJob> {
        let Some(directory) = &self.directory else { return BTreeMap::new() };
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let mut found: Vec<(JobId, PathBuf, EndedJob)> = Vec::new();
        for path in entries.map(|entry| entry.path()) {
            // What was being written when the power failed has no id as its name.
            let id = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<JobId>().ok());
            let Some(id) = id else { continue };
            match read(&path) {
                Ok(ended) => found.push((id, path, ended)),
                Err(cause) => tracing::warn!(path = %path.display(), %cause, "the end of a job cannot be read"),
            }
        }
        found.sort_by_key(|(id, _, ended)| (std::cmp::Reverse(ended.job.end_time_millis), *id));
        for (_, path, _) in found.iter().skip(most) {
            if let Err(cause) = fs::remove_file(path) {
                tracing::warn!(path = %path.display(), %cause, "what is left of an old job cannot be removed");
            }
        }
        found.into_iter().take(most).map(|(id, _, ended)| (id, ended)).collect()
    }
}

fn read(path: &Path) -> io::Result<EndedJob> {
    let bytes = fs::read(path)?;
    let malformed = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let message = v1::GetJobResponse::decode(&*bytes).map_err(|cause| malformed(&cause.to_string()))?;
    match (message.job, message.result) {
        (Some(job), Some(result)) => Ok(EndedJob { job, result }),
        _ => Err(malformed("a part is missing")),
    }
}

#[cfg(test)]
mod tests {
    use millstream_model::config::Origin;

    use super::*;

    fn ended(id: u128, end_time_millis: i64) -> EndedJob {
        let job = v1::Job {
            job_id: JobId(id).to_string(),
            name: "job".to_owned(),
            status: v1::JobStatus::Failed.into(),
            end_time_millis,
            ..v1::Job::default()
        };
        let collected = vec![v1::Collected { operator_id: String::new(), records: vec![1; 100] }];
        let result = v1::JobResult { status: v1::JobStatus::Failed.into(), collected, ..v1::JobResult::default() };
        EndedJob { job, result }
    }

    #[test]
    fn the_newest_are_found_again_without_their_records_and_older_ones_are_removed() {
        let root = tempfile::tempdir().unwrap();
        let mut configuration = Configuration::new();
        configuration.set_text("high-availability.type", "file", Origin::Program);
        configuration.set_text("high-availability.storageDir", root.path().to_str().unwrap(), Origin::Program);
        let jobs = EndedJobs::open(&configuration).unwrap();
        for (id, at) in [(1, 30), (2, 10), (3, 20)] {
            jobs.store(ended(id, at));
        }
        fs::write(root.path().join("job-results").join(JobId(4).to_string()), "nonsense").unwrap();
        fs::write(root.path().join("job-results/.half"), "").unwrap();
        let found = EndedJobs::open(&configuration).unwrap().load(2);
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), [JobId(1), JobId(3)]);
        assert_eq!(found[&JobId(3)].job, ended(3, 20).job);
        assert!(found[&JobId(3)].result.collected.is_empty());
        assert_eq!(jobs.load(9).len(), 2, "the oldest is gone for good");

        let nothing = EndedJobs::open(&Configuration::new()).unwrap();
        nothing.store(ended(1, 1));
        assert!(nothing.load(9).is_empty());
    }
}
