//! Reads a checkpoint and finds out who gets which part of it, at whatever parallelism.

use std::collections::HashMap;

use millstream_api::state::{Section, SectionKind};
use millstream_model::{
    deployment::CompletedCheckpoint, fault::Failure, id::OperatorId, job_graph::JobVertex, key_group::KeyGroup,
};
use millstream_storage::{
    read_file,
    snapshot::{self, SnapshotReader},
};

use crate::snapshot::with_causes;

/// All state in a checkpoint, by operator; each section with the subtask that wrote it.
#[derive(Default)]
pub(crate) struct RestoredState {
    sections: HashMap<OperatorId, Vec<(u32, Section)>>,
    parallelism: HashMap<OperatorId, u32>,
    coordinators: HashMap<OperatorId, Vec<u8>>,
}

impl RestoredState {
    /// Reads every file of the checkpoint.
    ///
    /// # Errors
    /// If one is missing or damaged.
    pub(crate) fn read(checkpoint: &CompletedCheckpoint) -> Result<RestoredState, Failure> {
        let mut state = RestoredState::default();
        for shape in &checkpoint.vertices {
            state.parallelism.extend(shape.operators.iter().map(|operator| (*operator, shape.parallelism)));
        }
        for coordinator in &checkpoint.coordinators {
            state.coordinators.insert(coordinator.operator, coordinator.bytes.clone());
        }
        let files = checkpoint.subtasks.iter().filter_map(|subtask| Some((subtask.subtask, subtask.file.as_ref()?)));
        for (subtask, file) in files {
            let bytes = read_file(checkpoint, file).map_err(|cause| Failure::new(with_causes(&cause)))?;
            let damaged = |cause: snapshot::SnapshotError| {
                Failure::new(format!("checkpoint {}, file {}: {}", checkpoint.id, file.path, with_causes(&cause)))
            };
            let reader = SnapshotReader::open(bytes).map_err(damaged)?;
            for (place, header) in reader.index().iter().enumerate() {
                let kind = match (header.kind, header.key_group) {
                    (snapshot::SectionKind::Keyed, Some(group)) => SectionKind::Keyed(group),
                    (snapshot::SectionKind::Union, _) => SectionKind::Union,
                    _ => SectionKind::Split,
                };
                let section = Section {
                    operator: header.operator,
                    kind,
                    name: header.name.clone(),
                    fingerprint: header.type_fingerprint,
                    bytes: reader.section(place).map_err(damaged)?.to_vec(),
                };
                state.sections.entry(header.operator).or_default().push((subtask.index, section));
            }
        }
        Ok(state)
    }

    /// What one subtask of an operator gets.
    pub(crate) fn of(&self, operator: OperatorId, vertex: &JobVertex, subtask: u32) -> Vec<Section> {
        let groups = KeyGroup::range(vertex.max_parallelism, vertex.parallelism, subtask);
        let rescaled = self.parallelism.get(&operator).is_some_and(|before| *before != vertex.parallelism);
        let mut splits = 0;
        let mut is_mine = |writer: u32, section: &Section| match section.kind {
            SectionKind::Keyed(group) => groups.contains(&group.0),
            SectionKind::Union => true,
            SectionKind::Split if rescaled => {
                splits += 1;
                (splits - 1) % vertex.parallelism == subtask
            }
            SectionKind::Split => writer == subtask,
        };
        let sections = self.sections.get(&operator).into_iter().flatten();
        sections.filter(|(writer, section)| is_mine(*writer, section)).map(|(_, section)| section.clone()).collect()
    }

    pub(crate) fn coordinator(&self, operator: OperatorId) -> Option<&Vec<u8>> {
        self.coordinators.get(&operator)
    }
}

#[cfg(test)]
mod tests {
    use millstream_model::job_graph::sketch;

    use super::*;

    #[test]
    fn every_part_has_exactly_one_owner_at_any_parallelism() {
        let operator = OperatorId(7);
        let section = |kind, byte| Section { operator, kind, name: "s".into(), fingerprint: 0, bytes: vec![byte] };
        let mut state = RestoredState::default();
        state.parallelism.insert(operator, 3);
        let sections = state.sections.entry(operator).or_default();
        sections.extend((0..128).map(|group| (u32::from(group) / 43, section(SectionKind::Keyed(KeyGroup(group)), 0))));
        sections.extend((0..10).map(|split| (u32::from(split) % 3, section(SectionKind::Split, split))));
        for parallelism in 1..7 {
            let vertex = sketch::vertex(1, "v", parallelism);
            let all: Vec<Section> = (0..parallelism).flat_map(|index| state.of(operator, &vertex, index)).collect();
            assert_eq!(all.len(), 138, "parallelism {parallelism}");
            for split in 0..10 {
                let owners = all.iter().filter(|s| s.kind == SectionKind::Split && s.bytes == [split]).count();
                assert_eq!(owners, 1, "split {split} at parallelism {parallelism}");
            }
        }
    }
}
