//! One peer: its TCP connection, and whose turn it is on it.

use std::{
    io,
    io::{ErrorKind, Read as _},
    net::{Shutdown, SocketAddr, TcpStream},
    os::fd::{AsRawFd, RawFd},
    time::{Duration, Instant},
};

use millstream_model::id::WorkerId;
use nix::sys::socket::{getsockopt, sockopt};
use tracing::debug;

use super::{
    mux::{self, Incoming, MuxError, Outgoing},
    pipe::{Io, Pipe},
    records::TlsError,
};
use crate::{
    io::{Answer, Call, Load, Outcome, Questions},
    transport::{Batch, Closed, Connection, Options, Path, Stream, Transport, hello::Hello, tls},
};

/// What may lie queued for lanes: enough for the time until this side is asked again.
const QUEUED_BYTES_MAX: usize = 512 << 10;
/// What is put on the wire at a time, where control cannot overtake it any more.
const WIRE_BYTES: usize = 128 << 10;
/// What control may always have queued.
const CONTROL_ROOM: usize = 1 << 20;
/// Rounds of sending in one `transmit`, so that other peers have their turn.
const SENDS_PER_TURN: usize = 8;

/// Who is at the other end.
pub enum Peer {
    Dialled(WorkerId),
    /// Its certificate will tell.
    Accepted {
        cluster: String,
    },
    /// Nobody proves anything.
    Unknown,
}

pub struct TcpConnection {
    socket: TcpStream,
    address: SocketAddr,
    pipe: Pipe,
    peer: Peer,
    state: Connection,
    being_dialled: bool,
    /// This side believes the peer, and has greeted it.
    verified: Option<Option<WorkerId>>,
    outgoing: Outgoing,
    incoming: Incoming,
    queued_bytes_max: usize,
    keep_alive: Duration,
    idle_timeout: Duration,
    last_received: Instant,
    last_sent: Instant,
    /// The socket is full.
    full: bool,
    /// The peer sends nothing any more.
    ended: bool,
    more_to_receive: bool,
    more_to_send: bool,
    /// There was little room for lanes before the last `transmit`, and there is more now.
    room_again: bool,
    /// There is little room for lanes.
    scarce: bool,
    /// How the socket was read together with others, and whether it had more then.
    answers: [Option<io::Result<Io>>; 2],
    shut_down: bool,
    now: Instant,
}

/// The peer is not worth listening to any more.
enum ReadError {
    Mux(MuxError),
    Tls(TlsError),
}

impl From<TlsError> for ReadError {
    fn from(error: TlsError) -> Self {
        ReadError::Tls(error)
    }
}

impl TcpConnection {
    pub(super) fn new(
        socket: TcpStream,
        address: SocketAddr,
        pipe: Pipe,
        peer: Peer,
        options: &Options,
        now: Instant,
    ) -> Self {
        TcpConnection {
            socket,
            address,
            pipe,
            peer,
            state: Connection::Opening,
            being_dialled: false,
            verified: None,
            outgoing: Outgoing::default(),
            incoming: Incoming::default(),
            queued_bytes_max: options.window.min(QUEUED_BYTES_MAX),
            keep_alive: options.keep_alive,
            idle_timeout: options.idle_timeout,
            last_received: now,
            last_sent: now,
            full: false,
            ended: false,
            more_to_receive: false,
            more_to_send: false,
            room_again: false,
            scarce: false,
            answers: [None, None],
            shut_down: false,
            now,
        }
    }

    pub(super) fn socket_ref(&self) -> &TcpStream {
        &self.socket
    }

    /// The kernel has begun to connect, and will say when it has.
    pub(super) fn is_being_dialled(&mut self) {
        self.being_dialled = true;
    }

    pub(super) fn cannot_be_dialled(&mut self, error: &io::Error) {
        self.closed(Closed::Failed(match error.kind() {
            ErrorKind::ConnectionRefused => format!("nobody listens at {}", self.address),
            _ => format!("{} cannot be reached: {error}", self.address),
        }));
    }

    fn is_closed(&self) -> bool {
        matches!(self.state, Connection::Closed(_))
    }

    /// Returns whether the kernel has connected.
    fn is_connected(&mut self) -> bool {
        if self.being_dialled {
            match self.socket.take_error() {
                Ok(None) => self.being_dialled = self.socket.peer_addr().is_err(),
                Ok(Some(error)) | Err(error) => self.cannot_be_dialled(&error),
            }
        }
        !self.being_dialled
    }

    /// Takes in what the socket has, as far as there is memory.
    fn fill(&mut self) {
        self.more_to_receive = false;
        let answers = std::mem::take(&mut self.answers);
        for outcome in answers.into_iter().flatten() {
            if !self.take_in(outcome) {
                return;
            }
        }
        while !self.ended {
            if self.pipe.is_full() {
                self.more_to_receive = true;
                return;
            }
            let outcome = self.pipe.receive(&self.socket);
            if !self.take_in(outcome) {
                return;
            }
        }
    }

    /// Learns from a call that has received. Whether there may be more.
    fn take_in(&mut self, outcome: io::Result<Io>) -> bool {
        match outcome {
            Ok(Io::More) => self.last_received = self.now,
            Ok(Io::WouldBlock) => return false,
            Ok(Io::End) => self.ended = true,
            Err(error) => {
                // What arrived before may still be read.
                self.ended = true;
                if error.kind() == ErrorKind::TimedOut {
                    self.closed(Closed::TimedOut);
                }
            }
        }
        !self.ended
    }

    /// Reads what was taken in; until the peer's greeting only, while that is to come.
    fn advance(&mut self, each: &mut dyn FnMut(Stream, &[u8])) {
        let until_greeting = self.state == Connection::Opening;
        let incoming = &mut self.incoming;
        let outcome = self.pipe.read(&mut |bytes| incoming.feed(bytes, until_greeting, each).map_err(ReadError::Mux));
        let everything = matches!(outcome, Ok(true));
        match outcome {
            Ok(_) => {}
            Err(ReadError::Mux(error)) => self.end(Closed::Failed(error.to_string()), &error.to_string()),
            Err(ReadError::Tls(error)) => self.distrust(error),
        }
        if let Some(reason) = self.incoming.reason() {
            self.closed(Closed::ByPeer(reason.to_owned()));
        } else if self.ended && everything {
            self.closed(Closed::Failed("the peer has gone without a word".to_owned()));
        }
        if self.verified.is_none() && self.pipe.is_established() && !self.is_closed() {
            self.verify();
        }
        if let (Connection::Opening, Some(peer), Some(_)) = (&self.state, self.verified, self.incoming.hello()) {
            self.state = Connection::Open { peer };
            self.more_to_receive |= self.pipe.has_received();
        }
    }

    /// TLS, if there is any, believes the peer's certificate.
    fn verify(&mut self) {
        let worker = match &self.peer {
            Peer::Unknown => Ok(None),
            Peer::Dialled(worker) => Ok(Some(*worker)),
            Peer::Accepted { cluster } => {
                let certificates = self.pipe.tls().and_then(|tls| tls.peer_certificates());
                match certificates.and_then(|certificates| certificates.first()) {
                    Some(certificate) => {
                        tls::worker_of(certificate, cluster).map(Some).map_err(|error| error.to_string())
                    }
                    None => Err("there is no certificate".to_owned()),
                }
            }
        };
        match worker {
            Ok(worker) => {
                self.verified = Some(worker);
                // The kernel sees to the windows of TCP, and TLS says what it has chosen.
                self.pipe.wire().extend(mux::greeting(Hello { window: u32::MAX, cipher: "" }));
                self.more_to_send = true;
            }
            // The verifier has looked at the same certificate.
            Err(why) => self.end(Closed::Refused(format!("of the peer: {why}")), "your certificate is refused"),
        }
    }

    /// TLS has failed, and has told the peer.
    fn distrust(&mut self, error: TlsError) {
        self.pipe.wire().clear();
        self.closed(match error {
            TlsError::Refused(why) => Closed::Refused(why),
            TlsError::Failed(why) => Closed::Failed(why),
        });
    }

    fn closed(&mut self, closed: Closed) {
        if !self.is_closed() {
            debug!(peer = %self.address, %closed, "a connection has ended");
            self.state = Connection::Closed(closed);
            self.outgoing.clear();
            self.more_to_send = true;
        }
    }

    /// Ends the connection from this side; `transmit` tells the peer.
    fn end(&mut self, closed: Closed, reason: &str) {
        if !self.is_closed() {
            self.pipe.wire().extend(mux::close(reason));
            self.closed(closed);
        }
    }

    /// Puts on the wire what is next. Returns whether there is anything.
    fn put_on_wire(&mut self) -> bool {
        if self.verified.is_some() && !self.is_closed() {
            let mut bytes = self.pipe.wire_bytes();
            while bytes < WIRE_BYTES {
                match self.outgoing.next(self.pipe.wire()) {
                    0 => break,
                    piece => bytes += piece,
                }
            }
            if bytes == 0 && self.now >= self.last_sent + self.keep_alive {
                self.pipe.wire().push_back(mux::ping());
            }
        }
        self.pipe.wire_bytes() > 0
    }
}

impl TcpConnection {
    /// Whether anything may be sent.
    fn begin_transmit(&mut self, now: Instant) -> bool {
        self.now = now;
        if self.being_dialled || self.shut_down {
            return false;
        }
        if self.is_closed() && !self.pipe.is_established() {
            // TLS says what it can; nothing else would be understood.
            self.pipe.wire().clear();
        }
        self.scarce = self.outgoing.data_bytes() >= self.queued_bytes_max / 2;
        self.full = false;
        true
    }

    /// Puts on the wire what is next, as the pipe wants it. Returns whether there is anything.
    fn load_wire(&mut self) -> bool {
        self.more_to_send = self.put_on_wire();
        if self.more_to_send
            && let Err(error) = self.pipe.seal()
        {
            self.distrust(error);
        }
        self.more_to_send
    }

    /// Sends so many times what is next, as long as there is anything and the socket takes it.
    fn send(&mut self, times: usize) {
        for _ in 0..times {
            if !self.load_wire() {
                break;
            }
            let before = self.pipe.wire_bytes();
            let outcome = self.pipe.send(&self.socket);
            if self.pipe.wire_bytes() < before {
                self.last_sent = self.now;
            }
            if let Err(error) = outcome {
                self.cannot_send(&error);
                break;
            }
        }
    }

    /// The socket takes no more for now, or for ever. There is more to send when it says so.
    fn cannot_send(&mut self, error: &io::Error) {
        self.more_to_send = false;
        if error.kind() == ErrorKind::WouldBlock {
            self.full = true;
            return;
        }
        self.shut_down = true;
        if error.kind() == ErrorKind::TimedOut {
            self.closed(Closed::TimedOut);
        } else {
            // Its last words may still be read.
            self.more_to_receive = true;
        }
    }

    fn end_transmit(&mut self) {
        self.room_again = self.scarce && self.outgoing.data_bytes() < self.queued_bytes_max / 2 && !self.is_closed();
        // What was received while sealing has yet to be read.
        self.more_to_receive |= !self.is_closed() && self.pipe.has_read_ahead();
        if self.is_closed() && self.pipe.wire_bytes() == 0 && !self.shut_down {
            self.shut_down = true;
            // It may be gone already.
            let _ = self.socket.shutdown(Shutdown::Write);
        }
    }
}

impl Transport for TcpConnection {
    fn connection(&self) -> &Connection {
        &self.state
    }

    fn receive(&mut self, now: Instant) {
        self.now = now;
        if self.is_closed() {
            return;
        }
        if self.is_connected() {
            self.fill();
            if self.state == Connection::Opening {
                self.advance(&mut |_, _| {});
            } else if self.ended && !self.pipe.has_received() {
                self.closed(Closed::Failed("the peer has gone without a word".to_owned()));
            }
        }
        if now >= self.last_received + self.idle_timeout {
            self.closed(Closed::TimedOut);
        }
    }

    fn ask<'a>(&'a mut self, questions: &mut Questions<'a>) {
        self.answers = [None, None];
        if !self.being_dialled && !self.ended && !self.is_closed() && !self.pipe.is_full() {
            questions.push(self.pipe.receive_call(&self.socket));
            // The socket says only once that it has something, so that what follows must be known.
            questions.push(Call::peek(&self.socket));
        }
    }

    fn answer(&mut self, answer: Answer) {
        match &mut self.answers {
            [first @ None, _] => *first = Some(self.pipe.received(answer.outcome)),
            [_, second] => *second = Some(Pipe::peeked(answer.outcome)),
        }
    }

    fn read(&mut self, each: &mut dyn FnMut(Stream, &[u8])) {
        if matches!(self.state, Connection::Open { .. }) {
            self.advance(each);
        }
    }

    fn room(&self, stream: Stream) -> usize {
        match (&self.state, stream) {
            (Connection::Closed(_), _) => 0,
            (_, Stream::Control) => CONTROL_ROOM,
            (_, Stream::Lane(_) | Stream::Channel(_)) => {
                self.queued_bytes_max.saturating_sub(self.outgoing.data_bytes())
            }
        }
    }

    fn write(&mut self, stream: Stream, batch: Batch) {
        if !self.is_closed() {
            self.outgoing.write(stream, batch);
        }
    }

    // A stream is no more than the name of pieces.
    fn end_channel(&mut self, _: u32) {}

    fn expect_channels(&mut self, _: u32) {}

    fn transmit(&mut self, now: Instant) {
        if !self.begin_transmit(now) {
            return;
        }
        self.send(SENDS_PER_TURN);
        self.end_transmit();
    }

    fn load<'a>(&'a mut self, now: Instant, load: &mut Load<'a>) {
        if self.begin_transmit(now)
            && self.load_wire()
            && let Some(call) = self.pipe.send_call(&self.socket)
        {
            load.push(call);
        }
    }

    fn sent(&mut self, now: Instant, outcomes: &mut dyn Iterator<Item = Outcome>) {
        if self.being_dialled || self.shut_down {
            return;
        }
        match outcomes.next().flatten() {
            Some(Ok(bytes)) => {
                self.last_sent = now;
                self.pipe.sent(bytes);
                // Much is sent as well alone.
                self.send(SENDS_PER_TURN - 1);
            }
            Some(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
            Some(Err(error)) => self.cannot_send(&error),
            // It has nothing to send, or is due again if it has.
            None => {}
        }
        self.end_transmit();
    }

    fn deadline(&self) -> Option<Instant> {
        if self.more_to_send && !self.being_dialled && !self.shut_down {
            return Some(self.now);
        }
        if self.is_closed() {
            return None;
        }
        if self.more_to_receive || self.room_again {
            return Some(self.now);
        }
        let silence = self.last_received + self.idle_timeout;
        let pings = self.verified.is_some() && !self.full;
        Some(if pings { silence.min(self.last_sent + self.keep_alive) } else { silence })
    }

    fn socket(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    fn close(&mut self, now: Instant, reason: &str) {
        self.now = now;
        self.end(Closed::Locally, reason);
        self.transmit(now);
    }

    /// The kernel sees to it that what was sent arrives.
    fn lingers(&self) -> bool {
        false
    }

    fn path(&self) -> Path {
        let suite = self.pipe.tls().and_then(|tls| tls.negotiated_cipher_suite());
        Path {
            transport: "tcp",
            peer: self.address,
            mtu: 0,
            socket_buffer: getsockopt(&self.socket, sockopt::RcvBuf).unwrap_or(0),
            lost_packets: 0,
            cipher: suite.and_then(|suite| suite.suite().as_str()).map(str::to_owned),
        }
    }
}

impl Drop for TcpConnection {
    /// Tells the peer, if that has not happened yet.
    fn drop(&mut self) {
        if !self.is_closed() {
            let now = self.now;
            self.close(now, "the connection was dropped");
        }
        // If something is unread, the kernel resets the connection, and the peer may not see the reason.
        let mut memory = [0; 16 << 10];
        for _ in 0..64 {
            if !self.socket.read(&mut memory).is_ok_and(|bytes| bytes > 0) {
                break;
            }
        }
    }
}
