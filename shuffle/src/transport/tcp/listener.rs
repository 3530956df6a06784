//! Accepts TCP connections, and dials.

use std::{
    io,
    io::ErrorKind,
    net::{SocketAddr, TcpStream},
    os::fd::{AsRawFd, RawFd},
    sync::Arc,
    time::Instant,
};

use millstream_model::id::WorkerId;
use nix::{
    errno::Errno,
    sys::socket::{setsockopt, sockopt},
};
use rustls::{
    ClientConfig, ServerConfig, client::UnbufferedClientConnection, pki_types::ServerName,
    server::UnbufferedServerConnection,
};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tracing::warn;

use super::{
    connection::{Peer, TcpConnection},
    pipe::Pipe,
};
use crate::transport::{
    BindError, Listener, Options, Transport,
    identity::{self, Identity},
    tls,
};

/// Connections that one `accept` takes at most, should somebody flood the socket.
const ACCEPTS_PER_TURN: usize = 256;
/// What the kernel may hold unsent: enough for the time until this side is asked again, and all that control must wait
/// for there.
const UNSENT_BYTES_MAX: u32 = 256 << 10;

/// Accepts and dials TCP connections, with TLS if it has an identity.
pub struct TcpListener {
    listener: std::net::TcpListener,
    address: SocketAddr,
    tls: Option<Tls>,
    options: Options,
}

struct Tls {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    cluster: String,
}

impl TcpListener {
    /// Listens at an address; port 0 takes any that is free. Without an identity nothing is encrypted, and nobody proves
    /// who they are.
    ///
    /// # Errors
    /// If the address cannot be had, or the identity is of no use.
    pub fn bind(address: SocketAddr, identity: Option<Identity>, options: Options) -> Result<Self, BindError> {
        let tls = match identity {
            Some(identity) => Some(Tls {
                client: Arc::new(tls::client(&identity)?),
                server: Arc::new(tls::server(&identity)?),
                cluster: identity.cluster,
            }),
            None => None,
        };
        let listen = |error| BindError::Listen { address, error };
        let listener = std::net::TcpListener::bind(address).map_err(listen)?;
        listener.set_nonblocking(true).map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        Ok(TcpListener { listener, address, tls, options })
    }

    fn answer(&self, socket: TcpStream, now: Instant) -> io::Result<TcpConnection> {
        socket.set_nonblocking(true)?;
        let address = socket.peer_addr()?;
        tune(&socket, address, &self.options)?;
        let (pipe, peer) = match &self.tls {
            Some(tls) => {
                let machine = UnbufferedServerConnection::new(Arc::clone(&tls.server)).map_err(io::Error::other)?;
                (Pipe::server(machine), Peer::Accepted { cluster: tls.cluster.clone() })
            }
            None => (Pipe::plain(), Peer::Unknown),
        };
        Ok(TcpConnection::new(socket, address, pipe, peer, &self.options, now))
    }
}

impl Listener for TcpListener {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn accept(&mut self, now: Instant) -> Vec<Box<dyn Transport>> {
        let mut accepted: Vec<Box<dyn Transport>> = Vec::new();
        for _ in 0..ACCEPTS_PER_TURN {
            let outcome = self.listener.accept().and_then(|(socket, _)| self.answer(socket, now));
            match outcome {
                Ok(mut connection) => {
                    connection.receive(now);
                    connection.transmit(now);
                    accepted.push(Box::new(connection));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // The peer may have gone already, which says nothing about the next.
                Err(error) if error.kind() == ErrorKind::Interrupted || is_the_peers(&error) => {}
                Err(error) => {
                    warn!(%error, "a connection cannot be accepted");
                    break;
                }
            }
        }
        accepted
    }

    fn connect(&mut self, now: Instant, peer: WorkerId, address: SocketAddr) -> io::Result<Box<dyn Transport>> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        let outcome = socket.connect(&address.into());
        let socket = TcpStream::from(socket);
        let (pipe, peer) = match &self.tls {
            Some(tls) => {
                let name = ServerName::try_from(identity::name(peer, &tls.cluster)).map_err(io::Error::other)?;
                let machine =
                    UnbufferedClientConnection::new(Arc::clone(&tls.client), name).map_err(io::Error::other)?;
                (Pipe::client(machine), Peer::Dialled(peer))
            }
            None => (Pipe::plain(), Peer::Unknown),
        };
        let mut connection = TcpConnection::new(socket, address, pipe, peer, &self.options, now);
        match outcome {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(Errno::EINPROGRESS as i32) => connection.is_being_dialled(),
            Err(error) if is_the_peers(&error) => connection.cannot_be_dialled(&error),
            Err(error) => return Err(error),
        }
        tune(connection.socket_ref(), address, &self.options)?;
        connection.receive(now);
        connection.transmit(now);
        Ok(Box::new(connection))
    }

    fn sockets(&self) -> Vec<RawFd> {
        vec![self.listener.as_raw_fd()]
    }

    fn has_passed_on(&mut self) -> bool {
        false
    }
}

fn is_the_peers(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::NotConnected
            | ErrorKind::TimedOut
    )
}

fn tune(socket: &TcpStream, peer: SocketAddr, options: &Options) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let options_of = SockRef::from(socket);
    options_of.set_tcp_user_timeout(Some(options.idle_timeout))?;
    options_of.set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
    if peer.ip().is_loopback() {
        // BBR, the default of some machines, paces and so loses a third on loopback. It may be forbidden to choose.
        let _ = setsockopt(socket, sockopt::TcpCongestion, &"cubic".into());
    }
    Ok(())
}
