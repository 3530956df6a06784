//! Which subtask runs in which slot of which worker.
//!
//! The slots that a job needs are filled in order: those of the first worker, then those of the next. Neighbours in a
//! pipeline then often share a process.

use millstream_model::{
    deployment::Placement,
    fault::Failure,
    id::{SlotIndex, Subtask, WorkerId},
    job_graph::JobGraph,
};
use millstream_slots::SlotSharing;

/// What a worker offers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WorkerSlots {
    pub worker: WorkerId,
    pub slots: u32,
}

/// Places all subtasks of a job, those of a vertex in the order of their index.
pub fn place(graph: &JobGraph, workers: &[WorkerSlots]) -> Result<Vec<Placement>, NotEnoughSlots> {
    let sharing = SlotSharing::of(graph);
    let slots: Vec<(WorkerId, SlotIndex)> = workers
        .iter()
        .flat_map(|offer| (0..offer.slots).map(|slot| (offer.worker, SlotIndex(slot))))
        .take(sharing.required() as usize)
        .collect();
    if (slots.len() as u32) < sharing.required() {
        return Err(NotEnoughSlots { needed: sharing.required(), available: slots.len() as u32 });
    }
    let mut placements = Vec::new();
    for vertex in &graph.vertices {
        for index in 0..vertex.parallelism {
            let (worker, slot) = slots[sharing.slot_of(vertex, index).0 as usize];
            placements.push(Placement { subtask: Subtask { vertex: vertex.id, index }, worker, slot });
        }
    }
    Ok(placements)
}

/// The job needs more slots than there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "the job needs {needed} slots and {available} are there, {} too few: lower its parallelism, or raise \
     taskmanager.numberOfTaskSlots or the number of TaskManagers",
    .needed - .available
)]
pub struct NotEnoughSlots {
    pub needed: u32,
    pub available: u32,
}

impl From<NotEnoughSlots> for Failure {
    fn from(error: NotEnoughSlots) -> Failure {
        Failure::fatal(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job_master::fixture::{graph, vertex};

    fn offers(slots: &[u32]) -> Vec<WorkerSlots> {
        let offer = |(worker, slots): (usize, &u32)| WorkerSlots { worker: WorkerId(worker as u32), slots: *slots };
        slots.iter().enumerate().map(offer).collect()
    }

    #[test]
    fn one_slot_holds_a_whole_pipeline() {
        let graph = graph(&[vertex(1, 2), vertex(2, 2)], &[(0, 1)]);
        let placements = place(&graph, &offers(&[1, 1])).unwrap();
        let workers: Vec<_> = placements.iter().map(|p| (p.subtask.vertex.0, p.subtask.index, p.worker.0)).collect();
        assert_eq!(workers, [(1, 0, 0), (1, 1, 1), (2, 0, 0), (2, 1, 1)]);
    }

    #[test]
    fn two_sharing_groups_share_no_slot() {
        let mut graph = graph(&[vertex(1, 2), vertex(2, 1)], &[(0, 1)]);
        graph.vertices[1].slot_sharing_group = "other".to_owned();
        let placements = place(&graph, &offers(&[4])).unwrap();
        assert_eq!(placements.iter().map(|p| p.slot.0).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn too_few_slots_are_refused_with_both_numbers() {
        let graph = graph(&[vertex(1, 3)], &[]);
        let error = place(&graph, &offers(&[1, 1])).unwrap_err();
        assert_eq!(error, NotEnoughSlots { needed: 3, available: 2 });
        assert!(place(&graph, &[]).is_err());
    }
}
