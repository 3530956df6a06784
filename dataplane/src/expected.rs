//! The channels that regions of a job which are still to come would have at a worker, so that those which come first leave
//! them their share of its memory for buffers.
//!
//! A worker is told of one region at a time, and knows the whole job. Where the subtasks of the others will be follows from
//! slot sharing: subtask i of each vertex of a group is in slot i of the group, and so where any other of that slot is.
//! Slots that nobody is known to be in count as this worker's for as long as it has some to spare, then as those of one
//! other worker. So more may be expected than comes, and where memory is short channels are then made smaller than they
//! would have to be; but a region that comes later finds what it needs.

use std::collections::{BTreeMap, HashMap};

use millstream_model::{
    fault::Failure,
    id::{Subtask, WorkerId},
    job_graph::JobGraph,
    region::pipelined_regions,
};
use millstream_slots::{SharedSlot, SlotSharing};

use crate::wiring::{Connection, connections};

/// Stands for all others. No worker has this id: they are counted from 0.
const ELSEWHERE: WorkerId = WorkerId(u32::MAX);

/// For each region of which no subtask is in `known` (where those of others are): its channels that would begin or end at
/// `worker`, which has so many slots. Regions without any are left out.
///
/// # Errors
/// If the graph contradicts itself.
pub(crate) fn expected(
    graph: &JobGraph,
    known: &HashMap<Subtask, WorkerId>,
    worker: WorkerId,
    slots: u32,
) -> Result<Vec<Vec<Connection>>, Failure> {
    let sharing = SlotSharing::of(graph);
    let slot_of = |subtask: Subtask| {
        let vertex = &graph.vertices[graph.vertex_index(subtask.vertex)?];
        (subtask.index < vertex.parallelism).then(|| sharing.slot_of(vertex, subtask.index))
    };
    let placed = known.iter().filter_map(|(subtask, at)| Some((slot_of(*subtask)?, *at)));
    let mut places: BTreeMap<SharedSlot, WorkerId> = placed.collect();
    let mut spare = (slots as usize).saturating_sub(places.values().filter(|at| **at == worker).count());
    let mut all = Vec::new();
    for region in pipelined_regions(graph) {
        if region.iter().any(|subtask| known.contains_key(subtask)) {
            continue;
        }
        let workers = region.into_iter().filter_map(|subtask| {
            let place = places.entry(slot_of(subtask)?).or_insert_with(|| match spare.checked_sub(1) {
                Some(left) => {
                    spare = left;
                    worker
                }
                None => ELSEWHERE,
            });
            Some((subtask, *place))
        });
        let channels = connections(graph, &workers.collect(), worker)?;
        if !channels.is_empty() {
            all.push(channels);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use millstream_model::{
        id::{JobId, JobVertexId},
        job_graph::{Partitioning, sketch},
    };

    use super::*;

    const HERE: WorkerId = WorkerId(0);
    const THERE: WorkerId = WorkerId(1);

    fn subtask(vertex: u128, index: u32) -> Subtask {
        Subtask { vertex: JobVertexId(vertex), index }
    }

    /// Two pipelines without an edge between them: one by key at this parallelism, one of forward edges at 4.
    fn graph(parallelism: u32) -> JobGraph {
        let vertices = [(1, parallelism), (2, parallelism), (3, 4), (4, 4)];
        let vertices = vertices.map(|(number, parallelism)| sketch::vertex(number, "v", parallelism)).into();
        let edges = vec![sketch::edge(0, 1, Partitioning::Hash), sketch::edge(2, 3, Partitioning::Forward)];
        sketch::graph(JobId(1), vertices, edges)
    }

    /// As numbers of channels, and how many of them cross a network.
    fn expected(known: &[(Subtask, WorkerId)], slots: u32) -> Vec<(usize, usize)> {
        let known = known.iter().copied().collect();
        let regions = super::expected(&graph(2), &known, HERE, slots).unwrap();
        let crosses = |channel: &&Connection| channel.from != channel.to;
        regions.iter().map(|region| (region.len(), region.iter().filter(crosses).count())).collect()
    }

    #[test]
    fn all_other_regions_are_expected_at_a_worker_with_slots_for_all() {
        assert_eq!(expected(&[], 4), [(4, 0), (1, 0), (1, 0), (1, 0), (1, 0)]);
        let first = [(1, 0), (1, 1), (2, 0), (2, 1)].map(|(vertex, index)| (subtask(vertex, index), HERE));
        assert_eq!(expected(&first, 4), [(1, 0); 4]);
        // The slots are those of the first region, and there is one more.
        assert_eq!(expected(&first, 3), [(1, 0); 3]);
    }

    #[test]
    fn a_region_is_expected_where_others_of_its_slots_are() {
        let first = [((1, 0), HERE), ((1, 1), THERE), ((2, 0), HERE), ((2, 1), THERE)];
        let first = first.map(|((vertex, index), worker)| (subtask(vertex, index), worker));
        assert_eq!(expected(&first, 1), [(1, 0)]);
        assert_eq!(expected(&first, 2), [(1, 0); 2]);
        // The other way round: three of the four channels have an end here, and two cross.
        assert_eq!(expected(&[(subtask(3, 0), HERE), (subtask(3, 1), THERE)], 1), [(3, 2)]);
    }
}
