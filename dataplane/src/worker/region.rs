//! One deployment of a region: its tasks, its coordinators, and in which order barriers and events reach them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    convert::Infallible,
    sync::Arc,
};

use crossbeam_channel::Receiver;
use millstream_api::{metrics::MetricRegistry, signal::Barrier};
use millstream_model::{
    deployment::{Deployment, Placement},
    fault::Failure,
    id::{CheckpointId, ExecutionAttemptId, Generation, JobVertexId, OperatorId, SlotIndex, Subtask, WorkerId},
};
use millstream_shuffle::wire::message::{CoordinatorEvent, Direction};

use crate::{
    coordinator::{CoordinatorLine, CoordinatorMail},
    metrics::TaskCounters,
    slot_thread::Mail,
    slot_threads::RegionThreads,
    task::TaskMail,
};

/// One deployment of a region.
pub(super) struct RunningRegion {
    pub(super) generation: Generation,
    /// Where each of its subtasks is.
    pub(super) workers: BTreeMap<Subtask, WorkerId>,
    /// Of the tasks here.
    pub(super) placements: Vec<Placement>,
    /// Whether its tasks were told to end: no leader may take them for ones that go on.
    pub(super) is_ending: bool,
    pub(super) threads: RegionThreads,
    /// Says that the last task has gone.
    pub(super) gone: Receiver<Infallible>,
    /// Slots of other workers of this host that its tasks are in.
    pub(super) neighbours: BTreeSet<(WorkerId, SlotIndex)>,
    /// For its channels here, at most.
    pub(super) network_bytes: u64,
    pub(super) sources: Vec<Subtask>,
    pub(super) counters: Vec<(ExecutionAttemptId, Arc<TaskCounters>, MetricRegistry)>,
    pub(super) coordinators: HashMap<OperatorId, CoordinatorLine>,
    /// The checkpoint that coordinators were snapshotted for and whose barriers are not in the sources yet: they hold
    /// back what they send.
    pub(super) holding: Option<CheckpointId>,
    /// A checkpoint whose barriers wait for what coordinators elsewhere have sent before it.
    pub(super) triggered: Option<Barrier>,
    /// The newest checkpoint that each coordinator elsewhere has contributed to; all that it sent before is here.
    pub(super) snapshotted: HashMap<OperatorId, CheckpointId>,
    /// The newest checkpoint whose barriers are in the sources here, or never will be.
    pub(super) passed: CheckpointId,
    /// What coordinators elsewhere have sent and sources here may see only behind barriers that are still to come.
    pub(super) early: Vec<(CheckpointId, Subtask, Vec<u8>)>,
    /// The vertex of each operator with a coordinator.
    pub(super) coordinated: HashMap<OperatorId, JobVertexId>,
    /// The tasks here that have channels to each peer.
    pub(super) tasks_of_peer: BTreeMap<WorkerId, Vec<Subtask>>,
}

impl RunningRegion {
    /// One whose tasks are about to be started.
    pub(super) fn new(
        deployment: &Deployment,
        placements: Vec<Placement>,
        threads: RegionThreads,
        gone: Receiver<Infallible>,
        neighbours: BTreeSet<(WorkerId, SlotIndex)>,
    ) -> RunningRegion {
        RunningRegion {
            generation: deployment.generation,
            workers: deployment.placements.iter().map(|placement| (placement.subtask, placement.worker)).collect(),
            placements,
            is_ending: false,
            threads,
            gone,
            neighbours,
            network_bytes: 0,
            sources: Vec::new(),
            counters: Vec::new(),
            coordinators: HashMap::new(),
            holding: None,
            triggered: None,
            snapshotted: HashMap::new(),
            passed: CheckpointId(0),
            early: Vec::new(),
            coordinated: HashMap::new(),
            tasks_of_peer: BTreeMap::new(),
        }
    }

    fn tell(&self, subtask: Subtask, mail: TaskMail) {
        if let Some(mailbox) = self.threads.mailboxes.get(&subtask) {
            mailbox.send(Mail::Task(subtask, mail));
        }
    }

    pub(super) fn tell_all(&self, mail: impl Fn() -> TaskMail) {
        self.threads.mailboxes.keys().for_each(|subtask| self.tell(*subtask, mail()));
    }

    /// Puts the barriers of a triggered checkpoint into the sources, once all is here that coordinators elsewhere have
    /// sent before their part in it.
    pub(super) fn inject_if_ready(&mut self) {
        let is_ready = |barrier: &mut Barrier| self.snapshotted.values().all(|newest| *newest >= barrier.checkpoint);
        if let Some(barrier) = self.triggered.take_if(is_ready) {
            self.inject(barrier);
            self.release(barrier.checkpoint);
        }
    }

    fn inject(&self, barrier: Barrier) {
        for subtask in &self.sources {
            self.tell(*subtask, TaskMail::Trigger(barrier));
        }
    }

    pub(super) fn fail_tasks_of(&self, peer: WorkerId, failure: &Failure) {
        for subtask in self.tasks_of_peer.get(&peer).into_iter().flatten() {
            self.tell(*subtask, TaskMail::Fail(failure.clone()));
        }
    }

    /// An event from a coordinator, or for one, across the network.
    pub(super) fn on_event(&mut self, event: CoordinatorEvent) {
        let CoordinatorEvent { operator, subtask, direction, bytes, .. } = event;
        match direction {
            Direction::ToCoordinator => match self.coordinators.get(&operator) {
                Some(line) if line.is_here() => line.send(subtask, bytes),
                _ => tracing::warn!(%operator, "an event for a coordinator that is not here is thrown away"),
            },
            Direction::Snapshotted { checkpoint } => {
                if let Some(newest) = self.snapshotted.get_mut(&operator) {
                    *newest = checkpoint.max(*newest);
                }
                self.inject_if_ready();
            }
            Direction::ToSubtask { after } => {
                let Some(vertex) = self.coordinated.get(&operator) else { return };
                let subtask = Subtask { vertex: *vertex, index: subtask };
                if after > self.passed {
                    self.early.push((after, subtask, bytes));
                } else {
                    self.deliver(subtask, bytes);
                }
            }
        }
    }

    fn deliver(&self, subtask: Subtask, event: Vec<u8>) {
        self.tell(subtask, TaskMail::Event(event));
    }

    /// The barriers of this checkpoint are in the sources, or never will be: what had to stay behind them may go.
    pub(super) fn release(&mut self, checkpoint: CheckpointId) {
        self.passed = self.passed.max(checkpoint);
        let passed = self.passed;
        let due: Vec<_> = self.early.extract_if(.., |(after, ..)| *after <= passed).collect();
        due.into_iter().for_each(|(_, subtask, event)| self.deliver(subtask, event));
        if self.holding.take_if(|held| *held == checkpoint).is_some() {
            self.coordinators.values().for_each(|line| line.mail(CoordinatorMail::Release));
        }
    }
}
