//! What control frames say, as bytes and back.

use bytes::{BufMut, BytesMut};
use millstream_model::{
    deployment::ChannelToken,
    id::{CheckpointId, Generation, JobId, OperatorId, WorkerId},
    job_graph::Codec,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{HEADER_BYTES, Header, Kind, Malformed, PROTOCOL_VERSION};
use crate::credit::{Backlog, Grant};

/// The first message of each side.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// Of this protocol. First, so that it can be read whatever follows.
    pub version: u16,
    pub job: JobId,
    pub worker: WorkerId,
}

/// The two ends of a channel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct ChannelKey {
    /// An index into the edges of the job graph.
    pub edge: u32,
    /// Index of the producing subtask.
    pub producer: u32,
    /// Index of the consuming subtask.
    pub consumer: u32,
}

/// A receiver asks for the records of a channel.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Open {
    /// How the receiver calls the channel from now on; never used again on this connection.
    pub channel: u32,
    pub generation: Generation,
    pub token: ChannelToken,
    pub key: ChannelKey,
    pub codec: Codec,
    /// The size of the segments at the receiver, which the sender's must have, too.
    pub segment_bytes: u32,
    pub granted: Grant,
    /// The receiver grants one segment at a time, and takes each frame for a whole one.
    pub is_lent: bool,
}

/// Something that an operator's coordinator and its subtasks say to each other.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CoordinatorEvent {
    pub generation: Generation,
    pub operator: OperatorId,
    pub subtask: u32,
    pub direction: Direction,
    pub bytes: Vec<u8>,
}

/// Who speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Direction {
    ToCoordinator,
    /// The subtask may see it only behind the barrier of `after`, the newest checkpoint that the coordinator has
    /// contributed to.
    ToSubtask {
        after: CheckpointId,
    },
    /// To the worker of subtasks: the coordinator has contributed to this checkpoint. All that it sent before is on the
    /// way before this, so that barriers which wait for it come after all of that.
    Snapshotted {
        checkpoint: CheckpointId,
    },
}

/// One control frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    Hello(Hello),
    Open(Open),
    /// The sender of a channel will not serve it.
    Refused {
        channel: u32,
        reason: String,
    },
    /// The sender of a channel may use this much room in all.
    Grant {
        channel: u32,
        total: Grant,
        /// How many bytes the sender should keep in front of the connection.
        share: u64,
    },
    /// The sender of a channel could use this much room in all.
    Backlog {
        channel: u32,
        total: Backlog,
    },
    /// The receiver of a channel reads no more of it. What is under way is thrown away.
    Close {
        channel: u32,
    },
    Event(CoordinatorEvent),
}

impl Message {
    /// Appends the frame.
    pub fn encode(&self, out: &mut BytesMut) {
        let start = out.len();
        out.put_bytes(0, HEADER_BYTES);
        let (kind, channel) = match self {
            Message::Hello(hello) => (Kind::Hello, write(hello, out)),
            Message::Open(open) => (Kind::Open, write(open, out)),
            Message::Refused { channel, reason } => {
                out.put_slice(reason.as_bytes());
                (Kind::Refused, *channel)
            }
            Message::Grant { channel, total, share } => {
                out.put_u64_le(total.0);
                out.put_u64_le(*share);
                (Kind::Grant, *channel)
            }
            Message::Backlog { channel, total } => {
                out.put_u64_le(total.0);
                (Kind::Backlog, *channel)
            }
            Message::Close { channel } => (Kind::Close, *channel),
            Message::Event(event) => (Kind::Event, write(event, out)),
        };
        let length = (out.len() - start - HEADER_BYTES) as u32;
        let header = Header { kind, opens_segment: false, ends_segment: false, channel, length };
        out[start..start + HEADER_BYTES].copy_from_slice(&header.encode());
    }

    /// Reads the payload of a control frame.
    ///
    /// # Errors
    /// If it says nothing that this version knows.
    pub fn decode(header: Header, payload: &[u8]) -> Result<Message, Malformed> {
        let Header { kind, channel, .. } = header;
        Ok(match kind {
            Kind::Data => return Err(Malformed::WrongStream(kind)),
            Kind::Hello => {
                // What follows the version may be anything in another one.
                let version = postcard::take_from_bytes::<u16>(payload).map(|(version, _)| version);
                match version {
                    Ok(PROTOCOL_VERSION) => Message::Hello(read(kind, payload)?),
                    Ok(theirs) => return Err(Malformed::OtherVersion(theirs)),
                    Err(cause) => return Err(malformed(kind, &cause.to_string())),
                }
            }
            Kind::Open => Message::Open(read(kind, payload)?),
            Kind::Refused => Message::Refused { channel, reason: String::from_utf8_lossy(payload).into_owned() },
            Kind::Grant => {
                let [total, share] = numbers(kind, payload)?;
                Message::Grant { channel, total: Grant(total), share }
            }
            Kind::Backlog => {
                let [total] = numbers(kind, payload)?;
                Message::Backlog { channel, total: Backlog(total) }
            }
            Kind::Close if payload.is_empty() => Message::Close { channel },
            Kind::Close => return Err(malformed(kind, "nothing was expected")),
            Kind::Event => Message::Event(read(kind, payload)?),
        })
    }
}

/// Appends a message; it is about no channel.
fn write(message: &impl Serialize, out: &mut BytesMut) -> u32 {
    let bytes = postcard::to_stdvec(message).expect("messages have no part that cannot be written");
    out.put_slice(&bytes);
    0
}

fn read<T: DeserializeOwned>(kind: Kind, payload: &[u8]) -> Result<T, Malformed> {
    match postcard::take_from_bytes(payload) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => Err(malformed(kind, &format!("{} bytes are left over", rest.len()))),
        Err(cause) => Err(malformed(kind, &cause.to_string())),
    }
}

fn numbers<const N: usize>(kind: Kind, payload: &[u8]) -> Result<[u64; N], Malformed> {
    match payload.as_chunks::<8>() {
        (numbers, []) if numbers.len() == N => Ok(std::array::from_fn(|index| u64::from_le_bytes(numbers[index]))),
        _ => Err(malformed(kind, &format!("{} bytes were expected", 8 * N))),
    }
}

fn malformed(kind: Kind, cause: &str) -> Malformed {
    Malformed::Payload { kind, cause: cause.to_owned() }
}
