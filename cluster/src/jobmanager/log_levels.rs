//! What is logged where, as it was set at run time: for the whole cluster, and stronger for workers of single jobs. Every
//! TaskManager is told all of it when it registers, and each change. With `high-availability.type: file` it outlives this
//! process, as the jobs do.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use millstream_client::proto::v1;
use millstream_model::{config::Configuration, fault::Failure, id::JobId, log::LogLevels};
use millstream_storage::{FileError, durable};
use serde::{Deserialize, Serialize};

use super::accepted::storage;

/// Below `high-availability.storageDir`.
const FILE: &str = "log-levels.json";

/// What was set.
#[derive(Default)]
pub(super) struct SetLevels {
    known: Mutex<Levels>,
    /// `None` if nothing outlives this process.
    file: Option<PathBuf>,
}

#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(default)]
struct Levels {
    all: LogLevels,
    jobs: BTreeMap<JobId, LogLevels>,
}

impl SetLevels {
    /// With what was set in the time of earlier JobManagers.
    ///
    /// # Errors
    /// If the configuration has a bad value.
    pub(super) fn open(configuration: &Configuration) -> Result<SetLevels, Failure> {
        let file = storage(configuration)?.map(|storage| storage.join(FILE));
        let known = file.as_deref().map(read).unwrap_or_default();
        Ok(SetLevels { known: Mutex::new(known), file })
    }

    /// Adds levels for a job or the cluster, after those that were set were forgotten, if that is wanted. Returns what is
    /// set then. Writes a file.
    pub(super) fn set(&self, job: Option<JobId>, levels: &LogLevels, reset: bool) -> LogLevels {
        let mut known = self.lock();
        let place = match job {
            Some(job) => known.jobs.entry(job).or_default(),
            None => &mut known.all,
        };
        *place = if reset { levels.clone() } else { place.with(levels) };
        let set = place.clone();
        known.jobs.retain(|_, levels| !levels.is_empty());
        self.keep(&known);
        set
    }

    /// For the whole cluster.
    pub(super) fn all(&self) -> LogLevels {
        self.lock().all.clone()
    }

    /// For jobs.
    pub(super) fn jobs(&self) -> Vec<(JobId, LogLevels)> {
        self.lock().jobs.iter().map(|(job, set)| (*job, set.clone())).collect()
    }

    /// A job has ended. Writes a file if anything was set for it.
    pub(super) fn forget(&self, job: JobId) {
        self.retain(|known| known != job);
    }

    /// Forgets jobs that are not there any more. Writes a file if anything was set for one.
    pub(super) fn retain(&self, is_there: impl Fn(JobId) -> bool) {
        let mut known = self.lock();
        let before = known.jobs.len();
        known.jobs.retain(|job, _| is_there(*job));
        if known.jobs.len() < before {
            self.keep(&known);
        }
    }

    /// Has it outlive this process. That it cannot be written is no reason to log something else than what was asked for.
    fn keep(&self, levels: &Levels) {
        let Some(file) = &self.file else { return };
        let bytes = serde_json::to_vec(levels).expect("levels have a form in JSON");
        if let Err(error) = durable::write(file, &bytes) {
            let path = file.display();
            tracing::warn!(%path, %error, "what is logged now will not be known to the next JobManager");
        }
    }

    /// What a TaskManager that registers is told: it may have been told other things by an earlier JobManager.
    pub(super) fn messages(&self) -> Vec<v1::LogLevels> {
        let all = v1::LogLevels { job_id: String::new(), levels: self.all().to_string() };
        let of_job =
            |(job, levels): (JobId, LogLevels)| v1::LogLevels { job_id: job.to_string(), levels: levels.to_string() };
        std::iter::once(all).chain(self.jobs().into_iter().map(of_job)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Levels> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is in the file; nothing, if it cannot be read: no job hangs on it.
fn read(file: &Path) -> Levels {
    let parse = |bytes: Vec<u8>| serde_json::from_slice(&bytes).map_err(|cause| cause.to_string());
    match durable::read(file).map_err(Unread::from).and_then(|bytes| parse(bytes).map_err(Unread::Malformed)) {
        Ok(levels) => levels,
        Err(Unread::Absent) => Levels::default(),
        Err(unread) => {
            let path = file.display();
            tracing::warn!(%path, %unread, "what was logged in the time of earlier JobManagers is not known");
            Levels::default()
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Unread {
    #[error("there is no such file")]
    Absent,
    #[error(transparent)]
    File(FileError),
    #[error("it is not understood: {0}")]
    Malformed(String),
}

impl From<FileError> for Unread {
    fn from(error: FileError) -> Unread {
        if error.is_not_found() { Unread::Absent } else { Unread::File(error) }
    }
}

#[cfg(test)]
mod tests {
    use millstream_model::config::Origin;

    use super::*;

    #[test]
    fn who_registers_is_told_all_that_was_set_and_nothing_else() {
        let set = SetLevels::default();
        let levels = |text: &str| text.parse::<LogLevels>().unwrap();
        set.set(None, &levels("app=DEBUG"), false);
        assert_eq!(set.set(None, &levels("WARN"), false).to_string(), "WARN,app=DEBUG");
        set.set(Some(JobId(1)), &levels("TRACE"), false);
        set.set(Some(JobId(2)), &levels("TRACE"), false);
        set.set(Some(JobId(2)), &LogLevels::default(), true);
        let told: Vec<_> = set.messages().into_iter().map(|told| (told.job_id, told.levels)).collect();
        let job = JobId(1).to_string();
        assert_eq!(told, [(String::new(), "WARN,app=DEBUG".to_owned()), (job, "TRACE".to_owned())]);
        set.forget(JobId(1));
        set.set(None, &LogLevels::default(), true);
        assert_eq!(set.messages(), [v1::LogLevels::default()]);
    }

    #[test]
    fn the_next_job_manager_knows_what_was_set_but_for_jobs_that_are_gone() {
        let root = tempfile::tempdir().unwrap();
        let levels = |text: &str| text.parse::<LogLevels>().unwrap();
        let mut configuration = Configuration::new();
        configuration.set_text("high-availability.type", "file", Origin::Program);
        configuration.set_text("high-availability.storageDir", root.path().to_str().unwrap(), Origin::Program);
        let set = SetLevels::open(&configuration).unwrap();
        assert_eq!(set.messages(), [v1::LogLevels::default()], "nothing was set yet");
        set.set(None, &levels("app=DEBUG"), false);
        for job in 1..=3 {
            set.set(Some(JobId(job)), &levels("TRACE"), false);
        }
        set.forget(JobId(1));

        let next = SetLevels::open(&configuration).unwrap();
        assert_eq!(next.messages(), set.messages());
        next.retain(|job| job == JobId(3));
        let third = SetLevels::open(&configuration).unwrap();
        assert_eq!((third.all(), third.jobs()), (levels("app=DEBUG"), vec![(JobId(3), levels("TRACE"))]));

        std::fs::write(root.path().join(FILE), "{\"all\":").unwrap();
        assert_eq!(SetLevels::open(&configuration).unwrap().messages(), [v1::LogLevels::default()]);
    }
}
