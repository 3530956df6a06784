//! The way between the two processes: loopback, or an Ethernet between two hosts, as the engine's programs have it
//! (`benches/src/path.rs`), with the same hosts and the same weather.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use clap::ValueEnum;

use crate::{
    hosts::Hosts,
    pair::Side,
    weather::{Relay, Weather},
};

/// What a pod's sockets hold, as the kernel counts.
pub const POD_SOCKET_BUFFER: usize = 208 << 10;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Path {
    #[default]
    Loopback,
    /// MTU 1500, and sockets that hold 208 KiB
    Mtu1500,
    /// The same, which loses one datagram of 1,000 and delays all by 1 ms; QUIC only
    Lossy,
}

impl Path {
    pub fn name(self) -> &'static str {
        match self {
            Path::Loopback => "loopback",
            Path::Mtu1500 => "mtu1500",
            Path::Lossy => "lossy",
        }
    }

    /// Where each of the two is.
    pub fn address(self, side: Side) -> IpAddr {
        match self {
            Path::Loopback => Ipv4Addr::LOCALHOST.into(),
            Path::Mtu1500 | Path::Lossy => [10, 77, 0, side.index() as u8 + 1].into(),
        }
    }
}

/// The first process's view of the way: who has made it.
pub(crate) struct Way {
    pub(crate) hosts: Hosts,
    path: Path,
    relay: Option<Relay>,
}

impl Way {
    /// `None` where there is nothing to make.
    pub(crate) fn of(path: Path) -> Option<Way> {
        (path != Path::Loopback).then(|| Way { hosts: Hosts::new(2), path, relay: None })
    }

    /// Where the first process reaches what listens at `address`.
    pub(crate) fn to(&mut self, address: SocketAddr) -> SocketAddr {
        if self.path != Path::Lossy {
            return address;
        }
        let lossy =
            Weather { delay: Duration::from_millis(1), lost_of_thousand: 1, ..Weather::default() };
        self.relay.insert(Relay::to(address, &self.hosts, lossy, 1)).address
    }
}
