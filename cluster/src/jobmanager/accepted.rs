//! The jobs that were accepted and have not ended, in files that outlive this process: what a JobManager that is started
//! again takes up. Only with `high-availability.type: file`; otherwise jobs end with their JobManager.
//!
//! A job is stored before its client is told that it was accepted, and forgotten after its result was stored.

use std::{fs, io, path::PathBuf};

use millstream::worker_network::ClusterCa;
use millstream_model::{
    config::{Configuration, HIGH_AVAILABILITY, HIGH_AVAILABILITY_STORAGE_DIR, HighAvailability},
    fault::Failure,
    id::JobId,
    job_graph::JobGraph,
};
use millstream_storage::{FileError, durable, local_path};
use serde::{Deserialize, Serialize};

/// Below `high-availability.storageDir`.
const GRAPHS: &str = "job-graphs";
const ARTIFACTS: &str = "artifacts";

/// A job, and the authority of its workers: those that a JobManager has left running trust only workers that the same has
/// signed for.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct AcceptedJob {
    pub(super) graph: JobGraph,
    pub(super) authority: ClusterCa,
}

/// The accepted jobs.
#[derive(Debug)]
pub(super) struct AcceptedJobs {
    /// `None` if nothing outlives this process.
    directory: Option<PathBuf>,
}

/// Where a JobManager keeps what must outlive it, if anything must.
///
/// # Errors
/// If the configuration has a bad value.
pub(super) fn storage(configuration: &Configuration) -> Result<Option<PathBuf>, Failure> {
    if configuration.get(&HIGH_AVAILABILITY)? != HighAvailability::File {
        return Ok(None);
    }
    let directory = configuration.get(&HIGH_AVAILABILITY_STORAGE_DIR)?;
    let directory = directory.as_deref().map(local_path).transpose();
    directory.map_err(|cause| Failure::fatal(cause.to_string()))
}

/// Where artifacts of accepted jobs lie, if they are to outlive this process.
///
/// # Errors
/// If the configuration has a bad value.
pub(super) fn artifacts_directory(configuration: &Configuration) -> Result<Option<PathBuf>, Failure> {
    Ok(storage(configuration)?.map(|storage| storage.join(ARTIFACTS)))
}

impl AcceptedJobs {
    /// # Errors
    /// If the directory cannot be made.
    pub(super) fn open(configuration: &Configuration) -> Result<AcceptedJobs, Failure> {
        let directory = storage(configuration)?.map(|storage| storage.join(GRAPHS));
        if let Some(directory) = &directory {
            durable::create_directory(directory).map_err(not_stored)?;
        }
        Ok(AcceptedJobs { directory })
    }

    /// Whether jobs outlive this process.
    pub(super) fn are_kept(&self) -> bool {
        self.directory.is_some()
    }

    /// Makes a job outlive this process.
    ///
    /// # Errors
    /// If it cannot be written; then it must not be accepted.
    pub(super) fn store(&self, job: &AcceptedJob) -> Result<(), Failure> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let bytes = serde_json::to_vec(job).expect("jobs have a form in JSON");
        durable::write_secret(&directory.join(job.graph.job_id.to_string()), &bytes).map_err(not_stored)
    }

    /// The job has ended, or never began.
    pub(super) fn forget(&self, job: JobId) {
        let Some(directory) = &self.directory else { return };
        let forgotten = match fs::remove_file(directory.join(job.to_string())) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cause.to_string()),
            _ => durable::sync_directory(directory).map_err(|error| error.to_string()),
        };
        if let Err(cause) = forgotten {
            // It has a result, so it is not run again.
            tracing::warn!(%job, cause, "the graph of a job that has ended is left behind");
        }
    }

    /// All of them.
    ///
    /// # Errors
    /// If one cannot be read: it must not be lost silently.
    pub(super) fn all(&self) -> Result<Vec<AcceptedJob>, Failure> {
        let Some(directory) = &self.directory else { return Ok(Vec::new()) };
        let unreadable = |what: &dyn std::fmt::Display| {
            Failure::fatal(format!(
                "the accepted jobs in {} cannot be read: {what}; mend or remove the file, and with it the job",
                directory.display()
            ))
        };
        let mut jobs = Vec::new();
        for entry in fs::read_dir(directory).map_err(|cause| unreadable(&cause))? {
            let path = entry.map_err(|cause| unreadable(&cause))?.path();
            // What was being written when the power failed has no id as its name, and was never accepted.
            if path.file_name().and_then(|name| name.to_str()).is_none_or(|name| name.parse::<JobId>().is_err()) {
                continue;
            }
            let bytes = durable::read(&path).map_err(|cause| unreadable(&cause))?;
            let job = serde_json::from_slice(&bytes);
            jobs.push(job.map_err(|cause| unreadable(&format!("{}: {cause}", path.display())))?);
        }
        Ok(jobs)
    }
}

fn not_stored(error: FileError) -> Failure {
    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
    Failure::fatal(format!("the job cannot be stored (high-availability.storageDir): {error}{cause}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use millstream::worker_network::JobNetwork;
    use millstream_model::config::Origin;

    use super::*;

    fn configuration(root: &std::path::Path) -> Configuration {
        let mut configuration = Configuration::new();
        configuration.set_text("high-availability.type", "file", Origin::Program);
        configuration.set_text("high-availability.storageDir", root.to_str().unwrap(), Origin::Program);
        configuration
    }

    fn job(id: u128) -> AcceptedJob {
        let graph = JobGraph {
            job_id: JobId(id),
            name: "job".to_owned(),
            vertices: Vec::new(),
            edges: Vec::new(),
            configuration: Configuration::new(),
            artifact: None,
        };
        AcceptedJob { graph, authority: JobNetwork::new_authority(JobId(id)).unwrap() }
    }

    #[test]
    fn accepted_jobs_are_found_again_until_they_are_forgotten() {
        let root = tempfile::tempdir().unwrap();
        let configuration = configuration(root.path());
        let accepted = AcceptedJobs::open(&configuration).unwrap();
        accepted.store(&job(1)).unwrap();
        accepted.store(&job(2)).unwrap();
        let mode =
            fs::metadata(root.path().join("job-graphs").join(JobId(2).to_string())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "it has the key of the job's workers");
        accepted.forget(JobId(1));
        accepted.forget(JobId(3));
        let again = AcceptedJobs::open(&configuration).unwrap();
        assert_eq!(again.all().unwrap().iter().map(|job| job.graph.job_id).collect::<Vec<_>>(), [JobId(2)]);
    }

    #[test]
    fn a_damaged_file_is_an_error_that_names_it_and_half_a_file_is_none() {
        let root = tempfile::tempdir().unwrap();
        let accepted = AcceptedJobs::open(&configuration(root.path())).unwrap();
        fs::write(root.path().join("job-graphs/.half"), "{").unwrap();
        assert!(accepted.all().unwrap().is_empty());
        fs::write(root.path().join("job-graphs").join(JobId(7).to_string()), "{").unwrap();
        assert!(accepted.all().unwrap_err().message.contains(&JobId(7).to_string()));
    }

    #[test]
    fn without_high_availability_nothing_is_kept() {
        let accepted = AcceptedJobs::open(&Configuration::new()).unwrap();
        accepted.store(&job(1)).unwrap();
        assert!(accepted.all().unwrap().is_empty());
    }
}
