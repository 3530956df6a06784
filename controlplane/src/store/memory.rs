//! Records in the memory of this process: they survive a JobMaster, but not the process.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use millstream_model::id::{JobId, LeaderEpoch};

use super::{JobRecord, Store, StoreError, Version};

/// A store in memory, for the embedded MiniCluster and for tests.
#[derive(Debug, Default)]
pub struct MemoryStore {
    content: Mutex<Content>,
}

#[derive(Debug, Default)]
struct Content {
    epoch: LeaderEpoch,
    jobs: BTreeMap<JobId, (JobRecord, Version)>,
    /// Never reused, so that a record that is removed and made again is another one.
    last_version: u64,
}

impl MemoryStore {
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    /// Makes a new leader: all older ones are fenced off from now on.
    pub fn elect(&self) -> LeaderEpoch {
        let mut content = self.lock();
        content.epoch.revision += 1;
        content.epoch
    }

    /// The content is replaced as a whole, so a panic elsewhere cannot have left it half-changed.
    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_as(&self, epoch: LeaderEpoch) -> Result<MutexGuard<'_, Content>, StoreError> {
        let content = self.lock();
        match content.epoch {
            current if current == epoch => Ok(content),
            current => Err(StoreError::Fenced { ours: epoch, current }),
        }
    }
}

impl Content {
    fn check(&self, job: JobId, expected: Option<Version>) -> Result<(), StoreError> {
        let actual = self.jobs.get(&job).map(|(_, version)| *version);
        if actual == expected { Ok(()) } else { Err(StoreError::Conflict { job, expected, actual }) }
    }
}

impl Store for MemoryStore {
    fn load(&self, epoch: LeaderEpoch, job: JobId) -> Result<Option<(JobRecord, Version)>, StoreError> {
        Ok(self.lock_as(epoch)?.jobs.get(&job).cloned())
    }

    fn write(
        &self,
        epoch: LeaderEpoch,
        job: JobId,
        expected: Option<Version>,
        record: &JobRecord,
    ) -> Result<Version, StoreError> {
        let mut content = self.lock_as(epoch)?;
        content.check(job, expected)?;
        content.last_version += 1;
        let version = Version(content.last_version);
        content.jobs.insert(job, (record.clone(), version));
        Ok(version)
    }

    fn remove(&self, epoch: LeaderEpoch, job: JobId, expected: Version) -> Result<(), StoreError> {
        let mut content = self.lock_as(epoch)?;
        content.check(job, Some(expected))?;
        content.jobs.remove(&job);
        Ok(())
    }

    fn jobs(&self, epoch: LeaderEpoch) -> Result<Vec<JobId>, StoreError> {
        Ok(self.lock_as(epoch)?.jobs.keys().copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_the_contract_of_a_store() {
        let store = MemoryStore::new();
        super::super::contract::check(&store, || store.elect());
    }
}
