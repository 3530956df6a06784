//! The inputs of the corpus: what the encoders write, and what no encoder writes.

use std::time::Duration;

use bytes::BytesMut;
use millstream::{
    logging::WorkerLog,
    model::{
        config::NetworkIo,
        deployment::{ChannelToken, CompletedCheckpoint, CoordinatorState, FileHandle, SubtaskState, VertexShape},
        fault::Failure,
        id::{
            CheckpointId, ExecutionAttemptId, Generation, JobId, JobVertexId, LeaderEpoch, OperatorId, Subtask,
            WorkerId,
        },
        job_graph::Codec,
        key_group::{KeyGroup, KeyHash, MaxParallelism},
        message::{CheckpointKind, Command, FromWorker, Report, TaskResult, ToWorker},
        state::ExecutionState,
        time::{EventTime, Watermark},
    },
    worker_process::{WorkerMemory, WorkerSetup},
};
use millstream_api::{
    frame::{self, Control},
    record::Record,
    signal::Barrier,
};
use millstream_dataplane::{Carrier, NetworkSetup};
use millstream_shuffle::{
    credit::{Backlog, Grant},
    transport::{
        hello::{Hello as Greeting, Preamble},
        identity::Identity,
        tcp::mux,
    },
    wire::{
        Header, Kind, MESSAGE_BYTES_MAX, PROTOCOL_VERSION,
        message::{ChannelKey, CoordinatorEvent, Direction, Hello, Message, Open},
    },
};
use millstream_storage::{Section, SectionKind, SnapshotFile, metadata};

/// One input.
pub struct Sample {
    pub decoder: &'static str,
    /// Says what it is.
    pub name: &'static str,
    pub bytes: Vec<u8>,
}

/// All inputs, in the order of their decoders.
pub fn samples() -> Vec<Sample> {
    let of = |decoder, named: Vec<(&'static str, Vec<u8>)>| {
        named.into_iter().map(move |(name, bytes)| Sample { decoder, name, bytes })
    };
    of("control-stream", control_streams())
        .chain(of("lane", lanes()))
        .chain(of("introduction", introductions()))
        .chain(of("preamble", preambles()))
        .chain(of("tcp-pieces", tcp_pieces()))
        .chain(of("elements", elements()))
        .chain(of("worker-setup", worker_setups()))
        .chain(of("log-lines", log_lines()))
        .chain(of("to-worker", to_workers()))
        .chain(of("report", reports()))
        .chain(of("checkpoint-file", checkpoint_files()))
        .collect()
}

type Named = Vec<(&'static str, Vec<u8>)>;

/// `bytes` with one of them replaced.
fn with(mut bytes: Vec<u8>, at: usize, byte: u8) -> Vec<u8> {
    bytes[at] = byte;
    bytes
}

fn without_last(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.pop();
    bytes
}

fn message(message: &Message) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    message.encode(&mut bytes);
    bytes.to_vec()
}

fn hello() -> Message {
    Message::Hello(Hello { version: PROTOCOL_VERSION, job: JobId(7), worker: WorkerId(3) })
}

fn open() -> Message {
    Message::Open(Open {
        channel: 1,
        generation: Generation(2),
        token: ChannelToken(0x0123_4567_89ab_cdef),
        key: ChannelKey { edge: 0, producer: 1, consumer: 2 },
        codec: Codec::Row,
        segment_bytes: 32 << 10,
        granted: Grant(128 << 10),
        is_lent: false,
    })
}

fn event(direction: Direction) -> Message {
    let bytes = b"a split".to_vec();
    Message::Event(CoordinatorEvent {
        generation: Generation(2),
        operator: OperatorId(9),
        subtask: 1,
        direction,
        bytes,
    })
}

fn header(kind: Kind, length: u32) -> Vec<u8> {
    let channel = if matches!(kind, Kind::Hello | Kind::Open | Kind::Event) { 0 } else { 5 };
    Header { kind, opens_segment: false, ends_segment: false, channel, length }.encode().to_vec()
}

fn control_streams() -> Named {
    let checkpoint = CheckpointId(4);
    let whole = [
        hello(),
        open(),
        Message::Grant { channel: 1, total: Grant(1 << 40), share: 64 << 10 },
        Message::Backlog { channel: 1, total: Backlog(1 << 41) },
        event(Direction::ToCoordinator),
        event(Direction::ToSubtask { after: checkpoint }),
        event(Direction::Snapshotted { checkpoint }),
        Message::Refused { channel: 1, reason: "no such channel".to_owned() },
        Message::Close { channel: 1 },
    ];
    let refused = message(&Message::Refused { channel: 2, reason: "??".to_owned() });
    let longer = |bytes: Vec<u8>| with([bytes.clone(), vec![0]].concat(), 8, bytes[8] + 1);
    vec![
        ("one-of-each-message", whole.iter().flat_map(message).collect()),
        ("hello", message(&hello())),
        ("hello-of-another-version", with(message(&hello()), 12, PROTOCOL_VERSION as u8 + 1)),
        ("hello-without-a-payload", header(Kind::Hello, 0)),
        ("hello-with-a-byte-too-many", longer(message(&hello()))),
        ("hello-cut-off", without_last(message(&hello()))),
        ("open", message(&open())),
        ("open-with-an-unknown-codec", with(message(&open()), message(&open()).len() - 7, 99)),
        ("open-with-a-number-that-never-ends", [header(Kind::Open, 12), vec![0xff; 12]].concat()),
        ("grant-of-15-bytes", [header(Kind::Grant, 15), vec![0; 15]].concat()),
        ("grant-of-17-bytes", [header(Kind::Grant, 17), vec![0; 17]].concat()),
        ("backlog-of-7-bytes", [header(Kind::Backlog, 7), vec![0; 7]].concat()),
        ("backlog-of-9-bytes", [header(Kind::Backlog, 9), vec![0; 9]].concat()),
        ("close-with-a-payload", [header(Kind::Close, 1), vec![0]].concat()),
        ("refused-with-a-reason-that-is-no-text", with(refused, 12, 0xff)),
        ("event-that-claims-more-bytes-than-it-has", {
            let bytes = message(&event(Direction::ToCoordinator));
            let length_at = bytes.len() - b"a split".len() - 1;
            with(bytes, length_at, 0x7f)
        }),
        ("event-with-an-unknown-direction", {
            let bytes = message(&event(Direction::ToCoordinator));
            let direction_at = bytes.len() - b"a split".len() - 2;
            with(bytes, direction_at, 3)
        }),
        ("message-longer-than-any-may-be", header(Kind::Event, MESSAGE_BYTES_MAX + 1)),
        ("message-as-long-as-any-may-be-cut-off", header(Kind::Event, MESSAGE_BYTES_MAX)),
        ("unknown-kind", with(header(Kind::Close, 0), 0, 8)),
        ("message-with-a-flag", with(header(Kind::Close, 0), 1, 1)),
        ("message-with-bytes-that-should-be-zero", with(header(Kind::Close, 0), 3, 1)),
        ("event-of-a-channel", with(message(&event(Direction::ToCoordinator)), 4, 1)),
        ("data-on-the-control-stream", [header(Kind::Data, 8), vec![0; 8]].concat()),
        ("half-a-header", header(Kind::Close, 0)[..6].to_vec()),
        ("nothing", Vec::new()),
    ]
}

fn lanes() -> Named {
    let data = |channel, opens_segment, length: u32| {
        let header = Header { kind: Kind::Data, opens_segment, ends_segment: false, channel, length };
        [header.encode().to_vec(), vec![channel as u8; length as usize]].concat()
    };
    vec![
        ("two-channels", [data(1, true, 64), data(2, true, 8), data(1, false, 16)].concat()),
        ("data-cut-off", without_last(data(1, true, 64))),
        ("data-of-0-bytes", data(1, true, 0)),
        ("data-of-7-bytes", data(1, true, 7)),
        ("data-with-an-unknown-flag", with(data(1, false, 8), 1, 4)),
        ("data-with-bytes-that-should-be-zero", with(data(1, false, 8), 2, 1)),
        ("data-that-ends-its-segment-with-nothing", with(data(1, false, 0), 1, 2)),
        ("data-that-claims-4-gib", header(Kind::Data, u32::MAX - 7)),
        ("hello-on-a-lane", message(&hello())),
        ("a-whole-frame-and-an-unknown-one", [data(1, true, 8), vec![0xff; 12]].concat()),
    ]
}

fn introductions() -> Named {
    vec![
        ("hello-and-more", [message(&hello()), message(&open())].concat()),
        ("half-a-hello", message(&hello())[..14].to_vec()),
        ("open-instead", message(&open())),
        ("data-instead", [header(Kind::Data, 8), vec![0; 8]].concat()),
        ("hello-that-is-too-long", header(Kind::Hello, 257)),
        ("hello-of-another-version", with(message(&hello()), 12, PROTOCOL_VERSION as u8 + 1)),
        ("http-request", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
    ]
}

fn greeting() -> Greeting {
    Greeting { window: 4 << 20, cipher: "TLS13_AES_128_GCM_SHA256" }
}

fn preambles() -> Named {
    let hello = Preamble::Hello(greeting()).encode().to_vec();
    vec![
        ("hello", hello.clone()),
        ("hello-with-chacha", with(hello.clone(), 6, 2)),
        ("hello-with-an-unknown-cipher", with(hello.clone(), 6, 9)),
        ("lane-255", Preamble::Lane(255).encode().to_vec()),
        ("channel-of-the-largest-number", Preamble::Channel(u32::MAX).encode().to_vec()),
        ("channel-with-a-lane", with(Preamble::Channel(7).encode().to_vec(), 6, 1)),
        ("lane-with-a-window", with(Preamble::Lane(1).encode().to_vec(), 8, 1)),
        ("unknown-stream", with(hello.clone(), 5, 3)),
        ("other-magic", with(hello.clone(), 0, b'm')),
        ("other-version", with(hello.clone(), 4, 2)),
        ("not-zero-behind", with(hello.clone(), 15, 1)),
        ("cut-off", without_last(hello)),
    ]
}

fn tcp_pieces() -> Named {
    let joined = |pieces: Vec<bytes::Bytes>| pieces.concat();
    let greeting = joined(mux::greeting(greeting()).into());
    let piece = |kind, lane, length: u32, bytes: usize| {
        let mut piece = vec![kind, lane, 0, 0];
        piece.extend_from_slice(&length.to_le_bytes());
        piece.resize(8 + bytes, 7);
        piece
    };
    let own = |channel: u32, bytes: usize| {
        let [l0, l1] = ((bytes - 1) as u16).to_le_bytes();
        let mut piece = vec![5, 0, l0, l1];
        piece.extend_from_slice(&channel.to_le_bytes());
        piece.resize(8 + bytes, 7);
        piece
    };
    let after = |more: Vec<u8>| [greeting.clone(), more].concat();
    let whole = [piece(1, 0, 5, 5), piece(2, 3, 70, 70), joined(vec![mux::ping()]), piece(2, 3, 1, 1)].concat();
    vec![
        ("pieces-of-channels", after([own(7, 5), piece(2, 3, 70, 70), own(u32::MAX, 1), own(7, 64 << 10)].concat())),
        ("channel-with-a-lane", after(with(own(7, 5), 1, 1))),
        ("piece-with-bytes-that-should-be-zero", after(with(piece(2, 3, 70, 70), 2, 1))),
        ("control-with-a-lane", after(piece(1, 3, 5, 5))),
        ("greeting-and-pieces", after(whole.clone())),
        ("close-with-a-reason", after(joined(mux::close("enough").into()))),
        ("close-and-more", after([joined(mux::close("").into()), vec![9; 30]].concat())),
        ("close-before-the-greeting", joined(mux::close("not you").into())),
        ("close-with-a-reason-that-is-no-text", after([piece(4, 0, 2, 0), vec![0xff, 0xfe]].concat())),
        ("close-with-a-reason-that-is-too-long", after(piece(4, 0, 1025, 0))),
        ("no-greeting", whole),
        ("two-greetings", after(greeting.clone())),
        ("greeting-of-a-lane", [piece(0, 0, 16, 0), Preamble::Lane(1).encode().to_vec()].concat()),
        ("greeting-of-15-bytes", piece(0, 0, 15, 15)),
        ("piece-of-0-bytes", after(piece(1, 0, 0, 0))),
        ("piece-longer-than-any-may-be", after(piece(2, 0, (64 << 10) + 1, 0))),
        ("ping-with-a-payload", after(piece(3, 0, 1, 1))),
        ("unknown-piece", after(piece(6, 0, 1, 1))),
        ("cut-off", without_last(after(piece(1, 0, 5, 5)))),
    ]
}

fn elements() -> Named {
    let nested = || Some(vec![(1, "one".to_owned()), (2, String::new()), (3, "a text that is longer".to_owned())]);
    let of = |record: &super::Sample, time| {
        let frame = frame::write_record_alone::<super::Sample>(record.handle(), time, KeyHash(77));
        frame.expect("it is small").as_slice().to_vec()
    };
    let full = of(&("streams".to_owned(), u64::MAX, nested()), EventTime(1_000));
    let bare = of(&(String::new(), 0, None), EventTime::MIN);
    let barrier = |kind| Control::Barrier(Barrier { checkpoint: CheckpointId(3), kind });
    let controls = [
        Control::Watermark(Watermark(EventTime(-5))),
        Control::Idle(true),
        barrier(CheckpointKind::Checkpoint),
        barrier(CheckpointKind::Final),
        Control::EndOfData,
    ];
    let mut fragment = vec![0; 32];
    let written = frame::write_fragment(&[1; 20], &mut fragment).expect("it has room");
    fragment.truncate(written.1);
    let last = full.len() - 8;
    vec![
        ("records", [full.clone(), bare.clone()].concat()),
        ("controls", controls.into_iter().flat_map(frame::control).collect()),
        ("fragment", fragment),
        ("record-cut-off", without_last(full.clone())),
        ("record-that-claims-1-gib", with(full.clone(), 3, 0x7f)),
        ("record-with-a-pointer-outside", with(full.clone(), last, 0x40)),
        ("record-of-another-type", {
            let frame = frame::write_record_alone::<String>("a text alone", EventTime::MIN, KeyHash::NONE);
            frame.expect("it is small").as_slice().to_vec()
        }),
        ("record-with-a-text-that-is-no-utf-8", {
            let text_at = full.windows(21).position(|bytes| bytes == b"a text that is longer");
            with(full, text_at.expect("it is in the archive"), 0xff)
        }),
        ("control-with-an-unknown-tag", with(frame::control(Control::EndOfData).to_vec(), 8, 99)),
        ("control-that-is-short", frame::control(Control::EndOfData)[..16].to_vec()),
        ("half-a-word", bare[..4].to_vec()),
    ]
}

fn attempt() -> ExecutionAttemptId {
    ExecutionAttemptId { subtask: Subtask { vertex: JobVertexId(11), index: 1 }, generation: Generation(2) }
}

fn worker_setups() -> Named {
    // No keys: nobody is asked who they are while a setup is read.
    let identity = Identity {
        worker: WorkerId(3),
        cluster: format!("{:032x}", 7),
        certificates: vec![vec![1, 2, 3]],
        key: vec![4, 5],
        authority: vec![6],
    };
    let network = NetworkSetup {
        identity,
        job: JobId(7),
        transport: Carrier::Auto,
        bind: ([127, 0, 0, 1], 0).into(),
        lanes: 16,
        socket_buffer: 8 << 20,
        connect_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(10),
        io: NetworkIo::Auto,
    };
    let alone = WorkerSetup {
        worker: WorkerId(0),
        slots: 2,
        network: None,
        log: WorkerLog::default(),
        memory: WorkerMemory::default(),
        artifact: None,
    }
    .to_line();
    let full = WorkerSetup {
        worker: WorkerId(3),
        slots: 2,
        network: Some(network),
        log: WorkerLog::default(),
        memory: WorkerMemory::default(),
        artifact: None,
    }
    .to_line();
    let changed = |from: &str, to: &str| {
        assert!(full.contains(from), "{full} has no {from}");
        full.replace(from, to).into_bytes()
    };
    vec![
        ("alone", alone.clone().into_bytes()),
        ("with-a-network", full.clone().into_bytes()),
        ("with-an-unknown-transport", changed("\"Auto\"", "\"Pigeon\"")),
        ("with-300-lanes", changed("\"lanes\":16", "\"lanes\":300")),
        ("with-an-address-that-is-none", changed("127.0.0.1:0", "localhost")),
        ("with-less-than-no-slots", alone.replace(":2", ":-2").into_bytes()),
        ("without-slots", alone.replace("\"slots\":2,", "").into_bytes()),
        ("cut-off", without_last(full.into_bytes())),
        ("no-utf-8", vec![b'{', 0xff, b'}']),
        ("nested-a-thousand-times", b"[".repeat(1_000)),
        ("nothing", Vec::new()),
    ]
}

fn log_lines() -> Named {
    let text = "2026-11-30T14:00:00.123Z WARN  worker-3 [slot-1] [0a1b2c3d count (2/4) #1] shop: late  order=17 why=\"no way\"";
    let json = r#"{"time":"2026-11-30T14:00:00.123Z","level":"WARN","task":{"vertex":"0a1b2c3d","name":"count","subtask":1,"parallelism":4,"attempt":1},"target":"shop","message":"late","fields":{"order":17}}"#;
    vec![
        ("text", text.into()),
        ("json", json.into()),
        ("of-several-lines", format!("{text}\n\tmore\n{json}\n\tmore").into()),
        ("printed", b"2026-11-30T14:00:00.123Z OUT   worker-3 [slot-1] a: b  c=d".into()),
        ("of-no-level", text.replace("WARN ", "LOUD ").into()),
        ("of-no-time", text.replace("14:00", "14.00").into()),
        ("of-subtask-0", text.replace("(2/4)", "(0/4)").into()),
        ("with-half-a-field", without_last(text.into())),
        ("json-cut-off", without_last(json.into())),
        ("json-of-no-level", json.replace("WARN", "LOUD").into()),
        ("no-utf-8", b"2026-11-30T14:00:00.123Z ERR   \xff".into()),
        ("nothing", Vec::new()),
    ]
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("messages have a form in JSON")
}

fn to_workers() -> Named {
    let epoch = LeaderEpoch { incarnation: 1, revision: 2 };
    let line = |command| json(&ToWorker { epoch, command });
    let (generation, checkpoint) = (Generation(2), CheckpointId(3));
    let trigger = line(Command::TriggerCheckpoint { generation, checkpoint, kind: CheckpointKind::Checkpoint });
    let text = String::from_utf8(trigger.clone()).expect("JSON is text");
    vec![
        ("trigger", trigger),
        ("cancel", line(Command::Cancel { generation })),
        ("report-status", line(Command::ReportStatus)),
        ("shutdown", line(Command::Shutdown)),
        ("unknown-command", text.replace("TriggerCheckpoint", "Explode").into_bytes()),
        (
            "number-that-is-too-large",
            text.replace("\"checkpoint\":3", "\"checkpoint\":18446744073709551616").into_bytes(),
        ),
        ("without-an-epoch", b"{\"command\":\"Shutdown\"}".to_vec()),
        ("two-lines-in-one", [line(Command::Shutdown), line(Command::Shutdown)].concat()),
    ]
}

fn reports() -> Named {
    let line = |report| json(&FromWorker { worker: WorkerId(3), report });
    let failure = Failure::fatal("the disk is full").in_operator("files").at("record 5".to_owned());
    let failed = Report::Task { attempt: attempt(), state: ExecutionState::Failed, failure: Some(failure) };
    let mut result = TaskResult::default();
    result.accumulators.insert("words".to_owned(), -5);
    result.collected.push((OperatorId(9), vec![0, 255]));
    let registered = line(Report::Registered { slots: 2, shuffle_address: Some(([127, 0, 0, 1], 4_000).into()) });
    let text = String::from_utf8(registered.clone()).expect("JSON is text");
    vec![
        ("registered", registered.clone()),
        ("failed-task", line(failed)),
        ("result", line(Report::Result { attempt: attempt(), result })),
        ("end-of-data", line(Report::EndOfData { attempt: attempt() })),
        ("unknown-report", text.replace("Registered", "Promoted").into_bytes()),
        ("port-that-is-too-large", text.replace("4000", "65536").into_bytes()),
        ("cut-off", without_last(registered)),
        ("another-programs-output", b"hello, world".to_vec()),
    ]
}

fn checkpoint_files() -> Named {
    let checkpoint = CompletedCheckpoint {
        format_version: CompletedCheckpoint::FORMAT_VERSION,
        id: CheckpointId(3),
        directory: "/checkpoints/chk-3".to_owned(),
        vertices: vec![VertexShape {
            vertex: JobVertexId(11),
            parallelism: 2,
            max_parallelism: MaxParallelism(128),
            operators: vec![OperatorId(9)],
        }],
        subtasks: vec![SubtaskState {
            subtask: attempt().subtask,
            file: Some(FileHandle { path: "11-1".to_owned(), bytes: 100, crc32: 5 }),
        }],
        coordinators: vec![CoordinatorState { operator: OperatorId(9), bytes: vec![1, 2] }],
    };
    let metadata = metadata::encode(&checkpoint);
    let section = |name: &str, kind, key_group, bytes| Section {
        operator: OperatorId(9),
        kind,
        name: name.to_owned(),
        type_fingerprint: 42,
        key_group,
        bytes,
    };
    let state = SnapshotFile::encode(&[
        section("counts", SectionKind::Keyed, Some(KeyGroup(5)), vec![7; 24]),
        section("splits", SectionKind::Split, None, b"a split".to_vec()),
        section("empty", SectionKind::Union, None, Vec::new()),
    ]);
    let last_of_state = *state.last().expect("it has bytes");
    vec![
        ("metadata", metadata.clone()),
        ("metadata-of-another-version", with(metadata.clone(), 4, 2)),
        ("metadata-with-a-flipped-bit", with(metadata.clone(), 30, metadata[30] ^ 1)),
        ("metadata-cut-off", without_last(metadata.clone())),
        ("metadata-without-a-body", metadata[..20].to_vec()),
        ("metadata-of-a-later-structure", {
            let later = CompletedCheckpoint { format_version: 99, ..checkpoint };
            metadata::encode(&later)
        }),
        ("state", state.clone()),
        ("state-without-sections", SnapshotFile::encode(&[])),
        ("state-of-another-version", with(state.clone(), 4, 2)),
        ("state-that-claims-4-billion-sections", with(with(state.clone(), 11, 0xff), 10, 0xff)),
        ("state-with-an-index-beyond-its-end", with(state.clone(), 19, 0xff)),
        ("state-with-a-flipped-bit-in-the-last-section", {
            let at = state.len() - 1;
            with(state.clone(), at, last_of_state ^ 1)
        }),
        ("state-cut-off", without_last(state.clone())),
        ("state-with-a-byte-too-many", [state, vec![0]].concat()),
        ("neither", b"PK\x03\x04 is a zip file".to_vec()),
        ("nothing", Vec::new()),
    ]
}
