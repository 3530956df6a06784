//! The channels of a deployment: those between tasks of this worker, and the near ends of those to other workers.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
};

use millstream_model::{
    config::{self, Configuration, Key, MemorySize},
    deployment::Deployment,
    fault::Failure,
    id::{OperatorId, Subtask, WorkerId},
    job_graph::{JobGraph, JobVertex},
};
use millstream_shuffle::{
    channel::{ChannelReceiver, ChannelSender, GrantSignal, opened_channel},
    credit::{
        Granter,
        debloater::{Debloater, Debloating},
    },
    exchange::Exchange,
    gate::{GateSignal, InputGate},
    link::PeerChannels,
    segment::{Census, SegmentPool},
    wake::Waker,
    wire::message::ChannelKey,
};

use crate::{
    room::{Room, Share},
    slot_thread::SlotMailbox,
};

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
    /// How much may be under way to it, if that is not fixed.
    pub(crate) debloater: Option<Debloater>,
}

/// All channels of a deployment, until their tasks take them.
pub(crate) struct Wiring {
    /// Of the channels of this deployment.
    pub(crate) segments: Census,
    /// What they take at most.
    pub(crate) bytes: u64,
    senders: HashMap<(usize, u32), HashMap<usize, Vec<ChannelSender>>>,
    gates: HashMap<(usize, u32), GateParts>,
    /// What is to be attached to the exchange.
    pub(crate) peers: BTreeMap<WorkerId, (SocketAddr, PeerChannels)>,
    /// The tasks here that cannot do without each peer.
    pub(crate) tasks_of_peer: BTreeMap<WorkerId, Vec<Subtask>>,
    workers: HashMap<Subtask, WorkerId>,
    layout: Layout,
}

struct GateParts {
    receivers: Vec<ChannelReceiver>,
    inputs: Vec<(u8, Origin)>,
    signal: Arc<GateSignal>,
    granter: Granter,
}

/// One channel of the job.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) edge: usize,
    pub(crate) producer: Subtask,
    pub(crate) consumer: Subtask,
    pub(crate) from: WorkerId,
    pub(crate) to: WorkerId,
}

/// The least that segments are made.
const SEGMENT_BYTES_MIN: u64 = 4 << 10;

/// How the memory between tasks is laid out. All workers of a job come to the same.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) segment_bytes: u64,
    /// What one gate may have, and the channels out of one task at their sending ends.
    gate_bytes: u64,
    local_window: u64,
    remote_window: u64,
    debloating: Option<Debloating>,
    /// How many channels each subtask reads, and writes.
    into: HashMap<Subtask, usize>,
    out_of: HashMap<Subtask, usize>,
}

impl Layout {
    /// # Errors
    /// If the configuration has a bad value.
    pub(crate) fn new(graph: &JobGraph) -> Result<Layout, Failure> {
        let bytes = |key: &Key<MemorySize>| graph.configuration.get(key).map(MemorySize::bytes);
        let (mut into, mut out_of) = (HashMap::<Subtask, usize>::new(), HashMap::<Subtask, usize>::new());
        for edge in &graph.edges {
            let (source, target) = (&graph.vertices[edge.source], &graph.vertices[edge.target]);
            for index in 0..source.parallelism {
                let consumers = edge.partitioning.consumers(index, source.parallelism, target.parallelism);
                *out_of.entry(Subtask { vertex: source.id, index }).or_default() += consumers.len();
                consumers.for_each(|index| *into.entry(Subtask { vertex: target.id, index }).or_default() += 1);
            }
        }
        let gate_bytes = bytes(&config::GATE_SIZE_MAX)?;
        let widest = into.values().chain(out_of.values()).copied().max().unwrap_or(0) as u64;
        let segment_bytes = segment_bytes(bytes(&config::SEGMENT_SIZE)?, widest, gate_bytes);
        let (local_window, remote_window) = (bytes(&config::CHANNEL_WINDOW)?, bytes(&config::REMOTE_WINDOW)?);
        let debloating = debloating(&graph.configuration)?;
        Ok(Layout { segment_bytes, gate_bytes, local_window, remote_window, debloating, into, out_of })
    }

    /// The most that each channel may have under way in its gate, with room for all of them. Those from one worker to
    /// another share a window: a round trip lies between two grants, and two threads have to be woken on the way, so few
    /// channels need more than one within a process.
    pub(crate) fn windows(&self, connections: &[Connection]) -> Vec<u64> {
        let mut channels = HashMap::<(WorkerId, WorkerId), u64>::new();
        connections.iter().for_each(|connection| *channels.entry((connection.from, connection.to)).or_default() += 1);
        let local = self.local_window.max(2 * self.segment_bytes);
        let window = |connection: &Connection| {
            let pair = (connection.from, connection.to);
            if pair.0 == pair.1 { local } else { (self.remote_window / channels[&pair].max(4)).max(local) }
        };
        connections.iter().map(window).collect()
    }

    /// What a channel to another worker has at its sending end: tasks with many of them have as much as gates have.
    pub(crate) fn sending_window(&self, producer: Subtask, window: u64) -> u64 {
        let share = self.gate_bytes / self.out_of[&producer].max(1) as u64;
        window.min(share.max(2 * self.segment_bytes))
    }

    /// Who shares out the room of a gate with channels of these windows.
    pub(crate) fn granter(&self, windows: &[u64]) -> Granter {
        Granter::new(self.segment_bytes, self.gate_bytes, windows)
    }

    /// The same with windows half as large, if they are not at their least: within a process, two segments.
    pub(crate) fn with_half_the_windows(&self) -> Option<Layout> {
        let least = 2 * self.segment_bytes;
        if self.local_window <= least && self.remote_window <= least {
            return None;
        }
        let half = |window: u64| (window / 2).max(least);
        Some(Layout { local_window: half(self.local_window), remote_window: half(self.remote_window), ..self.clone() })
    }

    /// For tests of what builds on it.
    #[cfg(test)]
    pub(crate) fn fixed(
        segment_bytes: u64,
        gate_bytes: u64,
        local_window: u64,
        remote_window: u64,
        into: HashMap<Subtask, usize>,
        out_of: HashMap<Subtask, usize>,
    ) -> Layout {
        Layout { segment_bytes, gate_bytes, local_window, remote_window, debloating: None, into, out_of }
    }

    /// What finds out how much may be under way to a gate. A channel from another worker has two ends where data waits, and
    /// each has half of the time.
    fn debloater(&self, gate: &GateParts) -> Option<Debloater> {
        let mut debloating = self.debloating?;
        if gate.inputs.iter().any(|(_, origin)| *origin != Origin::Process) {
            debloating.target /= 2;
        }
        Some(Debloater::new(debloating, gate.granter.pool()))
    }

    /// Whether some of the channels into a task have no floor.
    fn has_lent(&self, consumer: Subtask) -> bool {
        self.into[&consumer] > Granter::floors_max(self.segment_bytes, self.gate_bytes)
    }
}

fn debloating(configuration: &Configuration) -> Result<Option<Debloating>, Failure> {
    let is_on = configuration.get(&config::DEBLOAT_ENABLED)?;
    let debloating = Debloating {
        target: configuration.get(&config::DEBLOAT_TARGET)?,
        period: configuration.get(&config::DEBLOAT_PERIOD)?,
        threshold_percent: configuration.get(&config::DEBLOAT_THRESHOLD)?,
    };
    Ok(is_on.then_some(debloating))
}

/// What segments are made, so that one for each channel of the widest task takes at most half of its room.
fn segment_bytes(configured: u64, widest: u64, gate_bytes: u64) -> u64 {
    let mut bytes = configured;
    while bytes > SEGMENT_BYTES_MIN && bytes * widest > gate_bytes / 2 {
        bytes = (bytes / 2).max(SEGMENT_BYTES_MIN);
    }
    // Segments consist of cache lines.
    bytes - bytes % 64
}

impl Wiring {
    /// Makes the channels that begin or end at `worker`, within their share of its memory.
    ///
    /// # Errors
    /// If the graph and the deployment do not fit together, or records would have to cross a network that this worker or
    /// a peer has no part in, or there is too little memory for all channels.
    pub(crate) fn new(
        graph: &JobGraph,
        deployment: &Deployment,
        layout: &Layout,
        worker: WorkerId,
        mailboxes: &BTreeMap<Subtask, SlotMailbox>,
        exchange: Option<(&Exchange, Origin)>,
        share: &Share,
    ) -> Result<Wiring, Failure> {
        let remote = exchange.map_or(Origin::Unproved, |(_, origin)| origin);
        let workers: HashMap<_, _> = deployment.placements.iter().map(|p| (p.subtask, p.worker)).collect();
        let connections = connections(graph, &workers, worker)?;
        let coordinated = coordinated(graph, &workers, worker)?;
        let Room { layout, windows, granters, bytes } = Room::fitting(layout, &connections, worker, share)?;
        let pool = SegmentPool::new(layout.segment_bytes as usize, (bytes / layout.segment_bytes) as usize);
        let mut wiring = Wiring {
            segments: pool.census(),
            bytes,
            senders: HashMap::new(),
            gates: HashMap::new(),
            peers: peers(deployment, worker, &connections, &coordinated, exchange.map(|(exchange, _)| exchange))?,
            tasks_of_peer: BTreeMap::new(),
            workers,
            layout: layout.clone(),
        };
        for (peer, task) in coordinated {
            note(&mut wiring.tasks_of_peer, peer, task);
        }
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
                    signal: Arc::new(GateSignal::new(granters[consumer].channels(), mailboxes[consumer].waker.clone())),
                    granter: granters[consumer].clone(),
                });
                let origin = if from == to { Origin::Process } else { remote };
                gate.inputs.push((job_edge.input, origin));
                gate
            });
            let sender = match (producer_wakes, gate) {
                (Some(wakes), Some(gate)) => {
                    let index = gate.receivers.len();
                    let opening = gate.granter.opening(index);
                    let (sender, receiver) =
                        opened_channel(&pool, opening, opening.is_lent, wakes, gate.signal.clone(), index);
                    gate.receivers.push(receiver);
                    Some(sender)
                }
                (Some(wakes), None) => {
                    let peer = &mut wiring.peers.get_mut(to).expect("it has channels").1;
                    let index = peer.outlets.len();
                    let window = layout.sending_window(*producer, window);
                    let opening = Granter::fixed(layout.segment_bytes, &[window]).opening(0);
                    let has_lent = layout.has_lent(*consumer);
                    let (sender, outlet) =
                        opened_channel(&pool, opening, has_lent, wakes, peer.outlet_signal.clone(), index);
                    peer.outlets.push((key, outlet));
                    note(&mut wiring.tasks_of_peer, *to, *producer);
                    Some(sender)
                }
                (None, Some(gate)) => {
                    let peer = &mut wiring.peers.get_mut(from).expect("it has channels").1;
                    let wakes = GrantSignal::Channel(peer.grant_signal.clone(), peer.inlets.len());
                    let index = gate.receivers.len();
                    let opening = gate.granter.opening(index);
                    let (inlet, receiver) =
                        opened_channel(&pool, opening, opening.is_lent, wakes, gate.signal.clone(), index);
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
        let gate = self.gates.remove(&(vertex, subtask))?;
        let debloater = self.layout.debloater(&gate);
        let GateParts { receivers, inputs, signal, granter } = gate;
        Some(TaskGate { gate: InputGate::with_granter(receivers, signal, granter), inputs, debloater })
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
        if !workers.contains_key(&first) {
            continue; // of another region, as all of its subtasks
        }
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

/// The channels of a region that begin or end at `worker`, in the order in which gates and edges number them.
pub(crate) fn connections(
    graph: &JobGraph,
    workers: &HashMap<Subtask, WorkerId>,
    worker: WorkerId,
) -> Result<Vec<Connection>, Failure> {
    let mut connections = Vec::new();
    for (target, vertex) in graph.vertices.iter().enumerate() {
        for consumer in (0..vertex.parallelism).map(|index| Subtask { vertex: vertex.id, index }) {
            // Those of other regions have no channels to those of this one.
            let Some(to) = workers.get(&consumer).copied() else { continue };
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

    fn layout(out_of: &[usize]) -> Layout {
        let counts = out_of.iter().enumerate().map(|(index, count)| (subtask(index as u32), *count)).collect();
        Layout::fixed(64, 1024, 128, 4096, HashMap::from([(subtask(0), 14), (subtask(1), 15)]), counts)
    }

    fn subtask(index: u32) -> Subtask {
        Subtask { vertex: JobVertexId(1), index }
    }

    #[test]
    fn channels_between_two_workers_share_a_window_and_none_has_less_than_one_within_a_process() {
        let connection = |from, to| {
            let (producer, consumer) = (subtask(0), subtask(0));
            Connection { edge: 0, producer, consumer, from: WorkerId(from), to: WorkerId(to) }
        };
        let of = |count, to| (0..count).map(|_| connection(0, to)).collect::<Vec<_>>();
        let windows = |connections: &[Connection]| layout(&[]).windows(connections);
        assert_eq!(windows(&of(1, 0)), [128]);
        assert_eq!(windows(&of(1, 1)), [1024]);
        assert_eq!(windows(&of(16, 1)), [256; 16]);
        assert_eq!(windows(&of(64, 1)), [128; 64]);
        // Each direction and each peer counts for itself.
        assert_eq!(windows(&[connection(0, 1), connection(1, 0), connection(0, 2)]), [1024; 3]);
    }

    #[test]
    fn a_task_with_many_channels_to_other_workers_has_as_much_for_all_of_them_as_a_gate_has() {
        let layout = layout(&[1, 4, 8, 100]);
        let windows = [0, 1, 2, 3].map(|index| layout.sending_window(subtask(index), 512));
        // And two segments for each, to fill one while the other is sent.
        assert_eq!(windows, [512, 256, 128, 128]);
        assert_eq!([0, 1].map(|index| layout.has_lent(subtask(index))), [false, true]);
    }

    #[test]
    fn segments_shrink_until_one_for_each_channel_leaves_half_of_the_room() {
        let (kib, mib) = (1 << 10, 1 << 20);
        let of = |widest| segment_bytes(32 * kib, widest, 8 * mib) / kib;
        assert_eq!([of(0), of(128), of(129), of(256), of(257), of(1024), of(100_000)], [32, 32, 16, 16, 8, 4, 4]);
        assert_eq!(segment_bytes(5000, 100_000, 8 * mib), 4 * kib);
        assert_eq!(segment_bytes(5000, 1, 8 * mib), 4992);
    }
}
