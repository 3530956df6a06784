//! Drives listeners and connections as the net loop does: edge-triggered, each when its socket or its deadline says so,
//! and never otherwise. A wake-up that a transport fails to ask for ends in the time limit.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use fastrand::Rng;
use millstream_model::{config::NetworkIo, id::WorkerId};
use millstream_shuffle::{
    io::{Io, Served},
    transport::{
        Batch, Closed, Connection, Listener, Options, Stream, Transport,
        identity::{ClusterCa, Identity},
        quic::QuicListener,
        tcp::TcpListener,
    },
};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

pub const DAY: Duration = Duration::from_secs(86_400);

/// What the bytes run over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Over {
    Quic,
    Tls,
    Plain,
}

/// What the bytes run over, and what sockets are read and written with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kind {
    over: Over,
    io: NetworkIo,
    streams: Streams,
}

/// What the tests' lanes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Streams {
    Lanes,
    /// Each is the stream of a channel that is called so.
    Channels,
}

/// Channels that each side expects, where there are any.
const CHANNELS: u32 = 16;

impl Kind {
    const fn by_calls(over: Over) -> Self {
        Kind { over, io: NetworkIo::Syscall, streams: Streams::Lanes }
    }

    const fn by_ring(over: Over) -> Self {
        Kind { over, io: NetworkIo::Uring, streams: Streams::Lanes }
    }

    pub fn quic() -> Self {
        Kind::by_calls(Over::Quic)
    }

    pub fn tls() -> Self {
        Kind::by_calls(Over::Tls)
    }

    pub fn plain() -> Self {
        Kind::by_calls(Over::Plain)
    }

    pub fn quic_by_ring() -> Self {
        Kind::by_ring(Over::Quic)
    }

    pub fn tls_by_ring() -> Self {
        Kind::by_ring(Over::Tls)
    }

    pub fn plain_by_ring() -> Self {
        Kind::by_ring(Over::Plain)
    }

    pub fn quic_by_channels() -> Self {
        Kind { streams: Streams::Channels, ..Kind::quic() }
    }

    pub fn tls_by_channels() -> Self {
        Kind { streams: Streams::Channels, ..Kind::tls() }
    }

    pub fn plain_by_channels() -> Self {
        Kind { streams: Streams::Channels, ..Kind::plain() }
    }

    /// Stands for a lane on the wire.
    fn on_wire(self, stream: Stream) -> Stream {
        match (self.streams, stream) {
            (Streams::Channels, Stream::Lane(lane)) => Stream::Channel(u32::from(lane) + 1_000_000),
            _ => stream,
        }
    }

    fn off_wire(self, stream: Stream) -> Stream {
        match stream {
            Stream::Channel(channel) => Stream::Lane((channel - 1_000_000) as u8),
            _ => stream,
        }
    }

    pub fn is_quic(self) -> bool {
        self.over == Over::Quic
    }

    pub fn proves_identity(self) -> bool {
        self.over != Over::Plain
    }

    /// What the kernel takes beyond the window, and nothing overtakes.
    pub fn kernel_bytes(self) -> u64 {
        match self.over {
            Over::Quic => 0,
            Over::Tls | Over::Plain => 12 << 20,
        }
    }

    pub fn listen(self, identity: Identity, options: Options) -> Box<dyn Listener> {
        self.listen_at(SocketAddr::from(([127, 0, 0, 1], 0)), identity, options)
    }

    pub fn listen_at(self, address: SocketAddr, identity: Identity, options: Options) -> Box<dyn Listener> {
        let lanes = if self.streams == Streams::Channels { 0 } else { options.lanes };
        let options = Options { lanes, ..options };
        let listener: Result<Box<dyn Listener>, _> = match self.over {
            Over::Quic => QuicListener::bind(address, identity, options).map(|listener| Box::new(listener) as _),
            Over::Tls => TcpListener::bind(address, Some(identity), options).map(|listener| Box::new(listener) as _),
            Over::Plain => TcpListener::bind(address, None, options).map(|listener| Box::new(listener) as _),
        };
        listener.expect("loopback has a free port")
    }
}

pub fn authority(cluster: u128) -> ClusterCa {
    ClusterCa::generate(cluster, SystemTime::now(), DAY).expect("there is randomness")
}

pub fn identity(ca: &ClusterCa, worker: u32) -> Identity {
    ca.issue(WorkerId(worker), SystemTime::now(), DAY).expect("there is randomness")
}

/// Bytes that tell a stream and an offset from others.
struct Pattern(Bytes);

impl Pattern {
    fn new() -> Self {
        let mut block = vec![0; 1_000_003];
        Rng::with_seed(1).fill(&mut block);
        Pattern(block.into())
    }

    /// At most `length` bytes of what a stream carries from an offset on.
    fn chunk(&self, stream: Stream, offset: u64, length: usize) -> Bytes {
        let shift = match stream {
            Stream::Control => 7,
            Stream::Lane(lane) => 7919 * (u64::from(lane) + 1),
            Stream::Channel(channel) => panic!("channel {channel} is told as a lane"),
        };
        let start = ((offset + shift) % self.0.len() as u64) as usize;
        self.0.slice(start..(start + length).min(self.0.len()))
    }
}

/// One end of a connection and its traffic.
pub struct Link {
    kind: Kind,
    expects: bool,
    pub transport: Box<dyn Transport>,
    /// Bytes still to be written, as far as there is room.
    pub to_send: BTreeMap<Stream, u64>,
    pub sent: BTreeMap<Stream, u64>,
    pub received: BTreeMap<Stream, u64>,
    /// What was read, in order.
    pub log: Vec<(Stream, usize)>,
    ready: bool,
    /// There is something new to send, which wakes the loop.
    asked: bool,
    /// It has its turn.
    turn: bool,
    /// Calls to its socket that a ring has made.
    pub submissions: u64,
}

impl Link {
    pub fn send(&mut self, stream: Stream, bytes: u64) {
        *self.to_send.entry(stream).or_default() += bytes;
        self.asked = true;
    }

    fn served(&mut self) -> Served<'_> {
        Served { transport: self.transport.as_mut(), submissions: &mut self.submissions }
    }

    pub fn is_open(&self) -> bool {
        matches!(self.transport.connection(), Connection::Open { .. })
    }

    pub fn peer(&self) -> Option<WorkerId> {
        match self.transport.connection() {
            Connection::Open { peer } => *peer,
            other => panic!("{other:?}"),
        }
    }

    pub fn closed(&self) -> Option<&Closed> {
        match self.transport.connection() {
            Connection::Closed(closed) => Some(closed),
            _ => None,
        }
    }

    pub fn received_bytes(&self) -> u64 {
        self.received.values().sum()
    }

    /// Writes what there is room for; returns whether that is anything.
    fn write(&mut self, pattern: &Pattern, rng: &mut Rng) -> bool {
        let mut wrote = false;
        let mut streams: Vec<Stream> = self.to_send.keys().copied().collect();
        rng.shuffle(&mut streams);
        for stream in streams {
            while let Some(&left) = self.to_send.get(&stream).filter(|_| self.transport.room(stream) > 0) {
                let magnitude = rng.u32(0..18);
                let length = rng.u64(1..=1 << magnitude).min(left);
                self.write_now(pattern, rng, stream, length);
                wrote = true;
                match left - length {
                    0 => self.to_send.remove(&stream),
                    left => self.to_send.insert(stream, left),
                };
            }
        }
        wrote
    }

    fn write_now(&mut self, pattern: &Pattern, rng: &mut Rng, stream: Stream, length: u64) {
        let offset = self.sent.entry(stream).or_default();
        let mut batch = Batch::default();
        let mut missing = length as usize;
        while missing > 0 {
            let chunk = pattern.chunk(stream, *offset, rng.usize(1..=missing));
            *offset += chunk.len() as u64;
            missing -= chunk.len();
            batch.push(chunk);
        }
        self.transport.write(self.kind.on_wire(stream), batch);
    }

    fn transmit(&mut self, now: Instant) {
        let room = self.transport.room(Stream::Lane(0));
        self.transport.transmit(now);
        self.look_for_room(now, room);
    }

    fn look_for_room(&self, now: Instant, room: usize) {
        // Whoever waited for room is not woken by anything else.
        if room == 0 && self.transport.room(Stream::Lane(0)) > 1 << 18 {
            assert!(self.transport.deadline().is_some_and(|due| due <= now), "there is room again, and nobody knows");
        }
    }

    fn read(&mut self, pattern: &Pattern) {
        let (received, log) = (&mut self.received, &mut self.log);
        let kind = self.kind;
        self.transport.read(&mut |stream, mut bytes| {
            let stream = kind.off_wire(stream);
            log.push((stream, bytes.len()));
            let offset = received.entry(stream).or_default();
            while !bytes.is_empty() {
                let expected = pattern.chunk(stream, *offset, bytes.len());
                assert!(bytes[..expected.len()] == expected, "{stream:?} is wrong from byte {offset} on");
                *offset += expected.len() as u64;
                bytes = &bytes[expected.len()..];
            }
        });
    }
}

pub struct Node {
    pub listener: Box<dyn Listener>,
    /// Dialled first, in order; then accepted, in order.
    pub links: Vec<Link>,
    /// Its thread does nothing.
    pub paused: bool,
    ready: bool,
}

/// Some nodes, driven by one thread.
pub struct Net {
    kind: Kind,
    epoll: Epoll,
    pub nodes: Vec<Node>,
    pattern: Pattern,
    rng: Rng,
    limit: Instant,
    io: Io,
}

impl Net {
    pub fn new(kind: Kind, seed: u64) -> Self {
        let io = Io::start(kind.io);
        if kind.io == NetworkIo::Uring && !io.has_ring() {
            println!("there is no io_uring here: what was to be tested with it is tested with system calls");
        }
        Net {
            kind,
            io,
            epoll: Epoll::new(EpollCreateFlags::empty()).expect("there are descriptors"),
            nodes: Vec::new(),
            pattern: Pattern::new(),
            rng: Rng::with_seed(seed),
            limit: Instant::now() + Duration::from_secs(30),
        }
    }

    /// A node per worker, numbered from 0, of one cluster.
    pub fn of_workers(kind: Kind, workers: u32, options: &Options) -> Self {
        let mut net = Net::new(kind, u64::from(workers));
        let ca = authority(7);
        for worker in 0..workers {
            net.add(kind.listen(identity(&ca, worker), options.clone()));
        }
        net
    }

    /// Two workers, the first of which has dialled the second; both are open.
    pub fn pair(kind: Kind, options: &Options) -> Self {
        let mut net = Net::of_workers(kind, 2, options);
        net.dial(0, 1);
        net.until(|net| net.all_links(2, Link::is_open));
        net
    }

    pub fn add(&mut self, listener: Box<dyn Listener>) -> usize {
        let node = self.nodes.len();
        self.register(listener.sockets()[0], node, 0);
        self.nodes.push(Node { listener, links: Vec::new(), paused: false, ready: true });
        node
    }

    pub fn dial(&mut self, from: usize, to: usize) {
        let address = self.nodes[to].listener.address();
        self.dial_at(from, WorkerId(to as u32), address);
    }

    pub fn dial_at(&mut self, from: usize, worker: WorkerId, address: SocketAddr) {
        let transport =
            self.nodes[from].listener.connect(Instant::now(), worker, address).expect("there are descriptors");
        self.add_link(from, transport);
    }

    pub fn link(&mut self, node: usize, link: usize) -> &mut Link {
        &mut self.nodes[node].links[link]
    }

    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.nodes.iter().flat_map(|node| &node.links)
    }

    /// Whether there are so many links, all of which are so.
    pub fn all_links(&self, count: usize, so: impl Fn(&Link) -> bool) -> bool {
        self.links().filter(|link| so(link)).count() == count && self.links().count() == count
    }

    /// Writes whether there is room or not.
    pub fn write_now(&mut self, node: usize, link: usize, stream: Stream, bytes: u64) {
        let link = &mut self.nodes[node].links[link];
        link.write_now(&self.pattern, &mut self.rng, stream, bytes);
        link.transmit(Instant::now());
    }

    pub fn until(&mut self, mut done: impl FnMut(&mut Net) -> bool) {
        while !done(self) {
            self.turn();
        }
    }

    /// Goes on until a time, whatever happens.
    pub fn drive(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.turn_until(end);
        }
    }

    pub fn turn(&mut self) {
        let limit = self.limit;
        self.turn_until(limit);
        assert!(Instant::now() < self.limit, "not done in time: {:?}", self.state());
    }

    fn turn_until(&mut self, end: Instant) {
        self.wait(end);
        let now = Instant::now();
        for node in 0..self.nodes.len() {
            if self.nodes[node].paused {
                continue;
            }
            if std::mem::take(&mut self.nodes[node].ready) {
                for transport in self.nodes[node].listener.accept(now) {
                    self.add_link(node, transport);
                }
            }
            let links = &mut self.nodes[node].links;
            for link in &mut *links {
                let due = link.transport.deadline().is_some_and(|deadline| deadline <= now);
                link.turn = std::mem::take(&mut link.ready) || due;
            }
            let count = links.iter().filter(|link| link.turn).count();
            self.io.ask(count, links.iter_mut().filter(|link| link.turn).map(Link::served));
            let mut rooms = Vec::new();
            for link in &mut *links {
                if link.turn {
                    link.transport.receive(now);
                    link.read(&self.pattern);
                    if link.is_open() && !std::mem::replace(&mut link.expects, true) {
                        link.transport.expect_channels(CHANNELS);
                    }
                }
                link.asked = false;
                link.turn |= link.is_open() && link.write(&self.pattern, &mut self.rng);
                rooms.push(link.transport.room(Stream::Lane(0)));
            }
            let count = links.iter().filter(|link| link.turn).count();
            self.io.transmit(now, count, links.iter_mut().filter(|link| link.turn).map(Link::served));
            for (link, room) in links.iter().zip(rooms).filter(|(link, _)| link.turn) {
                link.look_for_room(now, room);
            }
        }
    }

    fn wait(&mut self, end: Instant) {
        let now = Instant::now();
        let awake = || self.nodes.iter().filter(|node| !node.paused);
        let due = awake().flat_map(|node| &node.links).filter_map(|link| link.transport.deadline()).min();
        let ready = awake().any(|node| node.ready || node.links.iter().any(|link| link.ready || link.asked));
        let wait = if ready { Duration::ZERO } else { due.unwrap_or(end).min(end).saturating_duration_since(now) };
        let timeout = EpollTimeout::try_from(wait.as_micros().div_ceil(1000) as i32).expect("it is short");
        let mut events = [EpollEvent::empty(); 64];
        let count = self.epoll.wait(&mut events, timeout).expect("the descriptors are sound");
        for event in &events[..count] {
            let (node, link) = ((event.data() >> 32) as usize, event.data() as u32 as usize);
            match link {
                0 => self.nodes[node].ready = true,
                link => self.nodes[node].links[link - 1].ready = true,
            }
        }
    }

    fn add_link(&mut self, node: usize, transport: Box<dyn Transport>) {
        self.nodes[node].links.push(Link {
            kind: self.kind,
            expects: false,
            transport,
            to_send: BTreeMap::new(),
            sent: BTreeMap::new(),
            received: BTreeMap::new(),
            log: Vec::new(),
            ready: true,
            asked: false,
            turn: false,
            submissions: 0,
        });
        let link = self.nodes[node].links.len();
        self.register(self.nodes[node].links[link - 1].transport.socket(), node, link);
    }

    fn register(&self, socket: std::os::fd::RawFd, node: usize, link: usize) {
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
        let event = EpollEvent::new(flags, (node as u64) << 32 | link as u64);
        // SAFETY: the descriptor is open; its owner lies in the same `Net`.
        let socket = unsafe { std::os::fd::BorrowedFd::borrow_raw(socket) };
        self.epoll.add(socket, event).expect("it is not there yet");
    }

    fn state(&self) -> Vec<String> {
        let state = |link: &Link| {
            let (connection, room) = (link.transport.connection(), link.transport.room(Stream::Lane(0)));
            let path = link.transport.path();
            format!("{connection:?}, room {room}, sent {:?}, received {:?}, {path:?}", link.sent, link.received)
        };
        self.links().map(state).collect()
    }
}
