//! What carries the bytes between two workers: one seam, so that the same frames and the same tests run over each.
//!
//! ```text
//!  net loop ──► Transport::write(stream, batch) ──► transmit ──► socket ═══ socket ──► receive ──► read(stream, bytes)
//! ```
//! A transport never blocks and has no thread: the net loop drives it, on one thread at a time, tells it the time, and
//! waits for its socket and its deadline. What it asks of its socket it may ask together with others: see [`io`](crate::io).
//! Each has one control stream, which goes first, and lanes, which share what is left; or, in their place, a stream for each
//! channel. Bytes of one stream arrive once and in order; streams overtake each other.
//!
//! | Look here for | module |
//! |---|---|
//! | QUIC: one connected UDP socket per peer | [`quic`] |
//! | TCP, with TLS or without | [`tcp`] |
//! | both, by what suits the path | [`auto`] |
//! | who a worker is to others, and whom it believes | [`identity`], [`tls`] |
//! | the first bytes of a stream | [`hello`] |
//! | what may be chosen | [`options`] |

pub mod auto;
pub mod hello;
pub mod identity;
mod options;
pub mod quic;
pub mod tcp;
mod tls;

use std::{collections::VecDeque, net::SocketAddr, os::fd::RawFd, time::Instant};

use bytes::{Bytes, BytesMut};
use millstream_model::id::WorkerId;
pub use options::Options;

use crate::{
    copies::{Place, copied},
    io::{Answer, Load, Outcome, Questions},
};

/// Chunks shorter than this are copied together.
const SHORT_CHUNK_BYTES: usize = 2 << 10;
const JOINED_CHUNK_BYTES: usize = 32 << 10;

/// One of the byte streams that each direction of a connection has.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Stream {
    /// Goes before everything else.
    Control,
    /// Shared by channels.
    Lane(u8),
    /// Of one channel alone, by the number that its receiver has given it.
    Channel(u32),
}

/// Where a connection stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Connection {
    /// The handshake is under way.
    Opening,
    /// The peer has proved who it is. `None` where the transport cannot know (no encryption).
    Open { peer: Option<WorkerId> },
    /// Nothing more will arrive or leave.
    Closed(Closed),
}

/// Why a connection has ended.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Closed {
    #[error("the peer has closed the connection: {0}")]
    ByPeer(String),
    #[error("this side has closed the connection")]
    Locally,
    #[error("the peer has been silent for too long")]
    TimedOut,
    /// One of the two does not believe the other: `of the peer: …` if it is this side, `by the peer: …` if it is the other.
    #[error("an identity was refused {0}")]
    Refused(String),
    #[error("the connection has failed: {0}")]
    Failed(String),
}

/// Frames that belong to one stream, in order: always whole ones, so that what is queued may be mixed between streams at
/// the borders of batches.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub chunks: VecDeque<Bytes>,
    /// The sum of their lengths.
    pub bytes: usize,
}

impl Batch {
    /// Adds a chunk at the end.
    pub fn push(&mut self, chunk: Bytes) {
        self.bytes += chunk.len();
        self.chunks.push_back(chunk);
    }

    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Gives its chunks in order, short ones copied together: for each chunk a transport pays several times.
    fn join(mut self, mut each: impl FnMut(Bytes)) {
        if self.chunks.len() == 1 {
            self.chunks.pop_front().filter(|chunk| !chunk.is_empty()).into_iter().for_each(each);
            return;
        }
        let mut joined = BytesMut::new();
        let mut remaining = self.bytes;
        let mut give = |chunk: Bytes| {
            if !chunk.is_empty() {
                each(chunk)
            }
        };
        for chunk in self.chunks {
            remaining -= chunk.len();
            if chunk.len() >= SHORT_CHUNK_BYTES {
                give(joined.split().freeze());
                give(chunk);
                continue;
            }
            if joined.len() + chunk.len() > JOINED_CHUNK_BYTES {
                give(std::mem::take(&mut joined).freeze());
            }
            if joined.is_empty() {
                joined.reserve((remaining + chunk.len()).min(JOINED_CHUNK_BYTES));
            }
            copied(Place::Join, chunk.len());
            joined.extend_from_slice(&chunk);
        }
        give(joined.freeze());
    }
}

/// One connection to another worker process. Its turn, when its socket or its deadline says so, is: `receive`, `read`,
/// `write` as far as there is room, `transmit`; then its state is looked at. Whoever writes at another time calls `transmit`
/// afterwards.
pub trait Transport: Send {
    /// Any call may find that it has ended.
    fn connection(&self) -> &Connection;

    /// Takes in what the socket has, and fires timers that are due.
    fn receive(&mut self, now: Instant);

    /// Asks what the socket has, together with other connections. Each answer is told to `answer`, and the `receive` that
    /// follows takes them in instead of asking itself. A connection may ask nothing, and a question may get no answer.
    fn ask<'a>(&'a mut self, questions: &mut Questions<'a>);

    /// An answer to what was asked last; they come in order.
    fn answer(&mut self, answer: Answer);

    /// Shows what has arrived of each stream, and forgets it. Shows nothing before the connection is open.
    fn read(&mut self, each: &mut dyn FnMut(Stream, &[u8]));

    /// How many more bytes of a stream would be taken now without lying around: what is written beyond it only waits
    /// here, where nothing can overtake it. Control always has some.
    fn room(&self, stream: Stream) -> usize;

    /// Queues frames. Long chunks are kept by reference until they are sent and, where the transport repeats what is lost,
    /// acknowledged; short ones are copied together.
    fn write(&mut self, stream: Stream, batch: Batch);

    /// Nothing more is written to a channel's own stream: it ends with what is queued, and the peer may open another one.
    fn end_channel(&mut self, channel: u32);

    /// How many channels the peer may send on, where each has a stream of its own. Memory is kept for as many.
    fn expect_channels(&mut self, count: u32);

    /// Sends as much as can be sent now.
    fn transmit(&mut self, now: Instant);

    /// Like `transmit`, but together with other connections: what is to be sent first is loaded, and comes back with `sent`.
    fn load<'a>(&'a mut self, now: Instant, load: &mut Load<'a>);

    /// What has become of each call that was loaded, in order. Follows each `load`, and sends what else there is.
    fn sent(&mut self, now: Instant, outcomes: &mut dyn Iterator<Item = Outcome>);

    /// When the connection is to have its turn even if nothing has arrived: for a timer, for work that a turn has left, or
    /// because there is room again. It changes in turns alone, and when the listener [has passed
    /// on](Listener::has_passed_on) what other connections have received. To wait up to a millisecond longer does no harm.
    fn deadline(&self) -> Option<Instant>;

    /// The socket to wait for: for input always, for output (edge-triggered) after a send found it full.
    fn socket(&self) -> RawFd;

    /// Ends the connection and tells the peer why, as far as that is possible without waiting.
    fn close(&mut self, now: Instant, reason: &str);

    /// Whether a connection that has ended still answers a peer that may not have heard so. It wants its turns until it does
    /// not: who forgets it before leaves a peer whose last words were lost without the reason.
    fn lingers(&self) -> bool;

    /// What is known of the path, for the log and for benchmarks.
    fn path(&self) -> Path;
}

/// What a connection runs over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Path {
    /// `quic` or `tcp`.
    pub transport: &'static str,
    pub peer: SocketAddr,
    /// The largest UDP payload found to pass so far, in bytes; 0 where the kernel deals with it.
    pub mtu: u16,
    /// The receive buffer that the kernel has granted, in bytes.
    pub socket_buffer: usize,
    pub lost_packets: u64,
    /// The cipher suite's standard name; `None` without encryption.
    pub cipher: Option<String>,
}

/// Where connections from others arrive. Driven by the same loop as the connections.
pub trait Listener: Send {
    /// The address that others connect to.
    fn address(&self) -> SocketAddr;

    /// Takes in what the socket has, and returns the connections that have begun: each has had its first turn, and its next
    /// is due when its socket or its deadline says so.
    fn accept(&mut self, now: Instant) -> Vec<Box<dyn Transport>>;

    /// Begins a connection to a worker that listens at `address`; its first words are on their way. It may have failed
    /// already, which its state tells.
    ///
    /// # Errors
    /// If no socket can be had, or the address is of no use.
    fn connect(&mut self, now: Instant, peer: WorkerId, address: SocketAddr) -> std::io::Result<Box<dyn Transport>>;

    /// The sockets to wait for.
    fn sockets(&self) -> Vec<RawFd>;

    /// Whether something has arrived at one connection's socket that was for another since the last call: then any of them
    /// may be due.
    fn has_passed_on(&mut self) -> bool;
}

/// A listener could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("cannot listen at {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        error: std::io::Error,
    },
    #[error("cannot prove who this worker is")]
    Identity(#[from] identity::IdentityError),
}
