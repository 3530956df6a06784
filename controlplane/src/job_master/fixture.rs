//! Small job graphs for tests.

use millstream_model::{
    id::JobId,
    job_graph::{JobGraph, JobVertex, Partitioning, sketch},
};

/// A vertex of one operator, which has the number of the vertex.
pub(crate) fn vertex(number: u128, parallelism: u32) -> JobVertex {
    named(sketch::vertex(number, "", parallelism))
}

/// The same, with a coordinator.
pub(crate) fn coordinated(number: u128, parallelism: u32) -> JobVertex {
    named(sketch::coordinated(number, "", parallelism))
}

/// With names that tell the vertex from its operator.
fn named(mut vertex: JobVertex) -> JobVertex {
    vertex.name = format!("vertex {}", vertex.id.0);
    vertex.operators[0].name = format!("operator {}", vertex.id.0);
    vertex
}

/// A job of these vertices, with edges to all between those at these indices.
pub(crate) fn graph(vertices: &[JobVertex], edges: &[(usize, usize)]) -> JobGraph {
    let edges = edges.iter().map(|(source, target)| sketch::edge(*source, *target, Partitioning::Hash));
    sketch::graph(JobId(0xABC), vertices.to_vec(), edges.collect())
}
