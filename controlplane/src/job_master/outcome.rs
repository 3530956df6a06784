//! What is known of a job while it runs, and when it has ended.

use std::{collections::BTreeMap, time::Duration};

use millstream_model::{
    fault::Failure,
    id::{JobId, JobVertexId, OperatorId, Subtask, WorkerId},
    message::{ShuffleMetrics, TaskMetrics},
    rates::TaskRates,
    state::JobStatus,
};

use super::snapshot::TaskCounts;
use crate::{checkpoint::CheckpointStats, clock::Moment};

/// How a job ended.
#[derive(Clone, PartialEq, Debug)]
pub struct JobOutcome {
    pub job: JobId,
    /// Finished, canceled or failed. Any other one means that this coordinator does not lead the job any more, and that
    /// the job goes on without it.
    pub status: JobStatus,
    /// The failure that ended it, with the operator and the position where it happened.
    pub failure: Option<Failure>,
    /// Summed over all tasks.
    pub accumulators: BTreeMap<String, i64>,
    /// What collecting sinks kept, in the order of their subtasks.
    pub collected: Vec<(OperatorId, Vec<u8>)>,
    pub timings: JobTimings,
}

/// The numbers of a job that has ended.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct JobTimings {
    /// From the first deployment to the end.
    pub net_runtime: Duration,
    pub restarts: u32,
    pub checkpoints: CheckpointStats,
}

/// The numbers of a job that runs.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct JobMetrics {
    /// The newest of each subtask.
    pub tasks: BTreeMap<Subtask, TaskMetrics>,
    /// How fast each subtask went in the last seconds of which it has reported.
    pub rates: BTreeMap<Subtask, TaskRates>,
    /// The newest of each connection, as the first worker sees it.
    pub shuffle: BTreeMap<(WorkerId, WorkerId), ShuffleMetrics>,
    pub tasks_total: u32,
    pub tasks_running: u32,
    pub tasks_by_state: TaskCounts,
    /// When the job entered the state that it is in.
    pub status_since: Moment,
    /// When the job or a task of it last changed its state.
    pub last_modification: Moment,
    pub checkpoints: CheckpointStats,
    pub restarts: u32,
    /// The newest failure, also if the job was restarted after it.
    pub last_failure: Option<Failure>,
}

impl JobMetrics {
    /// Records that these vertices, the job's sources, have emitted since the last restart.
    pub fn records_read(&self, sources: &[JobVertexId]) -> u64 {
        let of_sources = self.tasks.iter().filter(|(subtask, _)| sources.contains(&subtask.vertex));
        of_sources.map(|(_, task)| task.records_in).sum()
    }
}
