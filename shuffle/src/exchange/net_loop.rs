//! What owns the sockets of a worker, and moves bytes between links and transports, a round at a time. It never waits:
//! who drives it does, for its `registry` and until its `deadline`.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::Receiver;
use millstream_model::{
    fault::Failure,
    id::{Generation, WorkerId},
    message::ShuffleMetrics,
};
use mio::{Events, Interest, Poll, Registry, Token, unix::SourceFd};

use super::{ExchangeConfig, ExchangeEvent, Listen, Mail, OnEvent};
use crate::{
    io::{Io, Served},
    link::{Link, LinkEvent, PeerChannels},
    transport::{Batch, Connection, Listener, Stream, Transport},
    wake::Waker,
    wire::{Malformed, decoder},
};

const MAIL: Token = Token(0);
const LISTENER: Token = Token(1);
/// Connections that have ended and still answer their peers, at most: each has a socket, and strangers can bring it about.
const LINGERING_MAX: usize = 64;
/// Connections are numbered from here.
const FIRST_CONNECTION: usize = 2;

pub(super) struct NetLoop {
    config: ExchangeConfig,
    listener: Box<dyn Listener>,
    io: Io,
    poll: Poll,
    events: Events,
    mails: Receiver<Mail>,
    doorbell: Arc<Waker>,
    on_event: OnEvent,
    peers: BTreeMap<WorkerId, Peer>,
    /// By token; places are used again.
    connections: Vec<Option<Connected>>,
    /// Connections that have something to be done about them in this round.
    due: Vec<usize>,
    batches: Vec<(Stream, Batch)>,
    has_ended: bool,
}

struct Peer {
    link: Link,
    connection: Option<usize>,
    address: Option<SocketAddr>,
    /// When it is given up if it is not connected by then.
    connect_until: Option<Instant>,
    metrics: ShuffleMetrics,
    starved_since: Option<Instant>,
}

impl Connected {
    fn served(&mut self) -> Served<'_> {
        Served { transport: self.transport.as_mut(), submissions: &mut self.submissions }
    }

    /// Who the peer says it is, over a transport that does not prove it; `None` if it has not said so yet.
    fn introduction(&mut self) -> Result<Option<WorkerId>, Malformed> {
        let Connected { transport, unknown, .. } = self;
        transport.read(&mut |stream, bytes| {
            // Nobody was asked for data yet.
            if stream == Stream::Control {
                unknown.extend_from_slice(bytes);
            }
        });
        decoder::introduction(unknown)
    }
}

impl Peer {
    fn count_starvation(&mut self, now: Instant) {
        if let Some(since) = self.starved_since.take() {
            self.metrics.starved_nanos += now.duration_since(since).as_nanos() as u64;
        }
        if self.link.is_starved() {
            self.starved_since = Some(now);
        }
    }
}

struct Connected {
    transport: Box<dyn Transport>,
    /// `None` until it is known who is at the other end.
    peer: Option<WorkerId>,
    is_announced: bool,
    /// It has ended and was told of; it is here because it lingers.
    is_over: bool,
    is_due: bool,
    /// When it is due at the latest, as of its last turn.
    deadline: Option<Instant>,
    /// What has arrived on the control stream before it was known who speaks.
    unknown: Vec<u8>,
    /// Calls to its socket that a ring has made.
    submissions: u64,
}

impl NetLoop {
    pub(super) fn new(
        config: ExchangeConfig,
        listen: Listen,
        mails: Receiver<Mail>,
        doorbell: Arc<Waker>,
        on_event: OnEvent,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        doorbell.bind_poll(Arc::new(mio::Waker::new(poll.registry(), MAIL)?));
        let listener = listen()?;
        for socket in listener.sockets() {
            poll.registry().register(&mut SourceFd(&socket), LISTENER, Interest::READABLE)?;
        }
        Ok(NetLoop {
            io: Io::start(config.io),
            config,
            listener,
            poll,
            events: Events::with_capacity(256),
            mails,
            doorbell,
            on_event,
            peers: BTreeMap::new(),
            connections: Vec::new(),
            due: Vec::new(),
            batches: Vec::new(),
            has_ended: false,
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// What is ready to be read when a round has something to do, and the way to wake who waits for it.
    ///
    /// # Errors
    /// If there are no more file descriptors.
    pub(super) fn registry(&self) -> io::Result<Registry> {
        self.poll.registry().try_clone()
    }

    /// When a round is due even if nothing has arrived.
    pub(super) fn deadline(&self) -> Option<Instant> {
        // There may be hundreds of them, so each is asked after its turn and not now.
        let deadlines = self.connections.iter().flatten().filter_map(|connected| connected.deadline);
        deadlines.chain(self.peers.values().filter_map(|peer| peer.connect_until)).min()
    }

    /// Whether it was told to stop. Its rounds do nothing any more.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Takes in what has come and hands over what can go; whether there was anything, so that there may be more.
    pub(super) fn round(&mut self, now: Instant) -> bool {
        if self.has_ended {
            return false;
        }
        // Interrupted by a signal: the next round looks again.
        if self.poll.poll(&mut self.events, Some(Duration::ZERO)).is_err() {
            self.events.clear();
        }
        // Before everything that a wake could be about is looked at.
        self.doorbell.clear();
        if !self.read_mails(now) {
            self.end(now);
            return false;
        }
        self.find_due(now);
        let mut is_busy = self.receive(now);
        self.tell_events();
        is_busy |= self.pump(now);
        let due = std::mem::take(&mut self.due);
        self.transmit(now, due.len());
        self.look_at_deadlines(&due);
        self.end_closed(&due);
        self.due = due;
        self.due.clear();
        if self.listener.has_passed_on() {
            (0..self.connections.len()).for_each(|index| self.mark(index));
            is_busy = true;
        }
        self.give_up_late(now);
        is_busy
    }

    /// A round has panicked: nothing that this knows is to be relied on.
    pub(super) fn abandon(&mut self) {
        self.has_ended = true;
        self.connections.clear();
        self.peers.clear();
    }

    fn end(&mut self, now: Instant) {
        self.has_ended = true;
        for connected in self.connections.iter_mut().flatten() {
            connected.transport.close(now, "the worker has ended");
            connected.transport.transmit(now);
        }
        self.connections.clear();
    }

    /// The numbers of peers.
    pub(super) fn metrics(&mut self) -> Vec<(WorkerId, ShuffleMetrics)> {
        let metrics = self.peers.iter_mut().map(|(worker, peer)| {
            let (credit_granted, credit_spent) = peer.link.credit();
            let backlog_bytes = peer.link.backlog();
            let connected = peer.connection.and_then(|index| self.connections[index].as_ref());
            let io_submissions = connected.map_or(0, |connected| connected.submissions);
            let metrics = peer.metrics.clone();
            (*worker, ShuffleMetrics { credit_granted, credit_spent, backlog_bytes, io_submissions, ..metrics })
        });
        metrics.collect()
    }

    /// Whether the loop goes on.
    fn read_mails(&mut self, now: Instant) -> bool {
        while let Ok(mail) = self.mails.try_recv() {
            match mail {
                Mail::Attach { peer, address, channels } => self.attach(peer, address, *channels, now),
                Mail::Detach(generation) => {
                    for peer in self.peers.values_mut() {
                        peer.link.detach(generation);
                        if peer.link.generations().next().is_none() {
                            peer.connect_until = None;
                        }
                    }
                    let workers: Vec<WorkerId> = self.peers.keys().copied().collect();
                    workers.into_iter().for_each(|worker| self.expect_channels(worker));
                }
                Mail::Send { peer, event } => {
                    if let Some(peer) = self.peers.get_mut(&peer) {
                        peer.link.send(event);
                    }
                }
                Mail::Stop => return false,
            }
        }
        true
    }

    fn attach(&mut self, worker: WorkerId, address: SocketAddr, channels: PeerChannels, now: Instant) {
        let generation = channels.generation;
        let connect_until = now + self.config.connect_timeout;
        let peer = self.peer(worker);
        peer.address = Some(address);
        peer.link.attach(channels);
        if peer.connection.is_some() {
            self.expect_channels(worker);
            return;
        }
        peer.connect_until = Some(connect_until);
        if self.config.local.worker > worker {
            return; // the peer dials
        }
        let dialed =
            self.listener.connect(now, worker, address).and_then(|transport| self.add(transport, Some(worker)));
        match dialed {
            Ok(index) => self.peer(worker).connection = Some(index),
            Err(error) => {
                self.peers.remove(&worker);
                let failure =
                    Failure::new(format!("no connection to worker {} at {address} could be begun: {error}", worker.0));
                (self.on_event)(ExchangeEvent::Lost { peer: worker, generations: vec![generation], failure });
            }
        }
    }

    /// Lets the peer send on as many channels as were asked for.
    fn expect_channels(&mut self, worker: WorkerId) {
        let Some(peer) = self.peers.get(&worker) else { return };
        let Some(index) = peer.connection else { return };
        let count = peer.link.inlet_count();
        if let Some(connected) = self.connections[index].as_mut().filter(|connected| connected.is_announced) {
            connected.transport.expect_channels(count);
            self.mark(index);
        }
    }

    fn peer(&mut self, worker: WorkerId) -> &mut Peer {
        let local = &self.config.local;
        self.peers.entry(worker).or_insert_with(|| Peer {
            link: Link::new(local.clone(), worker),
            connection: None,
            address: None,
            connect_until: None,
            metrics: ShuffleMetrics::default(),
            starved_since: None,
        })
    }

    fn add(&mut self, transport: Box<dyn Transport>, peer: Option<WorkerId>) -> io::Result<usize> {
        let free = self.connections.iter().position(Option::is_none);
        let index = free.unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        let interest = Interest::READABLE | Interest::WRITABLE;
        let token = Token(FIRST_CONNECTION + index);
        self.poll.registry().register(&mut SourceFd(&transport.socket()), token, interest)?;
        self.connections[index] = Some(Connected {
            transport,
            peer,
            is_announced: false,
            is_over: false,
            is_due: true,
            deadline: None,
            unknown: Vec::new(),
            submissions: 0,
        });
        self.due.push(index);
        Ok(index)
    }

    fn mark(&mut self, index: usize) {
        if let Some(Some(connected)) = self.connections.get_mut(index)
            && !std::mem::replace(&mut connected.is_due, true)
        {
            self.due.push(index);
        }
    }

    /// Connections whose sockets or timers have something.
    fn find_due(&mut self, now: Instant) {
        let mut is_knocking = false;
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            match event.token() {
                MAIL => {}
                LISTENER => is_knocking = true,
                Token(token) => self.mark(token - FIRST_CONNECTION),
            }
        }
        self.events = events;
        self.events.clear();
        if is_knocking {
            for transport in self.listener.accept(now) {
                let peer = transport.path().peer;
                if let Err(error) = self.add(transport, None) {
                    tracing::warn!(%peer, %error, "a connection could not be taken");
                }
            }
            // What arrived at the listening socket may be for any of them.
            (0..self.connections.len()).for_each(|index| self.mark(index));
        }
        for index in 0..self.connections.len() {
            let deadline = self.connections[index].as_ref().and_then(|connected| connected.deadline);
            if deadline.is_some_and(|deadline| deadline <= now) {
                self.mark(index);
            }
        }
    }

    /// Takes in what has arrived; whether there was anything.
    fn receive(&mut self, now: Instant) -> bool {
        let mut has_received = false;
        let due = self.connections.iter_mut().flatten().filter(|connected| connected.is_due);
        self.io.ask(self.due.len(), due.map(Connected::served));
        for at in 0..self.due.len() {
            let index = self.due[at];
            let Some(connected) = &mut self.connections[index] else { continue };
            connected.transport.receive(now);
            if !connected.is_announced {
                self.announce(index, now);
            }
            let Some(connected) = &mut self.connections[index] else { continue };
            let Some(peer) = connected.peer.and_then(|peer| self.peers.get_mut(&peer)) else { continue };
            let unknown = std::mem::take(&mut connected.unknown);
            let mut violation = peer.link.on_bytes(Stream::Control, &unknown).err();
            connected.transport.read(&mut |stream, bytes| {
                has_received = true;
                peer.metrics.received_bytes += bytes.len() as u64;
                if violation.is_none() {
                    violation = peer.link.on_bytes(stream, bytes).err();
                }
            });
            if let Some(violation) = violation {
                tracing::error!(peer = peer.link.peer().0, %violation, "a peer has broken the shuffle's protocol");
                connected.transport.close(now, &format!("broken protocol: {violation}"));
            }
        }
        has_received
    }

    /// Passes on what peers have said that is for the worker.
    fn tell_events(&mut self) {
        for peer in self.peers.values_mut() {
            let worker = peer.link.peer();
            for event in peer.link.take_events() {
                (self.on_event)(match event {
                    LinkEvent::Refused { generation, reason } => {
                        let failure = Failure::new(format!("worker {} refuses a channel: {reason}", worker.0));
                        ExchangeEvent::Refused { peer: worker, generation, failure }
                    }
                    LinkEvent::Coordinator(event) => ExchangeEvent::Coordinator { event },
                });
            }
        }
    }

    /// Finds out who is at the other end of a new connection, once that is known.
    fn announce(&mut self, index: usize, now: Instant) {
        let Some(connected) = &mut self.connections[index] else { return };
        let Connection::Open { peer } = connected.transport.connection() else { return };
        let proved = *peer;
        let path = connected.transport.path();
        let worker = match connected.peer.or(proved) {
            Some(worker) => worker,
            None => match connected.introduction() {
                Ok(Some(worker)) => worker,
                Ok(None) => return,
                Err(malformed) => {
                    connected.transport.close(now, &format!("broken protocol: {malformed}"));
                    return;
                }
            },
        };
        connected.is_announced = true;
        connected.peer = Some(worker);
        let peer = self.peer(worker);
        match peer.connection {
            None => peer.connection = Some(index),
            Some(own) if own == index => {}
            Some(_) => {
                if let Some(connected) = &mut self.connections[index] {
                    connected.peer = None;
                    connected.transport.close(now, "there is a connection to this worker already");
                }
                return;
            }
        }
        peer.connect_until = None;
        path.transport.clone_into(&mut peer.metrics.transport);
        tracing::info!(
            peer = worker.0,
            address = %path.peer,
            transport = path.transport,
            mtu = path.mtu,
            socket_buffer = path.socket_buffer,
            cipher = path.cipher,
            "connected"
        );
        self.expect_channels(worker);
    }

    /// Moves what links have to say into their transports; whether there was anything.
    fn pump(&mut self, now: Instant) -> bool {
        let mut has_moved = false;
        let NetLoop { peers, connections, due, batches, .. } = self;
        for peer in peers.values_mut() {
            let Some(index) = peer.connection else { continue };
            let Some(connected) = &mut connections[index] else { continue };
            if !connected.is_announced {
                continue;
            }
            let transport = &mut connected.transport;
            peer.link.pump(|stream| transport.room(stream), |stream, batch| batches.push((stream, batch)));
            peer.count_starvation(now);
            for (stream, batch) in batches.drain(..) {
                has_moved = true;
                peer.metrics.sent_bytes += batch.bytes as u64;
                transport.write(stream, batch);
                if !std::mem::replace(&mut connected.is_due, true) {
                    due.push(index);
                }
            }
            for channel in peer.link.take_ended() {
                transport.end_channel(channel);
                if !std::mem::replace(&mut connected.is_due, true) {
                    due.push(index);
                }
            }
        }
        has_moved
    }

    fn transmit(&mut self, now: Instant, count: usize) {
        let due = self.connections.iter_mut().flatten().filter(|connected| connected.is_due);
        self.io.transmit(
            now,
            count,
            due.map(|connected| {
                connected.is_due = false;
                connected.served()
            }),
        );
    }

    /// Of those that have had their turn.
    fn look_at_deadlines(&mut self, due: &[usize]) {
        for index in due {
            if let Some(connected) = &mut self.connections[*index] {
                connected.deadline = connected.transport.deadline();
            }
        }
    }

    /// Says which connections have ended where deployments need them, and forgets them once their peers know. They do so
    /// in their turns alone.
    fn end_closed(&mut self, due: &[usize]) {
        let is_closed = |connected: &Connected| matches!(connected.transport.connection(), Connection::Closed(_));
        if !due.iter().any(|index| self.connections[*index].as_ref().is_some_and(is_closed)) {
            return;
        }
        let mut lingering = self.connections.iter().flatten().filter(|connected| connected.is_over).count();
        for index in due.iter().copied() {
            let Some(connected) = &mut self.connections[index] else { continue };
            let Connection::Closed(closed) = connected.transport.connection() else { continue };
            let (closed, address) = (closed.clone(), connected.transport.path().peer);
            let (lingers, was_over) = (connected.transport.lingers(), std::mem::replace(&mut connected.is_over, true));
            let worker = connected.peer.take();
            if !lingers || (!was_over && lingering >= LINGERING_MAX) {
                // Its socket goes with it; closing removes it from the poll.
                self.connections[index] = None;
            } else if !was_over {
                lingering += 1;
            }
            if was_over {
                continue;
            }
            match worker.filter(|worker| self.peers.get(worker).is_some_and(|peer| peer.connection == Some(index))) {
                Some(worker) => {
                    self.lose(worker, &format!("the connection to worker {} at {address} was lost: {closed}", worker.0))
                }
                None => tracing::warn!(%address, %closed, "a connection has ended before it was of use"),
            }
        }
    }

    fn give_up_late(&mut self, now: Instant) {
        let is_late = |peer: &&Peer| peer.connect_until.is_some_and(|until| until <= now);
        while let Some(peer) = self.peers.values().find(is_late) {
            let worker = peer.link.peer();
            let address = peer.address.map_or_else(|| "an unknown address".to_owned(), |address| address.to_string());
            if let Some(index) = peer.connection {
                self.connections[index] = None;
            }
            self.lose(
                worker,
                &format!(
                    "worker {} at {address} was not connected within {:?}: check that it runs, and that nothing between \
                     the two refuses the connection",
                    worker.0, self.config.connect_timeout
                ),
            );
        }
    }

    fn lose(&mut self, worker: WorkerId, why: &str) {
        let Some(peer) = self.peers.remove(&worker) else { return };
        let generations: Vec<Generation> = peer.link.generations().collect();
        tracing::info!(peer = worker.0, why, "a peer is gone");
        if !generations.is_empty() {
            let failure = Failure::new(why);
            (self.on_event)(ExchangeEvent::Lost { peer: worker, generations, failure });
        }
    }
}
