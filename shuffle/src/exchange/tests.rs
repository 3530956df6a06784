//! Exchanges against each other, over real sockets on loopback.

#![allow(clippy::disallowed_methods, reason = "tests wait for conditions, with a limit on the wall clock")]

use std::{
    sync::Mutex,
    time::{Instant, SystemTime},
};

use millstream_model::{config::NetworkIo, deployment::ChannelToken, id::JobId};

use super::*;
use crate::{
    channel::{ChannelReceiver, ChannelSender, GrantSignal, channel},
    credit::debloater::{Debloater, Debloating},
    gate::{GateSignal, InputGate},
    io::Io,
    segment::SegmentPool,
    transport::{
        BindError, Options,
        auto::AutoListener,
        identity::{ClusterCa, Identity},
        quic::QuicListener,
        tcp::TcpListener,
    },
    wire::message::ChannelKey,
};

const SEGMENT: usize = 4096;
const WINDOW: u64 = 4 * SEGMENT as u64;

/// What the nodes speak over.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Over {
    Quic,
    Tls,
    /// TCP without encryption.
    Plain,
    Auto,
}

/// What the sockets are read and written with besides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    over: Over,
    io: NetworkIo,
    lanes: u8,
}

impl From<Over> for Way {
    fn from(over: Over) -> Way {
        over.by_calls()
    }
}

impl Over {
    const fn by_ring(self) -> Way {
        Way { over: self, io: NetworkIo::Uring, lanes: 4 }
    }

    const fn by_calls(self) -> Way {
        Way { over: self, io: NetworkIo::Syscall, lanes: 4 }
    }

    const fn by_lanes(self, lanes: u8) -> Way {
        Way { over: self, io: NetworkIo::Syscall, lanes }
    }
}

impl Way {
    fn has_ring(self) -> bool {
        self.io != NetworkIo::Syscall && Io::start(self.io).has_ring()
    }
}

/// Where there is no ring, all are by system calls: see the tests of `io`, which say so.
const ALL: [Way; 11] = [
    Over::Quic.by_calls(),
    Over::Tls.by_calls(),
    Over::Plain.by_calls(),
    Over::Auto.by_calls(),
    Over::Quic.by_ring(),
    Over::Tls.by_ring(),
    Over::Plain.by_ring(),
    Over::Quic.by_lanes(1),
    Over::Quic.by_lanes(0),
    Over::Tls.by_lanes(0),
    Over::Plain.by_lanes(0),
];

fn listener(over: Over, lanes: u8, identity: Identity) -> Result<Box<dyn Listener>, BindError> {
    let options = Options { lanes, ..Options::default() };
    let any = "127.0.0.1:0".parse().unwrap();
    Ok(match over {
        Over::Quic => Box::new(QuicListener::bind(any, identity, options)?),
        Over::Tls => Box::new(TcpListener::bind(any, Some(identity), options)?),
        Over::Plain => Box::new(TcpListener::bind(any, None, options)?),
        Over::Auto => Box::new(AutoListener::bind(any, identity, options)?),
    })
}

pub(crate) struct Node {
    pub(crate) exchange: Exchange,
    events: Arc<Mutex<Vec<ExchangeEvent>>>,
}

pub(crate) fn node(way: impl Into<Way>, ca: &ClusterCa, worker: u32, connect_timeout: Duration) -> Node {
    let Way { over, io, lanes } = way.into();
    let identity = ca.issue(WorkerId(worker), SystemTime::now(), Duration::from_secs(3600)).unwrap();
    let local = Local { job: JobId(7), worker: WorkerId(worker), lanes };
    let config = ExchangeConfig { local, connect_timeout, io };
    let listen: Listen = Box::new(move || listener(over, lanes, identity).map_err(io::Error::other));
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = events.clone();
    let exchange = Exchange::start(config, listen, move |event| seen.lock().unwrap().push(event)).unwrap();
    Node { exchange, events }
}

pub(crate) fn ca() -> ClusterCa {
    ClusterCa::generate(7, SystemTime::now(), Duration::from_secs(3600)).unwrap()
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < limit, "{what} did not come about");
        std::thread::yield_now();
    }
}

/// `count` channels from one node to another, whose tasks' threads are woken by the wakers.
fn connect(
    from: (&Node, WorkerId),
    to: (&Node, WorkerId),
    generation: Generation,
    count: usize,
    wakers: &[Arc<Waker>; 2],
) -> (Vec<ChannelSender>, InputGate) {
    connect_windows(from, to, generation, &vec![WINDOW; count], wakers)
}

/// A channel for each of the windows, which it has at both ends.
fn connect_windows(
    from: (&Node, WorkerId),
    to: (&Node, WorkerId),
    generation: Generation,
    windows: &[u64],
    wakers: &[Arc<Waker>; 2],
) -> (Vec<ChannelSender>, InputGate) {
    let count = windows.len();
    let (pool_from, pool_to) = (SegmentPool::new(SEGMENT, 64), SegmentPool::new(SEGMENT, 64));
    let signal = |exchange: &Exchange, count| Arc::new(GateSignal::new(count, exchange.waker()));
    let outlet_signal = signal(&from.0.exchange, count);
    let grant_signal = signal(&to.0.exchange, count);
    let gate_signal = Arc::new(GateSignal::new(count, wakers[1].clone()));
    let (mut senders, mut outlets, mut inlets) = (Vec::new(), Vec::new(), Vec::new());
    let mut readers: Vec<ChannelReceiver> = Vec::new();
    for (index, window) in windows.iter().copied().enumerate() {
        let key = ChannelKey { edge: 0, producer: 0, consumer: index as u32 };
        let wakes = GrantSignal::Thread(wakers[0].clone());
        let (sender, outlet) = channel(&pool_from, window, wakes, outlet_signal.clone(), index);
        senders.push(sender);
        outlets.push((key, outlet));
        let wakes = GrantSignal::Channel(grant_signal.clone(), index);
        let (inlet, reader) = channel(&pool_to, window, wakes, gate_signal.clone(), index);
        inlets.push((key, inlet));
        readers.push(reader);
    }
    let token = ChannelToken(99);
    let outlet_side = PeerChannels {
        generation,
        token,
        outlets,
        outlet_signal,
        inlets: Vec::new(),
        grant_signal: signal(&from.0.exchange, 0),
    };
    let inlet_side = PeerChannels {
        generation,
        token,
        outlets: Vec::new(),
        outlet_signal: signal(&to.0.exchange, 0),
        inlets,
        grant_signal,
    };
    from.0.exchange.attach(to.1, to.0.exchange.address(), outlet_side);
    to.0.exchange.attach(from.1, from.0.exchange.address(), inlet_side);
    (senders, InputGate::new(readers, gate_signal))
}

/// Writes running numbers to all channels in turns until each has `total`.
fn write_all(mut senders: Vec<ChannelSender>, waker: &Waker, total: u64) -> Vec<ChannelSender> {
    waker.bind();
    let mut written = vec![0_u64; senders.len()];
    loop {
        waker.clear();
        let mut has_written = false;
        for (sender, written) in senders.iter_mut().zip(&mut written) {
            if !sender.resume() {
                continue;
            }
            while *written < total && sender.waiting() == 0 {
                if sender.room().0.len() < 64 {
                    sender.next_segment();
                    continue;
                }
                let (room, filled) = sender.room();
                room[..64].fill(0);
                room[..8].copy_from_slice(&written.to_le_bytes());
                *filled += 64;
                *written += 1;
                has_written = true;
            }
            sender.flush();
        }
        if written.iter().all(|written| *written == total) && senders.iter_mut().all(ChannelSender::resume) {
            return senders;
        }
        if !has_written {
            waker.park(Some(Duration::from_secs(10)));
        }
    }
}

/// Reads until each channel has brought `total` numbers, in order.
fn read_all(gate: &mut InputGate, waker: &Waker, total: u64) {
    waker.bind();
    let mut seen = vec![0_u64; gate.channel_count()];
    while seen.iter().any(|seen| *seen < total) {
        waker.clear();
        let Some(channel) = gate.next_ready() else {
            waker.park(Some(Duration::from_secs(10)));
            continue;
        };
        let bytes = gate.available(channel);
        let length = bytes.len();
        for element in bytes.chunks_exact(64) {
            assert_eq!(element[..8], seen[channel].to_le_bytes(), "of channel {channel}");
            seen[channel] += 1;
        }
        gate.consume(channel, length);
        gate.rotate();
    }
}

fn exchange(a: (&Node, WorkerId), b: (&Node, WorkerId), generation: Generation, count: usize, total: u64) {
    let wakers = [Arc::default(), Arc::default()];
    let (senders, mut gate) = connect(a, b, generation, count, &wakers);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| write_all(senders, &wakers[0], total));
        read_all(&mut gate, &wakers[1], total);
        writer.join().unwrap();
    });
}

#[test]
fn records_cross_in_both_directions_and_the_connection_serves_the_next_deployment() {
    for over in ALL {
        let ca = ca();
        let (one, two) = (node(over, &ca, 1, Duration::from_secs(20)), node(over, &ca, 2, Duration::from_secs(20)));
        exchange((&one, WorkerId(1)), (&two, WorkerId(2)), Generation(1), 5, 20_000);
        // What a worker reports last, the moment that its tasks are done, is what was sent.
        let [(WorkerId(2), metrics)] = &one.exchange.metrics()[..] else { panic!("worker 1 has one peer") };
        assert!(metrics.sent_bytes >= 5 * 20_000 * 64, "{metrics:?}");
        one.exchange.detach(Generation(1));
        two.exchange.detach(Generation(1));
        exchange((&two, WorkerId(2)), (&one, WorkerId(1)), Generation(2), 70, 1_000);
        assert_eq!(*one.events.lock().unwrap(), []);
        assert_eq!(*two.events.lock().unwrap(), []);
    }
}

#[test]
fn a_ring_carries_the_traffic_and_is_seen_to() {
    let submissions = |node: &Node| node.exchange.metrics()[0].1.io_submissions;
    for over in [Over::Quic, Over::Tls, Over::Plain] {
        for way in [over.by_calls(), over.by_ring()] {
            let ca = ca();
            let (one, two) = (node(way, &ca, 1, Duration::from_secs(20)), node(way, &ca, 2, Duration::from_secs(20)));
            let mut seen = [0, 0];
            for generation in [1, 2] {
                exchange((&one, WorkerId(1)), (&two, WorkerId(2)), Generation(generation), 2, 5_000);
                for (seen, node) in seen.iter_mut().zip([&one, &two]) {
                    let now = submissions(node);
                    // 320 kB each time, of which no call carries more than 64.
                    let has_grown = now >= *seen + 5;
                    assert!(if way.has_ring() { has_grown } else { now == 0 }, "{way:?}: {seen}, then {now}");
                    *seen = now;
                    node.exchange.detach(Generation(generation));
                }
            }
        }
    }
}

#[test]
fn three_workers_exchange_with_each_other() {
    for over in ALL {
        let ca = ca();
        let nodes: Vec<Node> = (0..3).map(|worker| node(over, &ca, worker, Duration::from_secs(20))).collect();
        std::thread::scope(|scope| {
            for (from, to) in [(0, 1), (1, 2), (2, 0)] {
                let nodes = &nodes;
                scope.spawn(move || {
                    let side = |worker: usize| (&nodes[worker], WorkerId(worker as u32));
                    exchange(side(from), side(to), Generation(1), 3, 10_000);
                });
            }
        });
    }
}

#[test]
fn a_peer_that_goes_is_reported_with_its_address() {
    for over in ALL {
        let ca = ca();
        let (one, two) = (node(over, &ca, 1, Duration::from_secs(20)), node(over, &ca, 2, Duration::from_secs(20)));
        let wakers = [Arc::default(), Arc::default()];
        let (_senders, _gate) = connect((&one, WorkerId(1)), (&two, WorkerId(2)), Generation(4), 2, &wakers);
        let address = two.exchange.address();
        // The connection stands when an event has crossed it.
        let event = CoordinatorEvent {
            generation: Generation(4),
            operator: millstream_model::id::OperatorId(5),
            subtask: 1,
            direction: crate::wire::message::Direction::ToCoordinator,
            bytes: b"anybody there?".to_vec(),
        };
        one.exchange.line(WorkerId(2)).send(event.clone());
        let is_there =
            |events: &Vec<ExchangeEvent>| events.contains(&ExchangeEvent::Coordinator { event: event.clone() });
        wait_until("the event", || is_there(&two.events.lock().unwrap()));
        drop(two);
        wait_until("the report", || !one.events.lock().unwrap().is_empty());
        let events = one.events.lock().unwrap();
        let [ExchangeEvent::Lost { peer: WorkerId(2), generations, failure }] = &events[..] else {
            panic!("{events:?}")
        };
        assert_eq!(generations, &[Generation(4)]);
        let message = &failure.message;
        assert!(message.contains("worker 2") && message.contains(&address.to_string()), "{message}");
        assert!(message.contains("the worker has ended"), "{message}");
    }
}

#[test]
fn a_peer_that_is_not_there_is_given_up() {
    for over in ALL {
        let ca = ca();
        // The one that dials, and the one that waits to be dialed.
        for (own, peer) in [(1, 2), (2, 1)] {
            let (one, two) =
                (node(over, &ca, own, Duration::from_millis(200)), node(over, &ca, peer, Duration::from_secs(20)));
            let wakers = [Arc::default(), Arc::default()];
            let (_senders, _gate) = {
                let unreachable = node(over, &ca, peer, Duration::from_secs(20));
                // Both ends are attached, but `two` is asked for nothing, and `unreachable` ends at once.
                connect((&one, WorkerId(own)), (&unreachable, WorkerId(peer)), Generation(1), 1, &wakers)
            };
            wait_until("the report", || !one.events.lock().unwrap().is_empty());
            let events = one.events.lock().unwrap();
            assert!(matches!(&events[..], [ExchangeEvent::Lost { .. }]), "{events:?}");
            drop(two);
        }
    }
}

#[test]
fn a_worker_of_another_cluster_is_refused_by_both() {
    // Without encryption nobody can tell.
    for over in [Over::Quic, Over::Tls, Over::Auto] {
        let (ours, theirs) = (ca(), ca());
        let (one, two) =
            (node(over, &ours, 1, Duration::from_secs(20)), node(over, &theirs, 2, Duration::from_secs(2)));
        let wakers = [Arc::default(), Arc::default()];
        let (_senders, _gate) = connect((&one, WorkerId(1)), (&two, WorkerId(2)), Generation(1), 1, &wakers);
        for node in [&one, &two] {
            wait_until("the report", || !node.events.lock().unwrap().is_empty());
            let events = node.events.lock().unwrap();
            assert!(matches!(&events[..], [ExchangeEvent::Lost { .. }]), "{events:?}");
        }
        let events = one.events.lock().unwrap();
        let [ExchangeEvent::Lost { failure, .. }] = &events[..] else { panic!("{events:?}") };
        assert!(failure.message.contains("refused"), "{failure}");
    }
}

/// A task that reads at a pace of its own, in a time that it makes up, from senders which send as much as they may.
struct PacedTask {
    senders: Vec<ChannelSender>,
    gate: InputGate,
    debloater: Debloater,
    now: Instant,
    read: u64,
}

impl PacedTask {
    const STEP: Duration = Duration::from_millis(10);

    /// Writes as much as there is room for; bytes that were written and not read.
    fn fill(&mut self) -> u64 {
        for sender in &mut self.senders {
            while sender.resume() {
                sender.next_segment();
                let (room, filled) = sender.room();
                *filled += room.len();
            }
        }
        self.senders.iter().map(ChannelSender::sent_bytes).sum::<u64>() - self.read
    }

    /// Reads so many segments in a step, however long the network takes to bring them; what is under way then.
    fn step(&mut self, segments: u64) -> u64 {
        self.debloater.resume(self.now);
        for _ in 0..segments {
            let mut ready = None;
            wait_until("a segment", || {
                self.fill();
                ready = self.gate.next_ready();
                ready.is_some()
            });
            let channel = ready.expect("it was waited for");
            let bytes = self.gate.available(channel).len();
            assert_eq!(bytes, SEGMENT, "whole segments are written");
            self.gate.consume(channel, bytes);
            self.gate.rotate();
            self.debloater.read(bytes as u64);
            self.read += bytes as u64;
        }
        self.now += PacedTask::STEP;
        if let Some(bytes) = self.debloater.look(self.now) {
            self.gate.set_target(bytes);
        }
        self.fill()
    }
}

#[test]
fn what_is_under_way_to_a_slow_task_is_what_it_reads_in_a_second_and_all_there_is_room_for_to_a_fast_one() {
    const WINDOW_SEGMENTS: u64 = 256;
    const CHANNELS: u64 = 2;
    let segment = SEGMENT as u64;
    for way in [Over::Quic.by_calls(), Over::Tls.by_ring(), Over::Plain.by_calls(), Over::Quic.by_lanes(0)] {
        let ca = ca();
        let (one, two) = (node(way, &ca, 1, Duration::from_secs(20)), node(way, &ca, 2, Duration::from_secs(20)));
        let wakers = [Arc::default(), Arc::default()];
        let windows = [WINDOW_SEGMENTS * segment; CHANNELS as usize];
        let sides = ((&one, WorkerId(1)), (&two, WorkerId(2)));
        let (senders, gate) = connect_windows(sides.0, sides.1, Generation(1), &windows, &wakers);
        // Half of a second for each end of the channels, as a task's gate has it.
        let debloating = Debloating {
            target: Duration::from_millis(500),
            period: Duration::from_millis(200),
            threshold_percent: 25,
        };
        let debloater = Debloater::new(debloating, gate.promised().1);
        let mut task = PacedTask { senders, gate, debloater, now: Instant::now(), read: 0 };

        // Both windows are full, but for what is on its way back.
        let room = 2 * CHANNELS * WINDOW_SEGMENTS * segment;
        wait_until("full windows", || task.fill() > room * 3 / 4);
        wait_until("full windows of a fast task", || task.step(100) > room * 3 / 4);

        // A segment in each step, so a hundred in a second; what is said may be a quarter off, and of each channel there is
        // one segment that is being read, one that waits for room, and the two that are left to every sender.
        let slow = segment * 100 * 5 / 4 + CHANNELS * 4 * segment;
        assert!(slow < room / 4, "it is little");
        wait_until("a slow task", || task.step(1) <= slow);
        for _ in 0..500 {
            let under_way = task.step(1);
            assert!(
                under_way <= slow,
                "{way:?}: {under_way} bytes are under way to a task that reads {slow} in a second"
            );
        }
        // It stops altogether: so do its senders.
        for _ in 0..1_000 {
            let under_way = task.fill();
            assert!(under_way <= slow, "{way:?}: {under_way} bytes are under way to a task that has stopped");
        }
        wait_until("full windows of a task that is fast again", || task.step(100) > room * 3 / 4);
        for node in [&one, &two] {
            assert_eq!(*node.events.lock().unwrap(), []);
        }
    }
}

/// A thread as that of a slot: it writes and reads running numbers, never more than a few ahead of what has come, so that the
/// end of every wait matters. It drives the network, and now and then a user's function keeps it for longer than it may.
fn run_slot(
    drive: &SlotDrive,
    waker: &Waker,
    (mut senders, mut gate): (Vec<ChannelSender>, InputGate),
    total: u64,
    mut rng: fastrand::Rng,
) -> (Vec<ChannelSender>, InputGate) {
    waker.bind();
    drive.bind(waker);
    let (mut written, mut seen) = (vec![0_u64; senders.len()], vec![0_u64; gate.channel_count()]);
    while written.iter().chain(&seen).any(|count| *count < total) {
        waker.clear();
        let mut is_ready = false;
        if let Some(channel) = gate.next_ready() {
            is_ready = true;
            let bytes = gate.available(channel);
            let length = bytes.len();
            for element in bytes.chunks_exact(8) {
                assert_eq!(element, seen[channel].to_le_bytes(), "of channel {channel}");
                seen[channel] += 1;
            }
            gate.consume(channel, length);
            gate.rotate();
        }
        let limit = total.min(seen.iter().min().copied().unwrap_or(0) + 3);
        for (sender, written) in senders.iter_mut().zip(&mut written) {
            while sender.resume() && *written < limit && sender.waiting() == 0 {
                if sender.room().0.len() < 8 {
                    sender.next_segment();
                    continue;
                }
                let (room, filled) = sender.room();
                room[..8].copy_from_slice(&written.to_le_bytes());
                *filled += 8;
                *written += 1;
                is_ready = true;
            }
            sender.flush();
        }
        if rng.u32(0..500) == 0 {
            let until = Instant::now() + Duration::from_micros(rng.u64(0..3_000));
            while Instant::now() < until {
                std::hint::spin_loop();
            }
        }
        if is_ready || rng.bool() {
            drive.turn();
        }
        if !is_ready {
            let limit = Instant::now() + Duration::from_secs(20);
            if !drive.wait(waker, Some(limit)) {
                waker.park(Some(Duration::from_secs(20)));
            }
            assert!(Instant::now() < limit, "a wake was lost: {seen:?} of {written:?}");
        }
    }
    (senders, gate)
}

#[test]
fn slots_that_take_turns_at_driving_lose_no_wake() {
    for over in ALL {
        let ca = ca();
        let (one, two) = (node(over, &ca, 1, Duration::from_secs(20)), node(over, &ca, 2, Duration::from_secs(20)));
        let (one_side, two_side) = ((&one, WorkerId(1)), (&two, WorkerId(2)));
        std::thread::scope(|scope| {
            // Each slot has two channels to its like at the other worker, and two from there.
            for slot in 0..3_u64 {
                let wakers: [Arc<Waker>; 2] = Default::default();
                let [near, far] = wakers.clone();
                let back = [far.clone(), near.clone()];
                let (out, far_gate) = connect(one_side, two_side, Generation(2 * slot + 1), 2, &wakers);
                let (far_out, gate) = connect(two_side, one_side, Generation(2 * slot + 2), 2, &back);
                for (node, waker, ends) in [(&one, near, (out, gate)), (&two, far, (far_out, far_gate))] {
                    let (drive, rng) = (node.exchange.slot_drive(), fastrand::Rng::with_seed(slot));
                    scope.spawn(move || run_slot(&drive, &waker, ends, 5_000, rng));
                }
            }
        });
        for node in [&one, &two] {
            assert_eq!(*node.events.lock().unwrap(), []);
        }
    }
}

#[test]
fn the_net_thread_stands_in_for_slots_that_do_not_come_back() {
    for over in ALL {
        let ca = ca();
        let (one, two) = (node(over, &ca, 1, Duration::from_secs(20)), node(over, &ca, 2, Duration::from_secs(20)));
        let wakers = [Arc::default(), Arc::default()];
        let (mut senders, mut gate) = connect((&one, WorkerId(1)), (&two, WorkerId(2)), Generation(1), 1, &wakers);
        let drives = [one.exchange.slot_drive(), two.exchange.slot_drive()];
        let write = |sender: &mut ChannelSender| {
            if sender.room().0.len() < 1_000 {
                sender.next_segment();
            }
            *sender.room().1 += 1_000;
            sender.flush();
        };
        // What the user's functions do from now on keeps both slots from the network: after one turn each they take none
        // while more is sent than was granted at first, so that grants have to come back, too.
        let mut read = 0;
        for _ in 0..10 {
            drives.iter().for_each(SlotDrive::turn);
            let until = read + 3 * WINDOW;
            wait_until("the records", || {
                while senders[0].resume() && senders[0].sent_bytes() < until {
                    write(&mut senders[0]);
                }
                while let Some(channel) = gate.next_ready() {
                    let bytes = gate.available(channel).len();
                    gate.consume(channel, bytes);
                    read += bytes as u64;
                }
                read >= until
            });
        }
        for node in [&one, &two] {
            assert_eq!(*node.events.lock().unwrap(), []);
        }
    }
}

#[test]
fn a_slot_that_waits_for_the_sockets_is_woken_by_others_and_by_the_time() {
    let one = node(Over::Plain, &ca(), 1, Duration::from_secs(20));
    let (drive, waker) = (one.exchange.slot_drive(), Arc::new(Waker::default()));
    let is_waiting = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            waker.bind();
            drive.bind(&waker);
            let before = Instant::now();
            assert!(drive.wait(&waker, Some(before + Duration::from_millis(5))));
            let waited = before.elapsed();
            assert!(waited >= Duration::from_millis(5) && waited < Duration::from_secs(5), "{waited:?}");
            is_waiting.store(true, std::sync::atomic::Ordering::SeqCst);
            drive.wait(&waker, Some(Instant::now() + Duration::from_secs(20)));
            Instant::now()
        });
        wait_until("the wait", || is_waiting.load(std::sync::atomic::Ordering::SeqCst));
        // Another slot has to park meanwhile.
        let other = Waker::default();
        wait_until("the sockets to be waited for", || !drive.wait(&other, Some(Instant::now())));
        let woken = Instant::now();
        waker.wake();
        let ended = waiting.join().unwrap();
        assert!(ended < woken + Duration::from_secs(5), "the wake was lost");
    });
}
