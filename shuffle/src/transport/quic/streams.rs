//! Which bytes belong to which stream: ours as they are written, the peer's as they arrive.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use quinn_proto::{Connection, Dir, ReadError, StreamId, WriteError};

use crate::transport::{
    Batch, Stream,
    hello::{Hello, NoPreamble, PREAMBLE_BYTES, Preamble},
};

const CONTROL_PRIORITY: i32 = 1;

/// The peer has broken the rules of the streams.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error(transparent)]
    NoPreamble(#[from] NoPreamble),
    #[error("a second stream says that it is {0:?}")]
    Twice(Stream),
    #[error("the stream {0:?} has ended")]
    Ended(Option<Stream>),
}

/// Where written bytes wait, per stream, until QUIC takes them; and how many are not yet acknowledged.
#[derive(Default)]
pub struct Outgoing {
    control: OutgoingStream,
    /// Lanes that were used, and channels that were used and have not ended.
    data: HashMap<Stream, OutgoingStream>,
    /// Those that have something to hand over or are to end, in the order of their turns.
    turns: VecDeque<Stream>,
    /// Bytes in the queues of all streams.
    queued_bytes: usize,
    /// Bytes handed over, until they are acknowledged: lowered by each part of a chunk as it is dropped.
    handed_over_bytes: Arc<AtomicUsize>,
}

#[derive(Default)]
struct OutgoingStream {
    id: Option<StreamId>,
    queued: VecDeque<Bytes>,
    /// Handed over, but QUIC's own flow control has not taken it yet; most often there is none.
    refused: Vec<Bytes>,
    has_turn: bool,
    /// It ends with what is queued.
    is_ending: bool,
}

impl Outgoing {
    /// Bytes that were written and are queued, under way, or not yet acknowledged.
    pub fn kept_bytes(&self) -> usize {
        self.queued_bytes + self.handed_over_bytes.load(Relaxed)
    }

    pub fn write(&mut self, stream: Stream, batch: Batch) {
        self.queued_bytes += batch.bytes;
        let outgoing = match stream {
            Stream::Control => &mut self.control,
            Stream::Lane(_) | Stream::Channel(_) => self.data.entry(stream).or_default(),
        };
        batch.join(|chunk| outgoing.queued.push_back(chunk));
        self.give_turn(stream);
    }

    /// Queues the greeting, which opens the control stream.
    pub fn greet(&mut self, hello: Hello) {
        self.control.queued.push_front(Bytes::copy_from_slice(&Preamble::Hello(hello).encode()));
        self.queued_bytes += PREAMBLE_BYTES;
    }

    /// Lets the stream of a channel end with what is queued.
    pub fn end(&mut self, stream: Stream) {
        if let Some(outgoing) = self.data.get_mut(&stream) {
            outgoing.is_ending = true;
            self.give_turn(stream);
        }
    }

    fn give_turn(&mut self, stream: Stream) {
        if let Some(outgoing) = self.data.get_mut(&stream)
            && !std::mem::replace(&mut outgoing.has_turn, true)
        {
            self.turns.push_back(stream);
        }
    }

    /// Hands over to QUIC: control in any case, others as long as less than `bytes_max` is not acknowledged.
    ///
    /// # Errors
    /// If the peer does not want a stream.
    pub fn flush(&mut self, connection: &mut Connection, bytes_max: usize) -> Result<(), StreamError> {
        let Outgoing { control, data, turns, queued_bytes, handed_over_bytes } = self;
        control.hand_over(Stream::Control, connection, usize::MAX, queued_bytes, handed_over_bytes)?;
        for _ in 0..turns.len() {
            let room = bytes_max.saturating_sub(handed_over_bytes.load(Relaxed));
            if room == 0 {
                break;
            }
            let Some(stream) = turns.pop_front() else { break };
            let Some(outgoing) = data.get_mut(&stream) else { continue };
            outgoing.hand_over(stream, connection, room, queued_bytes, handed_over_bytes)?;
            if outgoing.has_something() {
                turns.push_back(stream);
                continue;
            }
            outgoing.has_turn = false;
            if outgoing.is_ending {
                // Nobody cares for it any more if the peer does not.
                let _ = outgoing.id.map(|id| connection.send_stream(id).finish());
                data.remove(&stream);
            }
        }
        Ok(())
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.data.is_empty() && self.turns.is_empty() && self.kept_bytes() == 0
    }

    /// Forgets what has not been sent.
    pub fn clear(&mut self) {
        self.control = OutgoingStream::default();
        self.data.clear();
        self.turns.clear();
        self.queued_bytes = 0;
    }
}

impl OutgoingStream {
    fn has_something(&self) -> bool {
        !self.queued.is_empty() || !self.refused.is_empty()
    }

    /// Hands over to QUIC as much as there is `room` for, unless the peer allows no more streams for now.
    fn hand_over(
        &mut self,
        stream: Stream,
        connection: &mut Connection,
        room: usize,
        queued_bytes: &mut usize,
        handed_over_bytes: &Arc<AtomicUsize>,
    ) -> Result<(), StreamError> {
        if !self.has_something() {
            return Ok(());
        }
        let id = match self.id {
            Some(id) => id,
            None => {
                let Some(id) = connection.streams().open(Dir::Uni) else { return Ok(()) };
                self.id = Some(id);
                let preamble = match stream {
                    // The greeting was queued first.
                    Stream::Control => None,
                    Stream::Lane(lane) => Some(Preamble::Lane(lane)),
                    Stream::Channel(channel) => Some(Preamble::Channel(channel)),
                };
                match preamble {
                    Some(preamble) => {
                        self.queued.push_front(Bytes::copy_from_slice(&preamble.encode()));
                        *queued_bytes += PREAMBLE_BYTES;
                    }
                    None => connection.send_stream(id).set_priority(CONTROL_PRIORITY).expect("it is open"),
                }
                id
            }
        };
        let mut bytes = 0;
        while let Some(mut chunk) = self.queued.pop_front_if(|_| bytes < room) {
            if chunk.len() > room - bytes {
                self.queued.push_front(chunk.split_off(room - bytes));
            }
            bytes += chunk.len();
            handed_over_bytes.fetch_add(chunk.len(), Relaxed);
            let bytes = Arc::clone(handed_over_bytes);
            self.refused.push(Bytes::from_owner(HandedOver { chunk, bytes }));
        }
        *queued_bytes -= bytes;
        match connection.send_stream(id).write_chunks(&mut self.refused) {
            Ok(written) => {
                self.refused.drain(..written.chunks);
                Ok(())
            }
            Err(WriteError::Blocked) => Ok(()),
            Err(WriteError::Stopped(_) | WriteError::ClosedStream) => Err(StreamError::Ended(Some(stream))),
        }
    }
}

/// A part of a chunk that counts as handed over until QUIC has no more use for it.
struct HandedOver {
    chunk: Bytes,
    bytes: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for HandedOver {
    fn as_ref(&self) -> &[u8] {
        &self.chunk
    }
}

impl Drop for HandedOver {
    fn drop(&mut self) {
        self.bytes.fetch_sub(self.chunk.len(), Relaxed);
    }
}

/// The streams of the peer.
#[derive(Default)]
pub struct Incoming {
    streams: HashMap<StreamId, IncomingStream>,
    /// Those whose preamble is not complete.
    unnamed: Vec<StreamId>,
    /// What the others are.
    names: HashSet<Stream>,
    /// Those that may have something to read, each once.
    readable: Vec<StreamId>,
    hello: Option<Hello>,
}

struct IncomingStream {
    is_readable: bool,
    preamble: [u8; PREAMBLE_BYTES],
    preamble_bytes: usize,
    /// Which it is, once its preamble is complete.
    stream: Option<Stream>,
}

impl Incoming {
    pub fn open(&mut self, id: StreamId) {
        let stream =
            IncomingStream { is_readable: true, preamble: [0; PREAMBLE_BYTES], preamble_bytes: 0, stream: None };
        self.streams.insert(id, stream);
        self.unnamed.push(id);
        self.readable.push(id);
    }

    pub fn readable(&mut self, id: StreamId) {
        // The peer opens them in ascending order, but for what is reported in one go.
        if let Some(stream) = self.streams.get_mut(&id)
            && !std::mem::replace(&mut stream.is_readable, true)
        {
            self.readable.push(id);
        }
    }

    #[cfg(test)]
    pub fn has_no_channels(&self) -> bool {
        self.streams.len() == 1 && self.names.len() == 1
    }

    /// The peer's greeting, once it has arrived.
    pub fn hello(&self) -> Option<Hello> {
        self.hello
    }

    /// Reads the preambles of new streams.
    ///
    /// # Errors
    /// If one is wrong.
    pub fn read_preambles(&mut self, connection: &mut Connection) -> Result<(), StreamError> {
        let Incoming { streams, unnamed, names, hello, .. } = self;
        let mut outcome = Ok(());
        unnamed.retain(|id| {
            let Some(stream) = streams.get_mut(id) else { return false };
            match stream.read_preamble(connection, *id) {
                Ok(None) => true,
                Ok(Some(preamble)) => {
                    if !names.insert(preamble.stream()) {
                        outcome = Err(StreamError::Twice(preamble.stream()));
                    }
                    if let Preamble::Hello(greeting) = preamble {
                        *hello = Some(greeting);
                    }
                    false
                }
                Err(error) => {
                    outcome = Err(error);
                    false
                }
            }
        });
        outcome
    }

    /// Shows what has arrived of streams whose preamble is known, those that were opened first, first.
    ///
    /// # Errors
    /// If the peer has ended one that is not a channel's own.
    pub fn read(
        &mut self,
        connection: &mut Connection,
        each: &mut dyn FnMut(Stream, &[u8]),
    ) -> Result<(), StreamError> {
        let Incoming { streams, names, readable, .. } = self;
        readable.sort_unstable();
        let mut outcome = Ok(());
        readable.retain(|id| {
            let Some(incoming) = streams.get_mut(id) else { return false };
            // It stays until its preamble is here.
            let Some(stream) = incoming.stream else { return true };
            incoming.is_readable = false;
            match (read(connection, *id, usize::MAX, &mut |bytes| each(stream, bytes)), stream) {
                (Ok(_), _) => {}
                (Err(End::Orderly), Stream::Channel(_)) => {
                    streams.remove(id);
                    names.remove(&stream);
                }
                (Err(_), _) => outcome = Err(StreamError::Ended(Some(stream))),
            }
            false
        });
        outcome
    }
}

impl IncomingStream {
    /// The preamble, once it is complete.
    fn read_preamble(&mut self, connection: &mut Connection, id: StreamId) -> Result<Option<Preamble>, StreamError> {
        while self.preamble_bytes < PREAMBLE_BYTES {
            let missing = &mut self.preamble[self.preamble_bytes..];
            let mut filled = 0;
            let more = read(connection, id, missing.len(), &mut |bytes| {
                missing[..bytes.len()].copy_from_slice(bytes);
                filled = bytes.len();
            });
            self.preamble_bytes += filled;
            if !more.map_err(|_| StreamError::Ended(None))? {
                return Ok(None);
            }
        }
        let preamble = Preamble::decode(self.preamble)?;
        self.stream = Some(preamble.stream());
        Ok(Some(preamble))
    }
}

/// How a stream has ended.
enum End {
    /// After all that was sent.
    Orderly,
    Early,
}

/// Reads chunks: one if `length_max` limits it, else all. Returns whether there may be more.
fn read(
    connection: &mut Connection,
    id: StreamId,
    length_max: usize,
    each: &mut dyn FnMut(&[u8]),
) -> Result<bool, End> {
    let mut receiver = connection.recv_stream(id);
    let Ok(mut chunks) = receiver.read(true) else { return Err(End::Early) };
    let more = loop {
        match chunks.next(length_max) {
            Ok(Some(chunk)) => each(&chunk.bytes),
            Err(ReadError::Blocked) => break Ok(false),
            Ok(None) => break Err(End::Orderly),
            Err(ReadError::Reset(_)) => break Err(End::Early),
        }
        if length_max != usize::MAX {
            break Ok(true);
        }
    };
    // Whether it has something to send does not matter: `transmit` always follows.
    let _ = chunks.finalize();
    more
}
