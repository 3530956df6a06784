//! What must survive a coordinator: one record per job, written by its leader alone.
//!
//! Every write is one transaction that compares two things first: the token of the leader that writes, and the version
//! of the record that it has read. So at most one coordinator's writes succeed per token, and a leader never overwrites
//! what it has not seen.

pub mod file;
pub mod memory;

use std::{fmt, io};

use millstream_model::{
    fault::{Failure, Remedy},
    id::{CheckpointId, Generation, JobId, LeaderEpoch, Subtask},
    state::JobStatus,
};
use millstream_storage::FileError;
use serde::{Deserialize, Serialize};

pub use file::FileStore;
pub use memory::MemoryStore;

/// What is kept of one job.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct JobRecord {
    /// Of this structure; 0 is the one before regions had generations of their own.
    #[serde(default)]
    pub format_version: u32,
    /// The highest that any region has had. Each deployment gets the next one.
    pub generation: Generation,
    /// The newest deployment of each region. Stored before its first message is sent.
    #[serde(default)]
    pub regions: Vec<RegionRecord>,
    /// The directory of the checkpoint that the user had the job start from. It is not the job's own, and never deleted.
    pub initial: Option<String>,
    /// The newest durable checkpoint. It only ever rises.
    pub pointer: Option<CheckpointId>,
    /// The durable checkpoints that are kept, ascending; the pointer is the last of them.
    pub retained: Vec<CheckpointId>,
    /// Checkpoints that are being deleted, and are not needed for anything. A file is deleted only while it is listed
    /// here.
    pub tombstones: Vec<CheckpointId>,
    /// How the job ended. A job that has one never runs again.
    pub result: Option<JobResult>,
}

impl JobRecord {
    /// What is written. Readers refuse higher versions.
    pub const FORMAT_VERSION: u32 = 1;

    /// The newest deployment of the region that begins with this subtask.
    pub fn region(&self, first: Subtask) -> Option<&RegionRecord> {
        self.regions.iter().find(|region| region.first == first)
    }
}

/// What is kept of a pipelined region.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RegionRecord {
    /// Its first subtask, which it is known by.
    pub first: Subtask,
    pub generation: Generation,
    /// How often it was deployed, with this time.
    pub attempt: u64,
    /// The directory of the checkpoint that this generation started from; `None` if it started empty.
    pub restored_from: Option<String>,
}

/// The end of a job.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct JobResult {
    pub status: JobStatus,
    pub failure: Option<Failure>,
}

/// Counts the writes to a record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Version(pub u64);

/// The records of all jobs. Calls block until the answer is durable; they are made by the threads of JobMasters.
pub trait Store: Send + Sync + fmt::Debug {
    /// The record of a job, and its version.
    fn load(&self, epoch: LeaderEpoch, job: JobId) -> Result<Option<(JobRecord, Version)>, StoreError>;

    /// Replaces the record that has version `expected`, or creates it if that is `None`. The version that it has now.
    fn write(
        &self,
        epoch: LeaderEpoch,
        job: JobId,
        expected: Option<Version>,
        record: &JobRecord,
    ) -> Result<Version, StoreError>;

    /// Removes the record that has version `expected`: the job and its result are forgotten.
    fn remove(&self, epoch: LeaderEpoch, job: JobId, expected: Version) -> Result<(), StoreError>;

    /// The jobs that have a record, in the order of their ids.
    fn jobs(&self, epoch: LeaderEpoch) -> Result<Vec<JobId>, StoreError>;
}

/// Why a record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("leader {ours:?} has been replaced by {current:?}: nothing was written")]
    Fenced { ours: LeaderEpoch, current: LeaderEpoch },
    #[error("the record of job {job} was expected at version {expected:?} and is at {actual:?}: nothing was written")]
    Conflict { job: JobId, expected: Option<Version>, actual: Option<Version> },
    /// A write may have happened or not; the record has to be read again.
    #[error(transparent)]
    File(#[from] FileError),
    #[error("the record of job {job} is damaged: {what}; restore the file or remove it to forget the job")]
    Damaged { job: JobId, what: String },
    #[error("the store in {directory} cannot be locked")]
    Lock { directory: String, source: io::Error },
}

impl StoreError {
    pub fn remedy(&self) -> Remedy {
        match self {
            // Another leader has the job; nothing here mends that.
            Self::Fenced { .. } | Self::Conflict { .. } | Self::Damaged { .. } => Remedy::FailJob,
            Self::File(_) => Remedy::Failover,
            Self::Lock { .. } => Remedy::Retry,
        }
    }

    /// Whether somebody else leads the job now.
    pub fn is_leadership_lost(&self) -> bool {
        matches!(self, Self::Fenced { .. } | Self::Conflict { .. })
    }
}

/// What every implementation has to do: run by the tests of each.
#[cfg(test)]
pub(crate) mod contract {
    use super::*;

    const JOB: JobId = JobId(7);

    fn record(generation: u64) -> JobRecord {
        JobRecord { generation: Generation(generation), ..JobRecord::default() }
    }

    /// `elect` makes the next leader.
    pub(crate) fn check(store: &dyn Store, mut elect: impl FnMut() -> LeaderEpoch) {
        let first = elect();
        assert!(store.load(first, JOB).unwrap().is_none());
        let one = store.write(first, JOB, None, &record(1)).unwrap();
        assert_eq!(store.load(first, JOB).unwrap(), Some((record(1), one)));

        // Neither creating what exists nor replacing what was not read succeeds.
        assert!(matches!(store.write(first, JOB, None, &record(9)), Err(StoreError::Conflict { .. })));
        let two = store.write(first, JOB, Some(one), &record(2)).unwrap();
        assert!(two > one);
        assert!(matches!(store.write(first, JOB, Some(one), &record(9)), Err(StoreError::Conflict { .. })));
        assert_eq!(store.load(first, JOB).unwrap(), Some((record(2), two)));

        // From the next election on, the old leader neither reads nor writes.
        let second = elect();
        assert!(second > first);
        assert!(matches!(store.write(first, JOB, Some(two), &record(9)), Err(StoreError::Fenced { .. })));
        assert!(matches!(store.remove(first, JOB, two), Err(StoreError::Fenced { .. })));
        assert!(matches!(store.load(first, JOB), Err(StoreError::Fenced { .. })));
        assert_eq!(store.load(second, JOB).unwrap(), Some((record(2), two)));
        assert_eq!(store.jobs(second).unwrap(), [JOB]);

        assert!(matches!(store.remove(second, JOB, one), Err(StoreError::Conflict { .. })));
        store.remove(second, JOB, two).unwrap();
        assert!(store.load(second, JOB).unwrap().is_none());
        assert!(store.jobs(second).unwrap().is_empty());
    }
}
