//! Where the time of a checkpoint goes.

use std::time::Duration;

use millstream_model::{
    id::{CheckpointId, Subtask},
    message::SnapshotStats,
};

use crate::clock::Moment;

/// The phases of a checkpoint, in the order in which a subtask goes through them; each for the subtask that took longest.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CheckpointPhases {
    /// Until all coordinators of operators were snapshotted and the barriers could go.
    pub coordinators: Duration,
    /// From then until the first barrier was there, behind all that was on its way before it.
    pub start_delay: Slowest,
    /// From the first barrier to the last one.
    pub alignment: Slowest,
    /// The snapshot on the slot's thread.
    pub sync: Slowest,
    /// Storing it.
    pub asynchronous: Slowest,
}

/// The longest time that a subtask took for something.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Slowest {
    pub duration: Duration,
    /// `None` if no subtask took any time.
    pub subtask: Option<Subtask>,
}

/// A checkpoint that is not complete.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PendingStats {
    pub id: CheckpointId,
    pub since: Moment,
    /// Whether the barriers are under way; else it waits for coordinators.
    pub is_triggered: bool,
    /// Those that have not acknowledged it.
    pub missing: Vec<Subtask>,
}

impl CheckpointPhases {
    /// A subtask has acknowledged it, so long after the barriers could go.
    pub(super) fn on_ack(&mut self, subtask: Subtask, stats: &SnapshotStats, since_trigger: Duration) {
        let [alignment, sync, asynchronous] =
            [stats.alignment_nanos, stats.sync_nanos, stats.async_nanos].map(Duration::from_nanos);
        self.start_delay.note(since_trigger.saturating_sub(alignment + sync + asynchronous), subtask);
        self.alignment.note(alignment, subtask);
        self.sync.note(sync, subtask);
        self.asynchronous.note(asynchronous, subtask);
    }
}

impl Slowest {
    fn note(&mut self, duration: Duration, subtask: Subtask) {
        if duration > self.duration {
            *self = Slowest { duration, subtask: Some(subtask) };
        }
    }
}
