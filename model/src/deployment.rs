//! All that a worker needs to start its share of a job: who runs where, at which generation, restored from what.

use std::{fmt, net::SocketAddr};

use serde::{Deserialize, Serialize};

use crate::{
    id::{CheckpointId, Generation, OperatorId, SlotIndex, Subtask, WorkerId},
    key_group::MaxParallelism,
};

/// Where one subtask runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Placement {
    pub subtask: Subtask,
    pub worker: WorkerId,
    pub slot: SlotIndex,
}

/// A secret that the JobMaster makes for each deployment.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelToken(pub u128);

impl fmt::Debug for ChannelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChannelToken(…)")
    }
}

/// A worker as others see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Peer {
    pub worker: WorkerId,
    /// Where it takes connections of other workers; `None` if it takes none.
    pub shuffle_address: Option<SocketAddr>,
}

/// One (re)deployment of a pipelined region.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Deployment {
    pub generation: Generation,
    /// How often the region was deployed, with this time: what people are shown as the number of the attempt.
    pub attempt: u64,
    /// What the two ends of a channel show each other, so that nobody else can read it.
    pub token: ChannelToken,
    /// Every subtask of the region, those of other workers too: they are the other ends of channels.
    pub placements: Vec<Placement>,
    /// The workers that the placements name, and how they reach each other.
    pub peers: Vec<Peer>,
    /// What the subtasks start from; `None` starts them empty.
    pub restore: Option<CompletedCheckpoint>,
}

/// A file of a checkpoint, with what is needed to see that it is whole.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileHandle {
    /// Relative to the directory of the checkpoint that names it.
    pub path: String,
    pub bytes: u64,
    pub crc32: u32,
}

/// What one subtask contributed to a checkpoint.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SubtaskState {
    pub subtask: Subtask,
    /// `None` if the subtask has no state.
    pub file: Option<FileHandle>,
}

/// The shape of a vertex at the time of a checkpoint, so that it can be restored at another parallelism.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VertexShape {
    pub vertex: crate::id::JobVertexId,
    pub parallelism: u32,
    pub max_parallelism: MaxParallelism,
    pub operators: Vec<OperatorId>,
}

/// What an operator's coordinator contributed to a checkpoint.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CoordinatorState {
    pub operator: OperatorId,
    pub bytes: Vec<u8>,
}

/// A checkpoint whose every part is stored: the content of its `_metadata` file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CompletedCheckpoint {
    /// Of this structure; readers refuse versions that they do not know.
    pub format_version: u32,
    pub id: CheckpointId,
    /// The directory that holds `_metadata` and the files, absolute.
    pub directory: String,
    pub vertices: Vec<VertexShape>,
    pub subtasks: Vec<SubtaskState>,
    pub coordinators: Vec<CoordinatorState>,
}

impl CompletedCheckpoint {
    pub const FORMAT_VERSION: u32 = 1;
}
