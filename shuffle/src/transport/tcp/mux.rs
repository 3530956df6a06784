//! Many streams in one: pieces, each with a header that says which stream it belongs to and how long it is. Both ends.
//!
//! The first piece of each direction is the greeting. A stream may be cut anywhere, for the reader puts it together again.
//!
//! A header is the kind (1 byte), the lane (1), zero (2) and the length (4); that of a channel's own stream is the kind, zero
//! (1), the length less one (2) and the channel (4). All little-endian.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use crate::transport::{
    Batch, Stream,
    hello::{Hello, NoPreamble, PREAMBLE_BYTES, Preamble},
};

const HEADER_BYTES: usize = 8;
/// The longest piece: what control may have to wait for.
const PIECE_BYTES_MAX: usize = 64 << 10;
/// The longest reason for closing that is told.
const REASON_BYTES_MAX: usize = 1 << 10;

const GREETING: u8 = 0;
const CONTROL: u8 = 1;
const LANE: u8 = 2;
const PING: u8 = 3;
const CLOSE: u8 = 4;
const CHANNEL: u8 = 5;

/// The peer has sent what is no piece.
#[derive(Debug, thiserror::Error)]
pub enum MuxError {
    #[error("a piece begins with {0:02x?}, which is no header")]
    NoHeader([u8; HEADER_BYTES]),
    #[error(transparent)]
    NoPreamble(#[from] NoPreamble),
}

fn header(kind: u8, lane: u8, bytes: usize) -> Bytes {
    let mut header = [kind, lane, 0, 0, 0, 0, 0, 0];
    let bytes = u32::try_from(bytes).expect("pieces are short");
    header[4..].copy_from_slice(&bytes.to_le_bytes());
    Bytes::copy_from_slice(&header)
}

fn header_of(stream: Stream, bytes: usize) -> Bytes {
    match stream {
        Stream::Control => header(CONTROL, 0, bytes),
        Stream::Lane(lane) => header(LANE, lane, bytes),
        Stream::Channel(channel) => {
            let last = u16::try_from(bytes - 1).expect("pieces are short, and not empty");
            let ([l0, l1], [c0, c1, c2, c3]) = (last.to_le_bytes(), channel.to_le_bytes());
            Bytes::copy_from_slice(&[CHANNEL, 0, l0, l1, c0, c1, c2, c3])
        }
    }
}

pub fn greeting(hello: Hello) -> [Bytes; 2] {
    [header(GREETING, 0, PREAMBLE_BYTES), Bytes::copy_from_slice(&Preamble::Hello(hello).encode())]
}

/// Shows that this side lives.
pub fn ping() -> Bytes {
    header(PING, 0, 0)
}

pub fn close(reason: &str) -> [Bytes; 2] {
    let reason = &reason.as_bytes()[..reason.len().min(REASON_BYTES_MAX)];
    [header(CLOSE, 0, reason.len()), Bytes::copy_from_slice(reason)]
}

/// Where written bytes wait, per stream.
#[derive(Default)]
pub struct Outgoing {
    control: VecDeque<Bytes>,
    /// Of lanes and channels that have something: what has not goes, since there may be thousands.
    data: HashMap<Stream, VecDeque<Bytes>>,
    /// Those that have something, in the order of their turns.
    turns: VecDeque<Stream>,
    data_bytes: usize,
}

impl Outgoing {
    /// What waits that is not control.
    pub fn data_bytes(&self) -> usize {
        self.data_bytes
    }

    pub fn write(&mut self, stream: Stream, batch: Batch) {
        if batch.is_empty() {
            return;
        }
        let queue = match stream {
            Stream::Control => &mut self.control,
            Stream::Lane(_) | Stream::Channel(_) => {
                self.data_bytes += batch.bytes;
                self.data.entry(stream).or_insert_with(|| {
                    self.turns.push_back(stream);
                    VecDeque::new()
                })
            }
        };
        batch.join(|chunk| queue.push_back(chunk));
    }

    /// Puts the next piece on the wire, and returns its length; 0 if there is none.
    pub fn next(&mut self, wire: &mut VecDeque<Bytes>) -> usize {
        if !self.control.is_empty() {
            return HEADER_BYTES + cut(&mut self.control, Stream::Control, wire);
        }
        let Some(stream) = self.turns.pop_front() else { return 0 };
        let queue = self.data.get_mut(&stream).expect("who has a turn has something");
        let bytes = cut(queue, stream, wire);
        self.data_bytes -= bytes;
        if queue.is_empty() {
            self.data.remove(&stream);
        } else {
            self.turns.push_back(stream);
        }
        HEADER_BYTES + bytes
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.control.clear();
        self.data.clear();
        self.turns.clear();
        self.data_bytes = 0;
    }
}

/// Takes a piece out of a queue; returns the length of what it carries.
fn cut(queue: &mut VecDeque<Bytes>, stream: Stream, wire: &mut VecDeque<Bytes>) -> usize {
    let first = wire.len();
    let mut bytes = 0;
    while let Some(chunk) = queue.front_mut() {
        let room = PIECE_BYTES_MAX - bytes;
        if chunk.len() > room {
            if room > 0 {
                wire.push_back(chunk.split_to(room));
            }
            bytes += room;
            break;
        }
        bytes += chunk.len();
        wire.extend(queue.pop_front());
    }
    wire.insert(first, header_of(stream, bytes));
    bytes
}

/// Puts the streams of the peer together again.
#[derive(Default)]
pub struct Incoming {
    header: [u8; HEADER_BYTES],
    header_bytes: usize,
    /// The piece that is being read, and how much of it is missing.
    piece: Option<(Piece, usize)>,
    /// What has arrived of a greeting, or of the reason for closing.
    note: Vec<u8>,
    hello: Option<Hello>,
    reason: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Piece {
    Greeting,
    Of(Stream),
    Ping,
    Close,
}

impl Incoming {
    /// The peer's greeting, once it has arrived.
    pub fn hello(&self) -> Option<Hello> {
        self.hello
    }

    /// Why the peer closes the connection, once it does.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Takes in bytes, and returns how many: all, but none after the greeting if that is the aim, and none after the end.
    ///
    /// # Errors
    /// If they make no sense.
    pub fn feed(
        &mut self,
        mut bytes: &[u8],
        until_greeting: bool,
        each: &mut dyn FnMut(Stream, &[u8]),
    ) -> Result<usize, MuxError> {
        let all = bytes.len();
        while !bytes.is_empty() && self.reason.is_none() && !(until_greeting && self.hello.is_some()) {
            let Some((piece, missing)) = &mut self.piece else {
                let taken = bytes.len().min(HEADER_BYTES - self.header_bytes);
                self.header[self.header_bytes..][..taken].copy_from_slice(&bytes[..taken]);
                self.header_bytes += taken;
                bytes = &bytes[taken..];
                if self.header_bytes == HEADER_BYTES {
                    self.begin()?;
                }
                continue;
            };
            let (taken, rest) = bytes.split_at(bytes.len().min(*missing));
            bytes = rest;
            *missing -= taken.len();
            let (piece, done) = (*piece, *missing == 0);
            match piece {
                Piece::Of(stream) => each(stream, taken),
                Piece::Greeting | Piece::Close => self.note.extend_from_slice(taken),
                Piece::Ping => {}
            }
            if done {
                self.end(piece)?;
            }
        }
        Ok(all - bytes.len())
    }

    fn begin(&mut self) -> Result<(), MuxError> {
        let [kind, lane, l0, l1, number @ ..] = self.header;
        let number = u32::from_le_bytes(number);
        let (is_lane, is_channel) = (kind == LANE, kind == CHANNEL);
        if (lane != 0 && !is_lane) || ([l0, l1] != [0, 0] && !is_channel) {
            return Err(MuxError::NoHeader(self.header));
        }
        let length = if is_channel { usize::from(u16::from_le_bytes([l0, l1])) + 1 } else { number as usize };
        let (piece, lengths) = match kind {
            GREETING if self.hello.is_none() => (Piece::Greeting, PREAMBLE_BYTES..=PREAMBLE_BYTES),
            CLOSE => (Piece::Close, 0..=REASON_BYTES_MAX),
            _ if self.hello.is_none() => return Err(MuxError::NoHeader(self.header)),
            CONTROL => (Piece::Of(Stream::Control), 1..=PIECE_BYTES_MAX),
            LANE => (Piece::Of(Stream::Lane(lane)), 1..=PIECE_BYTES_MAX),
            CHANNEL => (Piece::Of(Stream::Channel(number)), 1..=PIECE_BYTES_MAX),
            PING => (Piece::Ping, 0..=0),
            _ => return Err(MuxError::NoHeader(self.header)),
        };
        if !lengths.contains(&length) {
            return Err(MuxError::NoHeader(self.header));
        }
        self.header_bytes = 0;
        match length {
            0 => self.end(piece),
            length => {
                self.piece = Some((piece, length));
                Ok(())
            }
        }
    }

    fn end(&mut self, piece: Piece) -> Result<(), MuxError> {
        self.piece = None;
        match piece {
            Piece::Greeting => {
                let mut preamble = [0; PREAMBLE_BYTES];
                preamble.copy_from_slice(&self.note);
                match Preamble::decode(preamble)? {
                    Preamble::Hello(hello) => self.hello = Some(hello),
                    Preamble::Lane(_) | Preamble::Channel(_) => return Err(MuxError::NoHeader(self.header)),
                }
                self.note.clear();
            }
            Piece::Close => self.reason = Some(String::from_utf8_lossy(&self.note).into_owned()),
            Piece::Of(_) | Piece::Ping => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: Hello = Hello { window: 1, cipher: "unknown" };

    fn batch(length: usize) -> Batch {
        let mut batch = Batch::default();
        batch.push(vec![length as u8; length].into());
        batch
    }

    /// What the wire carries, as one run of bytes.
    fn wire(pieces: impl IntoIterator<Item = Bytes>) -> Vec<u8> {
        pieces.into_iter().flatten().collect()
    }

    #[test]
    fn streams_survive_every_way_of_cutting_the_bytes() {
        let mut outgoing = Outgoing::default();
        let mut chunks: VecDeque<Bytes> = greeting(HELLO).into();
        let (control, one, zero) = (Stream::Control, Stream::Lane(1), Stream::Lane(0));
        let (own, other) = (Stream::Channel(0x0102_0304), Stream::Channel(1));
        for (stream, length) in [(one, 200_000), (zero, 10), (control, 77), (own, 65_537), (other, 1)] {
            outgoing.write(stream, batch(length));
        }
        while outgoing.next(&mut chunks) > 0 {}
        assert_eq!(outgoing.data_bytes(), 0);
        assert!(outgoing.data.is_empty(), "streams that have nothing keep no memory");
        chunks.push_back(ping());
        chunks.extend(close("enough"));
        let bytes = wire(chunks);
        for cut in [1, 2, 7, 8, 9, 1000, 65_536, bytes.len()] {
            let mut incoming = Incoming::default();
            let mut order = Vec::new();
            for part in bytes.chunks(cut) {
                let taken = incoming.feed(part, false, &mut |stream, bytes| match order.last_mut() {
                    Some((last, length)) if *last == stream => *length += bytes.len(),
                    _ => order.push((stream, bytes.len())),
                });
                assert_eq!(taken.expect("it makes sense"), part.len());
            }
            let first = [(control, 77), (one, 65_536), (zero, 10), (own, 65_536), (other, 1)];
            let then = [(one, 65_536), (own, 1), (one, 200_000 - 2 * 65_536)];
            assert_eq!(order, [&first[..], &then[..]].concat(), "cut at {cut}");
            assert_eq!(incoming.reason(), Some("enough"));
        }
    }

    #[test]
    fn nothing_after_the_greeting_is_touched_while_it_is_awaited() {
        let mut outgoing = Outgoing::default();
        outgoing.write(Stream::Lane(0), batch(100));
        let mut chunks: VecDeque<Bytes> = greeting(HELLO).into();
        outgoing.next(&mut chunks);
        let (bytes, mut incoming) = (wire(chunks), Incoming::default());
        let taken = incoming.feed(&bytes, true, &mut |_, _| panic!("nobody asked")).expect("it makes sense");
        assert_eq!((taken, incoming.hello()), (HEADER_BYTES + PREAMBLE_BYTES, Some(HELLO)));
    }

    #[test]
    fn headers_that_no_peer_writes_are_refused() {
        let wrong = |header: [u8; HEADER_BYTES]| {
            let bytes = [wire(greeting(HELLO)), header.to_vec()].concat();
            let outcome = Incoming::default().feed(&bytes, false, &mut |_, _| {});
            assert!(matches!(outcome, Err(MuxError::NoHeader(seen)) if seen == header), "{header:?}: {outcome:?}");
        };
        wrong([CONTROL, 1, 0, 0, 8, 0, 0, 0]);
        wrong([CONTROL, 0, 1, 0, 8, 0, 0, 0]);
        wrong([LANE, 3, 0, 1, 8, 0, 0, 0]);
        wrong([PING, 0, 0, 1, 0, 0, 0, 0]);
        wrong([CLOSE, 0, 1, 0, 0, 0, 0, 0]);
        wrong([CHANNEL, 1, 7, 0, 1, 0, 0, 0]);
        wrong([CHANNEL + 1, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn no_bytes_of_a_peer_are_a_panic() {
        let mut rng = fastrand::Rng::with_seed(5);
        for _ in 0..20_000 {
            let mut incoming = Incoming::default();
            let mut bytes = if rng.bool() { wire(greeting(HELLO)) } else { Vec::new() };
            bytes.extend((0..rng.usize(0..40)).map(|_| if rng.bool() { 0 } else { rng.u8(..) & 0x0f }));
            let _ = incoming.feed(&bytes, rng.bool(), &mut |_, _| {});
        }
    }
}
