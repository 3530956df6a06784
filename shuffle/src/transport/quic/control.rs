//! What the kernel is told about a train of datagrams, and what it tells: as `quinn-udp` does it, for calls of our own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::libc::{
    IP_PKTINFO, IP_TOS, IPPROTO_IP, IPPROTO_IPV6, IPV6_PKTINFO, IPV6_TCLASS, SOL_UDP, UDP_GRO, UDP_SEGMENT, c_int,
};
use quinn_udp::{EcnCodepoint, RecvMeta};

use super::socket::Train;
use crate::io::Control;

/// What is to be sent with a train.
pub fn of(train: &Train) -> Control {
    let ecn: c_int = train.ecn.map_or(0, |ecn| ecn as c_int);
    let is_ipv4 = match train.destination.ip() {
        IpAddr::V4(_) => true,
        IpAddr::V6(address) => address.to_ipv4_mapped().is_some(),
    };
    let (level, kind) = if is_ipv4 { (IPPROTO_IP, IP_TOS) } else { (IPPROTO_IPV6, IPV6_TCLASS) };
    let control = Control::default().with(level, kind, &ecn.to_ne_bytes());
    // A lone datagram needs no splitting, which some interfaces cannot do.
    match train.datagram_bytes.filter(|bytes| *bytes < train.bytes).and_then(|bytes| u16::try_from(bytes).ok()) {
        Some(bytes) => control.with(SOL_UDP, UDP_SEGMENT, &bytes.to_ne_bytes()),
        None => control,
    }
}

/// What was received with a train of a peer.
pub fn meta(control: &Control, peer: SocketAddr, bytes: usize) -> RecvMeta {
    let mut meta = RecvMeta { addr: peer, len: bytes, stride: bytes, ..RecvMeta::default() };
    for (level, kind, data) in control.messages() {
        match (level, kind) {
            // A byte or a number, by the protocol; the bits are in its lowest byte.
            (IPPROTO_IP, IP_TOS) => meta.ecn = data.first().and_then(|bits| EcnCodepoint::from_bits(*bits)),
            (IPPROTO_IPV6, IPV6_TCLASS) => meta.ecn = number(data).and_then(|bits| EcnCodepoint::from_bits(bits as u8)),
            // The receiver's address is the last part of one, and the first of the other.
            (IPPROTO_IP, IP_PKTINFO) => {
                let address = data.get(8..12).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
                meta.dst_ip = address.map(|bytes| Ipv4Addr::from(bytes).into());
            }
            (IPPROTO_IPV6, IPV6_PKTINFO) => {
                let address = data.get(..16).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
                meta.dst_ip = address.map(|bytes| Ipv6Addr::from(bytes).into());
            }
            (SOL_UDP, UDP_GRO) => {
                meta.stride = number(data).and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(bytes)
            }
            _ => {}
        }
    }
    meta
}

fn number(data: &[u8]) -> Option<c_int> {
    Some(c_int::from_ne_bytes(data.get(..size_of::<c_int>())?.try_into().ok()?))
}
