//! What a task adds to a checkpoint: sections of bytes, and work that must be done before they count.

use std::fmt;

use millstream_model::{fault::Failure, id::OperatorId, key_group::KeyGroup};

use crate::signal::Barrier;

/// Gathers the state of a task's operators while a barrier passes through its chain.
pub struct Snapshot {
    pub barrier: Barrier,
    pub sections: Vec<Section>,
    /// Must succeed, in any order and off the slot's thread, before the task may acknowledge the checkpoint.
    pub before_ack: Vec<BeforeAck>,
}

/// Blocks until something is durable.
pub type BeforeAck = Box<dyn FnOnce() -> Result<(), Failure> + Send>;

impl Snapshot {
    pub fn new(barrier: Barrier) -> Snapshot {
        Snapshot { barrier, sections: Vec::new(), before_ack: Vec::new() }
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Snapshot({:?}, {} sections)", self.barrier, self.sections.len())
    }
}

/// A part of an operator's state that moves as one when a job is rescaled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    pub operator: OperatorId,
    pub kind: SectionKind,
    /// The state's name, unique within its operator.
    pub name: String,
    /// Of the types in it: see [`Record::fingerprint`](crate::record::Record::fingerprint).
    pub fingerprint: u64,
    pub bytes: Vec<u8>,
}

/// Who gets a section at another parallelism.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SectionKind {
    /// The subtask that owns the key group.
    Keyed(KeyGroup),
    /// The subtask with the same index if the parallelism is unchanged; else any, but exactly one.
    Split,
    /// Every subtask.
    Union,
}
