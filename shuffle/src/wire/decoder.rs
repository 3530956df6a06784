//! Frames out of the bytes of one stream, however the transport cuts them.

use millstream_model::id::WorkerId;

use super::{HEADER_BYTES, Header, Kind, Malformed, message::Message};

/// What receives the frames of a stream.
pub trait FrameSink {
    type Error: From<Malformed>;

    /// A data frame begins; its bytes follow.
    ///
    /// # Errors
    /// If the frame breaks the rules of its channel.
    fn data_begins(&mut self, header: Header) -> Result<(), Self::Error>;

    /// The next bytes of the data frame that has begun last.
    fn data(&mut self, channel: u32, bytes: &[u8]);

    fn data_ends(&mut self, channel: u32);

    /// # Errors
    /// If the message is not allowed now.
    fn message(&mut self, message: Message) -> Result<(), Self::Error>;
}

/// The state between two pieces of one stream.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The bytes of a header that is not whole, or of a message's payload.
    partial: Vec<u8>,
    /// The frame whose payload is under way, and how much of it is missing.
    current: Option<(Header, usize)>,
}

impl Decoder {
    /// Takes in the next bytes of a stream. `is_control` says which frames may come on it.
    ///
    /// # Errors
    /// If they are no frames, or the sink refuses one. Nothing more may be fed after an error.
    pub fn feed<S: FrameSink>(&mut self, mut bytes: &[u8], is_control: bool, sink: &mut S) -> Result<(), S::Error> {
        loop {
            let Some((header, missing)) = self.current else {
                match self.header(&mut bytes)? {
                    None => return Ok(()),
                    Some(header) if (header.kind == Kind::Data) == is_control => {
                        return Err(Malformed::WrongStream(header.kind).into());
                    }
                    Some(header) => {
                        if header.kind == Kind::Data {
                            sink.data_begins(header)?;
                        }
                        self.current = Some((header, header.length as usize));
                        continue;
                    }
                }
            };
            let piece = bytes.split_off(..missing.min(bytes.len())).expect("no more than there is");
            let missing = missing - piece.len();
            self.current = Some((header, missing));
            if header.kind == Kind::Data {
                sink.data(header.channel, piece);
                if missing > 0 {
                    return Ok(());
                }
                sink.data_ends(header.channel);
            } else if missing > 0 {
                self.partial.extend_from_slice(piece);
                return Ok(());
            } else if self.partial.is_empty() {
                sink.message(Message::decode(header, piece)?)?;
            } else {
                self.partial.extend_from_slice(piece);
                let payload = std::mem::take(&mut self.partial);
                sink.message(Message::decode(header, &payload)?)?;
            }
            self.current = None;
        }
    }

    /// The next header, if all of it is there.
    fn header(&mut self, bytes: &mut &[u8]) -> Result<Option<Header>, Malformed> {
        if self.partial.is_empty()
            && let Some(header) = bytes.first_chunk::<HEADER_BYTES>()
        {
            *bytes = &bytes[HEADER_BYTES..];
            return Header::decode(header).map(Some);
        }
        let piece = bytes.split_off(..(HEADER_BYTES - self.partial.len()).min(bytes.len()));
        self.partial.extend_from_slice(piece.expect("no more than there is"));
        let Some(header) = self.partial.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let header = Header::decode(header);
        self.partial.clear();
        header.map(Some)
    }
}

/// The most that a greeting may have.
const HELLO_BYTES_MAX: u32 = 256;

/// Who a peer says it is, by the first frame of its control stream; `None` if not all of it is there.
///
/// # Errors
/// If its first frame is no greeting.
pub fn introduction(bytes: &[u8]) -> Result<Option<WorkerId>, Malformed> {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let header = Header::decode(header)?;
    if header.kind != Kind::Hello {
        return Err(Malformed::WrongStream(header.kind));
    }
    if header.length > HELLO_BYTES_MAX {
        return Err(Malformed::TooLong { kind: header.kind, length: header.length, max: HELLO_BYTES_MAX });
    }
    let Some(payload) = bytes[HEADER_BYTES..].get(..header.length as usize) else { return Ok(None) };
    match Message::decode(header, payload)? {
        Message::Hello(hello) => Ok(Some(hello.worker)),
        _ => Err(Malformed::WrongStream(header.kind)),
    }
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, BytesMut};
    use millstream_model::id::{JobId, WorkerId};

    use super::*;
    use crate::{
        credit::{Backlog, Grant},
        wire::{PROTOCOL_VERSION, message::Hello},
    };

    #[derive(Default, PartialEq, Debug)]
    struct Seen {
        messages: Vec<Message>,
        data: Vec<(u32, Vec<u8>)>,
        ended: usize,
    }

    impl FrameSink for Seen {
        type Error = Malformed;
        fn data_begins(&mut self, header: Header) -> Result<(), Malformed> {
            self.data.push((header.channel, Vec::new()));
            Ok(())
        }
        fn data(&mut self, channel: u32, bytes: &[u8]) {
            let last = self.data.last_mut().unwrap();
            assert_eq!(last.0, channel);
            last.1.extend_from_slice(bytes);
        }
        fn data_ends(&mut self, _: u32) {
            self.ended += 1;
        }
        fn message(&mut self, message: Message) -> Result<(), Malformed> {
            self.messages.push(message);
            Ok(())
        }
    }

    fn feed(bytes: &[u8], cuts: usize, is_control: bool) -> Result<Seen, Malformed> {
        let (mut decoder, mut seen) = (Decoder::default(), Seen::default());
        bytes.chunks(cuts).try_for_each(|piece| decoder.feed(piece, is_control, &mut seen))?;
        Ok(seen)
    }

    #[test]
    fn frames_are_the_same_however_the_stream_is_cut() {
        let messages = vec![
            Message::Hello(Hello { version: PROTOCOL_VERSION, job: JobId(7), worker: WorkerId(3) }),
            Message::Grant { channel: 5, total: Grant(1 << 40), share: 7 },
            Message::Backlog { channel: 5, total: Backlog(u64::MAX) },
            Message::Close { channel: 9 },
            Message::Refused { channel: 2, reason: "no".to_owned() },
        ];
        let mut control = BytesMut::new();
        messages.iter().for_each(|message| message.encode(&mut control));
        let mut lane = BytesMut::new();
        let data: Vec<(u32, Vec<u8>)> = (1..20_u32).map(|n| (n, vec![n as u8; n as usize * 8])).collect();
        for (channel, bytes) in &data {
            let header = Header {
                kind: Kind::Data,
                opens_segment: true,
                ends_segment: false,
                channel: *channel,
                length: bytes.len() as u32,
            };
            lane.put_slice(&header.encode());
            lane.put_slice(bytes);
        }
        for cuts in (1..60).chain([control.len(), lane.len()]) {
            assert_eq!(feed(&control, cuts, true).unwrap().messages, messages, "cut at {cuts}");
            let seen = feed(&lane, cuts, false).unwrap();
            assert_eq!((seen.data, seen.ended), (data.clone(), 19), "cut at {cuts}");
        }
    }

    #[test]
    fn frames_on_the_wrong_stream_are_refused() {
        let mut bytes = BytesMut::new();
        Message::Close { channel: 9 }.encode(&mut bytes);
        assert_eq!(feed(&bytes, 100, false), Err(Malformed::WrongStream(Kind::Close)));
        let header = Header { kind: Kind::Data, opens_segment: false, ends_segment: false, channel: 0, length: 8 };
        assert_eq!(feed(&header.encode(), 5, true), Err(Malformed::WrongStream(Kind::Data)));
    }

    #[test]
    fn totals_of_another_length_are_refused() {
        for (kind, expected) in [(Kind::Grant, 16), (Kind::Backlog, 8)] {
            for length in [0, 7, 9, 15, 17, 24] {
                let header = Header { kind, opens_segment: false, ends_segment: false, channel: 3, length };
                let bytes = [&header.encode()[..], &vec![0; length as usize]].concat();
                let cause = format!("{expected} bytes were expected");
                assert_eq!(feed(&bytes, 5, true), Err(Malformed::Payload { kind, cause }));
            }
        }
    }

    #[test]
    fn random_bytes_never_panic() {
        // Marsaglia's xorshift64.
        let mut state = 0x1234_5678_9abc_def1_u64;
        for round in 0..20_000 {
            let mut bytes = Vec::new();
            for _ in 0..round % 90 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                // Small numbers often, so that some frames are well-formed.
                bytes.push(if state & 0x300 == 0 { state as u8 } else { state as u8 % 9 });
            }
            for is_control in [true, false] {
                let _ = feed(&bytes, 1 + round % 13, is_control);
            }
        }
    }
}
