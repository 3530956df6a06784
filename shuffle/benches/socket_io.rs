//! What a ring saves: one worker with some peers, over each transport, with system calls and with io_uring in turns.
//!
//! ```text
//!  cargo bench -p millstream-shuffle --bench socket_io [-- SECONDS RUNS PEERS...]
//! ```
//! Two threads of one process, a connection per peer between them: the worker's, whose processor time is measured, and that
//! of all its peers, which is driven in the same way. Prints a table of medians.

#![allow(clippy::disallowed_methods, reason = "a bench owns its clock")]

use std::{
    env,
    net::SocketAddr,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use millstream_model::{config::NetworkIo, id::WorkerId};
use millstream_shuffle::{
    io::{Io, Served},
    transport::{
        Batch, Connection, Listener, Options, Stream, Transport, identity::ClusterCa, quic::QuicListener,
        tcp::TcpListener,
    },
};
use mio::{Events, Interest, Poll, Token, unix::SourceFd};
use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::time::TimeSpec,
    time::{ClockId, clock_gettime},
};

const DAY: Duration = Duration::from_secs(86_400);
const PING_BYTES: usize = 64;
const CHUNK_BYTES: usize = 32 << 10;
const LANES: u8 = 16;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Over {
    Quic,
    Tls,
    Plain,
}

impl Over {
    fn listen(self, ca: &ClusterCa, worker: u32) -> Box<dyn Listener> {
        let identity = ca.issue(WorkerId(worker), SystemTime::now(), DAY).expect("there is randomness");
        let (any, options) = (SocketAddr::from(([127, 0, 0, 1], 0)), Options { lanes: LANES, ..Options::default() });
        let listener: Result<Box<dyn Listener>, _> = match self {
            Over::Quic => QuicListener::bind(any, identity, options).map(|listener| Box::new(listener) as _),
            Over::Tls => TcpListener::bind(any, Some(identity), options).map(|listener| Box::new(listener) as _),
            Over::Plain => TcpListener::bind(any, None, options).map(|listener| Box::new(listener) as _),
        };
        listener.expect("loopback has a free port")
    }
}

struct Link {
    transport: Box<dyn Transport>,
    submissions: u64,
    is_ready: bool,
    has_turn: bool,
    /// Bytes that have arrived, in this turn and ever.
    arrived: usize,
    received: u64,
    lane: u8,
    asked_at: Option<Instant>,
}

impl Link {
    fn served(&mut self) -> Served<'_> {
        Served { transport: self.transport.as_mut(), submissions: &mut self.submissions }
    }

    fn write(&mut self, stream: Stream, bytes: Bytes) {
        let mut batch = Batch::default();
        batch.push(bytes);
        self.transport.write(stream, batch);
    }

    /// As much as there is room for, on all lanes in turn.
    fn fill(&mut self, chunk: &Bytes) {
        while self.transport.room(Stream::Lane(self.lane)) > 0 {
            self.write(Stream::Lane(self.lane), chunk.clone());
            self.lane = (self.lane + 1) % LANES;
        }
    }
}

/// What one thread drives.
struct Side {
    poll: Poll,
    listeners: Vec<Box<dyn Listener>>,
    links: Vec<Link>,
    io: Io,
}

impl Side {
    fn new(io: NetworkIo, listeners: Vec<Box<dyn Listener>>) -> Side {
        let poll = Poll::new().expect("there are descriptors");
        for (index, listener) in listeners.iter().enumerate() {
            let source = &mut SourceFd(&listener.sockets()[0]);
            poll.registry().register(source, Token(index), Interest::READABLE).expect("it is not there yet");
        }
        Side { poll, listeners, links: Vec::new(), io: Io::start(io) }
    }

    fn add(&mut self, transport: Box<dyn Transport>) {
        let token = Token(self.listeners.len() + self.links.len());
        let interest = Interest::READABLE | Interest::WRITABLE;
        let socket = transport.socket();
        self.poll.registry().register(&mut SourceFd(&socket), token, interest).expect("it is not there yet");
        self.links.push(Link {
            transport,
            submissions: 0,
            is_ready: true,
            has_turn: false,
            arrived: 0,
            received: 0,
            lane: 0,
            asked_at: None,
        });
    }

    /// Waits, and drives what is due; `work` is what each open link that has its turn does.
    fn turn(&mut self, limit: Instant, work: &mut dyn FnMut(&mut Link, Instant)) {
        let now = Instant::now();
        let is_ready = self.links.iter().any(|link| link.is_ready);
        let due = self.links.iter().filter_map(|link| link.transport.deadline()).chain([limit]).min();
        let until = if is_ready { now } else { due.unwrap_or(limit) };
        if until > now {
            let mut polled = [PollFd::new(self.poll.registry().as_fd(), PollFlags::POLLIN)];
            let _ = ppoll(&mut polled, Some(TimeSpec::from_duration(until - now)), None);
        }
        let mut events = Events::with_capacity(256);
        self.poll.poll(&mut events, Some(Duration::ZERO)).expect("the descriptors are sound");
        let now = Instant::now();
        for event in &events {
            match event.token().0.checked_sub(self.listeners.len()) {
                Some(link) => self.links[link].is_ready = true,
                None => {
                    for transport in self.listeners[event.token().0].accept(now) {
                        self.add(transport);
                    }
                    self.links.iter_mut().for_each(|link| link.is_ready = true);
                }
            }
        }
        for link in &mut self.links {
            let is_due = link.transport.deadline().is_some_and(|deadline| deadline <= now);
            link.has_turn = std::mem::take(&mut link.is_ready) || is_due;
        }
        let count = self.links.iter().filter(|link| link.has_turn).count();
        self.io.ask(count, self.links.iter_mut().filter(|link| link.has_turn).map(Link::served));
        for link in self.links.iter_mut().filter(|link| link.has_turn) {
            link.transport.receive(now);
            let mut arrived = 0;
            link.transport.read(&mut |_, bytes| arrived += bytes.len());
            link.arrived = arrived;
            link.received += arrived as u64;
            match link.transport.connection() {
                Connection::Open { .. } => work(link, now),
                Connection::Closed(closed) => panic!("{closed}"),
                Connection::Opening => {}
            }
        }
        let count = self.links.iter().filter(|link| link.has_turn).count();
        self.io.transmit(now, count, self.links.iter_mut().filter(|link| link.has_turn).map(Link::served));
    }

    fn received(&self) -> u64 {
        self.links.iter().map(|link| link.received).sum()
    }
}

fn processor_seconds() -> f64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("every thread has one");
    Duration::from(time).as_secs_f64()
}

#[derive(Default)]
struct Peers {
    is_over: AtomicBool,
    echoes: AtomicBool,
    received: AtomicU64,
}

fn run_peers(mut side: Side, peers: &Peers) {
    let chunk = Bytes::from(vec![1; CHUNK_BYTES]);
    while !peers.is_over.load(Relaxed) {
        side.turn(Instant::now() + Duration::from_millis(20), &mut |link, _| {
            // A ping at a time is all that is asked for; what is more is not one.
            if (1..=PING_BYTES).contains(&link.arrived) && peers.echoes.load(Relaxed) {
                link.write(Stream::Lane(0), chunk.slice(..link.arrived));
            }
        });
        peers.received.store(side.received(), Relaxed);
    }
}

/// One run.
#[derive(Clone, Copy, Default)]
struct Figures {
    megabytes_per_second: f64,
    /// Of the worker's thread.
    processor_seconds_per_gigabyte: f64,
    round_trip_micros: [f64; 3],
    /// Of the worker's thread.
    processor_micros_per_ping: f64,
    submissions: u64,
}

fn run(over: Over, io: NetworkIo, count: u32, time: Duration) -> Figures {
    let ca = ClusterCa::generate(1, SystemTime::now(), DAY).expect("there is randomness");
    let mut worker = Side::new(io, vec![over.listen(&ca, 0)]);
    let far = Side::new(io, (1..=count).map(|peer| over.listen(&ca, peer)).collect());
    for (peer, listener) in (1..).zip(&far.listeners) {
        let dialled = worker.listeners[0].connect(Instant::now(), WorkerId(peer), listener.address());
        worker.add(dialled.expect("there are descriptors"));
    }
    let peers = Arc::new(Peers::default());
    let told = peers.clone();
    let thread = std::thread::spawn(move || run_peers(far, &told));
    let chunk = Bytes::from(vec![1; CHUNK_BYTES]);
    let mut figures = Figures::default();

    // Pings first, while nothing else is under way: one of each peer at any time.
    peers.echoes.store(true, Relaxed);
    let mut round_trips = Vec::new();
    let (mut before, mut pings) = (processor_seconds(), 0);
    // Then paths find their MTU.
    while !worker.links.iter().all(|link| matches!(link.transport.connection(), Connection::Open { .. })) {
        worker.turn(Instant::now() + Duration::from_millis(20), &mut |_, _| {});
    }
    worker.links.iter_mut().for_each(|link| link.is_ready = true);
    for (limit, counts) in [(time, false), (time, true)] {
        let end = Instant::now() + limit;
        if counts {
            round_trips.clear();
            (before, pings) = (processor_seconds(), 0);
        }
        while Instant::now() < end {
            worker.turn(end, &mut |link, now| {
                let is_back = link.received > 0 && link.received % PING_BYTES as u64 == 0 && link.arrived > 0;
                if let Some(asked_at) = link.asked_at.filter(|_| is_back) {
                    round_trips.push(now - asked_at);
                    pings += 1;
                }
                if link.asked_at.is_none() || is_back {
                    link.write(Stream::Lane(0), chunk.slice(..PING_BYTES));
                    link.asked_at = Some(now);
                }
            });
        }
    }
    figures.processor_micros_per_ping = (processor_seconds() - before) * 1e6 / f64::from(pings.max(1));
    round_trips.sort();
    figures.round_trip_micros = [0.5, 0.99, 0.999].map(|part| {
        let at = (round_trips.len() as f64 * part) as usize;
        round_trips.get(at).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
    });

    peers.echoes.store(false, Relaxed);
    worker.links.iter_mut().for_each(|link| link.is_ready = true);
    for (limit, counts) in [(time / 3, false), (time, true)] {
        let (start, before, received) = (Instant::now(), processor_seconds(), peers.received.load(Relaxed));
        while Instant::now() < start + limit {
            worker.turn(start + limit, &mut |link, _| link.fill(&chunk));
        }
        if counts {
            let bytes = (peers.received.load(Relaxed) - received) as f64;
            figures.megabytes_per_second = bytes / 1e6 / start.elapsed().as_secs_f64();
            figures.processor_seconds_per_gigabyte = (processor_seconds() - before) / (bytes / 1e9);
        }
    }
    figures.submissions = worker.links.iter().map(|link| link.submissions).sum();
    peers.is_over.store(true, Relaxed);
    thread.join().expect("the peers go on to the end");
    figures
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let mut numbers = env::args().skip(1).filter_map(|argument| argument.parse::<f64>().ok());
    let time = Duration::from_secs_f64(numbers.next().unwrap_or(1.0));
    let runs = numbers.next().unwrap_or(3.0) as usize;
    let counts: Vec<u32> = numbers.map(|count| count as u32).collect();
    let counts = if counts.is_empty() { vec![1, 16, 64] } else { counts };
    println!("| over | peers | with | MB/s | CPU-s/GB | ping p50, p99, p99.9 µs | CPU-µs/ping | submissions |");
    println!("|---|---|---|---|---|---|---|---|");
    for over in [Over::Quic, Over::Tls, Over::Plain] {
        for &peers in &counts {
            let choices = [NetworkIo::Syscall, NetworkIo::Uring, NetworkIo::Auto];
            let mut all: [Vec<Figures>; 3] = Default::default();
            for _ in 0..runs {
                for (choice, all) in choices.iter().zip(&mut all) {
                    all.push(run(over, *choice, peers, time));
                }
            }
            for (choice, all) in choices.iter().zip(&all) {
                let of = |figure: &dyn Fn(&Figures) -> f64| median(all.iter().map(figure).collect());
                let [p50, p99, p999] = [0, 1, 2].map(|at| of(&|figures| figures.round_trip_micros[at]));
                println!(
                    "| {over:?} | {peers} | {choice:?} | {:.0} | {:.3} | {p50:.0}, {p99:.0}, {p999:.0} | {:.1} | {:.0} |",
                    of(&|figures| figures.megabytes_per_second),
                    of(&|figures| figures.processor_seconds_per_gigabyte),
                    of(&|figures| figures.processor_micros_per_ping),
                    of(&|figures| figures.submissions as f64),
                );
            }
        }
    }
}
