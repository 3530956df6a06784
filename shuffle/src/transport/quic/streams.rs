//! Which bytes belong to which stream: ours as they are written, the peer's as they arrive.

use std::{
    collections::VecDeque,
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
pub struct Outgoing {
    /// The control stream, then the lanes.
    streams: Vec<OutgoingStream>,
    /// Bytes in the queues of all streams.
    queued_bytes: usize,
    /// Bytes handed over, until they are acknowledged: lowered by each part of a chunk as it is dropped.
    handed_over_bytes: Arc<AtomicUsize>,
    /// Whose turn it is.
    first_lane: usize,
}

#[derive(Default)]
struct OutgoingStream {
    id: Option<StreamId>,
    queued: VecDeque<Bytes>,
    /// Handed over, but QUIC's own flow control has not taken it yet; most often there is none.
    refused: Vec<Bytes>,
}

impl Outgoing {
    pub fn new(lanes: u8) -> Self {
        let streams = (0..=usize::from(lanes)).map(|_| OutgoingStream::default()).collect();
        Outgoing { streams, queued_bytes: 0, handed_over_bytes: Arc::default(), first_lane: 0 }
    }

    /// Bytes that were written and are queued, under way, or not yet acknowledged.
    pub fn kept_bytes(&self) -> usize {
        self.queued_bytes + self.handed_over_bytes.load(Relaxed)
    }

    /// # Panics
    /// If there is no such lane.
    pub fn write(&mut self, stream: Stream, batch: Batch) {
        self.queued_bytes += batch.bytes;
        let queued = &mut self.streams[index(stream)].queued;
        batch.join(|chunk| queued.push_back(chunk));
    }

    /// Queues the greeting, which opens the control stream.
    pub fn greet(&mut self, hello: Hello) {
        self.streams[0].queued.push_front(Bytes::copy_from_slice(&Preamble::Hello(hello).encode()));
        self.queued_bytes += PREAMBLE_BYTES;
    }

    /// Hands over to QUIC: control in any case, lanes as long as less than `bytes_max` is not acknowledged.
    ///
    /// # Errors
    /// If the peer does not want a stream.
    pub fn flush(&mut self, connection: &mut Connection, bytes_max: usize) -> Result<(), StreamError> {
        self.flush_stream(0, connection, usize::MAX)?;
        let lanes = self.streams.len() - 1;
        for lane in 0..lanes {
            let room = bytes_max.saturating_sub(self.handed_over_bytes.load(Relaxed));
            if room == 0 {
                // The next turn begins where this one ends.
                self.first_lane = (self.first_lane + lane) % lanes;
                break;
            }
            self.flush_stream(1 + (self.first_lane + lane) % lanes, connection, room)?;
        }
        Ok(())
    }

    fn flush_stream(&mut self, index: usize, connection: &mut Connection, room: usize) -> Result<(), StreamError> {
        let stream = &mut self.streams[index];
        if stream.queued.is_empty() && stream.refused.is_empty() {
            return Ok(());
        }
        let id = match stream.id {
            Some(id) => id,
            None => {
                let Some(id) = connection.streams().open(Dir::Uni) else { return Ok(()) };
                stream.id = Some(id);
                match stream_at(index) {
                    Stream::Lane(lane) => {
                        stream.queued.push_front(Bytes::copy_from_slice(&Preamble::Lane(lane).encode()));
                        self.queued_bytes += PREAMBLE_BYTES;
                    }
                    // The greeting was queued first.
                    Stream::Control => connection.send_stream(id).set_priority(CONTROL_PRIORITY).expect("it is open"),
                }
                id
            }
        };
        let mut bytes = 0;
        while let Some(mut chunk) = stream.queued.pop_front_if(|_| bytes < room) {
            if chunk.len() > room - bytes {
                stream.queued.push_front(chunk.split_off(room - bytes));
            }
            bytes += chunk.len();
            self.handed_over_bytes.fetch_add(chunk.len(), Relaxed);
            let bytes = Arc::clone(&self.handed_over_bytes);
            stream.refused.push(Bytes::from_owner(HandedOver { chunk, bytes }));
        }
        self.queued_bytes -= bytes;
        match connection.send_stream(id).write_chunks(&mut stream.refused) {
            Ok(written) => {
                stream.refused.drain(..written.chunks);
                Ok(())
            }
            Err(WriteError::Blocked) => Ok(()),
            Err(WriteError::Stopped(_) | WriteError::ClosedStream) => Err(StreamError::Ended(Some(stream_at(index)))),
        }
    }

    /// Forgets what has not been sent.
    pub fn clear(&mut self) {
        for stream in &mut self.streams {
            stream.queued.clear();
            stream.refused.clear();
        }
        self.queued_bytes = 0;
    }
}

fn index(stream: Stream) -> usize {
    match stream {
        Stream::Control => 0,
        Stream::Lane(lane) => usize::from(lane) + 1,
    }
}

fn stream_at(index: usize) -> Stream {
    match u8::try_from(index.wrapping_sub(1)) {
        Ok(lane) => Stream::Lane(lane),
        Err(_) => Stream::Control,
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
    streams: Vec<IncomingStream>,
    hello: Option<Hello>,
}

struct IncomingStream {
    id: StreamId,
    readable: bool,
    preamble: [u8; PREAMBLE_BYTES],
    preamble_bytes: usize,
    /// Which it is, once its preamble is complete.
    stream: Option<Stream>,
}

impl Incoming {
    pub fn open(&mut self, id: StreamId) {
        self.streams.push(IncomingStream {
            id,
            readable: true,
            preamble: [0; PREAMBLE_BYTES],
            preamble_bytes: 0,
            stream: None,
        });
    }

    pub fn readable(&mut self, id: StreamId) {
        // The peer opens them in ascending order, but for what is reported in one go.
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.id == id) {
            stream.readable = true;
        }
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
        for index in 0..self.streams.len() {
            let stream = &mut self.streams[index];
            if !stream.readable || stream.stream.is_some() {
                continue;
            }
            while stream.preamble_bytes < PREAMBLE_BYTES {
                let missing = &mut stream.preamble[stream.preamble_bytes..];
                let mut filled = 0;
                let more = read(connection, stream.id, None, missing.len(), &mut |bytes| {
                    missing[..bytes.len()].copy_from_slice(bytes);
                    filled = bytes.len();
                })?;
                stream.preamble_bytes += filled;
                if !more {
                    stream.readable = false;
                    break;
                }
            }
            if stream.preamble_bytes < PREAMBLE_BYTES {
                continue;
            }
            let preamble = Preamble::decode(stream.preamble)?;
            let which = preamble.stream();
            if self.streams.iter().any(|other| other.stream == Some(which)) {
                return Err(StreamError::Twice(which));
            }
            self.streams[index].stream = Some(which);
            if let Preamble::Hello(hello) = preamble {
                self.hello = Some(hello);
            }
        }
        Ok(())
    }

    /// Shows what has arrived of streams whose preamble is known.
    ///
    /// # Errors
    /// If the peer has ended one.
    pub fn read(
        &mut self,
        connection: &mut Connection,
        each: &mut dyn FnMut(Stream, &[u8]),
    ) -> Result<(), StreamError> {
        for incoming in &mut self.streams {
            let Some(stream) = incoming.stream else { continue };
            while incoming.readable {
                incoming.readable =
                    read(connection, incoming.id, Some(stream), usize::MAX, &mut |bytes| each(stream, bytes))?;
            }
        }
        Ok(())
    }
}

/// Reads chunks: one if `length_max` limits it, else all. Returns whether there may be more.
fn read(
    connection: &mut Connection,
    id: StreamId,
    stream: Option<Stream>,
    length_max: usize,
    each: &mut dyn FnMut(&[u8]),
) -> Result<bool, StreamError> {
    let mut receiver = connection.recv_stream(id);
    let Ok(mut chunks) = receiver.read(true) else { return Err(StreamError::Ended(stream)) };
    let more = loop {
        match chunks.next(length_max) {
            Ok(Some(chunk)) => each(&chunk.bytes),
            Err(ReadError::Blocked) => break Ok(false),
            Ok(None) | Err(ReadError::Reset(_)) => break Err(StreamError::Ended(stream)),
        }
        if length_max != usize::MAX {
            break Ok(true);
        }
    };
    // Whether it has something to send does not matter: `transmit` always follows.
    let _ = chunks.finalize();
    more
}
