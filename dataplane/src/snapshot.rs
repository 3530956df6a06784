//! Stores what a task added to a checkpoint, off the slot's thread, and acknowledges it.

use std::time::Instant;

use millstream_api::state::{self, Snapshot};
use millstream_model::{
    deployment::SubtaskState,
    fault::Failure,
    id::ExecutionAttemptId,
    message::{Report, SnapshotStats},
};
use millstream_storage::{
    CheckpointDirectory,
    snapshot::{Section, SectionKind, SnapshotFile},
};
use tokio::runtime::Handle;

use crate::{clock, report::Reporter};

/// Where the tasks of a job store their state, and how.
#[derive(Clone)]
pub(crate) struct Uploader {
    pub(crate) runtime: Handle,
    /// `None`: the job is not allowed checkpoints, and none is triggered.
    pub(crate) directory: Option<CheckpointDirectory>,
    pub(crate) reporter: Reporter,
}

impl Uploader {
    /// Stores a snapshot and reports how that went. Returns at once.
    pub(crate) fn store(&self, attempt: ExecutionAttemptId, snapshot: Snapshot, mut stats: SnapshotStats) {
        let Uploader { directory, reporter, .. } = self.clone();
        self.runtime.spawn_blocking(move || {
            let (checkpoint, generation) = (snapshot.barrier.checkpoint, attempt.generation);
            let started = clock::now();
            let report = match store(directory.as_ref(), attempt, snapshot) {
                Ok((state, bytes)) => {
                    stats.async_nanos = nanos_since(started);
                    stats.state_bytes = bytes;
                    Report::CheckpointAck { attempt, checkpoint, state, stats }
                }
                Err(failure) => Report::CheckpointDeclined { generation, checkpoint, failure },
            };
            reporter.send(report);
        });
    }
}

fn store(
    directory: Option<&CheckpointDirectory>,
    attempt: ExecutionAttemptId,
    snapshot: Snapshot,
) -> Result<(SubtaskState, u64), Failure> {
    for work in snapshot.before_ack {
        work()?;
    }
    let subtask = attempt.subtask;
    if snapshot.sections.is_empty() {
        return Ok((SubtaskState { subtask, file: None }, 0));
    }
    let directory = directory.ok_or_else(|| Failure::fatal("set execution.checkpointing.dir to take checkpoints"))?;
    let sections: Vec<Section> = snapshot.sections.into_iter().map(stored).collect();
    let bytes = SnapshotFile::encode(&sections);
    let name = format!("{subtask}-{}.state", attempt.generation.0);
    let file = directory
        .write(snapshot.barrier.checkpoint, &name, &bytes)
        .map_err(|cause| Failure { remedy: cause.remedy(), ..Failure::new(with_causes(&cause)) })?;
    Ok((SubtaskState { subtask, file: Some(file) }, bytes.len() as u64))
}

/// A section as the file has it.
fn stored(section: state::Section) -> Section {
    let (kind, key_group) = match section.kind {
        state::SectionKind::Keyed(group) => (SectionKind::Keyed, Some(group)),
        state::SectionKind::Split => (SectionKind::Split, None),
        state::SectionKind::Union => (SectionKind::Union, None),
    };
    let state::Section { operator, name, fingerprint, bytes, .. } = section;
    Section { operator, kind, name, type_fingerprint: fingerprint, key_group, bytes }
}

/// An error's text with those of its causes.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

pub(crate) fn nanos_since(start: Instant) -> u64 {
    clock::now().duration_since(start).as_nanos() as u64
}
