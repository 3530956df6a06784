//! How a worker takes part in the network between workers.

use std::{fmt, io::Error, net::SocketAddr, time::Duration};

use millstream_model::{
    config::{self, Configuration, NetworkIo, ShuffleTransport},
    fault::Failure,
    id::JobId,
};
use millstream_shuffle::{
    exchange::{ExchangeConfig, Listen},
    link::Local,
    transport::{
        BindError, Listener, Options, auto::AutoListener, identity::Identity, quic::QuicListener, tcp::TcpListener,
    },
};
use serde::{Deserialize, Serialize};

/// What a worker has to be told before it can speak with others.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NetworkSetup {
    /// Who it is. All workers of a job have identities of the same authority.
    pub identity: Identity,
    pub job: JobId,
    pub transport: Carrier,
    /// Where it listens; port 0 takes any that is free.
    pub bind: SocketAddr,
    /// Streams that data to one peer is spread over; 0 for one per channel.
    pub lanes: u8,
    /// What its UDP sockets ask for, in bytes as the kernel counts them.
    pub socket_buffer: usize,
    /// How long a peer may take to be connected.
    pub connect_timeout: Duration,
    /// A peer that has been silent for so long is given up.
    pub idle_timeout: Duration,
    /// What its sockets are read and written with.
    pub io: NetworkIo,
}

/// What carries the records.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Carrier {
    Quic,
    /// With TLS.
    Tcp,
    /// Whoever reaches the port can read and write records.
    PlainTcp,
    /// QUIC, or TCP with TLS, by what suits the path to each peer.
    Auto,
}

impl Carrier {
    /// What the configuration asks for.
    ///
    /// # Errors
    /// If it has a bad value, or asks for something that is always encrypted without encryption.
    pub fn configured(configuration: &Configuration) -> Result<Carrier, Failure> {
        let transport = configuration.get(&config::SHUFFLE_TRANSPORT)?;
        match (transport, configuration.get(&config::SHUFFLE_TLS)?) {
            (ShuffleTransport::Quic, true) => Ok(Carrier::Quic),
            (ShuffleTransport::Tcp, true) => Ok(Carrier::Tcp),
            (ShuffleTransport::Auto, true) => Ok(Carrier::Auto),
            (ShuffleTransport::Tcp, false) => Ok(Carrier::PlainTcp),
            (ShuffleTransport::Quic | ShuffleTransport::Auto, false) => Err(Failure::fatal(format!(
                "{} is false, and QUIC is always encrypted: set {} to tcp, or leave encryption on",
                config::SHUFFLE_TLS.name(),
                config::SHUFFLE_TRANSPORT.name()
            ))),
        }
    }

    fn listener(self, bind: SocketAddr, identity: Identity, options: Options) -> Result<Box<dyn Listener>, BindError> {
        Ok(match self {
            Carrier::Quic => Box::new(QuicListener::bind(bind, identity, options)?),
            Carrier::Tcp => Box::new(TcpListener::bind(bind, Some(identity), options)?),
            Carrier::PlainTcp => Box::new(TcpListener::bind(bind, None, options)?),
            Carrier::Auto => Box::new(AutoListener::bind(bind, identity, options)?),
        })
    }
}

/// What a worker makes its exchange with.
pub struct Network {
    pub exchange: ExchangeConfig,
    /// Makes its listener.
    pub listen: Listen,
    /// Whether every peer has to prove who it is, over an encrypted connection.
    pub is_authenticated: bool,
}

impl From<NetworkSetup> for Network {
    fn from(setup: NetworkSetup) -> Network {
        let NetworkSetup { identity, job, transport, bind, lanes, socket_buffer, connect_timeout, idle_timeout, io } =
            setup;
        let local = Local { job, worker: identity.worker, lanes };
        let listen: Listen = Box::new(move || {
            let options = Options { lanes, socket_buffer, ..Options::default() }.with_idle_timeout(idle_timeout);
            transport.listener(bind, identity, options).map_err(Error::other)
        });
        let exchange = ExchangeConfig { local, connect_timeout, io };
        Network { exchange, listen, is_authenticated: transport != Carrier::PlainTcp }
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Network { exchange, is_authenticated, .. } = self;
        f.debug_struct("Network").field("exchange", exchange).field("is_authenticated", is_authenticated).finish()
    }
}
