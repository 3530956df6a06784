//! How a worker takes part in the network between workers.

use std::{fmt, io, net::SocketAddr, time::Duration};

use millstream_model::id::JobId;
use millstream_shuffle::{
    exchange::{ExchangeConfig, Listen},
    link::Local,
    transport::{Listener, Options, identity::Identity, quic::QuicListener},
};
use serde::{Deserialize, Serialize};

/// What a worker has to be told before it can speak with others.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NetworkSetup {
    /// Who it is. All workers of a job have identities of the same authority.
    pub identity: Identity,
    pub job: JobId,
    /// Where it listens; port 0 takes any that is free.
    pub bind: SocketAddr,
    /// Streams that data to one peer is spread over.
    pub lanes: u8,
    /// How long a peer may take to be connected.
    pub connect_timeout: Duration,
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
        let NetworkSetup { identity, job, bind, lanes, connect_timeout } = setup;
        let local = Local { job, worker: identity.worker, lanes };
        let listen: Listen = Box::new(move || {
            let listener = QuicListener::bind(bind, identity, Options { lanes, ..Options::default() });
            listener.map(|listener| Box::new(listener) as Box<dyn Listener>).map_err(io::Error::other)
        });
        Network { exchange: ExchangeConfig { local, connect_timeout }, listen, is_authenticated: true }
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Network { exchange, is_authenticated, .. } = self;
        f.debug_struct("Network").field("exchange", exchange).field("is_authenticated", is_authenticated).finish()
    }
}
