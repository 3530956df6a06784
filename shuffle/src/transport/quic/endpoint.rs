//! The endpoint that all connections of a listener share, and the socket where new peers arrive.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::SocketAddr,
    os::fd::{AsRawFd, RawFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use bytes::BytesMut;
use millstream_model::id::WorkerId;
use quinn_proto::{ConnectionEvent, ConnectionHandle, DatagramEvent, Endpoint, EndpointEvent, Incoming};
use quinn_udp::RecvMeta;
use tracing::{debug, warn};

use super::{
    config::Config,
    connection::{Peer, QuicConnection},
    socket::{Io, Socket, Train},
};
use crate::{
    copies::{Place, copied},
    io::Trains,
    transport::{
        BindError, Listener, Options, Transport,
        identity::{self, Identity},
    },
};

/// System calls that one `accept` makes at most, should somebody flood the socket.
const RECEIVES_PER_ACCEPT: usize = 256;
/// With so many handshakes under way, a new peer must first prove that its address is its own: each handshake has a
/// socket, and addresses can be forged.
const HANDSHAKES_MAX: usize = 64;
/// Memory for long trains that is kept for the next ones.
const SPARE_MAX: usize = 16;
/// Trains up to this length are copied out of the memory that they were made in, if they stay for a while: QUIC asks for as
/// much as the longest needs, and there may be hundreds of peers.
const SHORT_TRAIN_BYTES: usize = 2 << 10;

/// What the connections of a listener have in common.
pub struct Shared {
    pub endpoint: Endpoint,
    /// What has arrived on another socket, for each connection that lives.
    mail: HashMap<ConnectionHandle, VecDeque<ConnectionEvent>>,
    /// There is mail that nobody was told of.
    has_posted: bool,
    arrivals: VecDeque<Incoming>,
    pub handshakes: usize,
    receive_memory: Trains,
    pub transmit_memory: Vec<u8>,
    /// For trains that are sent together with those of other connections.
    spare: Vec<Vec<u8>>,
}

impl Shared {
    /// Takes in what one system call brings. Events of the connection `own` go to `each`, those of others to their mail.
    pub fn receive(
        &mut self,
        socket: &Socket,
        now: Instant,
        own: Option<ConnectionHandle>,
        each: &mut dyn FnMut(ConnectionEvent),
    ) -> Io {
        let mut memory = std::mem::take(&mut self.receive_memory);
        let outcome = socket.receive(&mut memory, &mut |meta, train| self.take(socket, now, own, (meta, train), each));
        self.receive_memory = memory;
        outcome
    }

    /// Takes in a train that a socket has brought.
    pub fn take(
        &mut self,
        socket: &Socket,
        now: Instant,
        own: Option<ConnectionHandle>,
        (meta, mut train): (&RecvMeta, BytesMut),
        each: &mut dyn FnMut(ConnectionEvent),
    ) {
        let ecn = meta.ecn.and_then(|ecn| quinn_proto::EcnCodepoint::from_bits(ecn as u8));
        while !train.is_empty() {
            let datagram = train.split_to(meta.stride.clamp(1, train.len()));
            self.transmit_memory.clear();
            let answer = &mut self.transmit_memory;
            match self.endpoint.handle(now, meta.addr, meta.dst_ip, ecn, datagram, answer) {
                Some(DatagramEvent::ConnectionEvent(handle, event)) if Some(handle) == own => each(event),
                Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                    if let Some(mail) = self.mail.get_mut(&handle) {
                        self.has_posted = true;
                        mail.push_back(event);
                    }
                }
                Some(DatagramEvent::NewConnection(incoming)) => self.arrivals.push_back(incoming),
                Some(DatagramEvent::Response(answer)) => {
                    socket.send(&answer.into(), &self.transmit_memory);
                }
                None => {}
            }
        }
    }

    /// Empty memory for a train.
    pub fn take_spare(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    /// What a train that is not sent at once is kept in.
    pub fn keep(&mut self, train: &Train, memory: Vec<u8>) -> Vec<u8> {
        if train.bytes > SHORT_TRAIN_BYTES {
            return memory;
        }
        copied(Place::Train, train.bytes);
        let short = memory[..train.bytes].to_vec();
        self.give_spare(memory);
        short
    }

    /// Takes memory back.
    pub fn give_spare(&mut self, mut memory: Vec<u8>) {
        if self.spare.len() < SPARE_MAX && memory.capacity() > SHORT_TRAIN_BYTES {
            memory.clear();
            self.spare.push(memory);
        }
    }

    pub fn has_mail(&self, handle: ConnectionHandle) -> bool {
        self.mail.get(&handle).is_some_and(|mail| !mail.is_empty())
    }

    pub fn take_mail(&mut self, handle: ConnectionHandle) -> Option<ConnectionEvent> {
        self.mail.get_mut(&handle)?.pop_front()
    }

    pub fn begin(&mut self, handle: ConnectionHandle) {
        self.mail.insert(handle, VecDeque::new());
        self.handshakes += 1;
    }

    /// The connection says something to the endpoint, which may answer.
    pub fn tell(&mut self, handle: ConnectionHandle, event: EndpointEvent) -> Option<ConnectionEvent> {
        if event.is_drained() {
            self.mail.remove(&handle);
        }
        self.endpoint.handle_event(handle, event)
    }
}

/// Nobody else is at it: one thread at a time drives a listener and all of its connections. The lock is for the compiler.
pub fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Accepts and dials QUIC connections. It and its connections are driven by one thread at a time.
pub struct QuicListener {
    shared: Arc<Mutex<Shared>>,
    socket: Socket,
    address: SocketAddr,
    config: Config,
    identity: Arc<Identity>,
    options: Options,
}

impl QuicListener {
    /// Listens at an address; port 0 takes any that is free.
    ///
    /// # Errors
    /// If the address cannot be had, or the identity is of no use.
    pub fn bind(address: SocketAddr, identity: Identity, options: Options) -> Result<Self, BindError> {
        let config = Config::new(&identity, options.clone())?;
        let listen = |error| BindError::Listen { address, error };
        let socket = Socket::listen(address, options.socket_buffer).map_err(listen)?;
        let address = socket.address().map_err(listen)?;
        if socket.buffer() / 2 < options.window {
            warn!(
                granted_bytes = socket.buffer(),
                wanted_bytes = options.socket_buffer,
                "the UDP socket buffer is small, which limits throughput; raise net.core.rmem_max and net.core.wmem_max"
            );
        }
        let shared = Shared {
            endpoint: Endpoint::new(Arc::new(Config::endpoint()), Some(config.server()), true, None),
            mail: HashMap::new(),
            has_posted: false,
            arrivals: VecDeque::new(),
            handshakes: 0,
            receive_memory: Trains::default(),
            transmit_memory: Vec::new(),
            spare: Vec::new(),
        };
        let (shared, identity) = (Arc::new(Mutex::new(shared)), Arc::new(identity));
        Ok(QuicListener { shared, socket, address, config, identity, options })
    }

    /// Takes in what the socket has, and returns the connections that have begun.
    pub(super) fn take(&mut self, now: Instant) -> Vec<QuicConnection> {
        let mut accepted = Vec::new();
        for _ in 0..RECEIVES_PER_ACCEPT {
            let outcome = lock(&self.shared).receive(&self.socket, now, None, &mut |_| {});
            // A new connection may have received another's first packet before its socket was connected.
            while let Some(incoming) = { lock(&self.shared).arrivals.pop_front() } {
                if let Some(mut connection) = self.answer(incoming, now) {
                    connection.receive(now);
                    connection.transmit(now);
                    accepted.push(connection);
                }
            }
            if outcome == Io::WouldBlock {
                break;
            }
        }
        accepted
    }

    pub(super) fn dial(&self, now: Instant, peer: WorkerId, address: SocketAddr) -> io::Result<QuicConnection> {
        let socket = Socket::dial(address, self.options.socket_buffer)?;
        let config = self.config.connect(address.ip(), &socket);
        let name = identity::name(peer, &self.identity.cluster);
        let mut shared = lock(&self.shared);
        let (handle, connection) = shared
            .endpoint
            .connect(now, config, address, &name)
            .map_err(|error| io::Error::other(error.to_string()))?;
        shared.begin(handle);
        drop(shared);
        let shared = Arc::clone(&self.shared);
        let peer = Peer::Dialled(peer);
        let mut connection = QuicConnection::new(shared, handle, connection, socket, peer, &self.options, now);
        connection.transmit(now);
        Ok(connection)
    }

    /// The MTU of the interface that leads to an address, and the socket buffer that the kernel grants, in bytes.
    ///
    /// # Errors
    /// If no socket can be had, or nothing leads there.
    pub fn path_to(&self, address: SocketAddr) -> io::Result<(usize, usize)> {
        let socket = Socket::dial(address, self.options.socket_buffer)?;
        Ok((socket.interface_mtu().into(), socket.buffer()))
    }

    fn answer(&self, incoming: Incoming, now: Instant) -> Option<QuicConnection> {
        let peer = incoming.remote_address();
        let mut shared = lock(&self.shared);
        let shared = &mut *shared;
        if shared.handshakes >= HANDSHAKES_MAX && !incoming.remote_address_validated() {
            shared.transmit_memory.clear();
            if let Ok(retry) = shared.endpoint.retry(incoming, &mut shared.transmit_memory) {
                self.socket.send(&retry.into(), &shared.transmit_memory);
            }
            return None;
        }
        // The address that the peer knows, should this socket listen on all of them.
        let local = match incoming.local_ip() {
            Some(ip) if self.address.ip().is_unspecified() && ip.is_ipv4() == self.address.is_ipv4() => {
                SocketAddr::new(ip, self.address.port())
            }
            _ => self.address,
        };
        let socket = match Socket::answer(local, peer, self.options.socket_buffer) {
            Ok(socket) => socket,
            Err(error) => {
                warn!(%peer, %error, "a connection is refused: it cannot have a socket of its own");
                shared.transmit_memory.clear();
                let refusal = shared.endpoint.refuse(incoming, &mut shared.transmit_memory);
                self.socket.send(&refusal.into(), &shared.transmit_memory);
                return None;
            }
        };
        let config = self.config.accept(peer.ip(), &socket);
        shared.transmit_memory.clear();
        match shared.endpoint.accept(incoming, now, &mut shared.transmit_memory, Some(config)) {
            Ok((handle, connection)) => {
                shared.begin(handle);
                let peer = Peer::Accepted { cluster: self.identity.cluster.clone() };
                let shared = Arc::clone(&self.shared);
                Some(QuicConnection::new(shared, handle, connection, socket, peer, &self.options, now))
            }
            Err(error) => {
                debug!(%peer, error = %error.cause, "somebody's first packet is of no use");
                if let Some(answer) = error.response {
                    self.socket.send(&Train::from(answer), &shared.transmit_memory);
                }
                None
            }
        }
    }
}

impl Listener for QuicListener {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn accept(&mut self, now: Instant) -> Vec<Box<dyn Transport>> {
        self.take(now).into_iter().map(|connection| Box::new(connection) as Box<dyn Transport>).collect()
    }

    fn connect(&mut self, now: Instant, peer: WorkerId, address: SocketAddr) -> io::Result<Box<dyn Transport>> {
        Ok(Box::new(self.dial(now, peer, address)?))
    }

    fn sockets(&self) -> Vec<RawFd> {
        vec![self.socket.as_raw_fd()]
    }

    fn has_passed_on(&mut self) -> bool {
        std::mem::take(&mut lock(&self.shared).has_posted)
    }
}

impl Drop for QuicListener {
    fn drop(&mut self) {
        let mut shared = lock(&self.shared);
        let shared = &mut *shared;
        shared.endpoint.set_server_config(None);
        for incoming in shared.arrivals.drain(..) {
            shared.endpoint.ignore(incoming);
        }
    }
}
