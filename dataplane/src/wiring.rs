//! The channels of a deployment: those between tasks of this worker, and the near ends of those to other workers.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
};

use millstream_model::{
    config,
    deployment::Deployment,
    fault::Failure,
    id::{OperatorId, Subtask, WorkerId},
    job_graph::{JobGraph, JobVertex},
};
use millstream_shuffle::{
    channel::{ChannelReceiver, ChannelSender, GrantSignal, channel},
    exchange::Exchange,
    gate::{GateSignal, InputGate},
    link::PeerChannels,
    segment::{Census, SegmentPool},
    wake::Waker,
    wire::message::ChannelKey,
};

use crate::slot_thread::SlotMailbox;

/// Where a channel's records come from, which decides how far they are believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    /// This process has written them.
    Process,
    /// Another worker has, which has proved who it is, over an encrypted connection.
    Network,
    /// Somebody at the other end of an open connection has.
    Unproved,
}

/// The input channels of one task.
pub(crate) struct TaskGate {
    pub(crate) gate: InputGate,
    /// Of each channel: the operator's input that it belongs to, and where it comes from.
    pub(crate) inputs: Vec<(u8, Origin)>,
}

/// All channels of a deployment, until their tasks take them.
pub(crate) struct Wiring {
    /// Of the channels of this deployment.
    pub(crate) segments: Census,
    senders: HashMap<(usize, u32), HashMap<usize, Vec<ChannelSender>>>,
    gates: HashMap<(usize, u32), GateParts>,
    /// What is to be attached to the exchange.
    pub(crate) peers: BTreeMap<WorkerId, (SocketAddr, PeerChannels)>,
    /// The tasks here that cannot do without each peer.
    pub(crate) tasks_of_peer: BTreeMap<WorkerId, Vec<Subtask>>,
    workers: HashMap<Subtask, WorkerId>,
}

struct GateParts {
    receivers: Vec<ChannelReceiver>,
    inputs: Vec<(u8, Origin)>,
    signal: Arc<GateSignal>,
}

/// One channel of the job.
struct Connection {
    edge: usize,
    producer: Subtask,
    consumer: Subtask,
    from: WorkerId,
    to: WorkerId,
}

/// How many bytes may be under way on each channel. Those from one worker to another share `of_pair`: a round trip lies
/// between two grants, and two threads have to be woken on the way, so few channels need more than one within a process.
fn windows(connections: &[Connection], local: u64, of_pair: u64) -> Vec<u64> {
    let mut channels = HashMap::<(WorkerId, WorkerId), u64>::new();
    connections.iter().for_each(|connection| *channels.entry((connection.from, connection.to)).or_default() += 1);
    let window = |connection: &Connection| {
        let pair = (connection.from, connection.to);
        if pair.0 == pair.1 { local } else { (of_pair / channels[&pair].max(4)).max(local) }
    };
    connections.iter().map(window).collect()
}

impl Wiring {
    /// Makes the channels that begin or end at `worker`.
    ///
    /// # Errors
    /// If the graph and the deployment do not fit together, or records would have to cross a network that this worker or
    /// a peer has no part in.
    pub(crate) fn new(
        graph: &JobGraph,
        deployment: &Deployment,
        worker: WorkerId,
        mailboxes: &BTreeMap<Subtask, SlotMailbox>,
        exchange: Option<(&Exchange, Origin)>,
    ) -> Result<Wiring, Failure> {
        let remote = exchange.map_or(Origin::Unproved, |(_, origin)| origin);
        let configuration = &graph.configuration;
        let segment_bytes = configuration.get(&config::SEGMENT_SIZE)?.bytes() as usize;
        let window = configuration.get(&config::CHANNEL_WINDOW)?.bytes();
        let workers: HashMap<_, _> = deployment.placements.iter().map(|p| (p.subtask, p.worker)).collect();
        let connections = connections(graph, &workers, worker)?;
        let coordinated = coordinated(graph, &workers, worker)?;
        let windows = windows(&connections, window, configuration.get(&config::REMOTE_WINDOW)?.bytes());
        let segments = windows.iter().map(|window| (*window as usize / segment_bytes).max(2)).sum();
        let pool = SegmentPool::new(segment_bytes, segments);
        let mut wiring = Wiring {
            segments: pool.census(),
            senders: HashMap::new(),
            gates: HashMap::new(),
            peers: peers(deployment, worker, &connections, &coordinated, exchange.map(|(exchange, _)| exchange))?,
            tasks_of_peer: BTreeMap::new(),
            workers,
        };
        for (peer, task) in coordinated {
            note(&mut wiring.tasks_of_peer, peer, task);
        }
        let mut into = HashMap::<Subtask, usize>::new();
        connections.iter().for_each(|connection| *into.entry(connection.consumer).or_default() += 1);
        for (connection, window) in connections.iter().zip(windows) {
            let Connection { edge, producer, consumer, from, to } = connection;
            let (edge, job_edge) = (*edge, &graph.edges[*edge]);
            let key = ChannelKey { edge: edge as u32, producer: producer.index, consumer: consumer.index };
            // The producer's end, unless it is elsewhere.
            let producer_wakes = (*from == worker).then(|| GrantSignal::Thread(mailboxes[producer].waker.clone()));
            // The consumer's end, unless it is elsewhere: the next place in its gate.
            let gate = (*to == worker).then(|| {
                let gate = wiring.gates.entry((job_edge.target, consumer.index)).or_insert_with(|| GateParts {
                    receivers: Vec::new(),
                    inputs: Vec::new(),
                    signal: Arc::new(GateSignal::new(into[consumer], mailboxes[consumer].waker.clone())),
                });
                let origin = if from == to { Origin::Process } else { remote };
                gate.inputs.push((job_edge.input, origin));
                gate
            });
            let sender = match (producer_wakes, gate) {
                (Some(wakes), Some(gate)) => {
                    let index = gate.receivers.len();
                    let (sender, receiver) = channel(&pool, window, wakes, gate.signal.clone(), index);
                    gate.receivers.push(receiver);
                    Some(sender)
                }
                (Some(wakes), None) => {
                    let peer = &mut wiring.peers.get_mut(to).expect("it has channels").1;
                    let index = peer.outlets.len();
                    let (sender, outlet) = channel(&pool, window, wakes, peer.outlet_signal.clone(), index);
                    peer.outlets.push((key, outlet));
                    note(&mut wiring.tasks_of_peer, *to, *producer);
                    Some(sender)
                }
                (None, Some(gate)) => {
                    let peer = &mut wiring.peers.get_mut(from).expect("it has channels").1;
                    let wakes = GrantSignal::Channel(peer.grant_signal.clone(), peer.inlets.len());
                    let index = gate.receivers.len();
                    let (inlet, receiver) = channel(&pool, window, wakes, gate.signal.clone(), index);
                    peer.inlets.push((key, inlet));
                    gate.receivers.push(receiver);
                    note(&mut wiring.tasks_of_peer, *from, *consumer);
                    None
                }
                (None, None) => None,
            };
            if let Some(sender) = sender {
                let of_producer = wiring.senders.entry((job_edge.source, producer.index)).or_default();
                // Consumers are visited in the order of their index, which is that of a producer's channels.
                of_producer.entry(edge).or_default().push(sender);
            }
        }
        Ok(wiring)
    }

    /// Where a subtask runs.
    pub(crate) fn worker_of(&self, subtask: Subtask) -> Result<WorkerId, Failure> {
        worker_of(&self.workers, subtask)
    }

    /// Operators with subtasks at `worker` whose coordinator runs on another one.
    pub(crate) fn coordinators_elsewhere<'a>(
        &'a self,
        graph: &'a JobGraph,
        worker: WorkerId,
    ) -> impl Iterator<Item = OperatorId> + 'a {
        let is_at = move |subtask: Subtask| self.workers.get(&subtask) == Some(&worker);
        let vertices = graph.vertices.iter().filter(move |vertex| {
            let mut subtasks = (0..vertex.parallelism).map(|index| Subtask { vertex: vertex.id, index });
            !subtasks.next().is_some_and(is_at) && subtasks.any(is_at)
        });
        let operators = vertices.flat_map(|vertex| &vertex.operators);
        operators.filter(|operator| operator.coordinator.is_some()).map(|operator| operator.id)
    }

    pub(crate) fn senders(&mut self, vertex: usize, subtask: u32) -> HashMap<usize, Vec<ChannelSender>> {
        self.senders.remove(&(vertex, subtask)).unwrap_or_default()
    }

    pub(crate) fn gate(&mut self, vertex: usize, subtask: u32) -> Option<TaskGate> {
        let GateParts { receivers, inputs, signal } = self.gates.remove(&(vertex, subtask))?;
        Some(TaskGate { gate: InputGate::new(receivers, signal), inputs })
    }
}

fn note(tasks: &mut BTreeMap<WorkerId, Vec<Subtask>>, peer: WorkerId, task: Subtask) {
    let tasks = tasks.entry(peer).or_default();
    if !tasks.contains(&task) {
        tasks.push(task);
    }
}

fn worker_of(workers: &HashMap<Subtask, WorkerId>, subtask: Subtask) -> Result<WorkerId, Failure> {
    let missing = || Failure::fatal(format!("the deployment does not say where subtask {subtask} runs"));
    workers.get(&subtask).copied().ok_or_else(missing)
}

/// The workers that this one needs so that coordinators and their subtasks can speak, and the task here that needs it.
fn coordinated(
    graph: &JobGraph,
    workers: &HashMap<Subtask, WorkerId>,
    worker: WorkerId,
) -> Result<Vec<(WorkerId, Subtask)>, Failure> {
    let has_coordinator = |vertex: &&JobVertex| vertex.operators.iter().any(|operator| operator.coordinator.is_some());
    let mut needed = Vec::new();
    for vertex in graph.vertices.iter().filter(has_coordinator) {
        let first = Subtask { vertex: vertex.id, index: 0 };
        let host = worker_of(workers, first)?;
        for subtask in (0..vertex.parallelism).map(|index| Subtask { vertex: vertex.id, index }) {
            let at = worker_of(workers, subtask)?;
            match (host == worker, at == worker) {
                (true, false) => needed.push((at, first)),
                (false, true) => needed.push((host, subtask)),
                _ => {}
            }
        }
    }
    Ok(needed)
}

/// The channels of a job that begin or end at `worker`, in the order in which gates and edges number them.
fn connections(
    graph: &JobGraph,
    workers: &HashMap<Subtask, WorkerId>,
    worker: WorkerId,
) -> Result<Vec<Connection>, Failure> {
    let mut connections = Vec::new();
    for (target, vertex) in graph.vertices.iter().enumerate() {
        for consumer in (0..vertex.parallelism).map(|index| Subtask { vertex: vertex.id, index }) {
            let to = worker_of(workers, consumer)?;
            for (edge, job_edge) in graph.inputs(target) {
                let source = &graph.vertices[job_edge.source];
                for index in 0..source.parallelism {
                    let connected = job_edge.partitioning.consumers(index, source.parallelism, vertex.parallelism);
                    if !connected.contains(&consumer.index) {
                        continue;
                    }
                    let producer = Subtask { vertex: source.id, index };
                    let from = worker_of(workers, producer)?;
                    if from == worker || to == worker {
                        connections.push(Connection { edge, producer, consumer, from, to });
                    }
                }
            }
        }
    }
    Ok(connections)
}

/// The other workers that channels lead to or come from, without the channels.
fn peers(
    deployment: &Deployment,
    worker: WorkerId,
    connections: &[Connection],
    coordinated: &[(WorkerId, Subtask)],
    exchange: Option<&Exchange>,
) -> Result<BTreeMap<WorkerId, (SocketAddr, PeerChannels)>, Failure> {
    let mut counts = BTreeMap::<WorkerId, (usize, usize)>::new();
    for connection in connections {
        if connection.to != worker {
            counts.entry(connection.to).or_default().0 += 1;
        } else if connection.from != worker {
            counts.entry(connection.from).or_default().1 += 1;
        }
    }
    for (peer, _) in coordinated {
        counts.entry(*peer).or_default();
    }
    let mut peers = BTreeMap::new();
    for (peer, (outlets, inlets)) in counts {
        let exchange = exchange.ok_or_else(|| {
            Failure::fatal(format!("records must go to or come from worker {}, and this worker has no network", peer.0))
        })?;
        let address =
            deployment.peers.iter().find(|known| known.worker == peer).and_then(|known| known.shuffle_address);
        let address = address.ok_or_else(|| {
            Failure::fatal(format!("records must go to or come from worker {}, which takes no connections", peer.0))
        })?;
        let signal = |channels: usize, waker: Arc<Waker>| Arc::new(GateSignal::new(channels, waker));
        let channels = PeerChannels {
            generation: deployment.generation,
            token: deployment.token,
            outlets: Vec::with_capacity(outlets),
            outlet_signal: signal(outlets, exchange.waker()),
            inlets: Vec::with_capacity(inlets),
            grant_signal: signal(inlets, exchange.waker()),
        };
        peers.insert(peer, (address, channels));
    }
    Ok(peers)
}

#[cfg(test)]
mod tests {
    use millstream_model::id::JobVertexId;

    use super::*;

    #[test]
    fn channels_between_two_workers_share_a_window_and_none_has_less_than_one_within_a_process() {
        let connection = |from, to| {
            let subtask = Subtask { vertex: JobVertexId(1), index: 0 };
            Connection { edge: 0, producer: subtask, consumer: subtask, from: WorkerId(from), to: WorkerId(to) }
        };
        let of = |count, to| (0..count).map(|_| connection(0, to)).collect::<Vec<_>>();
        assert_eq!(windows(&of(1, 0), 128, 4096), [128]);
        assert_eq!(windows(&of(1, 1), 128, 4096), [1024]);
        assert_eq!(windows(&of(16, 1), 128, 4096), [256; 16]);
        assert_eq!(windows(&of(64, 1), 128, 4096), [128; 64]);
        // Each direction and each peer counts for itself.
        assert_eq!(windows(&[connection(0, 1), connection(1, 0), connection(0, 2)], 128, 4096), [1024; 3]);
    }
}
