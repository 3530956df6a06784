//! A simulated worker: it obeys a JobMaster as a real one does, and its tasks are a source with a position, and a sink with
//! keyed state and two-phase commit.
//!
//! ```text
//!  source i ──records, barriers, end──► sink j: count by key ──► lines of the open transaction
//!     │ position                          │ counts, transactions that wait for their checkpoint
//!     └────────────────────── snapshot ───┴──► file ──► acknowledgement;   checkpoint complete ──► Output
//! ```
//! A plain state machine: messages go in, [`Deed`]s come out, which the world does in its own time.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::Path,
};

use millstream_model::{
    deployment::{ChannelToken, CompletedCheckpoint, CoordinatorState, Deployment, SubtaskState},
    fault::Failure,
    id::{CheckpointId, ExecutionAttemptId, Generation, JobId, JobVertexId, LeaderEpoch, Subtask, WorkerId},
    message::{Command, Report, SnapshotStats, TaskStatus, ToWorker},
    state::ExecutionState,
};
use millstream_storage::{CheckpointDirectory, read_file};
use serde::{Deserialize, Serialize};

use crate::{job::JobSpec, output::Line};

/// What a sink stores, and a source with an empty rest.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Snapshot {
    position: u64,
    counts: BTreeMap<u64, u64>,
    waiting: Vec<(CheckpointId, Vec<Line>)>,
}

/// What travels from a source to a sink.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Element {
    Record(u64),
    Barrier(CheckpointId),
    End,
}

/// On its way between two tasks. Both ends show what deployment they are of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InChannel {
    pub job: JobId,
    pub generation: Generation,
    pub token: ChannelToken,
    pub from: Subtask,
    pub to: Subtask,
    pub element: Element,
}

/// What a worker wants done.
#[derive(Clone, Debug)]
pub enum Deed {
    Report(Report),
    /// An attempt begins or is over.
    Begins(ExecutionAttemptId),
    Ends(ExecutionAttemptId),
    /// To another worker, or itself.
    Send(WorkerId, InChannel),
    /// To be written off the slot's thread; [`Worker::on_stored`] hears of it.
    Store(ExecutionAttemptId, CheckpointId, Snapshot),
    /// An attempt will be ready; [`Worker::on_started`] hears of it.
    Start(ExecutionAttemptId),
    Commit {
        /// Its number in the job.
        sink: u32,
        checkpoint: CheckpointId,
        lines: Vec<Line>,
    },
    /// The process ends.
    Exit,
    Violation(String),
}

/// What came of an element.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taken {
    Yes,
    /// The receiver does not have this deployment yet.
    NotYet,
    /// It is of another deployment than the sender.
    Refused,
}

#[derive(Clone, Debug)]
struct Source {
    position: u64,
    at_end: bool,
}

#[derive(Clone, Debug)]
struct Sink {
    counts: BTreeMap<u64, u64>,
    open: Vec<Line>,
    /// Transactions that wait for their checkpoint.
    waiting: BTreeMap<CheckpointId, Vec<Line>>,
    channels: Vec<VecDeque<Element>>,
    aligning: Option<CheckpointId>,
    blocked: BTreeSet<usize>,
    ended: BTreeSet<usize>,
    said_end: bool,
}

#[derive(Clone, Debug)]
enum Half {
    Source(Source),
    Sink(Sink),
}

#[derive(Clone, Debug)]
struct Task {
    attempt: ExecutionAttemptId,
    state: ExecutionState,
    half: Half,
}

impl Task {
    fn is_over(&self) -> bool {
        self.state.is_terminal()
    }
}

#[derive(Clone, Debug)]
pub struct Worker {
    job: JobSpec,
    id: WorkerId,
    epoch: LeaderEpoch,
    /// The newest of each region that it has tasks of.
    deployments: BTreeMap<Generation, Deployment>,
    newest: Generation,
    was_deployed: BTreeSet<Generation>,
    tasks: BTreeMap<Subtask, Task>,
    /// By deployment, the checkpoint whose coordinators have been snapshotted here and whose barriers have not come.
    between: BTreeMap<Generation, CheckpointId>,
}

impl Worker {
    pub fn new(job: JobSpec, id: WorkerId) -> Worker {
        let (epoch, newest) = Default::default();
        let (deployments, was_deployed, tasks, between) = Default::default();
        Worker { job, id, epoch, deployments, newest, was_deployed, tasks, between }
    }

    pub fn id(&self) -> WorkerId {
        self.id
    }

    pub fn job(&self) -> &JobSpec {
        &self.job
    }

    /// Sources that have something to read.
    pub fn readers(&self) -> Vec<ExecutionAttemptId> {
        let reads = |task: &&Task| {
            task.state == ExecutionState::Running && matches!(&task.half, Half::Source(source) if !source.at_end)
        };
        self.tasks.values().filter(reads).map(|task| task.attempt).collect()
    }

    /// Attempts that have not ended.
    pub fn alive(&self) -> Vec<ExecutionAttemptId> {
        self.tasks.values().filter(|task| !task.is_over()).map(|task| task.attempt).collect()
    }

    /// Whether this attempt of this deployment is here and has not ended.
    pub fn runs(&self, attempt: ExecutionAttemptId, token: ChannelToken) -> bool {
        let deployment = self.deployments.get(&attempt.generation);
        let is_deployed = deployment.is_some_and(|deployment| deployment.token == token);
        is_deployed && self.tasks.get(&attempt.subtask).is_some_and(|task| task.attempt == attempt && !task.is_over())
    }

    /// Two subtasks of one vertex never share a slot.
    fn given_twice(&self) -> Option<Deed> {
        let mut taken = BTreeSet::new();
        let mut alive = self.tasks.values().filter(|task| !task.is_over()).map(|task| task.attempt);
        let second = alive.find(|attempt| {
            let placements = self.deployments.get(&attempt.generation).map(|deployment| &deployment.placements);
            let placement = placements.into_iter().flatten().find(|placement| placement.subtask == attempt.subtask);
            placement.is_some_and(|placement| !taken.insert((placement.slot, attempt.subtask.vertex)))
        })?;
        Some(Deed::Violation(format!("worker {}: {second:?} has the slot of another subtask", self.id.0)))
    }

    pub fn on_command(&mut self, message: ToWorker, directory: &CheckpointDirectory) -> Vec<Deed> {
        if message.epoch < self.epoch {
            return Vec::new();
        }
        self.epoch = message.epoch;
        let ours = |generation: Generation| self.deployments.contains_key(&generation);
        match message.command {
            Command::Deploy { deployment, .. } => {
                let mut deeds = self.on_deploy(*deployment, directory);
                deeds.extend(self.given_twice());
                deeds
            }
            Command::Cancel { generation } => {
                let mut deeds = Vec::new();
                for task in self.tasks.values_mut().filter(|task| task.attempt.generation == generation) {
                    if !task.is_over() {
                        end(task, ExecutionState::Canceled, None, &mut deeds);
                    }
                }
                deeds
            }
            Command::SnapshotCoordinators { generation, checkpoint } if ours(generation) => {
                self.on_snapshot_coordinators(generation, checkpoint)
            }
            Command::TriggerCheckpoint { generation, checkpoint, .. } if ours(generation) => {
                self.on_trigger(generation, checkpoint)
            }
            Command::CheckpointComplete { generation, checkpoint } if ours(generation) => {
                self.on_complete(generation, checkpoint)
            }
            Command::CheckpointAborted { generation, checkpoint } if ours(generation) => {
                self.leave(generation, checkpoint);
                Vec::new()
            }
            Command::Finish { generation } if ours(generation) => self.on_finish(generation),
            Command::ReportStatus => vec![Deed::Report(Report::Status { tasks: self.status() })],
            Command::Shutdown => vec![Deed::Exit],
            _ => Vec::new(),
        }
    }

    /// What a new leader adopts, or does not.
    fn status(&self) -> Vec<TaskStatus> {
        let placements = self.deployments.values().flat_map(|deployment| &deployment.placements);
        let tasks = placements.filter(|placement| placement.worker == self.id).filter_map(|placement| {
            let Task { attempt, state, half } = self.tasks.get(&placement.subtask)?;
            let end_of_data = match half {
                Half::Source(source) => source.at_end,
                Half::Sink(sink) => sink.said_end,
            };
            Some(TaskStatus { attempt: *attempt, slot: placement.slot, state: *state, end_of_data })
        });
        tasks.collect()
    }

    fn on_deploy(&mut self, deployment: Deployment, directory: &CheckpointDirectory) -> Vec<Deed> {
        let mut deeds = Vec::new();
        let generation = deployment.generation;
        if generation <= self.newest {
            if !self.deployments.contains_key(&generation) && !self.was_deployed.contains(&generation) {
                deeds.push(Deed::Violation(format!("generation {generation:?} after {:?}", self.newest)));
            }
            return deeds; // repeated
        }
        self.newest = generation;
        self.was_deployed.insert(generation);
        let mut deployed: Vec<Subtask> = deployment.placements.iter().map(|placement| placement.subtask).collect();
        let mut region = self.job.region(self.job.region_of(deployed[0]));
        deployed.sort_unstable();
        region.sort_unstable();
        if deployed != region {
            deeds.push(Deed::Violation(format!("{deployed:?} are deployed, and {region:?} are a region")));
        }
        self.deployments.retain(|_, earlier| !region.contains(&earlier.placements[0].subtask));
        for subtask in &region {
            if let Some(alive) = self.tasks.remove(subtask).filter(|task| !task.is_over()) {
                deeds.push(Deed::Violation(format!("deployed beside {:?}, which has not ended", alive.attempt)));
            }
        }
        let mine = deployment.placements.iter().filter(|placement| placement.worker == self.id);
        for placement in mine {
            let attempt = ExecutionAttemptId { subtask: placement.subtask, generation: deployment.generation };
            deeds.push(Deed::Begins(attempt));
            let mut task =
                Task { attempt, state: ExecutionState::Initializing, half: self.job.empty(placement.subtask) };
            deeds.push(Deed::Report(Report::Task { attempt, state: ExecutionState::Initializing, failure: None }));
            match restored(deployment.restore.as_ref(), placement.subtask, directory.path()) {
                Ok(Some(snapshot)) => restore(&self.job, &mut task, snapshot, deployment.restore.as_ref(), &mut deeds),
                Ok(None) => {}
                Err(failure) => end(&mut task, ExecutionState::Failed, Some(failure), &mut deeds),
            }
            if !task.is_over() {
                deeds.push(Deed::Start(attempt));
            }
            self.tasks.insert(placement.subtask, task);
        }
        self.deployments.insert(generation, deployment);
        deeds
    }

    /// An attempt is ready.
    pub fn on_started(&mut self, attempt: ExecutionAttemptId) -> Vec<Deed> {
        let Some(task) = self.task_mut(attempt) else { return Vec::new() };
        if task.state != ExecutionState::Initializing {
            return Vec::new();
        }
        task.state = ExecutionState::Running;
        vec![Deed::Report(Report::Task { attempt, state: ExecutionState::Running, failure: None })]
    }

    /// A source reads a record, or its end.
    pub fn on_step(&mut self, attempt: ExecutionAttemptId) -> Vec<Deed> {
        let job = self.job.clone();
        let Some(task) = self.task_mut(attempt).filter(|task| task.state == ExecutionState::Running) else {
            return Vec::new();
        };
        let Half::Source(source) = &mut task.half else { return Vec::new() };
        if source.at_end {
            return Vec::new();
        }
        if source.position < job.records {
            let number = source.position;
            source.position += 1;
            let to = job.sink_of(attempt.subtask, job.key(attempt.subtask, number));
            return self.send(attempt, to, Element::Record(number));
        }
        source.at_end = true;
        let mut deeds = vec![Deed::Report(Report::EndOfData { attempt })];
        for sink in job.sinks_of(attempt.subtask) {
            deeds.extend(self.send(attempt, sink, Element::End));
        }
        deeds
    }

    fn send(&self, attempt: ExecutionAttemptId, to: Subtask, element: Element) -> Vec<Deed> {
        let deployment = self.deployments.get(&attempt.generation).expect("tasks run in a deployment");
        let from = attempt.subtask;
        let placement = deployment.placements.iter().find(|placement| placement.subtask == to);
        let Deployment { generation, token, .. } = *deployment;
        let in_channel = InChannel { job: self.job.id, generation, token, from, to, element };
        placement.map(|placement| Deed::Send(placement.worker, in_channel)).into_iter().collect()
    }

    fn on_snapshot_coordinators(&mut self, generation: Generation, checkpoint: CheckpointId) -> Vec<Deed> {
        let mut deeds = Vec::new();
        let any = self.deployments[&generation].placements[0].subtask;
        let Some(operator) = self.job.coordinator(any) else { return deeds };
        let first = Subtask { vertex: JobVertexId(operator.0), index: 0 };
        if self.tasks.get(&first).is_none_or(|task| task.is_over() || task.attempt.generation != generation) {
            return deeds;
        }
        let before = self.between.insert(generation, checkpoint);
        if let Some(before) = before.filter(|before| *before != checkpoint) {
            deeds.push(Deed::Violation(format!("a coordinator is between checkpoints {before} and {checkpoint}")));
        }
        let state = CoordinatorState { operator, bytes: checkpoint.0.to_le_bytes().to_vec() };
        deeds.push(Deed::Report(Report::CoordinatorAck { generation, checkpoint, state }));
        deeds
    }

    /// A coordinator is no longer between its snapshot for this checkpoint and the barriers.
    fn leave(&mut self, generation: Generation, checkpoint: CheckpointId) {
        self.between.retain(|of, between| *of != generation || *between != checkpoint);
    }

    fn running(&mut self, generation: Generation) -> impl Iterator<Item = &mut Task> {
        let is_of =
            move |task: &&mut Task| task.state == ExecutionState::Running && task.attempt.generation == generation;
        self.tasks.values_mut().filter(is_of)
    }

    fn on_trigger(&mut self, generation: Generation, checkpoint: CheckpointId) -> Vec<Deed> {
        self.leave(generation, checkpoint);
        let mut deeds = Vec::new();
        let running: Vec<Task> = self.running(generation).map(|task| task.clone()).collect();
        for task in running {
            let Half::Source(source) = &task.half else { continue };
            let snapshot = Snapshot { position: source.position, ..Snapshot::default() };
            deeds.push(Deed::Store(task.attempt, checkpoint, snapshot));
            for sink in self.job.sinks_of(task.attempt.subtask) {
                deeds.extend(self.send(task.attempt, sink, Element::Barrier(checkpoint)));
            }
        }
        deeds
    }

    fn on_complete(&mut self, generation: Generation, checkpoint: CheckpointId) -> Vec<Deed> {
        let mut deeds = Vec::new();
        let job = self.job.clone();
        for task in self.running(generation) {
            let Half::Sink(sink) = &mut task.half else { continue };
            let later = sink.waiting.split_off(&CheckpointId(checkpoint.0 + 1));
            for (checkpoint, lines) in std::mem::replace(&mut sink.waiting, later) {
                deeds.push(Deed::Commit { sink: job.number(task.attempt.subtask), checkpoint, lines });
            }
        }
        deeds
    }

    fn on_finish(&mut self, generation: Generation) -> Vec<Deed> {
        let mut deeds = Vec::new();
        for task in self.running(generation) {
            if let Half::Sink(sink) = &task.half
                && (!sink.open.is_empty() || !sink.waiting.is_empty())
            {
                deeds.push(Deed::Violation(format!("{:?} is to finish with uncommitted output", task.attempt)));
            }
            end(task, ExecutionState::Finished, None, &mut deeds);
        }
        deeds
    }

    /// A snapshot's file is written, or was not.
    pub fn on_stored(
        &mut self,
        attempt: ExecutionAttemptId,
        checkpoint: CheckpointId,
        stored: Result<SubtaskState, Failure>,
    ) -> Vec<Deed> {
        let generation = attempt.generation;
        if self.task_mut(attempt).is_none_or(|task| task.is_over()) {
            return Vec::new();
        }
        let report = match stored {
            Ok(state) => Report::CheckpointAck { attempt, checkpoint, state, stats: SnapshotStats::default() },
            Err(failure) => Report::CheckpointDeclined { generation, checkpoint, failure },
        };
        vec![Deed::Report(report)]
    }

    /// Something arrives for one of its tasks.
    pub fn on_element(&mut self, arrived: InChannel) -> (Taken, Vec<Deed>) {
        match self.deployments.get(&arrived.generation) {
            Some(deployment) if deployment.token == arrived.token => {}
            None if arrived.generation > self.newest => return (Taken::NotYet, Vec::new()),
            _ => return (Taken::Refused, Vec::new()),
        }
        let job = self.job.clone();
        let Some(task) = self.tasks.get_mut(&arrived.to) else { return (Taken::Refused, Vec::new()) };
        match task.state {
            ExecutionState::Initializing => return (Taken::NotYet, Vec::new()),
            ExecutionState::Running => {}
            _ => return (Taken::Refused, Vec::new()),
        }
        if task.attempt.generation != arrived.generation {
            let what = format!("{:?} takes what {:?} of {:?} has sent", task.attempt, arrived.from, arrived.generation);
            return (Taken::Refused, vec![Deed::Violation(what)]);
        }
        let Half::Sink(sink) = &mut task.half else { return (Taken::Refused, Vec::new()) };
        let channel = job.sources_of(arrived.to).iter().position(|source| *source == arrived.from);
        sink.channels[channel.expect("it has a channel from there")].push_back(arrived.element);
        (Taken::Yes, sink_steps(&job, task))
    }

    /// A function of the user's fails, or a connection that an attempt needs.
    pub fn fail(&mut self, attempt: ExecutionAttemptId, why: &str) -> Vec<Deed> {
        let mut deeds = Vec::new();
        if let Some(task) = self.task_mut(attempt).filter(|task| !task.is_over()) {
            end(task, ExecutionState::Failed, Some(Failure::new(why)), &mut deeds);
        }
        deeds
    }

    fn task_mut(&mut self, attempt: ExecutionAttemptId) -> Option<&mut Task> {
        self.tasks.get_mut(&attempt.subtask).filter(|task| task.attempt == attempt)
    }
}

/// Takes what its channels have, as far as alignment lets it.
fn sink_steps(job: &JobSpec, task: &mut Task) -> Vec<Deed> {
    let mut deeds = Vec::new();
    let (attempt, half) = (task.attempt, &mut task.half);
    let Half::Sink(sink) = half else { return deeds };
    let sources = job.sources_of(attempt.subtask);
    loop {
        let ready =
            (0..sink.channels.len()).find(|from| !sink.blocked.contains(from) && !sink.channels[*from].is_empty());
        let Some(from) = ready else { break };
        match sink.channels[from].pop_front().expect("it is not empty") {
            Element::Record(number) => {
                let key = job.key(sources[from], number);
                let count = sink.counts.entry(key).or_default();
                *count += 1;
                sink.open.push(Line { source: job.number(sources[from]), number, key, count: *count });
            }
            Element::End => {
                sink.ended.insert(from);
            }
            Element::Barrier(checkpoint) => {
                if sink.aligning.is_some_and(|aligning| aligning > checkpoint) {
                    continue;
                }
                if sink.aligning != Some(checkpoint) {
                    // The one before was given up.
                    sink.aligning = Some(checkpoint);
                    sink.blocked.clear();
                }
                sink.blocked.insert(from);
                if sink.blocked.len() == sink.channels.len() {
                    sink.blocked.clear();
                    let lines = std::mem::take(&mut sink.open);
                    sink.waiting.insert(checkpoint, lines);
                    let waiting = sink.waiting.iter().map(|(id, lines)| (*id, lines.clone())).collect();
                    let snapshot = Snapshot { position: 0, counts: sink.counts.clone(), waiting };
                    deeds.push(Deed::Store(attempt, checkpoint, snapshot));
                }
            }
        }
    }
    if sink.ended.len() == sink.channels.len() && !sink.said_end {
        sink.said_end = true;
        deeds.push(Deed::Report(Report::EndOfData { attempt }));
    }
    deeds
}

fn end(task: &mut Task, state: ExecutionState, failure: Option<Failure>, deeds: &mut Vec<Deed>) {
    task.state = state;
    deeds.push(Deed::Ends(task.attempt));
    deeds.push(Deed::Report(Report::Task { attempt: task.attempt, state, failure }));
}

fn restored(
    checkpoint: Option<&CompletedCheckpoint>,
    subtask: Subtask,
    directory: &Path,
) -> Result<Option<Snapshot>, Failure> {
    let Some(checkpoint) = checkpoint else { return Ok(None) };
    let state = checkpoint.subtasks.iter().find(|state| state.subtask == subtask);
    let lost = |what: &str| Failure::fatal(format!("checkpoint {} in {}: {what}", checkpoint.id, directory.display()));
    let file = state.and_then(|state| state.file.as_ref()).ok_or_else(|| lost("a part is missing"))?;
    let bytes = read_file(checkpoint, file).map_err(|error| lost(&error.to_string()))?;
    serde_json::from_slice(&bytes).map(Some).map_err(|error| lost(&error.to_string()))
}

fn restore(
    job: &JobSpec,
    task: &mut Task,
    snapshot: Snapshot,
    from: Option<&CompletedCheckpoint>,
    deeds: &mut Vec<Deed>,
) {
    let Snapshot { position, counts, waiting } = snapshot;
    match &mut task.half {
        Half::Source(source) => source.position = position,
        Half::Sink(sink) => {
            sink.counts = counts;
            sink.aligning = from.map(|checkpoint| checkpoint.id);
            // What its checkpoint has is durable, whether or not anybody was told so.
            for (checkpoint, lines) in waiting {
                deeds.push(Deed::Commit { sink: job.number(task.attempt.subtask), checkpoint, lines });
            }
        }
    }
}

impl JobSpec {
    fn empty(&self, subtask: Subtask) -> Half {
        if self.is_source(subtask) {
            return Half::Source(Source { position: 0, at_end: false });
        }
        Half::Sink(Sink {
            counts: BTreeMap::new(),
            open: Vec::new(),
            waiting: BTreeMap::new(),
            channels: vec![VecDeque::new(); self.sources_of(subtask).len()],
            aligning: None,
            blocked: BTreeSet::new(),
            ended: BTreeSet::new(),
            said_end: false,
        })
    }
}
