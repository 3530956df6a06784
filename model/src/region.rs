//! Pipelined regions: the subtasks that start and restart together, because records flow between them without being stored.
//!
//! They are the connected parts of the graph of subtasks (Flink's `PipelinedRegionComputeUtil`; all of our edges are
//! pipelined). An edge to all consumers joins all of its subtasks; a forward edge joins each producer with its consumer
//! only, so that a job of forward edges alone has a region for each subtask of its source.
//!
//! Ours: an operator's coordinator runs beside subtask 0 and shares what it knows with all subtasks of its operator, so that
//! these are one region. (Flink's coordinators are with the JobMaster, and are told which subtask starts again.)

use std::collections::{BTreeMap, HashMap};

use crate::{
    id::Subtask,
    job_graph::{JobGraph, JobVertex},
};

/// The regions of a job, each with its subtasks in the order of the graph: by vertex, then by index. They are in the order
/// of their first subtasks, and every subtask is in exactly one.
pub fn pipelined_regions(graph: &JobGraph) -> Vec<Vec<Subtask>> {
    let all: Vec<Subtask> = graph.vertices.iter().flat_map(subtasks).collect();
    let place: HashMap<Subtask, usize> = all.iter().enumerate().map(|(place, subtask)| (*subtask, place)).collect();
    let mut joined = Joined::new(all.len());
    for edge in &graph.edges {
        let (source, target) = (&graph.vertices[edge.source], &graph.vertices[edge.target]);
        let at = |vertex: &JobVertex, index| place[&Subtask { vertex: vertex.id, index }];
        for producer in 0..source.parallelism {
            let consumers = edge.partitioning.consumers(producer, source.parallelism, target.parallelism);
            if edge.partitioning.is_pointwise() {
                consumers.for_each(|consumer| joined.join(at(source, producer), at(target, consumer)));
            } else {
                // Each producer is joined with all consumers, so that it is enough to join all with the first of each.
                joined.join(at(source, producer), at(target, 0));
            }
        }
        if !edge.partitioning.is_pointwise() {
            (0..target.parallelism).for_each(|consumer| joined.join(at(source, 0), at(target, consumer)));
        }
    }
    let has_coordinator = |vertex: &&JobVertex| vertex.operators.iter().any(|operator| operator.coordinator.is_some());
    for vertex in graph.vertices.iter().filter(has_coordinator) {
        let first = place[&Subtask { vertex: vertex.id, index: 0 }];
        subtasks(vertex).for_each(|subtask| joined.join(first, place[&subtask]));
    }
    let mut regions = BTreeMap::<usize, Vec<Subtask>>::new();
    for (place, subtask) in all.into_iter().enumerate() {
        regions.entry(joined.first_of(place)).or_default().push(subtask);
    }
    regions.into_values().collect()
}

fn subtasks(vertex: &JobVertex) -> impl Iterator<Item = Subtask> + use<> {
    let id = vertex.id;
    (0..vertex.parallelism).map(move |index| Subtask { vertex: id, index })
}

/// Sets that grow together; each is named by its lowest member.
struct Joined {
    below: Vec<usize>,
}

impl Joined {
    fn new(count: usize) -> Joined {
        Joined { below: (0..count).collect() }
    }

    fn first_of(&mut self, mut member: usize) -> usize {
        while self.below[member] != member {
            self.below[member] = self.below[self.below[member]];
            member = self.below[member];
        }
        member
    }

    fn join(&mut self, one: usize, other: usize) {
        let (one, other) = (self.first_of(one), self.first_of(other));
        self.below[one.max(other)] = one.min(other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        id::JobId,
        job_graph::{Partitioning, sketch},
    };

    fn graph(parallelisms: &[u32], edges: &[(usize, usize, Partitioning)]) -> JobGraph {
        let vertices =
            parallelisms.iter().zip(0..).map(|(parallelism, number)| sketch::vertex(number, "v", *parallelism));
        let edges = edges.iter().map(|(source, target, partitioning)| sketch::edge(*source, *target, *partitioning));
        sketch::graph(JobId(1), vertices.collect(), edges.collect())
    }

    /// As vertices and indices.
    fn regions(graph: &JobGraph) -> Vec<Vec<(u128, u32)>> {
        let regions = pipelined_regions(graph);
        regions.iter().map(|region| region.iter().map(|it| (it.vertex.0, it.index)).collect()).collect()
    }

    #[test]
    fn an_edge_to_all_makes_one_region_of_a_pipeline_and_pipelines_without_edges_between_them_are_several() {
        let graph = graph(&[2, 1, 3], &[(0, 2, Partitioning::Hash)]);
        assert_eq!(regions(&graph), [vec![(0, 0), (0, 1), (2, 0), (2, 1), (2, 2)], vec![(1, 0)]]);
    }

    #[test]
    fn forward_edges_make_a_region_of_each_chain_of_subtasks() {
        let graph = graph(&[3, 3, 3], &[(0, 1, Partitioning::Forward), (1, 2, Partitioning::Forward)]);
        let of = |index| vec![(0, index), (1, index), (2, index)];
        assert_eq!(regions(&graph), [of(0), of(1), of(2)]);
    }

    #[test]
    fn rescaling_joins_those_that_it_connects() {
        let graph = graph(&[2, 4], &[(0, 1, Partitioning::Rescale)]);
        assert_eq!(regions(&graph), [vec![(0, 0), (1, 0), (1, 1)], vec![(0, 1), (1, 2), (1, 3)]]);
    }

    #[test]
    fn a_later_edge_joins_what_was_apart() {
        let forward = (0, 1, Partitioning::Forward);
        let graph = graph(&[2, 2, 1], &[forward, (1, 2, Partitioning::Global)]);
        assert_eq!(regions(&graph), [vec![(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]]);
    }

    #[test]
    fn a_coordinator_makes_one_region_of_the_subtasks_that_it_speaks_with() {
        let mut graph = graph(&[2, 2], &[(0, 1, Partitioning::Forward)]);
        assert_eq!(regions(&graph).len(), 2);
        graph.vertices[0].operators[0].coordinator = Some(sketch::factory());
        assert_eq!(regions(&graph), [vec![(0, 0), (0, 1), (1, 0), (1, 1)]]);
    }
}
