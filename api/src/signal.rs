//! What passes through a chain besides records, from its head to its ends.

use millstream_model::{
    id::CheckpointId,
    message::{CheckpointKind, TaskResult},
    time::Watermark,
};

use crate::state::Snapshot;

/// One such thing. Every operator sees it after all records that came before it.
#[derive(Debug)]
pub enum Signal<'a> {
    /// Event time has advanced.
    Watermark(Watermark),
    /// Whether the input is idle: then its watermark holds nobody back.
    Idle(bool),
    /// A checkpoint: each operator adds its state; ends pass the barrier on.
    Barrier(&'a mut Snapshot),
    /// The checkpoint is durable: sinks commit what they had prepared for it. May come late, or again.
    Complete(CheckpointId),
    /// The checkpoint will never be complete.
    Aborted(CheckpointId),
    /// Hand over what lies in half-full segments.
    Flush,
    /// Go on with what was left unfinished: there may be room again, or a [`TaskWaker`](crate::context::TaskWaker) was
    /// called. Ends see it before those who fill them.
    Resume,
    /// Processing time has reached a moment that an operator asked for with [`Flow::wake_at`](crate::flow::Flow).
    Clock,
    /// All input has been seen. The last watermark came before.
    EndOfData,
    /// The job is complete: commit the rest, hand over results.
    Finish(&'a mut TaskResult),
    /// The task ends, after `Finish` or because it was cancelled: release what is held outside the process.
    Close,
}

/// The barrier that ends of a chain pass on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Barrier {
    pub checkpoint: CheckpointId,
    pub kind: CheckpointKind,
}
