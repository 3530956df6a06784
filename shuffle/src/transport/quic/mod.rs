//! QUIC over one connected UDP socket per peer, driven by the caller's thread: `quinn-proto` is the state machine,
//! `quinn-udp` the system calls, and there is no runtime in between.
//!
//! ```text
//!            ┌── QuicListener: its own socket ───┐ new peers
//!  Endpoint ─┤                                   ├─► whose datagram it is ─► that connection, or its mail
//!            └── QuicConnection: one socket each ┘
//! ```
//! All connections of a listener share its endpoint, whichever side dialled. The kernel hands the datagrams of a peer to
//! the socket that is connected to it, so each peer has a buffer of its own. What arrives elsewhere, because a socket was
//! not connected yet, is put in the mail of the connection it belongs to.
//!
//! | Look here for | module |
//! |---|---|
//! | taking in new peers and dialling others | [`endpoint`] |
//! | one peer | [`connection`] |
//! | why it has ended | [`ending`] |
//! | which bytes belong to which stream | [`streams`] |
//! | sockets and their buffers | [`socket`], [`control`] |
//! | trying a path that is silent | [`congestion`] |
//! | the numbers | [`config`] |

mod config;
mod congestion;
mod connection;
mod control;
mod ending;
mod endpoint;
mod socket;
mod streams;

pub use connection::QuicConnection;
pub use endpoint::QuicListener;
