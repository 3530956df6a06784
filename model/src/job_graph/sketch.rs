//! Job graphs of which only the shape matters: for tests, simulations and benchmarks of those that decide about graphs. No
//! worker can run one: its factories have a name that no executable knows.

use super::{Codec, FactoryRef, JobEdge, JobGraph, JobVertex, Operator, OperatorRole, Partitioning};
use crate::{
    config::Configuration,
    id::{JobId, JobVertexId, OperatorId},
    key_group::MaxParallelism,
};

/// What cannot be made.
pub fn factory() -> FactoryRef {
    FactoryRef::Named("sketch".to_owned())
}

/// An operator of this number, without outputs.
pub fn operator(number: u128, name: &str) -> Operator {
    Operator {
        id: OperatorId(number),
        uid: None,
        name: name.to_owned(),
        role: OperatorRole::OneInput,
        factory: factory(),
        conf: Vec::new(),
        coordinator: None,
        outputs: Vec::new(),
    }
}

/// A vertex of one operator, which has its number and its name.
pub fn vertex(number: u128, name: &str, parallelism: u32) -> JobVertex {
    JobVertex {
        id: JobVertexId(number),
        name: name.to_owned(),
        parallelism,
        max_parallelism: MaxParallelism(128),
        operators: vec![operator(number, name)],
        slot_sharing_group: "default".to_owned(),
        on_own_thread: false,
    }
}

/// The same, with a coordinator.
pub fn coordinated(number: u128, name: &str, parallelism: u32) -> JobVertex {
    let mut vertex = vertex(number, name, parallelism);
    vertex.operators[0].coordinator = Some(factory());
    vertex
}

/// An edge between the vertices at these indices.
pub fn edge(source: usize, target: usize, partitioning: Partitioning) -> JobEdge {
    JobEdge {
        source,
        target,
        input: 0,
        partitioning,
        codec: Codec::Row,
        writer: factory(),
        writer_conf: Vec::new(),
        reader: None,
    }
}

/// A job of these, with the default configuration.
pub fn graph(job_id: JobId, vertices: Vec<JobVertex>, edges: Vec<JobEdge>) -> JobGraph {
    JobGraph { job_id, name: "job".to_owned(), vertices, edges, configuration: Configuration::new(), artifact: None }
}
