//! Both transports behind one address: QUIC, and TCP where QUIC would cost too much.
//!
//! Measured with the raw programs of `benches/baselines`: at an MTU of 1500, or with socket buffers of a few hundred
//! kilobytes, a byte over QUIC costs about 3.5 times the processor time of one over TCP, since each system call carries
//! little and each packet is encrypted alone.

use std::{io, net::SocketAddr, os::fd::RawFd, time::Instant};

use millstream_model::id::WorkerId;

use super::{BindError, Listener, Options, Transport, identity::Identity, quic::QuicListener, tcp::TcpListener};

/// Paths with a smaller MTU than this carry TCP, in bytes.
const MTU_FOR_QUIC: usize = 4_000;
/// With smaller socket buffers than this, TCP is used, in bytes.
const BUFFER_FOR_QUIC: usize = 1 << 20;
/// How often a pair of ports with the same number is tried for.
const PORT_TRIES: usize = 16;

/// Listens for both, and dials with the one that suits the path. Two such listeners always understand each other: who
/// dials chooses.
pub struct AutoListener {
    quic: QuicListener,
    tcp: TcpListener,
}

impl AutoListener {
    /// Listens on the same port of UDP and of TCP; port 0 takes any that is free in both.
    ///
    /// # Errors
    /// If the address cannot be had, or the identity is of no use.
    pub fn bind(address: SocketAddr, identity: Identity, options: Options) -> Result<Self, BindError> {
        let mut tries = 0;
        loop {
            let tcp = TcpListener::bind(address, Some(identity.clone()), options.clone())?;
            let same_port = SocketAddr::new(address.ip(), tcp.address().port());
            match QuicListener::bind(same_port, identity.clone(), options.clone()) {
                Ok(quic) => return Ok(AutoListener { quic, tcp }),
                Err(BindError::Listen { .. }) if address.port() == 0 && tries < PORT_TRIES => tries += 1,
                Err(error) => return Err(error),
            }
        }
    }
}

impl Listener for AutoListener {
    fn address(&self) -> SocketAddr {
        self.quic.address()
    }

    fn accept(&mut self, now: Instant) -> Vec<Box<dyn Transport>> {
        let mut arrivals = self.quic.accept(now);
        arrivals.extend(self.tcp.accept(now));
        arrivals
    }

    fn connect(&mut self, now: Instant, peer: WorkerId, address: SocketAddr) -> io::Result<Box<dyn Transport>> {
        let (mtu, socket_buffer) = self.quic.path_to(address)?;
        match reason_for_tcp(mtu, socket_buffer) {
            None => {
                tracing::info!(peer = peer.0, %address, mtu, socket_buffer, "QUIC suits the path");
                self.quic.connect(now, peer, address)
            }
            Some(reason) => {
                tracing::info!(peer = peer.0, %address, reason, "TCP is used");
                self.tcp.connect(now, peer, address)
            }
        }
    }

    fn sockets(&self) -> Vec<RawFd> {
        [self.quic.sockets(), self.tcp.sockets()].concat()
    }

    fn has_passed_on(&mut self) -> bool {
        self.quic.has_passed_on()
    }
}

/// Why a path had better carry TCP; `None` if QUIC suits it.
fn reason_for_tcp(interface_mtu: usize, socket_buffer: usize) -> Option<String> {
    if interface_mtu < MTU_FOR_QUIC {
        return Some(format!("the path's MTU of {interface_mtu} bytes is below {MTU_FOR_QUIC}"));
    }
    (socket_buffer < BUFFER_FOR_QUIC).then(|| {
        format!(
            "the kernel grants a socket buffer of {socket_buffer} bytes, less than {BUFFER_FOR_QUIC}; raise \
             net.core.rmem_max and net.core.wmem_max for QUIC"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_packets_and_small_buffers_are_for_tcp() {
        assert_eq!(reason_for_tcp(9_000, 8 << 20), None);
        assert_eq!(reason_for_tcp(MTU_FOR_QUIC, BUFFER_FOR_QUIC), None);
        assert!(reason_for_tcp(1_500, 8 << 20).is_some_and(|reason| reason.contains("1500")));
        assert!(reason_for_tcp(65_535, 212_992).is_some_and(|reason| reason.contains("rmem_max")));
    }
}
