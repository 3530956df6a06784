//! What the methods of streams record: one node per operator, with its inputs.

use millstream_model::job_graph::{FactoryRef, OperatorRole, Partitioning};

use crate::source::Boundedness;

/// An operator as the program described it.
#[derive(Clone, Debug)]
pub(crate) struct StreamNode {
    /// Flink's name for what it does: `Map`, `KeyedProcess`, …
    pub(crate) kind: &'static str,
    /// Where in the program it was added: file and line.
    pub(crate) line: String,
    pub(crate) name: Option<String>,
    pub(crate) uid: Option<String>,
    pub(crate) parallelism: Option<u32>,
    pub(crate) max_parallelism: Option<u32>,
    pub(crate) slot_sharing_group: Option<String>,
    pub(crate) chaining: Chaining,
    pub(crate) on_own_thread: bool,
    pub(crate) role: OperatorRole,
    /// Of a source; the other operators have the end of their inputs.
    pub(crate) boundedness: Option<Boundedness>,
    pub(crate) factory: FactoryRef,
    pub(crate) conf: Vec<u8>,
    pub(crate) coordinator: Option<FactoryRef>,
    /// Reads a one-input operator's records from an edge.
    pub(crate) reader: Option<FactoryRef>,
    pub(crate) inputs: Vec<NodeInput>,
}

impl StreamNode {
    /// What the web page and messages call it: the given name, or kind and line.
    pub(crate) fn display_name(&self) -> String {
        self.name.clone().unwrap_or_else(|| format!("{} ({})", self.kind, self.line))
    }
}

/// Flink's `ChainingStrategy`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Chaining {
    Always,
    /// Begins a chain: `start_new_chain`, sources, operators with two inputs.
    Head,
    Never,
}

/// One stream into an operator.
#[derive(Clone, Debug)]
pub(crate) struct NodeInput {
    pub(crate) from: usize,
    pub(crate) tag: Option<String>,
    /// 0, or 1 for the second stream of a two-input operator.
    pub(crate) input: u8,
    pub(crate) edge: Edge,
}

/// How records get from one operator to another if the two are not chained.
#[derive(Clone, Debug)]
pub(crate) struct Edge {
    /// `None`: forward if both have the same parallelism, else rebalance.
    pub(crate) partitioning: Option<Partitioning>,
    pub(crate) writer: FactoryRef,
    /// The configuration of a hash writer; the others are told their partitioning.
    pub(crate) writer_conf: Option<Vec<u8>>,
}

/// All that a program has described so far.
#[derive(Default, Debug)]
pub(crate) struct StreamGraph {
    pub(crate) nodes: Vec<StreamNode>,
}
