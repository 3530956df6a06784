//! One peer: its QUIC connection and the socket that is connected to it.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind},
    os::fd::{AsRawFd, RawFd},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use millstream_model::id::WorkerId;
use quinn_proto::{Connection as Machine, ConnectionError, ConnectionHandle, Dir, EndpointEvent, Event, StreamEvent};
use rustls::pki_types::CertificateDer;
use tracing::debug;

use super::{
    config,
    congestion::Gate,
    ending,
    endpoint::{Shared, lock},
    socket::{Io, Socket, Train},
    streams::{Incoming, Outgoing, StreamError},
};
use crate::{
    io::{Answer, Load, Outcome, Questions},
    transport::{Batch, Closed, Connection, Options, Path, Stream, Transport, hello::Hello, tls},
};

/// System calls that one `receive` or `transmit` makes at most, so that other peers have their turn: 1 MiB.
const RECEIVES_PER_TURN: usize = 4;
const TRAINS_PER_TURN: usize = 16;
/// What is loaded to be sent together with what others have: much is sent as well alone, while it is in the cache.
const LOADED_BYTES: usize = 32 << 10;
/// However little the peer claims to hold.
const WINDOW_BYTES_MIN: usize = 64 << 10;
/// What control may always have queued, even if lanes have used up the window.
const CONTROL_ROOM: usize = 1 << 20;
/// What is queued beyond what congestion control lets go, so that it sees that more is wanted, and opens.
const BEYOND_CONGESTION_BYTES: usize = 64 << 10;
/// How long a peer is told that a connection has ended, at least: it may be slow, and repeats what it sends ever later. The
/// RFC asks for three probe times at least, which are a tenth of a second between processes of one machine.
const LINGER_MIN: Duration = Duration::from_secs(3);
/// How long a peer may be silent after its machine has said that nobody listens there.
const REFUSED_GRACE: Duration = Duration::from_millis(250);

/// Who is at the other end.
pub enum Peer {
    Dialled(WorkerId),
    /// Its certificate will tell.
    Accepted {
        cluster: String,
    },
}

pub struct QuicConnection {
    shared: Arc<Mutex<Shared>>,
    handle: ConnectionHandle,
    machine: Machine,
    socket: Socket,
    peer: Peer,
    state: Connection,
    /// Both sides believe each other, as far as this one knows; the peer's greeting is still to come.
    verified: Option<WorkerId>,
    /// 0 where each channel has a stream of its own.
    lanes: u8,
    outgoing: Outgoing,
    incoming: Incoming,
    /// The most bytes that may be kept, by what both sockets hold.
    window: usize,
    own_window: usize,
    /// Trains that found the socket full, and the memory they are in.
    unsent: VecDeque<(Train, Vec<u8>)>,
    /// Trains that are being sent together with those of other connections.
    loaded: VecDeque<(Train, Vec<u8>)>,
    /// A budget has ended before the work did.
    more_to_receive: bool,
    more_to_send: bool,
    drained: bool,
    /// The connection has ended on this side at this moment, which a peer that goes on is told until it is drained (RFC
    /// 9000, section 10.2.1).
    ended_at: Option<Instant>,
    handshake_counted: bool,
    refused: Option<Instant>,
    timer: Option<Instant>,
    gate: Gate,
    /// Silence after which the path is tried, and again after as much of it.
    try_after: Duration,
    /// When something arrived last.
    heard_at: Instant,
    /// When something was sent last. Where much waits and congestion control allows nothing, QUIC sends no answer either:
    /// not even to the peer's own tries, which then takes this side for dead.
    told_at: Instant,
    tried_at: Instant,
    /// The next datagram is to try the path.
    is_trying: bool,
    now: Instant,
}

impl QuicConnection {
    pub(super) fn new(
        shared: Arc<Mutex<Shared>>,
        handle: ConnectionHandle,
        machine: Machine,
        socket: Socket,
        peer: Peer,
        options: &Options,
        now: Instant,
    ) -> Self {
        let window = options.window.min(socket.buffer() / 2);
        QuicConnection {
            gate: Gate::of(&machine),
            try_after: options.keep_alive,
            heard_at: now,
            told_at: now,
            tried_at: now,
            is_trying: false,
            shared,
            handle,
            machine,
            socket,
            peer,
            state: Connection::Opening,
            verified: None,
            outgoing: Outgoing::default(),
            lanes: options.lanes,
            incoming: Incoming::default(),
            window,
            own_window: window,
            unsent: VecDeque::new(),
            loaded: VecDeque::new(),
            more_to_receive: false,
            more_to_send: false,
            drained: false,
            ended_at: None,
            handshake_counted: true,
            refused: None,
            timer: None,
            now,
        }
    }

    fn is_closed(&self) -> bool {
        matches!(self.state, Connection::Closed(_))
    }

    /// Once drained, the endpoint may give the handle to another.
    fn live_handle(&self) -> Option<ConnectionHandle> {
        (!self.drained).then_some(self.handle)
    }

    /// Delivers what has happened, to the endpoint and to this side's state.
    fn pump(&mut self) {
        while let Some(event) = self.machine.poll_endpoint_events() {
            self.drained |= event.is_drained();
            let answer = lock(&self.shared).tell(self.handle, event);
            if let Some(event) = answer {
                self.machine.handle_event(event);
            }
        }
        while let Some(event) = self.machine.poll() {
            match event {
                Event::Connected => self.connected(),
                Event::ConnectionLost { reason } => self.lost(reason),
                Event::Stream(StreamEvent::Opened { dir: Dir::Uni }) => {
                    while let Some(id) = self.machine.streams().accept(Dir::Uni) {
                        self.incoming.open(id);
                    }
                }
                Event::Stream(StreamEvent::Readable { id }) => self.incoming.readable(id),
                _ => {}
            }
        }
        if let Err(error) = self.incoming.read_preambles(&mut self.machine) {
            self.fail(&error);
        }
        self.open_if_greeted();
        self.timer = self.machine.poll_timeout();
    }

    /// TLS has verified the peer's certificate.
    fn connected(&mut self) {
        let worker = match &self.peer {
            Peer::Dialled(worker) => Ok(*worker),
            Peer::Accepted { cluster } => {
                let identity = self.machine.crypto_session().peer_identity();
                let certificates = identity.and_then(|any| any.downcast::<Vec<CertificateDer>>().ok());
                match certificates.as_ref().and_then(|certificates| certificates.first()) {
                    Some(certificate) => tls::worker_of(certificate, cluster).map_err(|error| error.to_string()),
                    None => Err("there is no certificate".to_owned()),
                }
            }
        };
        match worker {
            Ok(worker) => {
                self.verified = Some(worker);
                let window = u32::try_from(self.own_window).unwrap_or(u32::MAX);
                self.outgoing.greet(Hello { window, cipher: tls::preferred_cipher() });
            }
            // The verifier has looked at the same certificate.
            Err(why) => self.end(Closed::Refused(format!("of the peer: {why}")), "your certificate is refused"),
        }
    }

    fn open_if_greeted(&mut self) {
        if let (Connection::Opening, Some(worker), Some(hello)) = (&self.state, self.verified, self.incoming.hello()) {
            self.window = self.own_window.min((hello.window as usize).max(WINDOW_BYTES_MIN));
            self.state = Connection::Open { peer: Some(worker) };
            self.handshake_ended();
        }
    }

    /// When a path is tried on which nothing has come, or nothing has gone, until then. Before it is open, the handshake
    /// does that.
    fn tries_at(&self) -> Option<Instant> {
        let silent_since = self.heard_at.min(self.told_at).max(self.tried_at);
        matches!(self.state, Connection::Open { .. }).then_some(silent_since + self.try_after)
    }

    /// When the machine is to look at its timers. Once the connection has ended, there is only the one that drains it.
    fn timer_due(&self) -> Option<Instant> {
        let lingers_until = self.ended_at.map(|ended| ended + LINGER_MIN);
        self.timer.map(|due| lingers_until.map_or(due, |until| due.max(until)))
    }

    fn handshake_ended(&mut self) {
        if std::mem::take(&mut self.handshake_counted) {
            lock(&self.shared).handshakes -= 1;
        }
    }

    fn lost(&mut self, reason: ConnectionError) {
        if matches!(reason, ConnectionError::TransportError(_)) {
            self.ended_at = Some(self.now);
        }
        self.closed(ending::of(reason));
    }

    fn closed(&mut self, closed: Closed) {
        if !self.is_closed() {
            debug!(peer = %self.machine.remote_address(), %closed, "a connection has ended");
            self.state = Connection::Closed(closed);
            self.handshake_ended();
            self.outgoing.clear();
        }
    }

    /// The peer has done what it must not do.
    fn fail(&mut self, error: &StreamError) {
        let text = error.to_string();
        self.end(Closed::Failed(text.clone()), &text);
    }

    /// Ends the connection from this side; `transmit` tells the peer.
    fn end(&mut self, closed: Closed, reason: &str) {
        if !self.is_closed() {
            let code = if matches!(closed, Closed::Locally) { 0u32 } else { 1 };
            self.machine.close(self.now, code.into(), Bytes::copy_from_slice(reason.as_bytes()));
            self.ended_at = Some(self.now);
            self.closed(closed);
            self.more_to_send = true;
        }
    }

    /// The peer's machine says that nobody listens there. Anyone who guesses the ports can say so, hence the grace.
    fn refused(&mut self) {
        let silent_since = *self.refused.get_or_insert(self.now);
        match (&self.state, &self.peer) {
            (Connection::Opening, Peer::Dialled(_)) => {
                let address = self.machine.remote_address();
                self.end(Closed::Failed(format!("nobody listens at {address}")), "");
            }
            (Connection::Closed(_), _) => {}
            _ if silent_since + REFUSED_GRACE <= self.now => {
                self.end(Closed::Failed("nobody is there any more".to_owned()), "");
            }
            _ if silent_since == self.now => self.machine.ping(),
            _ => {}
        }
    }

    /// What may be queued and under way: what both sockets hold, and little more than congestion control lets go.
    fn kept_bytes_max(&self) -> usize {
        let congestion = usize::try_from(self.machine.congestion_state().window()).unwrap_or(usize::MAX);
        self.window.min(congestion.saturating_add(congestion / 4).saturating_add(BEYOND_CONGESTION_BYTES))
    }

    /// Sends a train, or keeps it until the socket has room again. Returns whether it has gone.
    fn send(&mut self, train: Train, memory: Vec<u8>) -> bool {
        let outcome = self.socket.send(&train, &memory);
        match outcome {
            Io::WouldBlock => self.unsent.push_back((train, memory)),
            _ => lock(&self.shared).give_spare(memory),
        }
        if outcome == Io::Refused {
            self.refused();
        }
        outcome != Io::WouldBlock
    }

    /// Sends what found the socket full. Returns whether nothing is left of it.
    fn send_unsent(&mut self) -> bool {
        while let Some((train, memory)) = self.unsent.front() {
            if self.socket.send(train, memory) == Io::WouldBlock {
                return false;
            }
            self.unsent.pop_front();
        }
        true
    }

    /// Whether anything may be sent that is not sent yet; it is handed over to QUIC.
    fn begin_transmit(&mut self, now: Instant) -> bool {
        self.now = now;
        if self.drained || !self.send_unsent() {
            return false;
        }
        if !self.is_closed() && self.verified.is_some() {
            let kept_bytes_max = self.kept_bytes_max();
            if let Err(error) = self.outgoing.flush(&mut self.machine, kept_bytes_max) {
                self.fail(&error);
            }
        }
        self.more_to_send = true;
        true
    }

    /// What is to be sent next, if there is anything.
    fn next_train(&mut self) -> Option<(Train, Vec<u8>)> {
        let datagrams = self.socket.datagrams_per_train(self.machine.current_mtu());
        let mut memory = lock(&self.shared).take_spare();
        let (machine, now) = (&mut self.machine, self.now);
        let train = if std::mem::take(&mut self.is_trying) {
            self.gate.open_during(|| machine.poll_transmit(now, 1, &mut memory))
        } else {
            machine.poll_transmit(now, datagrams, &mut memory)
        };
        match train {
            Some(train) => {
                self.told_at = now;
                Some((train.into(), memory))
            }
            None => {
                lock(&self.shared).give_spare(memory);
                self.more_to_send = false;
                None
            }
        }
    }

    /// Sends trains as long as there are any and the socket takes them.
    fn send_trains(&mut self, count: usize) {
        for _ in 0..count {
            let Some((train, memory)) = self.next_train() else { break };
            if !self.send(train, memory) {
                self.more_to_send = false;
                break;
            }
        }
    }

    /// Takes in what was answered when the socket was asked together with others; nothing if it was not.
    fn take_answers(&mut self, arrived: &mut bool) -> Option<Io> {
        let answers = self.socket.take_arrived();
        let outcome = answers.outcome()?;
        let handle = self.live_handle();
        let mut shared = lock(&self.shared);
        let machine = &mut self.machine;
        for (meta, train) in answers.trains {
            shared.take(&self.socket, self.now, handle, (&meta, train), &mut |event| {
                *arrived = true;
                machine.handle_event(event);
            });
        }
        drop(shared);
        if answers.is_refused {
            self.refused();
        }
        Some(outcome)
    }

    /// Takes in what the socket says, one system call after the other.
    fn receive_alone(&mut self, arrived: &mut bool) {
        for _ in 0..RECEIVES_PER_TURN {
            let handle = self.live_handle();
            let machine = &mut self.machine;
            let outcome = lock(&self.shared).receive(&self.socket, self.now, handle, &mut |event| {
                *arrived = true;
                machine.handle_event(event);
            });
            self.more_to_receive = outcome == Io::More;
            if outcome == Io::Refused {
                self.refused();
            }
            if outcome == Io::WouldBlock {
                break;
            }
        }
    }
}

impl Transport for QuicConnection {
    fn connection(&self) -> &Connection {
        &self.state
    }

    fn receive(&mut self, now: Instant) {
        self.now = now;
        let mut arrived = false;
        while let Some(event) = self.live_handle().and_then(|handle| lock(&self.shared).take_mail(handle)) {
            arrived = true;
            self.machine.handle_event(event);
        }
        match self.take_answers(&mut arrived) {
            Some(Io::WouldBlock) => self.more_to_receive = false,
            _ => self.receive_alone(&mut arrived),
        }
        if arrived {
            self.refused = None;
        } else if self.refused.is_some() {
            self.refused();
        }
        if arrived {
            self.heard_at = now;
        }
        if self.tries_at().is_some_and(|due| due <= now) {
            self.tried_at = now;
            self.is_trying = true;
            self.machine.ping();
        }
        if self.timer_due().is_some_and(|due| due <= now) {
            self.machine.handle_timeout(now);
        }
        self.pump();
    }

    fn ask<'a>(&'a mut self, questions: &mut Questions<'a>) {
        self.socket.ask(questions);
    }

    fn answer(&mut self, answer: Answer) {
        self.socket.learn(answer);
    }

    fn read(&mut self, each: &mut dyn FnMut(Stream, &[u8])) {
        // What arrived before the end may still be read.
        if self.state == Connection::Opening {
            return;
        }
        if let Err(error) = self.incoming.read(&mut self.machine, each) {
            self.fail(&error);
        }
    }

    fn room(&self, stream: Stream) -> usize {
        match (&self.state, stream) {
            (Connection::Closed(_), _) => 0,
            (_, Stream::Control) => CONTROL_ROOM,
            (_, Stream::Lane(_) | Stream::Channel(_)) => {
                self.kept_bytes_max().saturating_sub(self.outgoing.kept_bytes())
            }
        }
    }

    fn write(&mut self, stream: Stream, batch: Batch) {
        if !self.is_closed() {
            self.outgoing.write(stream, batch);
        }
    }

    fn end_channel(&mut self, channel: u32) {
        self.outgoing.end(Stream::Channel(channel));
    }

    fn expect_channels(&mut self, count: u32) {
        if self.lanes == 0 && !self.is_closed() {
            self.machine.set_max_concurrent_streams(Dir::Uni, config::streams_max(0).saturating_add(count).into());
            self.more_to_send = true;
        }
    }

    fn transmit(&mut self, now: Instant) {
        if !self.begin_transmit(now) {
            return;
        }
        self.send_trains(TRAINS_PER_TURN);
        self.pump();
    }

    fn load<'a>(&'a mut self, now: Instant, load: &mut Load<'a>) {
        if !self.begin_transmit(now) {
            return;
        }
        let mut bytes = 0;
        while bytes < LOADED_BYTES && self.loaded.len() < TRAINS_PER_TURN && load.has_room(self.loaded.len()) {
            let Some((train, memory)) = self.next_train() else { break };
            bytes += train.bytes;
            let memory = lock(&self.shared).keep(&train, memory);
            self.loaded.push_back((train, memory));
        }
        self.pump();
        for (train, memory) in &self.loaded {
            load.push(self.socket.send_call(train, memory));
        }
    }

    fn sent(&mut self, now: Instant, outcomes: &mut dyn Iterator<Item = Outcome>) {
        self.now = now;
        let count = self.loaded.len();
        while let Some((train, memory)) = self.loaded.pop_front() {
            match outcomes.next().flatten() {
                Some(Ok(_)) => lock(&self.shared).give_spare(memory),
                Some(Err(error)) if error.kind() == ErrorKind::WouldBlock => {
                    self.unsent.push_back((train, memory));
                    self.more_to_send = false;
                }
                outcome => {
                    // The answer to an earlier datagram; this one was not sent.
                    if outcome.is_some_and(|outcome| is_refusal(&outcome)) {
                        self.refused();
                    }
                    // What cannot be sent together may be sent alone: there it is known what to do about each error.
                    if !self.send(train, memory) {
                        self.more_to_send = false;
                    }
                }
            }
        }
        if count > 0 && self.more_to_send {
            self.send_trains(TRAINS_PER_TURN - count);
            self.pump();
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let mail = self.live_handle().is_some_and(|handle| lock(&self.shared).has_mail(handle));
        if self.more_to_receive || self.more_to_send || mail {
            return Some(self.now);
        }
        let silence = self.refused.filter(|_| !self.is_closed()).map(|since| since + REFUSED_GRACE);
        [self.timer_due(), silence, self.tries_at()].into_iter().flatten().min()
    }

    fn socket(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    fn close(&mut self, now: Instant, reason: &str) {
        self.now = now;
        self.end(Closed::Locally, reason);
        self.transmit(now);
    }

    fn lingers(&self) -> bool {
        self.ended_at.is_some() && !self.drained
    }

    fn path(&self) -> Path {
        Path {
            transport: "quic",
            peer: self.machine.remote_address(),
            mtu: self.machine.current_mtu(),
            socket_buffer: self.socket.buffer(),
            lost_packets: self.machine.stats().path.lost_packets,
            // The dialling side's preference decides.
            cipher: match (&self.peer, self.incoming.hello()) {
                (Peer::Dialled(_), _) => Some(tls::preferred_cipher().to_owned()),
                (Peer::Accepted { .. }, hello) => hello.map(|hello| hello.cipher.to_owned()),
            },
        }
    }
}

fn is_refusal(outcome: &io::Result<usize>) -> bool {
    outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

impl Drop for QuicConnection {
    /// Tells the peer, if that has not happened yet, and the endpoint.
    fn drop(&mut self) {
        if !self.is_closed() {
            let now = self.now;
            self.close(now, "the connection was dropped");
        }
        if !self.drained {
            lock(&self.shared).tell(self.handle, EndpointEvent::drained());
        }
    }
}

#[cfg(test)]
mod tests;
