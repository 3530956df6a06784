//! How a deployment becomes a running region: channels, coordinators, tasks.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use crossbeam_channel::Receiver;
use millstream_api::metrics::MetricRegistry;
use millstream_model::{
    config,
    deployment::{CompletedCheckpoint, Deployment},
    fault::Failure,
    id::{CheckpointId, ExecutionAttemptId, OperatorId, Subtask, WorkerId},
    job_graph::JobGraph,
    state::ExecutionState,
};
use millstream_shuffle::exchange::PeerLine;
use millstream_storage::{CheckpointDirectory, local_path};

use super::{Control, region::RunningRegion};
use crate::{
    clock,
    coordinator::{self, CoordinatorLine, CoordinatorMail, CoordinatorParts, SubtaskLine},
    expected::expected,
    metrics::TaskCounters,
    output::Limits,
    processors::{Processors, neighbours},
    restore::RestoredState,
    room::Share,
    slot_thread::{Blueprint, LifeSign, Mail, Settings, SlotMailbox},
    slot_threads::unknown_vertex,
    snapshot::{Uploader, with_causes},
    wiring::{Layout, Wiring},
};

/// The lines to the coordinators of a region, by operator; and the coordinators to be started here, with what they get.
type Lines = (HashMap<OperatorId, CoordinatorLine>, Vec<(CoordinatorParts, Receiver<CoordinatorMail>)>);

impl Control {
    pub(super) fn deploy(&mut self, graph: &Arc<JobGraph>, deployment: &Deployment) -> Result<(), Failure> {
        self.check_artifact(graph)?;
        let restored = deployment.restore.as_ref().map(|checkpoint| self.read_restored(checkpoint)).transpose()?;
        let processors = Processors::find(&graph.configuration.get(&config::AFFINITY)?);
        let placements: Vec<_> = self.own(deployment).copied().collect();
        let threads = self.threads.enter(graph, &placements, &processors, self.runtime.handle())?;
        let (sign, gone) = LifeSign::new();
        let region = RunningRegion::new(deployment, placements, threads, gone, neighbours(deployment, self.worker));
        // From here on it is the region that is stopped, whatever goes wrong.
        self.regions.insert(deployment.generation, region);
        self.set_spin(graph, &processors)?;
        self.start_tasks(graph, deployment, restored.as_deref(), sign)
    }

    fn read_restored(&mut self, checkpoint: &CompletedCheckpoint) -> Result<Arc<RestoredState>, Failure> {
        if let Some((directory, state)) = &self.restored
            && *directory == checkpoint.directory
        {
            return Ok(state.clone());
        }
        let state = Arc::new(RestoredState::read(checkpoint)?);
        self.restored = Some((checkpoint.directory.clone(), state.clone()));
        Ok(state)
    }

    /// Threads may spin while there is a processor for each of them, and for those of the workers beside this one.
    fn set_spin(&self, graph: &JobGraph, processors: &Processors) -> Result<(), Failure> {
        let regions = || self.regions.values();
        let neighbours: BTreeSet<_> = regions().flat_map(|region| &region.neighbours).collect();
        let own: usize = regions().map(|region| region.threads.own()).sum();
        let may_spin = processors.may_spin(self.threads.shared() + own + neighbours.len());
        let spin = if may_spin { graph.configuration.get(&config::TASK_SPIN)? } else { Duration::ZERO };
        regions().for_each(|region| region.threads.set_spin(spin));
        Ok(())
    }

    fn start_tasks(
        &mut self,
        graph: &Arc<JobGraph>,
        deployment: &Deployment,
        restored: Option<&RestoredState>,
        sign: LifeSign,
    ) -> Result<(), Failure> {
        let generation = deployment.generation;
        let region = self.regions.get(&generation).expect("it was just made");
        let mailboxes = region.threads.mailboxes.clone();
        let layout = Layout::new(graph)?;
        let settings = self.settings(graph, &layout)?;
        let exchange = self.exchange.as_ref().map(|(exchange, origin)| (exchange, *origin));
        let share = self.share(graph)?;
        let mut wiring = Wiring::new(graph, deployment, &layout, self.worker, &mailboxes, exchange, &share)?;
        let network_bytes = wiring.bytes;
        self.memory.note_segments(wiring.segments.clone(), layout.segment_bytes);
        let uploader = self.uploader(graph)?;
        let (coordinators, starting) = self.lines(graph, deployment, &wiring, &mailboxes, restored)?;
        let snapshotted = wiring.coordinators_elsewhere(graph, self.worker).map(|id| (id, CheckpointId(0))).collect();
        let has_peers = !wiring.peers.is_empty();
        let drive = self.exchange.as_ref().filter(|_| has_peers).map(|(exchange, _)| exchange.slot_drive());
        for (peer, (address, channels)) in std::mem::take(&mut wiring.peers) {
            if let Some((exchange, _)) = &self.exchange {
                exchange.attach(peer, address, channels);
            }
        }
        self.report_names(graph, deployment);
        let (mut sources, mut all_counters) = (Vec::new(), Vec::new());
        for placement in self.own(deployment) {
            let subtask = placement.subtask;
            let attempt = ExecutionAttemptId { subtask, generation };
            let vertex = graph.vertex_index(subtask.vertex).ok_or_else(|| unknown_vertex(subtask))?;
            let job_vertex = &graph.vertices[vertex];
            let gate = wiring.gate(vertex, subtask.index);
            if gate.is_none() {
                sources.push(subtask);
            }
            let counters = Arc::new(TaskCounters::new(clock::now()));
            let metrics = MetricRegistry::default();
            all_counters.push((attempt, counters.clone(), metrics.clone()));
            let restored = restored.map(|state| {
                let of = |operator: OperatorId| (operator, state.of(operator, job_vertex, subtask.index));
                job_vertex.operators.iter().map(|operator| of(operator.id)).collect()
            });
            self.reporter.state(attempt, ExecutionState::Deploying);
            let blueprint = Blueprint {
                graph: graph.clone(),
                vertex,
                attempt,
                senders: wiring.senders(vertex, subtask.index),
                gate,
                restored,
                coordinators: coordinators.clone(),
                counters,
                metrics,
                reporter: self.reporter.clone(),
                uploader: uploader.clone(),
                drive: drive.clone(),
                account: self.memory.account(placement.slot),
                settings,
                attempt_number: deployment.attempt,
                sign: sign.clone(),
            };
            mailboxes[&subtask].send(Mail::Start(Box::new(blueprint)));
        }
        let region = self.regions.get_mut(&generation).expect("it was there above");
        region.network_bytes = network_bytes;
        region.sources = sources;
        region.counters = all_counters;
        region.coordinators = coordinators;
        region.snapshotted = snapshotted;
        region.tasks_of_peer = std::mem::take(&mut wiring.tasks_of_peer);
        region.coordinated = coordinated(graph)
            .map(|(vertex, operator)| (graph.vertices[vertex].operators[operator].id, graph.vertices[vertex].id))
            .collect();
        // After the tasks, whose mailboxes keep order: a coordinator's first event must find its subtask.
        starting.into_iter().try_for_each(|(parts, mails)| coordinator::start(parts, mails))
    }

    /// What the region that was just added to the others may take for its channels.
    fn share(&self, graph: &JobGraph) -> Result<Share, Failure> {
        let Some(max) = self.memory.network_max() else { return Ok(Share::default()) };
        let taken: u64 = self.regions.values().map(|region| region.network_bytes).sum();
        let known = self.regions.values().flat_map(|region| &region.workers);
        let known = known.map(|(subtask, worker)| (*subtask, *worker)).collect();
        let beside = expected(graph, &known, self.worker, self.memory.slots())?;
        Ok(Share { bytes_max: Some(max.saturating_sub(taken)), beside })
    }

    fn lines(
        &self,
        graph: &Arc<JobGraph>,
        deployment: &Deployment,
        wiring: &Wiring,
        mailboxes: &BTreeMap<Subtask, SlotMailbox>,
        restored: Option<&RestoredState>,
    ) -> Result<Lines, Failure> {
        let generation = deployment.generation;
        let mut coordinators = HashMap::new();
        let mut starting = Vec::new();
        for (vertex, operator) in coordinated(graph) {
            let job_vertex = &graph.vertices[vertex];
            let id = job_vertex.operators[operator].id;
            if !deployment.placements.iter().any(|placement| placement.subtask.vertex == job_vertex.id) {
                continue; // of another region
            }
            let host = wiring.worker_of(Subtask { vertex: job_vertex.id, index: 0 })?;
            if host != self.worker {
                let peer = self.line(host)?;
                coordinators.insert(id, CoordinatorLine::There { peer, generation, operator: id });
                continue;
            }
            let subtasks = (0..job_vertex.parallelism).map(|index| {
                let subtask = Subtask { vertex: job_vertex.id, index };
                Ok::<_, Failure>(match mailboxes.get(&subtask) {
                    Some(mailbox) => SubtaskLine::Here(mailbox.clone()),
                    None => SubtaskLine::There(self.line(wiring.worker_of(subtask)?)?),
                })
            });
            let subtasks = subtasks.collect::<Result<Vec<_>, _>>()?;
            let (line, mails) = coordinator::line();
            coordinators.insert(id, line);
            let parts = CoordinatorParts {
                graph: graph.clone(),
                vertex,
                operator,
                generation,
                restored: restored.and_then(|state| state.coordinator(id).cloned()),
                subtasks,
                reporter: self.reporter.clone(),
                snapshots: self.snapshots.0.clone(),
            };
            starting.push((parts, mails));
        }
        Ok((coordinators, starting))
    }

    fn uploader(&self, graph: &JobGraph) -> Result<Uploader, Failure> {
        let directory = graph.configuration.get(&config::CHECKPOINTING_DIR)?;
        let directory = directory.as_deref().map(local_path).transpose();
        let directory = directory.map_err(|cause| Failure::fatal(with_causes(&cause)))?;
        Ok(Uploader {
            runtime: self.runtime.handle().clone(),
            directory: directory.map(|root| CheckpointDirectory::new(&root, graph.job_id)),
            reporter: self.reporter.clone(),
        })
    }

    fn line(&self, peer: WorkerId) -> Result<PeerLine, Failure> {
        let (exchange, _) = self.exchange.as_ref().ok_or_else(|| {
            Failure::fatal(format!("a coordinator has to speak with worker {}, and this worker has no network", peer.0))
        })?;
        Ok(exchange.line(peer))
    }

    fn check_artifact(&self, graph: &JobGraph) -> Result<(), Failure> {
        let wanted = graph.artifact.as_ref().map(|artifact| artifact.sha256.as_str());
        match (wanted, self.artifact.as_deref()) {
            (None, None) => Ok(()),
            (Some(wanted), Some(own)) if wanted == own => Ok(()),
            (wanted, own) => Err(Failure::fatal(format!(
                "the job was planned by the executable with SHA-256 {}, this worker is {}; start the worker from the \
                 same file",
                wanted.unwrap_or("(not given)"),
                own.unwrap_or("(not given)")
            ))),
        }
    }

    fn settings(&self, graph: &JobGraph, layout: &Layout) -> Result<Settings, Failure> {
        let configuration = &graph.configuration;
        let limits = Limits {
            overdraft_segments: configuration.get(&config::MAX_OVERDRAFT_BUFFERS)? as usize,
            overflow_bytes: configuration.get(&config::OVERFLOW_MAX)?.bytes(),
            segment_bytes: layout.segment_bytes,
        };
        Ok(Settings {
            validation: configuration.get(&config::SHUFFLE_VALIDATE)?,
            limits,
            buffer_timeout: configuration.get(&config::BUFFER_TIMEOUT)?,
            step_warning: configuration.get(&config::TASK_STEP_WARNING)?,
        })
    }
}

/// Operators with a coordinator: vertex and index.
fn coordinated(graph: &JobGraph) -> impl Iterator<Item = (usize, usize)> {
    graph.vertices.iter().enumerate().flat_map(|(vertex, job_vertex)| {
        let operators = job_vertex.operators.iter().enumerate();
        operators.filter(|(_, operator)| operator.coordinator.is_some()).map(move |(index, _)| (vertex, index))
    })
}
