//! What two workers say to each other: frames, the same over every transport. Described in `docs/wire-protocol.md`.
//!
//! A frame is a header of 12 bytes and a payload. Data frames travel on lanes; all others on the control stream. Nothing
//! here allocates by what a peer claims: payloads of messages are limited, and those of data go straight into segments
//! that were granted.
//!
//! | Look here for | module |
//! |---|---|
//! | frames out of a stream's bytes, however they are cut | [`decoder`] |
//! | what control frames say | [`message`] |

pub mod decoder;
pub mod message;

/// The version that both ends of a connection must have.
pub const PROTOCOL_VERSION: u16 = 2;

/// Length of a frame's header.
pub const HEADER_BYTES: usize = 12;

/// The most that the payload of a frame other than data may have.
pub const MESSAGE_BYTES_MAX: u32 = 16 << 20;

/// In the flags of a data frame: its payload is the start of a new segment.
const OPENS_SEGMENT: u8 = 1;

/// In the flags of a data frame: nothing more follows in its segment.
const ENDS_SEGMENT: u8 = 2;

/// What a frame is. The numbers are the protocol's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    Data = 0,
    Hello = 1,
    Open = 2,
    Refused = 3,
    Grant = 4,
    Close = 5,
    Event = 6,
    Backlog = 7,
}

impl Kind {
    const ALL: [Kind; 8] =
        [Kind::Data, Kind::Hello, Kind::Open, Kind::Refused, Kind::Grant, Kind::Close, Kind::Event, Kind::Backlog];

    /// Whether the header names a channel. What Open is about is in its payload, with all else that it says of it.
    fn is_about_a_channel(self) -> bool {
        match self {
            Kind::Data | Kind::Refused | Kind::Grant | Kind::Close | Kind::Backlog => true,
            Kind::Hello | Kind::Open | Kind::Event => false,
        }
    }
}

/// The start of a frame: kind (1 byte), flags (1), zero (2), channel (4), length of the payload (4), little-endian.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    pub kind: Kind,
    /// Data only: whether the payload is the start of a new segment, which costs credit.
    pub opens_segment: bool,
    /// Data only: whether its segment is complete with it. The next frame that opens a segment says so, too.
    pub ends_segment: bool,
    /// As numbered by the channel's receiver; 0 where a frame is about no channel.
    pub channel: u32,
    /// Bytes of payload that follow.
    pub length: u32,
}

/// Bytes that are no frame of this protocol: the connection cannot go on.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Malformed {
    #[error("frame kind {0} is unknown")]
    UnknownKind(u8),
    #[error("flags {flags:#x} of a {kind:?} frame are unknown")]
    UnknownFlags { kind: Kind, flags: u8 },
    #[error("bytes 2 and 3 of a {kind:?} frame are {bytes:02x?}, and not zero")]
    NotZero { kind: Kind, bytes: [u8; 2] },
    #[error("a {kind:?} frame names channel {channel}, and is about no channel")]
    NoChannel { kind: Kind, channel: u32 },
    #[error("a {kind:?} frame has {length} bytes, more than {max}")]
    TooLong { kind: Kind, length: u32, max: u32 },
    #[error("a data frame has {0} bytes, which is no multiple of 8, or none without ending its segment")]
    Uneven(u32),
    #[error("the payload of a {kind:?} frame cannot be read: {cause}")]
    Payload { kind: Kind, cause: String },
    #[error(
        "the peer speaks version {0} of the shuffle's protocol, this side speaks {PROTOCOL_VERSION}: run both from the same release"
    )]
    OtherVersion(u16),
    #[error("a {0:?} frame came on a lane, or a data frame on the control stream")]
    WrongStream(Kind),
}

impl Header {
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0] = self.kind as u8;
        bytes[1] =
            if self.opens_segment { OPENS_SEGMENT } else { 0 } | if self.ends_segment { ENDS_SEGMENT } else { 0 };
        bytes[4..8].copy_from_slice(&self.channel.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.length.to_le_bytes());
        bytes
    }

    /// # Errors
    /// If no peer of this version would write these bytes.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Header, Malformed> {
        let [kind, flags, z0, z1, c0, c1, c2, c3, l0, l1, l2, l3] = *bytes;
        let kind = *Kind::ALL.get(usize::from(kind)).ok_or(Malformed::UnknownKind(kind))?;
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let known = if kind == Kind::Data { OPENS_SEGMENT | ENDS_SEGMENT } else { 0 };
        if flags & !known != 0 {
            return Err(Malformed::UnknownFlags { kind, flags });
        }
        if [z0, z1] != [0, 0] {
            return Err(Malformed::NotZero { kind, bytes: [z0, z1] });
        }
        let (opens_segment, ends_segment) = (flags & OPENS_SEGMENT != 0, flags & ENDS_SEGMENT != 0);
        let is_empty = length == 0 && (opens_segment || !ends_segment);
        if kind == Kind::Data && (is_empty || !length.is_multiple_of(8)) {
            return Err(Malformed::Uneven(length));
        }
        if kind != Kind::Data && length > MESSAGE_BYTES_MAX {
            return Err(Malformed::TooLong { kind, length, max: MESSAGE_BYTES_MAX });
        }
        let channel = u32::from_le_bytes([c0, c1, c2, c3]);
        if channel != 0 && !kind.is_about_a_channel() {
            return Err(Malformed::NoChannel { kind, channel });
        }
        Ok(Header { kind, opens_segment, ends_segment, channel, length })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_its_bytes() {
        for kind in Kind::ALL {
            for (opens_segment, ends_segment) in [(false, false), (true, false), (false, true), (true, true)] {
                if kind != Kind::Data && (opens_segment || ends_segment) {
                    continue;
                }
                let channel = if kind.is_about_a_channel() { 0x0102_0304 } else { 0 };
                let header = Header { kind, opens_segment, ends_segment, channel, length: 0x0010_2030 & !7 };
                assert_eq!(Header::decode(&header.encode()), Ok(header));
            }
        }
        // The layout itself, as docs/wire-protocol.md has it.
        let header = Header { kind: Kind::Data, opens_segment: true, ends_segment: false, channel: 7, length: 256 };
        assert_eq!(header.encode(), [0, 1, 0, 0, 7, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn what_no_peer_writes_is_refused() {
        let refused = |bytes: [u8; 12]| Header::decode(&bytes).unwrap_err();
        assert_eq!(refused([9, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0]), Malformed::UnknownKind(9));
        assert!(matches!(refused([0, 4, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0]), Malformed::UnknownFlags { flags: 4, .. }));
        assert!(matches!(refused([4, 1, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0]), Malformed::UnknownFlags { flags: 1, .. }));
        for (kind, bytes) in
            [(Kind::Data, [1, 0]), (Kind::Data, [0, 0x80]), (Kind::Grant, [0, 1]), (Kind::Hello, [9, 9])]
        {
            let header = [kind as u8, 0, bytes[0], bytes[1], 0, 0, 0, 0, 16, 0, 0, 0];
            assert_eq!(refused(header), Malformed::NotZero { kind, bytes });
        }
        for kind in [Kind::Hello, Kind::Open, Kind::Event] {
            let header = [kind as u8, 0, 0, 0, 7, 0, 0, 0, 16, 0, 0, 0];
            assert_eq!(refused(header), Malformed::NoChannel { kind, channel: 7 });
        }
        assert_eq!(refused([0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0]), Malformed::Uneven(7));
        assert_eq!(refused([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Malformed::Uneven(0));
        assert_eq!(refused([0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Malformed::Uneven(0));
        assert!(Header::decode(&[0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).is_ok());
        assert!(matches!(refused([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]), Malformed::TooLong { .. }));
    }
}
