//! One UDP socket: made with large buffers, read and written in trains of datagrams.

use std::{
    io,
    io::{ErrorKind, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::{AsRawFd, RawFd},
};

use bytes::BytesMut;
use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use quinn_proto::EcnCodepoint;
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use socket2::{Domain, Protocol, Socket as RawSocket, Type};

use super::{config::DATAGRAM_BYTES_MAX, control};
use crate::io::{Answer, Call, Questions, Trains};

/// Trains that one system call takes in.
const TRAINS_PER_RECEIVE: usize = 4;
/// What it is asked for together with other sockets: the second answer is most often that it is empty. Much is received as
/// well alone, into memory that is in the cache.
const TRAINS_PER_ASK: usize = 2;
/// The longest train that kernels of any age send.
const DATAGRAMS_PER_TRAIN: usize = 64;

pub struct Socket {
    socket: UdpSocket,
    state: UdpSocketState,
    /// Whom it is connected to.
    peer: Option<SocketAddr>,
    /// What was asked together with other sockets.
    arrived: Arrived,
    /// The smaller of the two buffers that the kernel has granted, as it counts.
    buffer: usize,
    /// Pretends to be full, which loopback never is.
    #[cfg(test)]
    pub jammed: bool,
}

/// How a system call has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Io {
    /// There may be more to do.
    More,
    /// The socket is empty, or full. It will say when that changes.
    WouldBlock,
    /// The peer's machine says that nobody listens there. Nothing was received or sent.
    Refused,
}

/// The answers of a socket.
#[derive(Default)]
pub struct Arrived {
    pub trains: Vec<(RecvMeta, BytesMut)>,
    pub is_refused: bool,
    is_empty: bool,
    answers: usize,
}

impl Arrived {
    /// Whether there may be more to do; `None` if nothing was asked.
    pub fn outcome(&self) -> Option<Io> {
        (self.answers > 0).then_some(if self.is_empty { Io::WouldBlock } else { Io::More })
    }
}

/// Datagrams to one receiver, all of the same length but the last.
#[derive(Clone, Copy, Debug)]
pub struct Train {
    pub destination: SocketAddr,
    pub bytes: usize,
    pub datagram_bytes: Option<usize>,
    pub ecn: Option<EcnCodepoint>,
}

impl From<quinn_proto::Transmit> for Train {
    fn from(transmit: quinn_proto::Transmit) -> Self {
        Train {
            destination: transmit.destination,
            bytes: transmit.size,
            datagram_bytes: transmit.segment_size,
            ecn: transmit.ecn,
        }
    }
}

impl Socket {
    /// For everyone who has no socket of their own yet.
    pub fn listen(address: SocketAddr, buffer: usize) -> io::Result<Self> {
        let socket = RawSocket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        socket.bind(&address.into())?;
        // Only now: sockets that share from the start may be given the same free port as another worker's.
        socket.set_reuse_port(true)?;
        Socket::with_buffer(socket, None, buffer)
    }

    /// For one peer that has written to the listener: shares the listener's address.
    pub fn answer(local: SocketAddr, peer: SocketAddr, buffer: usize) -> io::Result<Self> {
        let socket = RawSocket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_reuse_port(true)?;
        socket.bind(&local.into())?;
        socket.connect(&peer.into())?;
        Socket::with_buffer(socket, Some(peer), buffer)
    }

    /// For one peer that is about to be dialled.
    pub fn dial(peer: SocketAddr, buffer: usize) -> io::Result<Self> {
        let socket = RawSocket::new(Domain::for_address(peer), Type::DGRAM, Some(Protocol::UDP))?;
        let unspecified = match peer {
            SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        };
        socket.bind(&SocketAddr::new(unspecified, 0).into())?;
        socket.connect(&peer.into())?;
        Socket::with_buffer(socket, Some(peer), buffer)
    }

    fn with_buffer(socket: RawSocket, peer: Option<SocketAddr>, bytes: usize) -> io::Result<Self> {
        let socket = UdpSocket::from(socket);
        let state = UdpSocketState::new((&socket).into())?;
        let half = bytes / 2; // the kernel doubles what it is told
        setsockopt(&socket, sockopt::RcvBuf, &half)?;
        setsockopt(&socket, sockopt::SndBuf, &half)?;
        // Beyond the system's limit, which takes a privilege that few have.
        if getsockopt(&socket, sockopt::RcvBuf)? < bytes {
            let _ = setsockopt(&socket, sockopt::RcvBufForce, &half);
        }
        if getsockopt(&socket, sockopt::SndBuf)? < bytes {
            let _ = setsockopt(&socket, sockopt::SndBufForce, &half);
        }
        let buffer = getsockopt(&socket, sockopt::RcvBuf)?.min(getsockopt(&socket, sockopt::SndBuf)?);
        Ok(Socket {
            socket,
            state,
            peer,
            arrived: Arrived::default(),
            buffer,
            #[cfg(test)]
            jammed: false,
        })
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    pub fn buffer(&self) -> usize {
        self.buffer
    }

    /// The MTU of the interface that leads to the peer. Connected sockets only.
    pub fn interface_mtu(&self) -> u16 {
        // Despite its name it answers for IPv6, too. The largest answer is 65,535, also where the interface has more.
        let mtu = getsockopt(&self.socket, sockopt::IpMtu).unwrap_or(1_500);
        u16::try_from(mtu).unwrap_or(u16::MAX)
    }

    /// Whether the peer is on this machine: what is sent to one of a machine's own addresses goes over loopback, and leaves from
    /// the same address. Connected sockets only.
    pub fn leads_to_this_machine(&self) -> bool {
        let (Ok(local), Some(peer)) = (self.address(), self.peer) else { return false };
        peer.ip().is_loopback() || local.ip() == peer.ip()
    }

    /// How many datagrams of a size fit into a train.
    pub fn datagrams_per_train(&self, datagram_bytes: u16) -> usize {
        let fitting = usize::from(DATAGRAM_BYTES_MAX) / usize::from(datagram_bytes.max(1));
        fitting.min(DATAGRAMS_PER_TRAIN).min(self.state.max_gso_segments()).max(1)
    }

    /// Takes in what one system call brings.
    pub fn receive(&self, memory: &mut Trains, each: &mut dyn FnMut(&RecvMeta, BytesMut)) -> Io {
        let trains = memory.vacant::<TRAINS_PER_RECEIVE>();
        let mut slices = trains.each_mut().map(|train| IoSliceMut::new(&mut train.memory));
        let mut metas = [RecvMeta::default(); TRAINS_PER_RECEIVE];
        let received = match self.state.recv((&self.socket).into(), &mut slices, &mut metas) {
            Ok(received) => received,
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Io::Refused,
            // Errors of earlier datagrams are reported here, too; QUIC notices what is missing.
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Io::More,
            Err(_) => return Io::WouldBlock,
        };
        for (train, meta) in trains.iter_mut().zip(&metas[..received]) {
            each(meta, train.take(meta.len));
        }
        if received < TRAINS_PER_RECEIVE { Io::WouldBlock } else { Io::More }
    }

    /// Asks for trains, if it is connected.
    pub fn ask<'a>(&'a mut self, questions: &mut Questions<'a>) {
        if self.peer.is_some() {
            questions.push_trains(&self.socket, TRAINS_PER_ASK);
        }
    }

    /// Keeps an answer until it is taken.
    pub fn learn(&mut self, answer: Answer) {
        let (Some(peer), arrived) = (self.peer, &mut self.arrived) else { return };
        arrived.answers += 1;
        match (answer.outcome, answer.train) {
            (Ok(bytes), Some((train, control))) => arrived.trains.push((control::meta(&control, peer, bytes), train)),
            (Err(error), _) if error.kind() == ErrorKind::WouldBlock => arrived.is_empty = true,
            (Err(error), _) if error.kind() == ErrorKind::ConnectionRefused => arrived.is_refused = true,
            // Errors of earlier datagrams are reported here, too; QUIC notices what is missing.
            _ => {}
        }
    }

    /// What it was found to have.
    pub fn take_arrived(&mut self) -> Arrived {
        std::mem::take(&mut self.arrived)
    }

    /// The call that sends a train.
    pub fn send_call<'a>(&'a self, train: &Train, memory: &'a [u8]) -> Call<'a> {
        Call::send_train(&self.socket, &memory[..train.bytes], control::of(train))
    }

    /// Sends a train. What cannot be sent for any reason but a full socket is lost, as UDP may lose it.
    pub fn send(&self, train: &Train, memory: &[u8]) -> Io {
        #[cfg(test)]
        if self.jammed {
            return Io::WouldBlock;
        }
        let contents = &memory[..train.bytes];
        match self.send_once(train, contents, train.datagram_bytes) {
            Ok(()) => Io::More,
            Err(error) if error.kind() == ErrorKind::WouldBlock => Io::WouldBlock,
            // The answer to an earlier datagram; this one was not sent.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                let _ = self.send_once(train, contents, train.datagram_bytes);
                Io::Refused
            }
            // The interface cannot split trains, so they are split here; `datagrams_per_train` is 1 from now on.
            Err(_) if train.datagram_bytes.is_some() => {
                for datagram in contents.chunks(train.datagram_bytes.unwrap_or(contents.len())) {
                    let _ = self.send_once(train, datagram, None);
                }
                Io::More
            }
            // Most often a probe for a larger MTU, which the interface is too small for.
            Err(_) => Io::More,
        }
    }

    fn send_once(&self, train: &Train, contents: &[u8], datagram_bytes: Option<usize>) -> io::Result<()> {
        let ecn = train.ecn.and_then(|ecn| quinn_udp::EcnCodepoint::from_bits(ecn as u8));
        let transmit =
            Transmit { destination: train.destination, ecn, contents, segment_size: datagram_bytes, src_ip: None };
        self.state.try_send((&self.socket).into(), &transmit)
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
