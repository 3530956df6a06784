//! The JobMaster's side of its record in the store.

use std::sync::Arc;

use millstream_model::id::{JobId, LeaderEpoch};

use crate::store::{JobRecord, Store, StoreError, Version};

/// The record as this leader last read or wrote it.
#[derive(Debug)]
pub(super) struct GuardedRecord {
    store: Arc<dyn Store>,
    epoch: LeaderEpoch,
    job: JobId,
    content: JobRecord,
    version: Option<Version>,
    /// Whether a write failed in a way that may have happened or not.
    is_uncertain: bool,
}

impl GuardedRecord {
    pub(super) fn load(store: Arc<dyn Store>, epoch: LeaderEpoch, job: JobId) -> Result<GuardedRecord, StoreError> {
        let mut record =
            GuardedRecord { store, epoch, job, content: JobRecord::default(), version: None, is_uncertain: true };
        record.reload()?;
        Ok(record)
    }

    /// Whether the job has run before.
    pub(super) fn exists(&self) -> bool {
        self.version.is_some()
    }

    pub(super) fn content(&self) -> &JobRecord {
        &self.content
    }

    /// Changes the record. When this returns without an error, the change is durable.
    pub(super) fn update(&mut self, change: impl Fn(&mut JobRecord)) -> Result<(), StoreError> {
        match self.try_update(&change) {
            // The write may have happened. Reading it back shows whether, and writing it again makes it durable.
            Err(error) if !error.is_leadership_lost() => self.try_update(&change).map_err(|_| error),
            result => result,
        }
    }

    fn try_update(&mut self, change: impl Fn(&mut JobRecord)) -> Result<(), StoreError> {
        if self.is_uncertain {
            self.reload()?;
        }
        let mut next = self.content.clone();
        change(&mut next);
        assert!(next.pointer >= self.content.pointer || next.result.is_some(), "the pointer never goes back");
        self.is_uncertain = true;
        self.version = Some(self.store.write(self.epoch, self.job, self.version, &next)?);
        self.is_uncertain = false;
        self.content = next;
        Ok(())
    }

    fn reload(&mut self) -> Result<(), StoreError> {
        let (content, version) = self.store.load(self.epoch, self.job)?.unzip();
        (self.content, self.version) = (content.unwrap_or_default(), version);
        self.is_uncertain = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use millstream_model::id::Generation;
    use millstream_storage::FileError;

    use super::*;
    use crate::store::MemoryStore;

    /// A fake store that reports a failure of writes that took place, as many as it is told.
    #[derive(Debug, Default)]
    struct Unsure {
        store: MemoryStore,
        failures: Mutex<u32>,
    }

    impl Store for Unsure {
        fn load(&self, epoch: LeaderEpoch, job: JobId) -> Result<Option<(JobRecord, Version)>, StoreError> {
            self.store.load(epoch, job)
        }

        fn write(
            &self,
            epoch: LeaderEpoch,
            job: JobId,
            expected: Option<Version>,
            record: &JobRecord,
        ) -> Result<Version, StoreError> {
            let version = self.store.write(epoch, job, expected, record)?;
            let mut failures = self.failures.lock().unwrap();
            if *failures == 0 {
                return Ok(version);
            }
            *failures -= 1;
            let source = std::io::ErrorKind::StorageFull.into();
            Err(FileError::new("sync", "record".as_ref(), source).into())
        }

        fn remove(&self, epoch: LeaderEpoch, job: JobId, expected: Version) -> Result<(), StoreError> {
            self.store.remove(epoch, job, expected)
        }

        fn jobs(&self, epoch: LeaderEpoch) -> Result<Vec<JobId>, StoreError> {
            self.store.jobs(epoch)
        }
    }

    #[test]
    fn a_write_that_may_have_happened_does_not_look_like_another_leaders() {
        let store = Arc::new(Unsure::default());
        let epoch = store.store.elect();
        let mut record = GuardedRecord::load(store.clone(), epoch, JobId(1)).unwrap();
        let set = |number| move |record: &mut JobRecord| record.generation = Generation(number);

        *store.failures.lock().unwrap() = 1;
        record.update(set(1)).unwrap();
        *store.failures.lock().unwrap() = 2;
        assert!(matches!(record.update(set(2)), Err(StoreError::File(_))));
        record.update(set(3)).unwrap();
        assert_eq!(store.load(epoch, JobId(1)).unwrap().unwrap().0.generation, Generation(3));
    }

    #[test]
    fn a_replaced_leader_is_told_so() {
        let store = Arc::new(MemoryStore::new());
        let mut record = GuardedRecord::load(store.clone(), store.elect(), JobId(1)).unwrap();
        store.elect();
        assert!(record.update(|_| {}).unwrap_err().is_leadership_lost());
    }
}
