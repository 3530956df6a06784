//! Small job graphs for tests.

use millstream_model::{
    config::Configuration,
    id::{JobId, JobVertexId, OperatorId},
    job_graph::{Codec, FactoryRef, JobEdge, JobGraph, JobVertex, Operator, OperatorRole, Partitioning},
    key_group::MaxParallelism,
};

/// A vertex of one operator, which has the number of the vertex.
pub(crate) fn vertex(number: u128, parallelism: u32) -> JobVertex {
    JobVertex {
        id: JobVertexId(number),
        name: format!("vertex {number}"),
        parallelism,
        max_parallelism: MaxParallelism(128),
        operators: vec![Operator {
            id: OperatorId(number),
            uid: None,
            name: format!("operator {number}"),
            role: OperatorRole::OneInput,
            factory: FactoryRef::Named("test".to_owned()),
            conf: Vec::new(),
            coordinator: None,
            outputs: Vec::new(),
        }],
        slot_sharing_group: "default".to_owned(),
        on_own_thread: false,
    }
}

/// The same, with a coordinator.
pub(crate) fn coordinated(number: u128, parallelism: u32) -> JobVertex {
    let mut vertex = vertex(number, parallelism);
    vertex.operators[0].coordinator = Some(FactoryRef::Named("test".to_owned()));
    vertex
}

/// A job of these vertices, with edges between those at these indices.
pub(crate) fn graph(vertices: &[JobVertex], edges: &[(usize, usize)]) -> JobGraph {
    let edge = |(source, target): &(usize, usize)| JobEdge {
        source: *source,
        target: *target,
        input: 0,
        partitioning: Partitioning::Hash,
        codec: Codec::Row,
        writer: FactoryRef::Named("test".to_owned()),
        writer_conf: Vec::new(),
        reader: None,
    };
    JobGraph {
        job_id: JobId(0xABC),
        name: "job".to_owned(),
        vertices: vertices.to_vec(),
        edges: edges.iter().map(edge).collect(),
        configuration: Configuration::new(),
        artifact: None,
    }
}
