//! Which subtask runs in which slot of which worker.
//!
//! The slots that a job needs are filled in order: those of the first worker, then those of the next. Neighbours in a
//! pipeline then often share a process. What has a slot keeps it as long as its worker is there: regions that restart find
//! theirs again, and those that run beside them are not moved.

use std::collections::BTreeSet;

use millstream_model::{
    deployment::Placement,
    fault::Failure,
    id::{SlotIndex, Subtask, WorkerId},
    job_graph::JobGraph,
};
use millstream_slots::{SharedSlot, SlotSharing};

/// What a worker offers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WorkerSlots {
    pub worker: WorkerId,
    pub slots: u32,
}

/// Where each slot of a job is: a decider.
#[derive(Clone, Debug)]
pub struct SlotAssignment {
    sharing: SlotSharing,
    /// Of each shared slot; `None` while it has no worker's.
    places: Vec<Option<(WorkerId, SlotIndex)>>,
}

impl SlotAssignment {
    pub fn of(graph: &JobGraph) -> SlotAssignment {
        let sharing = SlotSharing::of(graph);
        SlotAssignment { places: vec![None; sharing.required() as usize], sharing }
    }

    /// These run where they are said to.
    pub fn keep(&mut self, graph: &JobGraph, running: &[Placement]) {
        for Placement { subtask, worker, slot } in running {
            if let Some(shared) = self.shared_slot(graph, *subtask) {
                self.places[shared.0 as usize] = Some((*worker, *slot));
            }
        }
    }

    /// Places these subtasks, in their order. Slots of workers that are not among those that offer any are lost; what of
    /// the others nothing has yet is given to those that miss one.
    ///
    /// # Errors
    /// If some of them would have no slot. Nothing is given then.
    pub fn place(
        &mut self,
        graph: &JobGraph,
        subtasks: &[Subtask],
        offers: &[WorkerSlots],
    ) -> Result<Vec<Placement>, NotEnoughSlots> {
        let is_offered = |(worker, slot): &(WorkerId, SlotIndex)| {
            offers.iter().any(|offer| offer.worker == *worker && slot.0 < offer.slots)
        };
        self.places.iter_mut().for_each(|place| *place = place.take().filter(is_offered));
        let shared: Vec<SharedSlot> =
            subtasks.iter().map(|subtask| self.shared_slot(graph, *subtask).expect("it is of this job")).collect();
        let taken: BTreeSet<_> = self.places.iter().flatten().copied().collect();
        let of_worker = |offer: &WorkerSlots| {
            let worker = offer.worker;
            (0..offer.slots).map(move |slot| (worker, SlotIndex(slot)))
        };
        let free: Vec<_> = offers.iter().flat_map(of_worker).filter(|place| !taken.contains(place)).collect();
        let missing: BTreeSet<SharedSlot> =
            shared.iter().copied().filter(|slot| self.places[slot.0 as usize].is_none()).collect();
        if free.len() < missing.len() {
            let available = (taken.len() + free.len()) as u32;
            return Err(NotEnoughSlots { needed: self.sharing.required(), available });
        }
        for (slot, place) in missing.into_iter().zip(free) {
            self.places[slot.0 as usize] = Some(place);
        }
        let placement = |(subtask, slot): (&Subtask, &SharedSlot)| {
            let (worker, slot) = self.places[slot.0 as usize].expect("none is missing any more");
            Placement { subtask: *subtask, worker, slot }
        };
        Ok(subtasks.iter().zip(&shared).map(placement).collect())
    }

    fn shared_slot(&self, graph: &JobGraph, subtask: Subtask) -> Option<SharedSlot> {
        let vertex = &graph.vertices[graph.vertex_index(subtask.vertex)?];
        (subtask.index < vertex.parallelism).then(|| self.sharing.slot_of(vertex, subtask.index))
    }
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
    use crate::{
        job_master::fixture::{graph, vertex},
        regions::{RegionIndex, Regions},
    };

    fn offers(slots: &[u32]) -> Vec<WorkerSlots> {
        let offer = |(worker, slots): (usize, &u32)| WorkerSlots { worker: WorkerId(worker as u32), slots: *slots };
        slots.iter().enumerate().map(offer).collect()
    }

    fn place(graph: &JobGraph, offers: &[WorkerSlots]) -> Result<Vec<Placement>, NotEnoughSlots> {
        let regions = Regions::of(graph);
        let all: Vec<_> = regions.all().flat_map(|region| regions.subtasks(region).to_vec()).collect();
        SlotAssignment::of(graph).place(graph, &all, offers)
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

    #[test]
    fn a_region_keeps_its_slots_and_what_has_lost_its_worker_gets_only_what_nobody_has() {
        // Two vertices without an edge: four regions, two of them in each slot.
        let graph = graph(&[vertex(1, 2), vertex(2, 2)], &[]);
        let regions = Regions::of(&graph);
        let mut slots = SlotAssignment::of(&graph);
        let mut place = |region: usize, offers: &[WorkerSlots]| {
            let placed = slots.place(&graph, regions.subtasks(RegionIndex(region)), offers);
            placed.map(|placed| placed.iter().map(|p| (p.worker.0, p.slot.0)).collect::<Vec<_>>())
        };
        let both = offers(&[1, 1, 1]);
        let found: Vec<_> = (0..4).map(|region| place(region, &both).unwrap()).collect();
        assert_eq!(found, [[(0, 0)], [(1, 0)], [(0, 0)], [(1, 0)]], "subtasks of one index share a slot");
        // Worker 0 is gone, and what it had is missed by its two regions only.
        assert_eq!(place(1, &both[1..2]).unwrap(), [(1, 0)]);
        let error = place(0, &both[1..2]).unwrap_err();
        assert_eq!(error, NotEnoughSlots { needed: 2, available: 1 });
        assert_eq!(place(2, &both[1..]).unwrap(), [(2, 0)]);
        assert_eq!(place(0, &both[1..]).unwrap(), [(2, 0)]);
    }

    #[test]
    fn what_was_found_running_keeps_its_slot() {
        let graph = graph(&[vertex(1, 2)], &[]);
        let subtask = |index| Subtask { vertex: graph.vertices[0].id, index };
        let mut slots = SlotAssignment::of(&graph);
        let running = Placement { subtask: subtask(1), worker: WorkerId(0), slot: SlotIndex(0) };
        slots.keep(&graph, &[running]);
        let placed = slots.place(&graph, &[subtask(0)], &offers(&[2])).unwrap();
        assert_eq!(placed, [Placement { subtask: subtask(0), worker: WorkerId(0), slot: SlotIndex(1) }]);
    }
}
