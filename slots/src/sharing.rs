//! Slot sharing: subtasks of different vertices run in one slot, so that a slot holds a whole pipeline of the job.
//!
//! The rule is Flink's: subtask i of every vertex of a sharing group runs in slot i of the group, and two groups share
//! no slot. So a group needs as many slots as its widest vertex has subtasks.

use millstream_model::job_graph::{JobGraph, JobVertex};

/// One of the slots that a job needs, 0-based, before it is known which worker's it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SharedSlot(pub u32);

/// The slots of a job, group by group.
#[derive(Clone, Debug)]
pub struct SlotSharing {
    /// In the order in which the graph first names them.
    groups: Vec<Group>,
}

#[derive(Clone, Debug)]
struct Group {
    name: String,
    slots: u32,
}

impl SlotSharing {
    pub fn of(graph: &JobGraph) -> SlotSharing {
        let mut groups: Vec<Group> = Vec::new();
        for vertex in &graph.vertices {
            match groups.iter_mut().find(|group| group.name == vertex.slot_sharing_group) {
                Some(group) => group.slots = group.slots.max(vertex.parallelism),
                None => groups.push(Group { name: vertex.slot_sharing_group.clone(), slots: vertex.parallelism }),
            }
        }
        SlotSharing { groups }
    }

    /// How many slots the job needs.
    pub fn required(&self) -> u32 {
        self.groups.iter().map(|group| group.slots).sum()
    }

    /// The slot that subtask `index` of `vertex` runs in; below [`required`](Self::required).
    ///
    /// # Panics
    /// If the vertex is not of the graph that this was made from, or has no such subtask.
    pub fn slot_of(&self, vertex: &JobVertex, index: u32) -> SharedSlot {
        let mut first = 0;
        for group in &self.groups {
            if group.name == vertex.slot_sharing_group {
                assert!(index < group.slots, "subtask {index} of '{}' is none of its group's", vertex.name);
                return SharedSlot(first + index);
            }
            first += group.slots;
        }
        panic!("vertex '{}' is in group '{}', which this job does not have", vertex.name, vertex.slot_sharing_group);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use millstream_model::{id::JobId, job_graph::sketch};

    use super::*;

    fn graph(vertices: &[(&str, u32)]) -> JobGraph {
        let vertex = |(number, (group, parallelism)): (u128, &(&str, u32))| JobVertex {
            slot_sharing_group: (*group).to_owned(),
            ..sketch::vertex(number, "v", *parallelism)
        };
        sketch::graph(JobId(1), (0..).zip(vertices).map(vertex).collect(), Vec::new())
    }

    #[test]
    fn a_group_needs_as_many_slots_as_its_widest_vertex_has_subtasks() {
        let graph = graph(&[("a", 2), ("b", 3), ("a", 4), ("b", 1)]);
        let sharing = SlotSharing::of(&graph);
        assert_eq!(sharing.required(), 7);
        assert_eq!(sharing.required(), graph.required_slots());
    }

    #[test]
    fn equal_subtasks_of_a_group_share_a_slot_and_groups_never_do() {
        let graph = graph(&[("a", 2), ("b", 3), ("a", 4)]);
        let sharing = SlotSharing::of(&graph);
        let slots = |vertex: usize| -> Vec<u32> {
            let vertex = &graph.vertices[vertex];
            (0..vertex.parallelism).map(|index| sharing.slot_of(vertex, index).0).collect()
        };
        assert_eq!(slots(0), slots(2)[..2]);
        let (a, b) = (HashSet::<u32>::from_iter(slots(2)), HashSet::from_iter(slots(1)));
        assert!(a.is_disjoint(&b));
        assert!(a.iter().chain(&b).all(|slot| *slot < sharing.required()));
    }
}
