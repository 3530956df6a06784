//! Dials the port of a worker as somebody else, and says how that ends.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use millstream::model::id::WorkerId;
use millstream_shuffle::transport::{
    Connection, Listener, Options, identity::Identity, quic::QuicListener, tcp::TcpListener,
};

/// What a worker is dialled with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Over {
    Quic,
    Tls,
    /// TCP, with nothing that proves anything.
    PlainTcp,
}

/// Why a connection to a worker at `address`, of whom a certificate is expected, has ended; `None` if it was made and is
/// open after everything was said that the two sides have to say about it.
///
/// # Panics
/// If nothing has come of it within a minute.
pub fn dial(over: Over, from: SocketAddr, identity: Identity, worker: WorkerId, address: SocketAddr) -> Option<String> {
    let listener = match over {
        Over::Quic => {
            QuicListener::bind(from, identity, Options::default()).map(|it| Box::new(it) as Box<dyn Listener>)
        }
        Over::Tls => TcpListener::bind(from, Some(identity), Options::default()).map(|it| Box::new(it) as _),
        Over::PlainTcp => TcpListener::bind(from, None, Options::default()).map(|it| Box::new(it) as _),
    };
    let mut listener = listener.expect("there is an address");
    let begin = Instant::now();
    let mut connection = listener.connect(begin, worker, address).expect("there is a socket");
    let mut open_since = None;
    loop {
        let now = Instant::now();
        connection.receive(now);
        connection.read(&mut |_, _| {});
        connection.transmit(now);
        match connection.connection() {
            Connection::Closed(closed) => return Some(closed.to_string()),
            // TLS 1.3 is open for who dials before the other side has looked at its certificate.
            Connection::Open { .. } => {
                let since = *open_since.get_or_insert(now);
                if now - since > Duration::from_secs(2) {
                    return None;
                }
            }
            Connection::Opening => assert!(now - begin < Duration::from_secs(60), "{address} does not answer"),
        }
        thread::sleep(Duration::from_millis(1));
    }
}
