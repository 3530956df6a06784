//! The settings of QUIC, and why they are what they are.

use std::{net::IpAddr, sync::Arc, time::Duration};

use quinn_proto::{
    AckFrequencyConfig, ClientConfig, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig, TransportConfig,
    VarInt,
    congestion::CubicConfig,
    crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig},
};

use super::{congestion::GatedConfig, socket::Socket};
use crate::transport::{
    Options,
    identity::{Identity, IdentityError},
    tls,
};

/// The largest UDP payload that fits into an IPv4 packet.
pub const DATAGRAM_BYTES_MAX: u16 = 65_507;
/// What every path carries.
const MTU_MIN: u16 = 1_200;
/// What fits into an Ethernet frame, with IPv6.
const MTU_ETHERNET: u16 = 1_452;
/// The finest step of the search for an MTU. A search ends where steps become smaller than half of the range, so after the
/// middle and the upper end, which is the interface's. A probe is a datagram full of padding, each byte of which the receiver
/// reads as a frame, and there may be thousands of connections. On loopback the MTU is known, so that nothing is searched for.
const MTU_STEP_MIN: u16 = 20;
const PACKETS_PER_WINDOW_MIN: usize = 16;
/// How much more than the window the peer may send before QUIC's own flow control stops it, as a factor. What counts is
/// what was sent and not yet read here, as far as the sender knows: the window, the eighth that is read but not yet told,
/// and what is told but still under way. It must never bind, since its limits know nothing of our credits.
const FLOW_CONTROL_FACTOR: u64 = 4;
/// Before the first sample. Three times this passes before a lost first packet is repeated.
const INITIAL_RTT: Duration = Duration::from_millis(20);
/// An acknowledgement of a lone packet comes after this. Losing the last packet of a burst costs as much; QUIC's default
/// is 25 ms.
const ACK_DELAY: Duration = Duration::from_millis(2);
/// Sent before the first acknowledgement: as much as a switch takes without being asked.
const INITIAL_WINDOW: u64 = 256 << 10;
/// Handshake packets that are kept until `accept` is called, which is soon.
const INCOMING_BYTES_MAX: u64 = 64 << 10;

/// How this worker dials and answers, apart from what depends on the path.
pub struct Config {
    client: Arc<QuicClientConfig>,
    server: ServerConfig,
    options: Options,
}

impl Config {
    /// # Errors
    /// If the identity cannot be used.
    pub fn new(identity: &Identity, options: Options) -> Result<Self, IdentityError> {
        let unusable = |error: NoInitialCipherSuite| IdentityError::Authority(error.to_string());
        let client = QuicClientConfig::try_from(tls::client(identity)?).map_err(unusable)?;
        let server = QuicServerConfig::try_from(tls::server(identity)?).map_err(unusable)?;
        let mut server = ServerConfig::with_crypto(Arc::new(server));
        server
            .migration(false) // a peer is where its socket is
            .incoming_buffer_size(INCOMING_BYTES_MAX)
            .incoming_buffer_size_total(INCOMING_BYTES_MAX * 64);
        Ok(Config { client: Arc::new(client), server, options })
    }

    /// For the endpoint: packets of any size are welcome.
    pub fn endpoint() -> EndpointConfig {
        let mut config = EndpointConfig::default();
        config.max_udp_payload_size(DATAGRAM_BYTES_MAX).expect("it is in the allowed range");
        config
    }

    /// For answering anyone; `accept` is then given the one that fits the path.
    pub fn server(&self) -> Arc<ServerConfig> {
        Arc::new(self.server.clone())
    }

    pub fn accept(&self, peer: IpAddr, socket: &Socket) -> Arc<ServerConfig> {
        let mut config = self.server.clone();
        config.transport_config(Arc::new(self.transport(peer, socket)));
        Arc::new(config)
    }

    pub fn connect(&self, peer: IpAddr, socket: &Socket) -> ClientConfig {
        let mut config = ClientConfig::new(Arc::clone(&self.client) as Arc<_>);
        config.transport_config(Arc::new(self.transport(peer, socket)));
        config
    }

    fn transport(&self, peer: IpAddr, socket: &Socket) -> TransportConfig {
        let options = &self.options;
        // A window of few large packets would often wait for the acknowledgement of a lone one.
        let fitting = options.window.min(socket.buffer() / 2) / PACKETS_PER_WINDOW_MIN;
        let fitting = u16::try_from(fitting).unwrap_or(u16::MAX).max(MTU_ETHERNET);
        let mtu_max = payload(peer, socket.interface_mtu()).min(fitting).min(options.mtu_max).max(MTU_MIN);
        // Nothing beyond the interface can be too small for packets that leave no machine.
        let mtu_is_known = socket.leads_to_this_machine();
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(mtu_max).minimum_change((mtu_max.saturating_sub(MTU_ETHERNET) / 2).max(MTU_STEP_MIN));
        let mut acks = AckFrequencyConfig::default();
        acks.max_ack_delay(Some(ACK_DELAY));
        let mut congestion = CubicConfig::default();
        congestion.initial_window(INITIAL_WINDOW);
        let flow = VarInt::from_u64(options.window as u64 * FLOW_CONTROL_FACTOR).unwrap_or(VarInt::MAX);
        let idle = IdleTimeout::try_from(options.idle_timeout).ok();
        let mut config = TransportConfig::default();
        config
            .initial_mtu(if mtu_is_known { mtu_max } else { MTU_ETHERNET.min(mtu_max) })
            .mtu_discovery_config(Some(discovery))
            .ack_frequency_config(Some(acks))
            .congestion_controller_factory(Arc::new(GatedConfig(Arc::new(congestion))))
            .initial_rtt(INITIAL_RTT)
            .receive_window(flow)
            .stream_receive_window(flow)
            .send_window(flow.into_inner())
            .max_concurrent_bidi_streams(0u32.into())
            .max_concurrent_uni_streams(streams_max(options.lanes).into())
            .datagram_receive_buffer_size(None)
            .keep_alive_interval(Some(options.keep_alive))
            .max_idle_timeout(idle)
            .allow_spin(false);
        config
    }
}

/// The streams that a peer may open: one per lane and one for control. Each costs memory here whether it is used or not, so
/// those of channels, of which there may be thousands, are allowed as the channels are asked for.
pub fn streams_max(lanes: u8) -> u32 {
    1 + u32::from(lanes)
}

/// The largest UDP payload in a packet of the interface.
fn payload(peer: IpAddr, interface_mtu: u16) -> u16 {
    let headers = if peer.is_ipv4() { 28 } else { 48 };
    interface_mtu.saturating_sub(headers).min(DATAGRAM_BYTES_MAX)
}
