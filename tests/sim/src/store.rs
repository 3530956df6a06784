//! The store that survives simulated JobManagers: the real one in memory, with faults, and watched from outside.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
};

use millstream_controlplane::{
    JobRecord, Store, StoreError,
    store::{MemoryStore, Version},
};
use millstream_model::id::{CheckpointId, JobId, LeaderEpoch};
use millstream_storage::{CheckpointDirectory, FileError};

/// What becomes of the next write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteFault {
    /// It fails, and nothing was written.
    NotWritten,
    /// It is written, and the answer is lost.
    AnswerLost,
}

#[derive(Debug)]
pub struct SimStore {
    real: Arc<MemoryStore>,
    checkpoints: PathBuf,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    leader: LeaderEpoch,
    fault: Option<WriteFault>,
    records: BTreeMap<JobId, JobRecord>,
    /// The highest pointer that was ever durable.
    durable: BTreeMap<JobId, CheckpointId>,
    violations: Vec<String>,
    /// What was written, for the trace.
    news: Vec<String>,
    fenced: u64,
}

impl SimStore {
    /// Records beside checkpoints below this directory.
    pub fn new(real: Arc<MemoryStore>, checkpoints: PathBuf) -> SimStore {
        SimStore { real, checkpoints, seen: Mutex::default() }
    }

    /// Somebody was elected: nobody else may write from now on.
    pub fn on_elected(&self, leader: LeaderEpoch) {
        let mut seen = self.seen();
        if leader <= seen.leader {
            let old = seen.leader;
            seen.violations.push(format!("leader {leader:?} is not above the one before it, {old:?}"));
        }
        seen.leader = leader;
    }

    pub fn inject(&self, fault: WriteFault) {
        self.seen().fault = Some(fault);
    }

    pub fn record(&self, job: JobId) -> Option<JobRecord> {
        self.seen().records.get(&job).cloned()
    }

    pub fn has_result(&self, job: JobId) -> bool {
        self.seen().records.get(&job).is_some_and(|record| record.result.is_some())
    }

    pub fn durable(&self, job: JobId) -> Option<CheckpointId> {
        self.seen().durable.get(&job).copied()
    }

    /// How many calls of replaced leaders were refused.
    pub fn fenced(&self) -> u64 {
        self.seen().fenced
    }

    pub fn take_violations(&self) -> Vec<String> {
        std::mem::take(&mut self.seen().violations)
    }

    pub fn take_news(&self) -> Vec<String> {
        std::mem::take(&mut self.seen().news)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("nothing panics while it is held")
    }

    fn watch(&self, epoch: LeaderEpoch, job: JobId, record: &JobRecord) {
        let mut seen = self.seen();
        let mut wrong = Vec::new();
        if epoch != seen.leader {
            wrong.push(format!("a write of {epoch:?} landed, and {:?} leads", seen.leader));
        }
        if let Some(before) = seen.records.get(&job) {
            if before.result.is_some() && *before != *record {
                wrong.push("a job that has a result was written to".to_owned());
            }
            if record.generation < before.generation {
                wrong.push(format!("generation {:?} follows {:?}", record.generation, before.generation));
            }
            for region in &before.regions {
                let after = record.region(region.first).map(|region| region.generation);
                if after < Some(region.generation) {
                    wrong.push(format!("region {} goes from {:?} to {after:?}", region.first, region.generation));
                }
            }
            if record.result.is_none() && record.pointer < before.pointer {
                wrong.push(format!("the pointer went back to {:?} from {:?}", record.pointer, before.pointer));
            }
        }
        let generations: BTreeSet<_> = record.regions.iter().map(|region| region.generation).collect();
        if generations.len() != record.regions.len() || generations.last() > Some(&record.generation) {
            wrong.push(format!("generations are not each of one region: {:?}", record.regions));
        }
        if record.result.is_none() && record.pointer != record.retained.last().copied() {
            wrong.push(format!("the pointer {:?} is not the newest of {:?}", record.pointer, record.retained));
        }
        let directory = CheckpointDirectory::new(&self.checkpoints, job);
        for checkpoint in &record.retained {
            if !directory.is_complete(*checkpoint) {
                wrong.push(format!("checkpoint {checkpoint} is retained and has no metadata"));
            }
        }
        let short = short(job);
        let (generation, pointer) = (record.generation.0, record.pointer.map_or(0, |pointer| pointer.0));
        let result = record.result.as_ref().map(|result| result.status);
        seen.news.push(format!("store: {short} generation {generation} pointer {pointer} result {result:?}"));
        seen.violations.extend(wrong.into_iter().map(|wrong| format!("{short}: {wrong}")));
        if let Some(pointer) = record.pointer {
            let durable = seen.durable.entry(job).or_insert(pointer);
            *durable = (*durable).max(pointer);
        }
        seen.records.insert(job, record.clone());
    }
}

impl Store for SimStore {
    fn load(&self, epoch: LeaderEpoch, job: JobId) -> Result<Option<(JobRecord, Version)>, StoreError> {
        self.real.load(epoch, job)
    }

    fn write(
        &self,
        epoch: LeaderEpoch,
        job: JobId,
        expected: Option<Version>,
        record: &JobRecord,
    ) -> Result<Version, StoreError> {
        let lost = || Err(FileError::new("sync", "record".as_ref(), std::io::ErrorKind::TimedOut.into()).into());
        let fault = self.seen().fault.take();
        if fault == Some(WriteFault::NotWritten) {
            return lost();
        }
        match self.real.write(epoch, job, expected, record) {
            Ok(version) => {
                self.watch(epoch, job, record);
                if fault.is_some() { lost() } else { Ok(version) }
            }
            Err(error) => {
                self.seen().fenced += u64::from(error.is_leadership_lost());
                Err(error)
            }
        }
    }

    fn remove(&self, epoch: LeaderEpoch, job: JobId, expected: Version) -> Result<(), StoreError> {
        self.real.remove(epoch, job, expected)
    }

    fn jobs(&self, epoch: LeaderEpoch) -> Result<Vec<JobId>, StoreError> {
        self.real.jobs(epoch)
    }
}

/// A job's name in a trace.
pub fn short(job: JobId) -> String {
    format!("job {:x}", job.0)
}
