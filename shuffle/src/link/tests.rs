//! Two links against each other, over streams in memory that are cut anywhere and overtake each other.

use std::collections::VecDeque;

use super::*;
use crate::{
    channel::{GrantSignal, opened_channel},
    credit::{Backlog, Grant, Granter},
    gate::InputGate,
    segment::SegmentPool,
    wake::Waker,
};

const SEGMENT: usize = 256;
const GENERATION: Generation = Generation(3);
const TOKEN: ChannelToken = ChannelToken(42);

/// Marsaglia's xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// How many lanes there are: one, some, or one for each channel.
const LANES: [u8; 3] = [1, 3, 0];

fn local(worker: u32, lanes: u8) -> Local {
    Local { job: JobId(1), worker: WorkerId(worker), lanes }
}

fn pair(lanes: u8) -> (Link, Link) {
    (Link::new(local(1, lanes), WorkerId(2)), Link::new(local(2, lanes), WorkerId(1)))
}

fn key(index: usize) -> ChannelKey {
    ChannelKey { edge: 0, producer: index as u32 / 2, consumer: index as u32 }
}

/// The tasks' ends of `count` channels from one link to the other.
struct Tasks {
    writers: Vec<ChannelSender>,
    gate: InputGate,
    /// The memory of the receiving worker.
    received: SegmentPool,
}

/// Attaches `count` channels from `from` to `to`, none of which lacks room because of another.
fn connect(from: &mut Link, to: &mut Link, count: usize, window: u64) -> Tasks {
    connect_gate(from, to, &Granter::fixed(SEGMENT as u64, &vec![window.max(2 * SEGMENT as u64); count]), count)
}

/// Attaches `count` channels, which end in a gate with so much room.
fn connect_gate(from: &mut Link, to: &mut Link, granter: &Granter, count: usize) -> Tasks {
    connect_deployment(from, to, granter, count, GENERATION)
}

fn connect_deployment(
    from: &mut Link,
    to: &mut Link,
    granter: &Granter,
    count: usize,
    generation: Generation,
) -> Tasks {
    let (pool_from, pool_to) = (SegmentPool::new(SEGMENT, 64), SegmentPool::new(SEGMENT, 64));
    let net = || Arc::new(GateSignal::new(count, Arc::new(Waker::default())));
    let (outlet_signal, grant_signal, gate_signal) = (net(), net(), net());
    let (mut writers, mut outlets, mut inlets, mut readers) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for index in 0..count {
        let opening = granter.opening(index);
        let window = opening.window.max(2 * SEGMENT as u64);
        let of_sender = Granter::fixed(SEGMENT as u64, &[window]).opening(0);
        let waker = GrantSignal::Thread(Arc::default());
        let (writer, outlet) =
            opened_channel(&pool_from, of_sender, opening.is_lent, waker, outlet_signal.clone(), index);
        writers.push(writer);
        outlets.push((key(index), outlet));
        let grants = GrantSignal::Channel(grant_signal.clone(), index);
        let (inlet, reader) = opened_channel(&pool_to, opening, false, grants, gate_signal.clone(), index);
        inlets.push((key(index), inlet));
        readers.push(reader);
    }
    let none = || Arc::new(GateSignal::new(0, Arc::new(Waker::default())));
    let channels = |outlets, outlet_signal, inlets, grant_signal| PeerChannels {
        generation,
        token: TOKEN,
        outlets,
        outlet_signal,
        inlets,
        grant_signal,
    };
    to.attach(channels(Vec::new(), none(), inlets, grant_signal));
    from.attach(channels(outlets, outlet_signal, Vec::new(), none()));
    let gate = InputGate::with_granter(readers, gate_signal, granter.clone());
    Tasks { writers, gate, received: pool_to }
}

/// What is under way in one direction.
#[derive(Default)]
struct Wire(HashMap<Stream, VecDeque<u8>>);

impl Wire {
    fn pump(&mut self, link: &mut Link, room: usize) {
        let queued: HashMap<Stream, usize> = self.0.iter().map(|(stream, bytes)| (*stream, bytes.len())).collect();
        let room = |stream| room.saturating_sub(queued.get(&stream).copied().unwrap_or(0));
        link.pump(room, |stream, batch| {
            let bytes: usize = batch.chunks.iter().map(bytes::Bytes::len).sum();
            assert_eq!(bytes, batch.bytes);
            self.0.entry(stream).or_default().extend(batch.chunks.iter().flatten());
        });
    }

    /// Delivers a piece of some stream; whether there was any.
    fn deliver(&mut self, link: &mut Link, random: &mut Random) -> Result<bool, Violation> {
        let mut streams: Vec<Stream> = self.0.iter().filter(|(_, b)| !b.is_empty()).map(|(s, _)| *s).collect();
        streams.sort_unstable();
        if streams.is_empty() {
            return Ok(false);
        }
        let stream = streams[random.below(streams.len() as u64) as usize];
        let bytes = self.0.get_mut(&stream).unwrap();
        let piece: Vec<u8> = bytes.drain(..(1 + random.below(700) as usize).min(bytes.len())).collect();
        link.on_bytes(stream, &piece).map(|()| true)
    }
}

/// Writes one element: its length, then a running number of the channel.
fn write(writer: &mut ChannelSender, number: u64, length: usize) {
    if writer.room().0.len() < length {
        writer.next_segment();
    }
    let (room, filled) = writer.room();
    room[..length].fill(0);
    room[..8].copy_from_slice(&(length as u64).to_le_bytes());
    room[8..16].copy_from_slice(&number.to_le_bytes());
    *filled += length;
}

/// Reads the elements of a channel that can be read.
fn read(gate: &mut InputGate, channel: usize, expected: &mut u64) {
    let bytes = gate.available(channel);
    let mut at = 0;
    while at < bytes.len() {
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        assert_eq!(word(at + 8), *expected, "of channel {channel}");
        *expected += 1;
        at += word(at) as usize;
    }
    assert_eq!(at, bytes.len(), "elements are whole");
    gate.consume(channel, at);
}

#[test]
fn every_element_arrives_once_and_in_order_whatever_the_streams_do() {
    for seed in 1..90 {
        let mut random = Random(seed * 0x9e37_79b9);
        let (mut a, mut b) = pair(LANES[seed as usize % LANES.len()]);
        let count = 1 + random.below(70) as usize;
        // From room for all to room for hardly any.
        let pool = [1000, 40, 10, 2][random.below(4) as usize];
        let window = [1, 2, 4][random.below(3) as usize] * SEGMENT as u64;
        let granter = Granter::new(SEGMENT as u64, pool * SEGMENT as u64, &vec![window; count]);
        let mut tasks = connect_gate(&mut a, &mut b, &granter, count);
        let (mut there, mut back) = (Wire::default(), Wire::default());
        let total = 60_u64;
        let (mut written, mut seen) = (vec![0_u64; count], vec![0_u64; count]);
        let mut steps = 0_u64;
        while seen.iter().any(|seen| *seen < total) {
            steps += 1;
            assert!(steps < 2_000_000, "seed {seed}: nothing moves any more: {seen:?}");
            match random.below(6) {
                0 => {
                    let channel = random.below(count as u64) as usize;
                    let writer = &mut tasks.writers[channel];
                    writer.resume();
                    if writer.waiting() == 0 && written[channel] < total {
                        write(writer, written[channel], 16 + 8 * random.below(9) as usize);
                        written[channel] += 1;
                    }
                    if random.below(3) == 0 || written[channel] == total {
                        writer.flush();
                    }
                }
                1 => there.pump(&mut a, 2_000),
                2 => back.pump(&mut b, 2_000),
                3 => drop(there.deliver(&mut b, &mut random).unwrap()),
                4 => drop(back.deliver(&mut a, &mut random).unwrap()),
                _ => {
                    if let Some(channel) = tasks.gate.next_ready() {
                        read(&mut tasks.gate, channel, &mut seen[channel]);
                        tasks.gate.rotate();
                    }
                }
            }
            let (granted, spent) = a.credit();
            assert!(spent <= granted, "seed {seed}");
            assert!(tasks.received.in_use() as u64 <= pool, "seed {seed}: {} segments", tasks.received.in_use());
        }
    }
}

/// Moves all that can be moved between two links.
fn exchange(a: &mut Link, b: &mut Link, there: &mut Wire, back: &mut Wire, random: &mut Random) {
    there.pump(a, usize::MAX);
    while there.deliver(b, random).unwrap() {}
    back.pump(b, usize::MAX);
    while back.deliver(a, random).unwrap() {}
}

#[test]
fn a_task_takes_from_thousands_of_channels_within_the_room_of_its_gate_and_from_each() {
    LANES.into_iter().for_each(takes_from_thousands_of_channels);
}

fn takes_from_thousands_of_channels(lanes: u8) {
    let (mut a, mut b) = pair(lanes);
    let (count, pool) = (3_000_usize, 1024);
    let granter = Granter::new(SEGMENT as u64, pool * SEGMENT as u64, &vec![8 * SEGMENT as u64; count]);
    let mut tasks = connect_gate(&mut a, &mut b, &granter, count);
    let (mut there, mut back, mut random) = (Wire::default(), Wire::default(), Random(9));
    // Most bring little, some of those with and without a floor bring much, and all wait for each other's barrier once,
    // which is element 4.
    let total = |channel: usize| if channel % 500 == 499 { 400_u64 } else { 8 };
    let (mut written, mut seen) = (vec![0_u64; count], vec![0_u64; count]);
    let (mut blocked, mut rounds) = (0, 0);
    while (0..count).any(|channel| seen[channel] < total(channel)) {
        rounds += 1;
        assert!(rounds < 10_000, "nothing moves any more");
        for (channel, (writer, written)) in tasks.writers.iter_mut().zip(&mut written).enumerate() {
            while writer.resume() && *written < total(channel) {
                write(writer, *written, 64);
                *written += 1;
                if *written == 4 {
                    break;
                }
            }
            writer.flush();
        }
        exchange(&mut a, &mut b, &mut there, &mut back, &mut random);
        assert!(tasks.received.in_use() as u64 <= pool, "{} segments", tasks.received.in_use());
        // A part of what is there, so that there is always a backlog.
        for _ in 0..700 {
            let Some(channel) = tasks.gate.next_ready() else { break };
            let before = seen[channel];
            read(&mut tasks.gate, channel, &mut seen[channel]);
            if before < 4 && seen[channel] >= 4 {
                assert_eq!(seen[channel], 4, "what is behind a barrier is in another segment");
                tasks.gate.block(channel);
                blocked += 1;
                if blocked == count {
                    tasks.gate.unblock_all();
                }
            } else {
                tasks.gate.rotate();
            }
        }
    }
    assert_eq!(blocked, count);
}

#[test]
fn a_peer_is_told_of_room_as_soon_as_it_may_lack_it() {
    // Four of sixteen segments are read: no news as long as twelve are left. Then the target becomes one segment, so that
    // reading those twelve grants nothing.
    let (mut a, mut b) = pair(3);
    let mut tasks = connect(&mut a, &mut b, 1, 16 * SEGMENT as u64);
    let (mut there, mut back, mut random) = (Wire::default(), Wire::default(), Random(3));
    let (mut written, mut seen, mut rounds) = (0, 0, 0);
    while seen < 1_000 {
        rounds += 1;
        assert!(rounds < 10_000, "{seen} of {written} have arrived, and nothing moves any more");
        if seen == 20 {
            tasks.gate.set_target(SEGMENT as u64);
            exchange(&mut a, &mut b, &mut there, &mut back, &mut random);
        }
        let much = if seen < 20 { 20 } else { 1_000 };
        while tasks.writers[0].resume() && written < much {
            write(&mut tasks.writers[0], written, 64);
            written += 1;
        }
        tasks.writers[0].flush();
        exchange(&mut a, &mut b, &mut there, &mut back, &mut random);
        if tasks.gate.next_ready().is_some() {
            read(&mut tasks.gate, 0, &mut seen);
        }
        assert!(rounds < 50 || tasks.received.in_use() <= 1, "{} segments", tasks.received.in_use());
    }
}

#[test]
fn a_sender_that_is_told_to_keep_less_in_front_of_the_connection_stops_there_and_goes_on_when_it_may() {
    const WINDOW: u64 = 16;
    let segment = SEGMENT as u64;
    for seed in 1..40 {
        let mut random = Random(seed * 0x9e37_79b9);
        let (mut a, mut b) = pair(3);
        let mut tasks = connect(&mut a, &mut b, 1, WINDOW * segment);
        let (mut granted, mut limit, mut written, mut taken) = (0, WINDOW, 0_u64, 0_u64);
        for message in said(&mut b) {
            if let Message::Open(open) = &message {
                granted = open.granted.0 / segment;
            }
            a.on_bytes(Stream::Control, &encoded(&message)).unwrap();
        }
        // What the writer may have written in all: what was promised before the limit was lowered is not taken back.
        let mut promised = WINDOW;
        for _ in 0..3_000 {
            match random.below(3) {
                0 => {
                    while tasks.writers[0].resume() {
                        tasks.writers[0].next_segment();
                        let (room, filled) = tasks.writers[0].room();
                        *filled += room.len();
                        written += 1;
                    }
                    // The last of them waits for room.
                    assert_eq!(written - 1, promised, "seed {seed}: {taken} have gone, {limit} may be here");
                }
                1 => a.pump(
                    |_| usize::MAX,
                    |stream, batch| {
                        if stream != Stream::Control {
                            taken += (batch.bytes / SEGMENT) as u64;
                        }
                    },
                ),
                _ => {
                    granted += random.below(4);
                    let share = [0, 1, 5, WINDOW - 1, WINDOW, u64::MAX / segment][random.below(6) as usize];
                    limit = share.clamp(1, WINDOW);
                    let total = Grant(granted * segment);
                    a.on_bytes(
                        Stream::Control,
                        &encoded(&Message::Grant { channel: 1, total, share: share * segment }),
                    )
                    .unwrap();
                }
            }
            promised = promised.max(taken + limit);
        }
        assert!(taken > 500, "seed {seed}: {taken} segments have gone");
    }
}

#[test]
fn an_announcement_for_a_channel_that_never_was_is_a_violation_and_for_a_closed_one_none() {
    let mut link = greeted();
    let mut peer = Link::new(local(1, 3), WorkerId(2));
    let _tasks = connect(&mut peer, &mut link, 1, 512);
    let backlog = |channel, total| encoded(&Message::Backlog { channel, total: Backlog(total) });
    assert_eq!(link.on_bytes(Stream::Control, &backlog(2, 1)), Err(Violation::UnknownChannel(2)));
    let mut link = greeted();
    let _tasks = connect(&mut peer, &mut link, 1, 512);
    link.on_bytes(Stream::Control, &backlog(1, u64::MAX)).unwrap();
    link.detach(GENERATION);
    link.on_bytes(Stream::Control, &backlog(1, 7)).unwrap();
}

#[test]
fn a_deployment_that_ends_takes_its_own_channels_with_it_and_those_of_older_and_newer_ones_go_on() {
    let (mut a, mut b) = (Link::new(local(1, 4), WorkerId(2)), Link::new(local(2, 4), WorkerId(1)));
    let (mut there, mut back, mut random) = (Wire::default(), Wire::default(), Random(11));
    let granter = Granter::fixed(SEGMENT as u64, &[4 * SEGMENT as u64]);
    let mut regions: Vec<_> = [3, 4, 5]
        .map(|generation| connect_deployment(&mut a, &mut b, &granter, 1, Generation(generation)))
        .into_iter()
        .collect();
    let mut seen = [0; 3];
    let mut exchange = |a: &mut Link, b: &mut Link, regions: &mut [Tasks], number: u64| {
        for writer in regions.iter_mut().map(|tasks| &mut tasks.writers[0]) {
            if writer.resume() {
                write(writer, number, 64);
                writer.flush();
            }
        }
        for _ in 0..3 {
            there.pump(a, usize::MAX);
            while there.deliver(b, &mut random).unwrap() {}
            back.pump(b, usize::MAX);
            while back.deliver(a, &mut random).unwrap() {}
        }
        for (tasks, seen) in regions.iter_mut().zip(&mut seen) {
            if tasks.gate.next_ready().is_some() {
                read(&mut tasks.gate, 0, seen);
            }
        }
        seen
    };
    assert_eq!(exchange(&mut a, &mut b, &mut regions, 0), [1, 1, 1]);
    for link in [&mut a, &mut b] {
        link.detach(Generation(4));
        assert_eq!(link.generations().collect::<Vec<_>>(), [Generation(3), Generation(5)]);
    }
    assert_eq!(exchange(&mut a, &mut b, &mut regions, 1), [2, 1, 2]);
    assert!(a.take_events().is_empty() && b.take_events().is_empty());
}

#[test]
fn a_channel_whose_task_does_not_read_holds_up_no_other() {
    LANES.into_iter().for_each(holds_up_no_other);
}

fn holds_up_no_other(lanes: u8) {
    let (mut a, mut b) = pair(lanes);
    let mut tasks = connect(&mut a, &mut b, 2, 4 * SEGMENT as u64);
    let (mut there, mut back, mut random) = (Wire::default(), Wire::default(), Random(7));
    tasks.gate.block(0);
    let (mut written, mut seen) = ([0, 0], 0);
    while seen < 5_000 {
        for (writer, written) in tasks.writers.iter_mut().zip(&mut written) {
            if writer.resume() && *written < 5_000 {
                write(writer, *written, 64);
                *written += 1;
            }
            writer.flush();
        }
        there.pump(&mut a, usize::MAX);
        while there.deliver(&mut b, &mut random).unwrap() {}
        back.pump(&mut b, usize::MAX);
        while back.deliver(&mut a, &mut random).unwrap() {}
        while let Some(channel) = tasks.gate.next_ready() {
            assert_eq!(channel, 1);
            read(&mut tasks.gate, channel, &mut seen);
        }
    }
    // Two windows of four segments of four elements, here and there, and the one that waits.
    assert!(written[0] <= 2 * 16 + 4 + 1, "{} elements were written to a channel that nobody reads", written[0]);
}

/// A link that has greeted, and what a peer would write to it.
fn greeted() -> Link {
    greeted_by(3)
}

fn greeted_by(lanes: u8) -> Link {
    let mut link = Link::new(local(2, lanes), WorkerId(1));
    link.on_bytes(Stream::Control, &encoded(&hello(1))).unwrap();
    link
}

fn hello(worker: u32) -> Message {
    Message::Hello(Hello { version: PROTOCOL_VERSION, job: JobId(1), worker: WorkerId(worker) })
}

fn encoded(message: &Message) -> Vec<u8> {
    let mut bytes = bytes::BytesMut::new();
    message.encode(&mut bytes);
    bytes.to_vec()
}

fn data(channel: u32, opens_segment: bool, bytes: usize) -> Vec<u8> {
    let header =
        Header { kind: crate::wire::Kind::Data, opens_segment, ends_segment: false, channel, length: bytes as u32 };
    [&header.encode()[..], &vec![0; bytes]].concat()
}

/// The control messages that a link has queued.
fn said(link: &mut Link) -> Vec<Message> {
    struct Said(Vec<Message>);
    impl FrameSink for Said {
        type Error = Malformed;
        fn data_begins(&mut self, _: Header) -> Result<(), Malformed> {
            Ok(())
        }
        fn data(&mut self, _: u32, _: &[u8]) {}
        fn data_ends(&mut self, _: u32) {}
        fn message(&mut self, message: Message) -> Result<(), Malformed> {
            self.0.push(message);
            Ok(())
        }
    }
    let (mut said, mut bytes) = (Said(Vec::new()), Vec::new());
    link.pump(|_| usize::MAX, |_, batch| bytes.extend(batch.chunks.iter().flatten()));
    Decoder::default().feed(&bytes, true, &mut said).unwrap();
    said.0
}

#[test]
fn a_peer_that_is_another_one_or_says_nothing_is_refused() {
    let mut link = Link::new(local(2, 3), WorkerId(1));
    assert_eq!(
        link.on_bytes(Stream::Control, &encoded(&Message::Close { channel: 1 })),
        Err(Violation::Greeting),
        "before any greeting"
    );
    let mut link = Link::new(local(2, 3), WorkerId(1));
    let other = link.on_bytes(Stream::Control, &encoded(&hello(9))).unwrap_err();
    assert!(other.to_string().contains("WorkerId(9)"), "{other}");
    assert_eq!(greeted().on_bytes(Stream::Control, &encoded(&hello(1))), Err(Violation::Greeting));
    let mut version = encoded(&hello(1));
    version[crate::wire::HEADER_BYTES] = 77;
    let error = Link::new(local(2, 3), WorkerId(1)).on_bytes(Stream::Control, &version).unwrap_err();
    assert!(error.to_string().contains("version 77"), "{error}");
}

#[test]
fn channels_are_refused_with_the_reason() {
    let mut link = greeted();
    let mut unused = Link::new(local(1, 3), WorkerId(2));
    let _tasks = connect(&mut link, &mut unused, 2, 512);
    let open = |channel, generation: Generation, token, key, segment_bytes| {
        Message::Open(Open {
            channel,
            generation,
            token,
            key,
            codec: Codec::Row,
            segment_bytes,
            granted: Grant(512),
            is_lent: false,
        })
    };
    said(&mut link);
    for (message, reason) in [
        (open(1, Generation(2), TOKEN, key(0), 256), "deployment 2 has ended here"),
        (open(2, GENERATION, ChannelToken(1), key(0), 256), "token"),
        (open(3, GENERATION, TOKEN, key(5), 256), "does not begin at this worker"),
        (open(4, GENERATION, TOKEN, key(0), 512), "512 bytes there and 256 here"),
    ] {
        link.on_bytes(Stream::Control, &encoded(&message)).unwrap();
        let answers = said(&mut link);
        assert!(
            matches!(&answers[..], [Message::Refused { reason: given, .. }] if given.contains(reason)),
            "{answers:?} should say: {reason}"
        );
    }
    for expected in [0, 1] {
        link.on_bytes(Stream::Control, &encoded(&open(5, GENERATION, TOKEN, key(1), 256))).unwrap();
        assert_eq!(said(&mut link).len(), expected, "a channel is asked for once");
    }
}

#[test]
fn a_channel_that_is_asked_for_early_is_served_when_it_is_there() {
    let (mut a, mut b) = pair(3);
    let (mut there, mut back, mut random) = (Wire::default(), Wire::default(), Random(5));
    let mut never_attached = Link::new(local(1, 3), WorkerId(2));
    let mut early = connect(&mut never_attached, &mut b, 1, 512);
    back.pump(&mut b, usize::MAX);
    while back.deliver(&mut a, &mut random).unwrap() {}
    // Now the outlet arrives at `a`; `connect` also attaches to a link that nobody looks at.
    let mut nobody = Link::new(local(2, 3), WorkerId(1));
    let mut tasks = connect(&mut a, &mut nobody, 1, 512);
    write(&mut tasks.writers[0], 0, 64);
    tasks.writers[0].flush();
    there.pump(&mut a, usize::MAX);
    while there.deliver(&mut b, &mut random).unwrap() {}
    let mut seen = 0;
    assert_eq!(early.gate.next_ready(), Some(0));
    read(&mut early.gate, 0, &mut seen);
    assert_eq!(seen, 1);
}

#[test]
fn a_sender_that_breaks_the_rules_of_a_channel_is_noticed() {
    let begin = || {
        let mut link = greeted();
        let mut peer = Link::new(local(1, 3), WorkerId(2));
        let tasks = connect(&mut peer, &mut link, 1, 512);
        (link, tasks)
    };
    let lane = Stream::Lane(0);
    let broken = |result: Result<(), Violation>| match result {
        Err(Violation::Channel { channel: 1, broken }) => broken,
        other => panic!("{other:?}"),
    };
    let (mut link, _tasks) = begin();
    assert_eq!(broken(link.on_bytes(lane, &data(1, false, 64))), Broken::NoSegment);
    let (mut link, _tasks) = begin();
    link.on_bytes(lane, &data(1, true, 200)).unwrap();
    assert_eq!(broken(link.on_bytes(lane, &data(1, false, 64))), Broken::BeyondSegment { bytes: 64, room: 56 });
    let (mut link, _tasks) = begin();
    link.on_bytes(lane, &data(1, true, 64)).unwrap();
    link.on_bytes(lane, &data(1, true, 64)).unwrap();
    assert_eq!(broken(link.on_bytes(lane, &data(1, true, 64))), Broken::WithoutCredit);
    let (mut link, _tasks) = begin();
    assert_eq!(link.on_bytes(lane, &data(2, true, 64)), Err(Violation::UnknownChannel(2)));
}

#[test]
fn streams_that_this_side_does_not_have_are_refused() {
    for (stream, lanes) in [
        (Stream::Lane(3), 3),
        (Stream::Lane(1), 1),
        (Stream::Lane(0), 0),
        (Stream::Channel(1), 1),
        (Stream::Channel(1), 3),
    ] {
        let refused = greeted_by(lanes).on_bytes(stream, &data(1, true, 64));
        assert_eq!(refused, Err(Violation::OtherLanes { stream, lanes }));
    }
}

#[test]
fn a_channels_own_stream_carries_its_frames_alone_and_ends_with_it() {
    let (mut link, mut peer) = (greeted_by(0), Link::new(local(1, 0), WorkerId(2)));
    let _tasks = connect(&mut peer, &mut link, 2, 512);
    let own = Stream::Channel(1);
    link.on_bytes(own, &data(1, true, 64)).unwrap();
    assert_eq!(link.on_bytes(own, &data(2, true, 64)), Err(Violation::OtherChannel { channel: 2, of: 1 }));
    assert_eq!(link.on_bytes(Stream::Channel(3), &data(3, true, 64)), Err(Violation::UnknownChannel(3)));
    assert_eq!(link.inlet_count(), 2);

    // The receiver closes a channel in the middle of a frame; the rest of its stream is of no use.
    let (mut link, mut peer) = (greeted_by(0), Link::new(local(1, 0), WorkerId(2)));
    let mut tasks = connect(&mut peer, &mut link, 2, 512);
    peer.on_bytes(Stream::Control, &encoded(&hello(2))).unwrap();
    for message in said(&mut link).iter().filter(|message| matches!(message, Message::Open(_))) {
        peer.on_bytes(Stream::Control, &encoded(message)).unwrap();
    }
    write(&mut tasks.writers[0], 0, 64);
    tasks.writers[0].flush();
    let mut sent = Vec::new();
    peer.pump(|_| usize::MAX, |stream, batch| sent.push((stream, batch.bytes)));
    assert_eq!(sent[1..], [(own, crate::wire::HEADER_BYTES + 64)]);
    assert_eq!(peer.take_ended().count(), 0);
    link.on_bytes(own, &data(1, true, 64)[..30]).unwrap();
    link.detach(GENERATION);
    assert!(link.decoders.keys().all(|stream| *stream == Stream::Control), "{:?}", link.decoders.keys());
    link.on_bytes(own, b"the rest is never looked at").unwrap();
    for message in said(&mut link) {
        peer.on_bytes(Stream::Control, &encoded(&message)).unwrap();
    }
    assert_eq!(peer.take_ended().collect::<Vec<_>>(), [1, 2]);
    assert!(peer.lanes.is_empty(), "channels that have nothing keep no memory");
}

#[test]
fn a_sender_that_ends_first_ends_the_streams_of_its_channels() {
    let (mut link, mut peer) = (greeted_by(0), Link::new(local(1, 0), WorkerId(2)));
    let _tasks = connect(&mut peer, &mut link, 2, 512);
    peer.on_bytes(Stream::Control, &encoded(&hello(2))).unwrap();
    for message in said(&mut link).iter().filter(|message| matches!(message, Message::Open(_))) {
        peer.on_bytes(Stream::Control, &encoded(message)).unwrap();
    }
    peer.detach(GENERATION);
    let mut ended: Vec<u32> = peer.take_ended().collect();
    ended.sort_unstable();
    assert_eq!(ended, [1, 2]);
    link.detach(GENERATION);
    for message in said(&mut link) {
        peer.on_bytes(Stream::Control, &encoded(&message)).unwrap();
    }
    assert_eq!(peer.take_ended().count(), 0);
}

#[test]
fn what_arrives_for_a_closed_channel_is_thrown_away() {
    let mut link = greeted();
    let mut peer = Link::new(local(1, 3), WorkerId(2));
    let _tasks = connect(&mut peer, &mut link, 1, 512);
    said(&mut link);
    let frame = data(1, true, 64);
    link.on_bytes(Stream::Lane(0), &frame[..30]).unwrap();
    link.detach(GENERATION);
    assert_eq!(said(&mut link), [Message::Close { channel: 1 }]);
    link.on_bytes(Stream::Lane(0), &frame[30..]).unwrap();
    link.on_bytes(Stream::Lane(0), &frame).unwrap();
}
