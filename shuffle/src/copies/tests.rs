//! The number that stands in ARCHITECTURE.md, counted.

use std::{env, process::Command, sync::Arc, time::Duration};

use millstream_model::{
    deployment::ChannelToken,
    id::{Generation, WorkerId},
};

use super::{Place, copied_bytes};
use crate::{
    channel::{ChannelSender, GrantSignal, channel},
    exchange::{
        Exchange,
        tests::{Node, Over, ca, node},
    },
    gate::{GateSignal, InputGate},
    link::PeerChannels,
    segment::SegmentPool,
    wake::Waker,
    wire::message::ChannelKey,
};

/// As the configuration has it.
const SEGMENT: usize = 32 << 10;

/// Runs a test in a process of its own: the counters are those of the whole process. Whether this is that process.
fn is_alone(test: &str) -> bool {
    const ALONE: &str = "MILLSTREAM_TEST_ALONE";
    if env::var_os(ALONE).is_some() {
        return true;
    }
    let test = format!("copies::tests::{test}");
    let mut command = Command::new(env::current_exe().expect("a test is an executable"));
    let status = command.args([&test, "--exact", "--include-ignored", "--nocapture"]).env(ALONE, "1").status();
    assert!(status.expect("this executable can be started").success(), "{test} has failed in its own process");
    false
}

/// One channel, and its two ends on this thread.
struct Path {
    sender: ChannelSender,
    gate: InputGate,
    waker: Arc<Waker>,
    _nodes: Vec<Node>,
}

fn ends(
    pool: &SegmentPool,
    wakes: GrantSignal,
    signal: &Arc<GateSignal>,
) -> (ChannelSender, crate::channel::ChannelReceiver) {
    channel(pool, 4 * SEGMENT as u64, wakes, signal.clone(), 0)
}

impl Path {
    fn within_the_process() -> Path {
        let waker = Arc::<Waker>::default();
        let signal = Arc::new(GateSignal::new(1, waker.clone()));
        let (sender, receiver) = ends(&SegmentPool::new(SEGMENT, 8), GrantSignal::Thread(waker.clone()), &signal);
        Path { sender, gate: InputGate::new(vec![receiver], signal), waker, _nodes: Vec::new() }
    }

    fn to_another_worker(over: Over) -> Path {
        let ca = ca();
        let nodes: Vec<Node> = [1, 2].map(|worker| node(over, &ca, worker, Duration::from_secs(20))).into();
        let waker = Arc::<Waker>::default();
        let pools = [0, 1].map(|_| SegmentPool::new(SEGMENT, 8));
        let signal = |exchange: &Exchange, count| Arc::new(GateSignal::new(count, exchange.waker()));
        let [from, to] = [0, 1].map(|index| &nodes[index].exchange);
        let (outlet_signal, grant_signal) = (signal(from, 1), signal(to, 1));
        let gate_signal = Arc::new(GateSignal::new(1, waker.clone()));
        let (sender, outlet) = ends(&pools[0], GrantSignal::Thread(waker.clone()), &outlet_signal);
        let (inlet, receiver) = ends(&pools[1], GrantSignal::Channel(grant_signal.clone(), 0), &gate_signal);
        let key = ChannelKey { edge: 0, producer: 0, consumer: 0 };
        let (generation, token) = (Generation(1), ChannelToken(99));
        let (outlets, inlets) = (vec![(key, outlet)], vec![(key, inlet)]);
        let grants = signal(from, 0);
        let sending =
            PeerChannels { generation, token, outlets, outlet_signal, inlets: Vec::new(), grant_signal: grants };
        let news = signal(to, 0);
        let receiving =
            PeerChannels { generation, token, outlets: Vec::new(), outlet_signal: news, inlets, grant_signal };
        from.attach(WorkerId(2), to.address(), sending);
        to.attach(WorkerId(1), from.address(), receiving);
        Path { sender, gate: InputGate::new(vec![receiver], gate_signal), waker, _nodes: nodes }
    }

    /// Sends so many flushes of so many bytes, each when the one before has arrived.
    fn carry(&mut self, flushes: usize, bytes: usize) {
        self.waker.bind();
        for _ in 0..flushes {
            while !self.sender.resume() {
                self.waker.park(Some(Duration::from_secs(10)));
                self.waker.clear();
            }
            if self.sender.room().0.len() < bytes {
                self.sender.next_segment();
            }
            let (room, filled) = self.sender.room();
            room[..bytes].fill(7);
            *filled += bytes;
            self.sender.flush();
            let mut missing = bytes;
            while missing > 0 {
                self.waker.clear();
                // The first segment may have had no credit when it was written.
                self.sender.resume();
                let Some(channel) = self.gate.next_ready() else {
                    self.waker.park(Some(Duration::from_secs(10)));
                    continue;
                };
                let arrived = self.gate.available(channel).len();
                missing -= arrived;
                self.gate.consume(channel, arrived);
                self.gate.rotate();
            }
        }
    }

    /// How often each byte was copied, place by place, when so much was carried.
    fn copies(&mut self, flushes: usize, bytes: usize) -> [f64; Place::ALL.len()] {
        // What happens once per connection is no part of it.
        self.carry(20, bytes);
        let before = Place::ALL.map(copied_bytes);
        self.carry(flushes, bytes);
        let carried = (flushes * bytes) as f64;
        let mut copies = Place::ALL.map(|place| (copied_bytes(place) as f64) / carried);
        copies.iter_mut().zip(before).for_each(|(copies, before)| *copies -= before as f64 / carried);
        println!("{bytes} bytes a flush: {:.3?}", Place::ALL.iter().zip(copies).collect::<Vec<_>>());
        copies
    }
}

/// Whether each is as it should be: the headers of frames count, too, and so the numbers are a little more than whole.
fn check(what: &str, copies: [f64; Place::ALL.len()], expected: [(f64, f64); Place::ALL.len()]) {
    for ((place, copies), (least, most)) in Place::ALL.iter().zip(copies).zip(expected) {
        assert!((least..=most).contains(&copies), "{what}, {place:?}: {copies}, expected {least} to {most}");
    }
}

/// No copies.
const NONE: (f64, f64) = (0.0, 0.02);
/// One copy, and headers.
const ONE: (f64, f64) = (1.0, 1.1);
/// At most one copy: as bytes arrive in pieces, or not.
const SOME: (f64, f64) = (0.0, 1.1);

#[test]
fn within_a_process_nothing_is_copied() {
    if !is_alone("within_a_process_nothing_is_copied") {
        return;
    }
    for bytes in [64, SEGMENT] {
        check("memory", Path::within_the_process().copies(2_000, bytes), [(0.0, 0.0); Place::ALL.len()]);
    }
}

#[test]
fn a_whole_segment_is_copied_once_between_workers_and_a_small_flush_as_often_as_documented() {
    if !is_alone("a_whole_segment_is_copied_once_between_workers_and_a_small_flush_as_often_as_documented") {
        return;
    }
    // In the order of `Place`: gathered, joined, made a record, taken out of a train, put aside, written into the segment.
    for (over, whole, small) in [
        (Over::Plain, [NONE, NONE, NONE, NONE, NONE, ONE], [ONE, NONE, NONE, NONE, NONE, ONE]),
        (Over::Tls, [NONE, NONE, NONE, NONE, SOME, ONE], [ONE, NONE, ONE, NONE, NONE, ONE]),
        (Over::Quic, [NONE, NONE, NONE, SOME, NONE, ONE], [ONE, NONE, NONE, ONE, NONE, ONE]),
    ] {
        let mut path = Path::to_another_worker(over);
        check(&format!("{over:?}, whole segments"), path.copies(300, SEGMENT), whole);
        check(&format!("{over:?}, small flushes"), path.copies(1_000, 1_024), small);
    }
}
