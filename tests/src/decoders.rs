//! Everything that reads bytes from outside, behind one face: bytes in, what was understood out, as a line of text. For
//! the corpus (`tests/corpus`, replayed by `it/decoder_corpus.rs`) and for the mutation runner.
//!
//! | Look here for | module |
//! |---|---|
//! | how each decoder is driven | this one |
//! | the well-formed and the malformed inputs of the corpus | [`samples`] |
//! | inputs that are like those, but not quite | [`mutation`] |

use std::{fmt::Debug, path::Path};

use bytes::BytesMut;
use millstream::{
    model::{
        log::{LogForm, Parser},
        message::{FromWorker, ToWorker},
    },
    worker_process::WorkerSetup,
};
use millstream_api::{
    Record,
    frame::{self, Other},
    record::archive::{self, Aligned, Trust},
};
use millstream_shuffle::{
    transport::{
        hello::{PREAMBLE_BYTES, Preamble},
        tcp::mux::Incoming,
    },
    wire::{
        Header, Malformed,
        decoder::{Decoder as FrameDecoder, FrameSink, introduction},
        message::Message,
    },
};
use millstream_storage::{SnapshotReader, metadata};
use serde::{Serialize, de::DeserializeOwned};

pub mod mutation;
pub mod samples;

/// Something that reads bytes from outside.
pub struct Decoder {
    /// Also the folder of its corpus.
    pub name: &'static str,
    /// What it makes of the bytes, on one line: what was understood, and the error if there was one.
    ///
    /// # Panics
    /// If the decoder does, or if what it says contradicts itself.
    pub outcome: fn(&[u8]) -> String,
}

/// All of them.
pub const DECODERS: [Decoder; 11] = [
    Decoder { name: "control-stream", outcome: |bytes| stream(bytes, true) },
    Decoder { name: "lane", outcome: |bytes| stream(bytes, false) },
    Decoder { name: "introduction", outcome: |bytes| line(introduction(bytes)) },
    Decoder { name: "preamble", outcome: preamble },
    Decoder { name: "tcp-pieces", outcome: tcp_pieces },
    Decoder { name: "elements", outcome: elements },
    Decoder { name: "worker-setup", outcome: json_line::<WorkerSetup> },
    Decoder { name: "to-worker", outcome: json_line::<ToWorker> },
    Decoder { name: "report", outcome: json_line::<FromWorker> },
    Decoder { name: "checkpoint-file", outcome: checkpoint_file },
    Decoder { name: "log-lines", outcome: log_lines },
];

fn line<T: Debug, E: std::fmt::Display>(result: Result<T, E>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(cause) => format!("error: {cause}"),
    }
}

/// Keeps what a stream of frames says.
#[derive(Default, PartialEq, Debug)]
struct Frames {
    messages: Vec<Message>,
    /// Of each data frame: channel, whether it opens a segment, and its bytes.
    data: Vec<(u32, bool, Vec<u8>)>,
    whole: usize,
}

impl FrameSink for Frames {
    type Error = Malformed;

    fn data_begins(&mut self, header: Header) -> Result<(), Malformed> {
        self.data.push((header.channel, header.opens_segment, Vec::new()));
        Ok(())
    }

    fn data(&mut self, channel: u32, bytes: &[u8]) {
        let last = self.data.last_mut().expect("data comes after its beginning");
        assert_eq!(last.0, channel, "data comes within its frame");
        last.2.extend_from_slice(bytes);
    }

    fn data_ends(&mut self, _: u32) {
        self.whole += 1;
    }

    fn message(&mut self, message: Message) -> Result<(), Malformed> {
        self.messages.push(message);
        Ok(())
    }
}

fn frames(bytes: &[u8], cut: usize, is_control: bool) -> (Frames, Result<(), Malformed>) {
    let (mut decoder, mut frames) = (FrameDecoder::default(), Frames::default());
    let fed = bytes.chunks(cut).try_for_each(|piece| decoder.feed(piece, is_control, &mut frames));
    (frames, fed)
}

fn stream(bytes: &[u8], is_control: bool) -> String {
    let (seen, fed) = frames(bytes, bytes.len().max(1), is_control);
    for cut in [1, 7, 64] {
        let (other, other_fed) = frames(bytes, cut, is_control);
        assert_eq!(
            (&seen, &fed),
            (&other, &other_fed),
            "a stream means the same however it is cut; pieces of {cut} bytes"
        );
    }
    let mut again = BytesMut::new();
    seen.messages.iter().for_each(|message| message.encode(&mut again));
    assert_eq!(frames(&again, 64, true).0.messages, seen.messages, "what was understood can be said again");
    let data = seen.data.iter().map(|(channel, opens, bytes)| {
        format!("data of {} bytes for channel {channel}{}", bytes.len(), if *opens { ", a new segment" } else { "" })
    });
    let mut parts: Vec<String> = seen.messages.iter().map(|message| format!("{message:?}")).chain(data).collect();
    parts.push(format!("{} data frames are whole", seen.whole));
    parts.extend(fed.err().map(|cause| format!("error: {cause}")));
    parts.join("; ")
}

fn preamble(bytes: &[u8]) -> String {
    let Some(bytes) = bytes.first_chunk::<PREAMBLE_BYTES>() else { return "too short, waits for more".to_owned() };
    let decoded = Preamble::decode(*bytes);
    if let Ok(preamble) = decoded {
        assert_eq!(preamble.encode(), *bytes, "a preamble has one form");
    }
    line(decoded)
}

fn tcp_pieces(bytes: &[u8]) -> String {
    let feed = |cut: usize| {
        let (mut incoming, mut seen) = (Incoming::default(), Vec::<(String, Vec<u8>)>::new());
        let fed = bytes.chunks(cut).try_for_each(|part| {
            let taken = incoming.feed(part, false, &mut |stream, bytes| {
                let stream = format!("{stream:?}");
                match seen.last_mut() {
                    Some((last, all)) if *last == stream => all.extend_from_slice(bytes),
                    _ => seen.push((stream, bytes.to_vec())),
                }
            });
            taken.map(drop).map_err(|cause| format!("error: {cause}"))
        });
        (incoming.hello(), incoming.reason().map(str::to_owned), seen, fed)
    };
    let whole = feed(bytes.len().max(1));
    for cut in [1, 7, 64] {
        assert_eq!(whole, feed(cut), "pieces mean the same however they are cut; {cut} bytes at a time");
    }
    let (hello, reason, seen, fed) = whole;
    let seen: Vec<String> = seen.iter().map(|(stream, bytes)| format!("{} bytes of {stream}", bytes.len())).collect();
    let error = fed.err().unwrap_or_else(|| "no error".to_owned());
    format!("hello {hello:?}; {}; reason {reason:?}; {error}", seen.join(", "))
}

/// A record with parts of every kind of layout: out of line, optional, nested.
type Sample = (String, u64, Option<Vec<(u32, String)>>);

/// What a task reads in a segment of another process: never trusted before it was validated.
fn elements(bytes: &[u8]) -> String {
    let aligned = Aligned::copy_of(bytes);
    let (mut rest, mut parts) = (aligned.as_slice(), Vec::new());
    while !rest.is_empty() {
        let (part, end) = match element(rest) {
            Ok(element) => element,
            Err(cause) => {
                parts.push(format!("error: {cause}"));
                break;
            }
        };
        parts.push(part);
        rest = rest.get(end..).unwrap_or_default();
    }
    without_addresses(&parts.join("; "))
}

/// Some errors name places in memory, which are others each time.
fn without_addresses(text: &str) -> String {
    let mut parts = text.split("0x");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + "0x…" + part.trim_start_matches(|letter: char| letter.is_ascii_hexdigit()))
}

fn element(bytes: &[u8]) -> Result<(String, usize), String> {
    if let Some(frame) = frame::read_record(bytes).map_err(|cause| cause.to_string())? {
        let record = archive::read::<Sample>(frame.archive, Trust::VALIDATE).map_err(|cause| cause.to_string())?;
        let record = Sample::own(record);
        return Ok((format!("{record:?} at {:?}, hash {}", frame.time.0, frame.key_hash.0), frame.end));
    }
    let (other, end) = frame::read_other(bytes).map_err(|cause| cause.to_string())?;
    let text = match other {
        Other::Control(control) => format!("{control:?}"),
        Other::Fragment(fragment) => format!("fragment of {} bytes, last: {}", fragment.part.len(), fragment.last),
    };
    Ok((text, end))
}

/// A line of JSON between a cluster and its worker processes.
fn json_line<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(bytes) else { return "error: no UTF-8".to_owned() };
    let said = serde_json::from_str::<T>(text).map(|value| {
        let text = serde_json::to_string(&value).expect("what was read can be written");
        let again = serde_json::from_str::<T>(&text).expect("what was written can be read");
        assert_eq!(serde_json::to_string(&again).expect("it was written before"), text, "a line keeps its meaning");
        text
    });
    match said {
        Ok(text) => text,
        Err(cause) => format!("error: {cause}"),
    }
}

/// Lines of a log, which any process may have written.
fn log_lines(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut parser = Parser::default();
    let mut lines: Vec<_> = text.split('\n').filter_map(|line| parser.push(line)).collect();
    lines.extend(parser.finish());
    // Whatever was understood can be written, in both forms, and read again as one line.
    for line in &lines {
        for form in [LogForm::Text, LogForm::Json] {
            let mut parser = Parser::default();
            let text = form.write(line);
            let more = text.trim_end_matches('\n').split('\n').filter_map(|line| parser.push(line)).count();
            assert!(more == 0 && parser.finish().is_some(), "{text}");
        }
    }
    format!("{lines:?}")
}

/// A file in a checkpoint's directory: its metadata, or a subtask's state.
fn checkpoint_file(bytes: &[u8]) -> String {
    let metadata = line(metadata::decode(bytes, Path::new("_metadata")));
    let state = SnapshotReader::open(bytes).map(|reader| {
        let section = |place| match reader.section(place) {
            Ok(bytes) => format!("'{}' has {} bytes", reader.index()[place].name, bytes.len()),
            Err(cause) => format!("error: {cause}"),
        };
        (0..reader.index().len()).map(section).collect::<Vec<String>>()
    });
    format!("as metadata: {metadata}; as state: {}", line(state))
}
