//! What a JobMaster keeps of its job: the record in the store and the checkpoints in their directory, each changed in the
//! order that keeps them true.
//!
//! - A generation is stored before anybody hears of it.
//! - The pointer moves after the metadata is durable.
//! - Files are deleted after their tombstones are stored, and those after the pointer has moved past them.

use std::{path::PathBuf, sync::Arc};

use millstream_model::{
    deployment::{CompletedCheckpoint, VertexShape},
    fault::Failure,
    id::{CheckpointId, Generation, JobId, LeaderEpoch},
    job_graph::{JobGraph, JobVertex},
};
use millstream_storage::{CheckpointDirectory, CheckpointFileError};

use super::{record::GuardedRecord, restore};
use crate::{
    cause::with_causes,
    checkpoint::{CollectedCheckpoint, Found},
    regions::{RegionIndex, Regions},
    store::{JobRecord, JobResult, RegionRecord, Store, StoreError},
};

/// A deployment of a region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Deployed {
    pub(super) generation: Generation,
    /// How often the region was deployed, with this time.
    pub(super) attempt: u64,
}

#[derive(Debug)]
pub(super) struct Keeper {
    record: GuardedRecord,
    directory: Option<CheckpointDirectory>,
}

/// Why something was not kept.
#[derive(Debug)]
pub(super) enum Setback {
    Failed(Failure),
    /// Another coordinator leads the job.
    LeadershipLost(StoreError),
}

impl From<Failure> for Setback {
    fn from(failure: Failure) -> Setback {
        Setback::Failed(failure)
    }
}

impl From<StoreError> for Setback {
    fn from(error: StoreError) -> Setback {
        if error.is_leadership_lost() {
            return Setback::LeadershipLost(error);
        }
        Setback::Failed(Failure { remedy: error.remedy(), ..Failure::new(with_causes(&error)) })
    }
}

impl From<CheckpointFileError> for Setback {
    fn from(error: CheckpointFileError) -> Setback {
        Setback::Failed(Failure { remedy: error.remedy(), ..Failure::new(with_causes(&error)) })
    }
}

impl Keeper {
    /// Reads what an earlier coordinator has left of the job, and finishes what it was deleting.
    pub(super) fn open(
        store: Arc<dyn Store>,
        epoch: LeaderEpoch,
        job: JobId,
        checkpoint_dir: Option<PathBuf>,
    ) -> Result<Keeper, Setback> {
        let record = GuardedRecord::load(store, epoch, job)?;
        let directory = checkpoint_dir.map(|root| CheckpointDirectory::new(&root, job));
        let keeper = Keeper { record, directory };
        keeper.delete_files(&keeper.record.content().tombstones);
        Ok(keeper)
    }

    /// The checkpoints that are there. What is in the directory and not known to a record belongs to somebody else, and
    /// only keeps its number.
    pub(super) fn found(&self) -> Result<Found, Setback> {
        let (begun, given_up) = match &self.directory {
            Some(directory) => {
                let begun = directory.list()?;
                let is_ours = |id: &CheckpointId| !self.is_new() && !directory.is_complete(*id);
                let given_up = begun.iter().copied().filter(is_ours).collect();
                (begun, given_up)
            }
            None => Default::default(),
        };
        let record = self.record.content();
        let highest = begun.into_iter().chain(record.pointer).max();
        let next = CheckpointId(highest.map_or(0, |highest| highest.0) + 1);
        Ok(Found { retained: record.retained.clone(), given_up, next })
    }

    /// The checkpoints that began and to which the pointer never moved. Workers may wait for their end.
    pub(super) fn unfinished(&self) -> Result<Vec<CheckpointId>, Setback> {
        let begun = self.directory.as_ref().map(CheckpointDirectory::list).transpose()?.unwrap_or_default();
        let is_durable = |id: &CheckpointId| self.record.content().retained.contains(id);
        Ok(begun.into_iter().filter(|id| !is_durable(id)).collect())
    }

    /// The newest durable checkpoint.
    pub(super) fn pointer(&self) -> Option<CheckpointId> {
        self.record.content().pointer
    }

    /// Whether no generation of the job was ever stored.
    pub(super) fn is_new(&self) -> bool {
        !self.record.exists()
    }

    pub(super) fn result(&self) -> Option<&JobResult> {
        self.record.content().result.as_ref()
    }

    /// Whether checkpoints can be taken at all.
    pub(super) fn has_directory(&self) -> bool {
        self.directory.is_some()
    }

    /// What the next deployment starts from.
    pub(super) fn latest(&self, graph: &JobGraph) -> Result<Option<CompletedCheckpoint>, Failure> {
        restore::latest(graph, self.record.content(), self.directory.as_ref())
    }

    /// Whether the job has taken this checkpoint itself.
    pub(super) fn is_own(&self, checkpoint: &CompletedCheckpoint) -> bool {
        let place = self.directory.as_ref().map(|directory| directory.of(checkpoint.id));
        place.is_some_and(|place| place.to_string_lossy() == checkpoint.directory)
            && self.record.content().retained.contains(&checkpoint.id)
    }

    /// What is stored of the newest deployment of each region; `None` of one that was never deployed. In a record from before
    /// regions had generations all of them share one, which names no region unless there is only one.
    pub(super) fn stored(&self, regions: &Regions) -> Vec<Option<Deployed>> {
        let record = self.record.content();
        let only = || Deployed { generation: record.generation, attempt: record.generation.0 };
        let is_before = self.record.exists() && record.format_version == 0;
        let stored = |region| match record.region(regions.first(region)) {
            Some(known) => Some(Deployed { generation: known.generation, attempt: known.attempt }),
            None => (is_before && regions.count() == 1).then(only),
        };
        regions.all().map(stored).collect()
    }

    /// Gives each of these regions the next generation, in their order, in one transaction. The first one also keeps what the
    /// job as a whole starts from.
    pub(super) fn next_generations(
        &mut self,
        regions: &Regions,
        deployed: &[RegionIndex],
        restore: Option<&CompletedCheckpoint>,
    ) -> Result<Vec<Deployed>, Setback> {
        let restored_from = restore.map(|checkpoint| checkpoint.directory.clone());
        let is_first = self.is_new();
        let before = self.record.content();
        // Before regions had generations each of them was deployed whenever the job was.
        let attempts_before = if before.format_version == 0 { before.generation.0 } else { 0 };
        let next = |(region, count): (&RegionIndex, u64)| {
            let attempts = before.region(regions.first(*region)).map_or(attempts_before, |known| known.attempt);
            Deployed { generation: Generation(before.generation.0 + count), attempt: attempts + 1 }
        };
        let next: Vec<Deployed> = deployed.iter().zip(1..).map(next).collect();
        self.record.update(|record| {
            record.format_version = JobRecord::FORMAT_VERSION;
            for (region, Deployed { generation, attempt }) in deployed.iter().zip(&next) {
                let first = regions.first(*region);
                let restored_from = restored_from.clone();
                let stored = RegionRecord { first, generation: *generation, attempt: *attempt, restored_from };
                match record.regions.iter_mut().find(|region| region.first == first) {
                    Some(region) => *region = stored,
                    None => record.regions.push(stored),
                }
                record.generation = *generation;
            }
            if is_first {
                record.initial.clone_from(&restored_from);
            }
        })?;
        Ok(next)
    }

    /// Makes room for a checkpoint; `false` if its number is taken.
    pub(super) fn begin(&self, checkpoint: CheckpointId) -> Result<bool, Failure> {
        match self.checkpoints().begin(checkpoint) {
            Ok(_) => Ok(true),
            Err(CheckpointFileError::Exists { .. }) => Ok(false),
            Err(error) => Err(Failure { remedy: error.remedy(), ..Failure::new(with_causes(&error)) }),
        }
    }

    /// Makes a checkpoint durable: first the metadata, then the pointer.
    pub(super) fn complete(&mut self, graph: &JobGraph, collected: CollectedCheckpoint) -> Result<(), Setback> {
        let id = collected.id;
        let completed = CompletedCheckpoint {
            format_version: CompletedCheckpoint::FORMAT_VERSION,
            id,
            directory: self.checkpoints().of(id).to_string_lossy().into_owned(),
            vertices: graph.vertices.iter().map(shape).collect(),
            subtasks: collected.subtasks,
            coordinators: collected.coordinators,
        };
        self.checkpoints().write_metadata(&completed)?;
        self.record.update(|record| {
            record.pointer = Some(id);
            record.retained.retain(|retained| *retained < id);
            record.retained.push(id);
            // Their files are gone, or have been given up on.
            record.tombstones.clear();
        })?;
        Ok(())
    }

    /// Deletes checkpoints that the pointer has moved past: first the tombstones, then the files. If the tombstones
    /// cannot be stored the files stay, and nothing is lost but room.
    ///
    /// # Errors
    /// If the leadership is lost.
    pub(super) fn delete(&mut self, checkpoints: &[CheckpointId]) -> Result<(), StoreError> {
        let stored = self.record.update(|record| {
            let is_past = |doomed: &CheckpointId| record.pointer.is_some_and(|pointer| *doomed < pointer);
            assert!(checkpoints.iter().all(is_past), "the pointer has not moved past all of {checkpoints:?}");
            record.retained.retain(|retained| !checkpoints.contains(retained));
            record.tombstones.retain(|listed| !checkpoints.contains(listed));
            record.tombstones.extend_from_slice(checkpoints);
        });
        match stored {
            Ok(()) => self.delete_files(checkpoints),
            Err(error) if error.is_leadership_lost() => return Err(error),
            Err(error) => {
                tracing::warn!(?checkpoints, problem = with_causes(&error), "old checkpoints are not deleted")
            }
        }
        Ok(())
    }

    /// Keeps how the job ended, and then deletes these checkpoints, if any: its own, which nobody needs any more.
    ///
    /// # Errors
    /// If the leadership is lost.
    pub(super) fn end(&mut self, result: &JobResult, doomed: Option<&[CheckpointId]>) -> Result<(), StoreError> {
        let stored = self.record.update(|record| {
            record.result = Some(result.clone());
            if let Some(doomed) = doomed {
                record.pointer = None;
                record.retained.clear();
                record.tombstones = doomed.to_vec();
            }
        });
        match (stored, doomed) {
            (Ok(()), Some(doomed)) => {
                self.delete_files(doomed);
                if let Some(Err(error)) = self.directory.as_ref().map(CheckpointDirectory::delete_if_empty) {
                    tracing::warn!(problem = with_causes(&error), "the job's directory is left where it is");
                }
            }
            (Ok(()), None) => {}
            (Err(error), _) if error.is_leadership_lost() => return Err(error),
            (Err(error), _) => tracing::error!(problem = with_causes(&error), "the job's result could not be stored"),
        }
        Ok(())
    }

    fn delete_files(&self, checkpoints: &[CheckpointId]) {
        let Some(directory) = &self.directory else { return };
        for checkpoint in checkpoints {
            if let Err(error) = directory.delete(*checkpoint) {
                tracing::warn!(%checkpoint, problem = with_causes(&error), "an old checkpoint is left where it is");
            }
        }
    }

    fn checkpoints(&self) -> &CheckpointDirectory {
        self.directory.as_ref().expect("without a directory no checkpoint is triggered")
    }
}

fn shape(vertex: &JobVertex) -> VertexShape {
    VertexShape {
        vertex: vertex.id,
        parallelism: vertex.parallelism,
        max_parallelism: vertex.max_parallelism,
        operators: vertex.operators.iter().map(|operator| operator.id).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use millstream_model::message::CheckpointKind;
    use millstream_storage::FileError;

    use super::*;
    use crate::{
        job_master::fixture::{graph, vertex},
        store::{MemoryStore, Version},
    };

    /// A fake store whose disk is full when a test says so.
    #[derive(Debug, Default)]
    struct Filling {
        store: MemoryStore,
        is_full: AtomicBool,
    }

    impl Store for Filling {
        fn load(&self, epoch: LeaderEpoch, job: JobId) -> Result<Option<(JobRecord, Version)>, StoreError> {
            self.store.load(epoch, job)
        }

        fn write(
            &self,
            epoch: LeaderEpoch,
            job: JobId,
            expected: Option<Version>,
            record: &JobRecord,
        ) -> Result<Version, StoreError> {
            if self.is_full.load(Ordering::Relaxed) {
                let source = std::io::ErrorKind::StorageFull.into();
                return Err(FileError::new("write", "record".as_ref(), source).into());
            }
            self.store.write(epoch, job, expected, record)
        }

        fn remove(&self, epoch: LeaderEpoch, job: JobId, expected: Version) -> Result<(), StoreError> {
            self.store.remove(epoch, job, expected)
        }

        fn jobs(&self, epoch: LeaderEpoch) -> Result<Vec<JobId>, StoreError> {
            self.store.jobs(epoch)
        }
    }

    struct Scene {
        store: Arc<Filling>,
        epoch: LeaderEpoch,
        root: tempfile::TempDir,
        graph: JobGraph,
        keeper: Keeper,
    }

    impl Scene {
        /// A job with two durable checkpoints.
        fn new() -> Scene {
            let store = Arc::new(Filling::default());
            let epoch = store.store.elect();
            let root = tempfile::tempdir().unwrap();
            let graph = graph(&[vertex(1, 1)], &[]);
            let keeper = Keeper::open(store.clone(), epoch, graph.job_id, Some(root.path().to_owned())).unwrap();
            let mut scene = Scene { store, epoch, root, graph, keeper };
            scene.deploy(&[0]);
            scene.complete(1).unwrap();
            scene.complete(2).unwrap();
            scene
        }

        fn deploy(&mut self, regions: &[usize]) -> Vec<(u64, u64)> {
            let deployed: Vec<_> = regions.iter().copied().map(RegionIndex).collect();
            let next = self.keeper.next_generations(&Regions::of(&self.graph), &deployed, None).unwrap();
            next.iter().map(|next| (next.generation.0, next.attempt)).collect()
        }

        fn complete(&mut self, number: u64) -> Result<(), Setback> {
            let (id, kind) = (CheckpointId(number), CheckpointKind::Checkpoint);
            assert!(self.keeper.begin(id)?);
            let collected = CollectedCheckpoint { id, kind, subtasks: Vec::new(), coordinators: Vec::new() };
            self.keeper.complete(&self.graph, collected)
        }

        fn exists(&self, number: u64) -> bool {
            self.keeper.checkpoints().of(CheckpointId(number)).exists()
        }

        fn record(&self) -> JobRecord {
            self.store.load(self.epoch, self.graph.job_id).unwrap().unwrap().0
        }
    }

    #[test]
    fn nothing_is_deleted_whose_tombstone_is_not_stored() {
        let mut scene = Scene::new();
        scene.store.is_full.store(true, Ordering::Relaxed);
        scene.keeper.delete(&[CheckpointId(1)]).unwrap();
        assert!(scene.exists(1));
        let result = JobResult { status: millstream_model::state::JobStatus::Finished, failure: None };
        scene.keeper.end(&result, Some(&[CheckpointId(1), CheckpointId(2)])).unwrap();
        assert!(scene.exists(1) && scene.exists(2));

        scene.store.is_full.store(false, Ordering::Relaxed);
        scene.keeper.delete(&[CheckpointId(1)]).unwrap();
        assert!(!scene.exists(1) && scene.exists(2));
        assert_eq!(scene.record().tombstones, [CheckpointId(1)]);
    }

    #[test]
    fn a_checkpoint_that_the_pointer_could_not_be_moved_to_is_not_durable() {
        let mut scene = Scene::new();
        scene.store.is_full.store(true, Ordering::Relaxed);
        let Err(Setback::Failed(failure)) = scene.complete(3) else { panic!("it is durable") };
        assert!(failure.message.contains("no room"), "{failure}");
        assert_eq!(scene.record().pointer, Some(CheckpointId(2)));
        assert_eq!(scene.keeper.latest(&scene.graph).unwrap().unwrap().id, CheckpointId(2));
    }

    #[test]
    fn a_deletion_that_a_crash_cut_off_after_its_tombstones_is_finished() {
        let mut scene = Scene::new();
        let mark = |record: &mut JobRecord| {
            record.retained.retain(|retained| *retained != CheckpointId(1));
            record.tombstones = vec![CheckpointId(1)];
        };
        scene.keeper.record.update(mark).unwrap();
        let root = Some(scene.root.path().to_owned());
        scene.keeper = Keeper::open(scene.store.clone(), scene.epoch, scene.graph.job_id, root).unwrap();
        assert!(!scene.exists(1) && scene.exists(2));
    }

    #[test]
    fn each_deployment_of_a_region_has_a_higher_generation_than_all_before_and_counts_its_own_attempts() {
        let mut scene = Scene::new();
        scene.graph = graph(&[vertex(1, 1), vertex(2, 1), vertex(3, 1)], &[]);
        assert_eq!(scene.deploy(&[0, 1, 2]), [(2, 2), (3, 1), (4, 1)]);
        assert_eq!(scene.deploy(&[1]), [(5, 2)]);
        assert_eq!(scene.deploy(&[0, 1]), [(6, 3), (7, 3)]);
        let stored = scene.keeper.stored(&Regions::of(&scene.graph));
        let generations: Vec<_> = stored.into_iter().map(|stored| stored.unwrap().generation.0).collect();
        assert_eq!(generations, [6, 7, 4]);
        assert_eq!(scene.record().generation, Generation(7));
    }

    #[test]
    fn a_record_from_before_regions_names_the_generation_of_the_only_region_and_of_no_other() {
        let mut scene = Scene::new();
        let before = |record: &mut JobRecord| {
            (record.format_version, record.generation) = (0, Generation(3));
            record.regions.clear();
        };
        scene.keeper.record.update(before).unwrap();
        let stored = |scene: &Scene| scene.keeper.stored(&Regions::of(&scene.graph));
        assert_eq!(stored(&scene), [Some(Deployed { generation: Generation(3), attempt: 3 })]);
        scene.graph = graph(&[vertex(1, 1), vertex(2, 1)], &[]);
        assert_eq!(stored(&scene), [None, None]);
        assert_eq!(scene.deploy(&[0, 1]), [(4, 4), (5, 4)]);
    }

    #[test]
    #[should_panic(expected = "the pointer has not moved past")]
    fn what_the_pointer_has_not_moved_past_is_never_deleted() {
        let _ = Scene::new().keeper.delete(&[CheckpointId(2)]);
    }
}
