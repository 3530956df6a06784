//! What jobs have committed, as the world outside sees it: the judge of exactly-once.

use std::collections::{BTreeMap, BTreeSet};

use millstream_model::id::{CheckpointId, JobId};
use serde::{Deserialize, Serialize};

/// One result: the record it comes of, and how many of its key there were up to then.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Line {
    pub source: u32,
    pub number: u64,
    pub key: u64,
    pub count: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Output {
    transactions: BTreeMap<(JobId, u32, CheckpointId), Vec<Line>>,
    jobs: BTreeMap<JobId, Committed>,
}

#[derive(Clone, Debug, Default)]
struct Committed {
    records: BTreeSet<(u32, u64)>,
    counts: BTreeSet<(u64, u64)>,
}

impl Output {
    /// Commits a transaction. Again is no harm: its name is its identity.
    ///
    /// # Errors
    /// If the output would not be exactly-once.
    pub fn commit(&mut self, job: JobId, sink: u32, checkpoint: CheckpointId, lines: &[Line]) -> Result<(), String> {
        if let Some(before) = self.transactions.get(&(job, sink, checkpoint)) {
            if before != lines {
                return Err(format!("sink {sink} commits checkpoint {checkpoint} a second time and otherwise"));
            }
            return Ok(());
        }
        self.transactions.insert((job, sink, checkpoint), lines.to_vec());
        let committed = self.jobs.entry(job).or_default();
        for Line { source, number, key, count } in lines {
            if !committed.records.insert((*source, *number)) {
                return Err(format!("record {number} of source {source} was committed twice"));
            }
            if !committed.counts.insert((*key, *count)) {
                return Err(format!("key {key} reached {count} twice: its state counted a record not once"));
            }
        }
        Ok(())
    }

    /// Checks the output of a job that has finished.
    ///
    /// # Errors
    /// If something is missing.
    pub fn complete(&self, job: JobId, sources: &[u32], records: u64) -> Result<(), String> {
        let nothing = Committed::default();
        let committed = self.jobs.get(&job).unwrap_or(&nothing);
        let missing = |source: u32| (0..records).find(|number| !committed.records.contains(&(source, *number)));
        if let Some((source, number)) = sources.iter().find_map(|source| Some((source, missing(*source)?))) {
            return Err(format!("record {number} of source {source} was never committed"));
        }
        let mut highest = BTreeMap::<u64, u64>::new();
        highest.extend(committed.counts.iter().copied());
        if highest.values().sum::<u64>() != committed.counts.len() as u64 {
            return Err("the counts of keys have gaps".to_owned());
        }
        Ok(())
    }
}
