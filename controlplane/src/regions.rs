//! The pipelined regions of a job, by number: what is deployed, fails over and is adopted as one.

use std::{collections::HashMap, fmt};

use millstream_model::{id::Subtask, job_graph::JobGraph, region::pipelined_regions};

/// The number of a region within its job, 0-based, in the order of their first subtasks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct RegionIndex(pub usize);

impl fmt::Display for RegionIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// All regions of a job.
#[derive(Clone, Debug)]
pub struct Regions {
    subtasks: Vec<Vec<Subtask>>,
    of: HashMap<Subtask, RegionIndex>,
}

impl Regions {
    pub fn of(graph: &JobGraph) -> Regions {
        let subtasks = pipelined_regions(graph);
        let numbered = subtasks.iter().zip((0..).map(RegionIndex));
        let of = numbered.flat_map(|(region, index)| region.iter().map(move |subtask| (*subtask, index))).collect();
        Regions { subtasks, of }
    }

    pub fn count(&self) -> usize {
        self.subtasks.len()
    }

    pub fn all(&self) -> impl Iterator<Item = RegionIndex> + use<> {
        (0..self.count()).map(RegionIndex)
    }

    /// The subtasks of a region, by vertex and then by index.
    ///
    /// # Panics
    /// If the job has no such region.
    pub fn subtasks(&self, region: RegionIndex) -> &[Subtask] {
        &self.subtasks[region.0]
    }

    /// The first subtask of a region, which it is known by where it is stored.
    ///
    /// # Panics
    /// If the job has no such region.
    pub fn first(&self, region: RegionIndex) -> Subtask {
        self.subtasks[region.0][0]
    }

    /// The region of a subtask; `None` if the job has no such subtask.
    pub fn region_of(&self, subtask: Subtask) -> Option<RegionIndex> {
        self.of.get(&subtask).copied()
    }
}
