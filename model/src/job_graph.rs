//! What a client submits: vertices (chains of operators), the edges between them, and the configuration.
//!
//! ```text
//!  JobVertex ── operators[0] (head) ──► operators[1] ──► operators[2]
//!                        │ side output                        │
//!                        └────────────► operators[3]          └──JobEdge──► JobVertex
//! ```
//! A chain is a tree: every operator but the head has exactly one predecessor in it, at a lower index.

pub mod sketch;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    config::Configuration,
    id::{JobId, JobVertexId, OperatorId},
    key_group::MaxParallelism,
};

/// A job as it is submitted and stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobGraph {
    pub job_id: JobId,
    pub name: String,
    /// In topological order: edges go from lower to higher indices.
    pub vertices: Vec<JobVertex>,
    pub edges: Vec<JobEdge>,
    pub configuration: Configuration,
    /// The executable whose text the factories point into; `None` only inside the process that planned the job.
    pub artifact: Option<Artifact>,
}

/// The executable that a job graph was planned by.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Artifact {
    /// Of the file, in hexadecimal digits.
    pub sha256: String,
    /// The target triple it was compiled for.
    pub target: String,
    pub engine_version: String,
}

/// A chain of operators that runs as one task per subtask.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobVertex {
    pub id: JobVertexId,
    pub name: String,
    pub parallelism: u32,
    pub max_parallelism: MaxParallelism,
    pub operators: Vec<Operator>,
    pub slot_sharing_group: String,
    /// Its subtasks get threads of their own, because their functions block.
    pub on_own_thread: bool,
}

/// One operator of a chain.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Operator {
    pub id: OperatorId,
    /// What the user called it, if anything.
    pub uid: Option<String>,
    pub name: String,
    pub role: OperatorRole,
    pub factory: FactoryRef,
    /// What the factory gets: the function's configuration, serialized.
    pub conf: Vec<u8>,
    /// Makes the coordinator that runs beside subtask 0, if the operator has one.
    pub coordinator: Option<FactoryRef>,
    pub outputs: Vec<OperatorOutput>,
}

/// Where an operator's input comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum OperatorRole {
    /// From outside: it heads a chain without input edges.
    Source,
    /// From one stream.
    OneInput,
    /// From two streams of different types: it always heads its chain.
    TwoInput,
}

/// One consumer of what an operator emits.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OperatorOutput {
    /// The side output it reads; `None` is the main one.
    pub tag: Option<String>,
    pub target: OutputTarget,
}

/// Where an output leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum OutputTarget {
    /// An index into the operators of the same vertex.
    Chained(usize),
    /// An index into the edges of the graph.
    Edge(usize),
}

/// A stream of records from one vertex to another.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobEdge {
    /// An index into the vertices.
    pub source: usize,
    /// An index into the vertices.
    pub target: usize,
    /// 0, or 1 for the second stream of a two-input operator.
    pub input: u8,
    pub partitioning: Partitioning,
    pub codec: Codec,
    /// Makes the producing end, which knows the record's type and its key.
    pub writer: FactoryRef,
    pub writer_conf: Vec<u8>,
    /// Makes the consuming end of a one-input vertex; a two-input operator reads both streams itself.
    pub reader: Option<FactoryRef>,
}

/// How a record finds its subtask. The names are Flink's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Partitioning {
    /// Subtask i to subtask i; the only one that can be chained.
    Forward,
    /// By key group.
    Hash,
    /// Round robin over all.
    Rebalance,
    /// Round robin over a share of the consumers, pointwise.
    Rescale,
    /// To all.
    Broadcast,
    /// At random.
    Shuffle,
    /// To the first.
    Global,
    /// As a function of the program says.
    Custom,
}

impl Partitioning {
    /// Whether each producer is connected to some of the consumers only.
    pub fn is_pointwise(self) -> bool {
        matches!(self, Self::Forward | Self::Rescale)
    }

    /// The consumers that producer `index` of `producers` is connected to.
    pub fn consumers(self, index: u32, producers: u32, consumers: u32) -> std::ops::Range<u32> {
        if !self.is_pointwise() {
            return 0..consumers;
        }
        if producers <= consumers {
            let of = |index: u64| (index * u64::from(consumers) / u64::from(producers)) as u32;
            of(index.into())..of(u64::from(index) + 1)
        } else {
            let consumer = (u64::from(index) * u64::from(consumers) / u64::from(producers)) as u32;
            consumer..consumer + 1
        }
    }
}

/// How records lie in the segments of a channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Codec {
    /// One rkyv archive after another.
    Row,
}

/// A function of the artifact that builds an operator.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum FactoryRef {
    /// Bytes from the anchor symbol to the function, in the executable with the graph's hash.
    Offset(i64),
    /// An operator that the engine itself brings, by its stable name.
    Named(String),
}

impl JobGraph {
    /// The edges into vertex `target`, in the order in which a gate numbers their channels.
    pub fn inputs(&self, target: usize) -> impl Iterator<Item = (usize, &JobEdge)> {
        self.edges.iter().enumerate().filter(move |(_, edge)| edge.target == target)
    }

    /// The vertices that begin with a source.
    pub fn sources(&self) -> impl Iterator<Item = JobVertexId> {
        let is_source =
            |vertex: &&JobVertex| vertex.operators.first().is_some_and(|head| head.role == OperatorRole::Source);
        self.vertices.iter().filter(is_source).map(|vertex| vertex.id)
    }

    /// The index of the vertex with this id.
    pub fn vertex_index(&self, id: JobVertexId) -> Option<usize> {
        self.vertices.iter().position(|vertex| vertex.id == id)
    }

    /// Slots that the job needs: in each sharing group one for each subtask of its widest vertex.
    pub fn required_slots(&self) -> u32 {
        let mut widest = BTreeMap::<&str, u32>::new();
        for vertex in &self.vertices {
            let group = widest.entry(&vertex.slot_sharing_group).or_default();
            *group = (*group).max(vertex.parallelism);
        }
        widest.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointwise_edges_connect_every_producer_and_every_consumer() {
        for producers in 1..9 {
            for consumers in 1..9 {
                let mut fed = vec![0; consumers as usize];
                for index in 0..producers {
                    let range = Partitioning::Rescale.consumers(index, producers, consumers);
                    assert!(!range.is_empty(), "{index} of {producers} → {consumers}");
                    range.for_each(|consumer| fed[consumer as usize] += 1);
                }
                assert!(fed.iter().all(|n| *n > 0), "{producers} → {consumers}: {fed:?}");
            }
        }
    }

    #[test]
    fn forward_connects_equals() {
        for index in 0..5 {
            assert_eq!(Partitioning::Forward.consumers(index, 5, 5), index..index + 1);
        }
    }
}
