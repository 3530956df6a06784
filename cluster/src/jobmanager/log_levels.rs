//! What is logged where, as it was set at run time: for the whole cluster, and stronger for workers of single jobs. Every
//! TaskManager is told all of it when it registers, and each change.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use millstream_client::proto::v1;
use millstream_model::{id::JobId, log::LogLevels};

/// What was set. Forgotten with this process.
#[derive(Default)]
pub(super) struct SetLevels(Mutex<Levels>);

#[derive(Default)]
struct Levels {
    all: LogLevels,
    jobs: BTreeMap<JobId, LogLevels>,
}

impl SetLevels {
    /// Adds levels for a job or the cluster, after those that were set were forgotten, if that is wanted. Returns what is
    /// set then.
    pub(super) fn set(&self, job: Option<JobId>, levels: &LogLevels, reset: bool) -> LogLevels {
        let mut known = self.lock();
        let place = match job {
            Some(job) => known.jobs.entry(job).or_default(),
            None => &mut known.all,
        };
        *place = if reset { levels.clone() } else { place.with(levels) };
        place.clone()
    }

    /// For the whole cluster.
    pub(super) fn all(&self) -> LogLevels {
        self.lock().all.clone()
    }

    /// For jobs.
    pub(super) fn jobs(&self) -> Vec<(JobId, LogLevels)> {
        self.lock().jobs.iter().filter(|(_, levels)| !levels.is_empty()).map(|(job, set)| (*job, set.clone())).collect()
    }

    /// A job has ended.
    pub(super) fn forget(&self, job: JobId) {
        self.lock().jobs.remove(&job);
    }

    /// What a TaskManager that registers is told: it may have been told other things by an earlier JobManager.
    pub(super) fn messages(&self) -> Vec<v1::LogLevels> {
        let all = v1::LogLevels { job_id: String::new(), levels: self.all().to_string() };
        let of_job =
            |(job, levels): (JobId, LogLevels)| v1::LogLevels { job_id: job.to_string(), levels: levels.to_string() };
        std::iter::once(all).chain(self.jobs().into_iter().map(of_job)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Levels> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
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
}
