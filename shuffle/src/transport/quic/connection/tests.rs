//! Both ends in one thread, with a hand on what is inside.

use std::{collections::HashSet, time::SystemTime};

use nix::sys::socket::{MsgFlags, recv};

use super::*;
use crate::{
    exchange::tests::{Over, ca, node},
    transport::{
        Listener as _,
        hello::Preamble,
        identity::{ClusterCa, Identity},
        quic::QuicListener,
    },
};

#[expect(clippy::disallowed_methods, reason = "the test drives sockets, so it owns the clock")]
fn now() -> Instant {
    Instant::now()
}

/// Both ends of a connection, and their listeners; the near one has dialled.
struct Ends {
    near: QuicConnection,
    far: QuicConnection,
    listener: QuicListener,
    _dialler: QuicListener,
    limit: Instant,
}

impl Ends {
    fn open() -> Self {
        Ends::with(&Options::default())
    }

    #[expect(clippy::disallowed_methods, reason = "certificates are checked against the system's clock")]
    fn with(options: &Options) -> Self {
        let (today, day) = (SystemTime::now(), Duration::from_secs(86_400));
        let ca = ClusterCa::generate(1, today, day).expect("there is randomness");
        let listen = |worker| {
            let identity = ca.issue(WorkerId(worker), today, day).expect("there is randomness");
            QuicListener::bind(([127, 0, 0, 1], 0).into(), identity, options.clone()).expect("there is a port")
        };
        let (mut listener, dialler) = (listen(1), listen(0));
        let near = dialler.dial(now(), WorkerId(1), listener.address()).expect("there are descriptors");
        let limit = now() + Duration::from_secs(20);
        let far = loop {
            assert!(now() < limit, "nobody dials");
            if let Some(far) = listener.take(now()).pop() {
                break far;
            }
        };
        let mut ends = Ends { near, far, listener, _dialler: dialler, limit };
        while !matches!((&ends.near.state, ends.far.connection()), (Connection::Open { .. }, Connection::Open { .. })) {
            ends.turn(&mut |_, _| {});
        }
        ends
    }

    fn turn(&mut self, far_reads: &mut dyn FnMut(Stream, &[u8])) {
        assert!(now() < self.limit, "{:?}, {:?}", self.near.state, self.far.connection());
        self.near.receive(now());
        self.near.read(&mut |_, _| {});
        self.near.transmit(now());
        self.far.receive(now());
        self.far.read(far_reads);
        self.far.transmit(now());
    }
}

#[test]
fn channels_that_end_give_their_streams_back_and_those_to_come_keep_no_memory() {
    let mut ends = Ends::with(&Options { lanes: 0, ..Options::default() });
    let allowed = |ends: &Ends| ends.far.machine.max_concurrent_streams(Dir::Uni);
    assert_eq!(allowed(&ends), 1, "only the control stream");
    ends.far.expect_channels(2_000);
    assert_eq!(allowed(&ends), 2_001);
    // Ten times as many channels as may be there at a time: those that the peer does not allow yet have to wait.
    for first in (0..20_000).step_by(2_000) {
        for channel in first..first + 2_000 {
            let mut batch = Batch::default();
            batch.push(u32::to_le_bytes(channel).to_vec().into());
            ends.near.write(Stream::Channel(channel), batch);
            ends.near.end_channel(channel);
        }
    }
    let mut received = HashSet::new();
    while received.len() < 20_000 {
        ends.turn(&mut |stream, bytes| {
            let Stream::Channel(channel) = stream else { panic!("{stream:?}") };
            assert_eq!((received.insert(channel), bytes), (true, &channel.to_le_bytes()[..]));
        });
    }
    while !ends.near.outgoing.is_empty() || !ends.far.incoming.has_no_channels() {
        ends.turn(&mut |_, _| {});
    }
    // Fewer are allowed once there are fewer.
    ends.far.expect_channels(3);
    while allowed(&ends) > 4 {
        let channel = u32::MAX - allowed(&ends) as u32;
        let mut batch = Batch::default();
        batch.push(vec![1].into());
        ends.near.write(Stream::Channel(channel), batch);
        ends.near.end_channel(channel);
        ends.turn(&mut |_, _| {});
    }
}

#[test]
fn on_loopback_the_largest_datagrams_are_used_at_once_and_none_is_sent_to_try() {
    let mut ends = Ends::open();
    let mut batch = Batch::default();
    batch.push(vec![1; 200_000].into());
    ends.near.write(Stream::Lane(0), batch);
    let mut received = 0;
    while received < 200_000 {
        ends.turn(&mut |_, bytes| received += bytes.len());
    }
    for end in [&ends.near, &ends.far] {
        assert_eq!(end.machine.current_mtu(), config::DATAGRAM_BYTES_MAX);
        // Each is read byte by byte.
        assert_eq!(end.machine.stats().path.sent_plpmtud_probes, 0);
    }
}

#[test]
fn a_train_that_finds_the_socket_full_is_kept_and_sent_first() {
    let mut ends = Ends::open();
    let (mut sent, mut received) = (0, 0);
    for round in 0.. {
        // Most of the time there is no getting through.
        ends.near.socket.jammed = round % 10 > 0;
        while sent < 20_000_000 && ends.near.room(Stream::Lane(0)) > 0 {
            let mut batch = Batch::default();
            batch.push(vec![(sent / 10_000) as u8; 10_000].into());
            ends.near.write(Stream::Lane(0), batch);
            sent += 10_000;
        }
        ends.turn(&mut |_, bytes| {
            for &byte in bytes {
                assert_eq!(byte, (received / 10_000) as u8);
                received += 1;
            }
        });
        assert!(ends.near.unsent.is_empty() || ends.near.socket.jammed);
        if received == 20_000_000 {
            break;
        }
    }
    assert_eq!(ends.near.path().lost_packets, 0);
}

#[test]
fn trains_that_cannot_be_sent_together_with_others_are_sent_alone() {
    let mut ends = Ends::open();
    let (mut sent, mut received) = (0, 0);
    let outcomes: [fn() -> Outcome; 4] = [
        || Some(Err(ErrorKind::WouldBlock.into())),
        || None,
        // The interface cannot split trains.
        || Some(Err(io::Error::from_raw_os_error(nix::libc::EIO))),
        || Some(Err(ErrorKind::ConnectionRefused.into())),
    ];
    let mut kinds = outcomes.iter().cycle();
    while received < 20_000_000 {
        while sent < 20_000_000 && ends.near.room(Stream::Lane(0)) > 0 {
            let mut batch = Batch::default();
            batch.push(vec![(sent / 10_000) as u8; 10_000].into());
            ends.near.write(Stream::Lane(0), batch);
            sent += 10_000;
        }
        let time = now();
        let mut load = Load::default();
        ends.near.load(time, &mut load);
        let count = load.count();
        let outcomes: Vec<Outcome> = kinds.by_ref().take(count).map(|outcome| outcome()).collect();
        let full = outcomes.iter().flatten().filter(|outcome| is_full(outcome)).count();
        ends.near.sent(time, &mut outcomes.into_iter());
        assert!(ends.near.loaded.is_empty());
        assert_eq!(ends.near.unsent.len(), full);
        assert!(full == 0 || !ends.near.more_to_send, "it is told when there is room again");
        ends.turn(&mut |_, bytes| {
            for &byte in bytes {
                assert_eq!(byte, (received / 10_000) as u8);
                received += 1;
            }
        });
    }
    assert_eq!(ends.near.path().lost_packets, 0);
}

fn is_full(outcome: &io::Result<usize>) -> bool {
    outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn what_arrives_on_another_socket_reaches_its_connection() {
    let mut ends = Ends::open();
    // It is connected to somebody else, so that the listener gets what it should.
    let elsewhere = ([127, 0, 0, 1], 9).into();
    ends.far.socket = Socket::answer(ends.listener.address(), elsewhere, 1 << 20).expect("there are descriptors");
    let mut received = 0;
    for _ in 0..20 {
        let mut batch = Batch::default();
        batch.push(vec![1; 50_000].into());
        ends.near.write(Stream::Lane(0), batch);
    }
    while received < 1_000_000 {
        assert!(now() < ends.limit, "{received}");
        ends.near.receive(now());
        ends.near.transmit(now());
        ends.listener.take(now());
        if lock(&ends.far.shared).has_mail(ends.far.handle) {
            assert!(ends.far.deadline().is_some_and(|due| due <= now()));
        }
        ends.far.receive(now());
        ends.far.read(&mut |_, bytes| received += bytes.len());
        ends.far.transmit(now());
    }
}

#[test]
fn a_turn_that_ends_before_the_work_is_done_asks_for_another() {
    let mut ends = Ends::open();
    let (mut unsent, mut unreceived) = (0, 0);
    while unsent < 5 || unreceived < 5 {
        let mut batch = Batch::default();
        batch.push(vec![1; ends.near.room(Stream::Lane(0))].into());
        ends.near.write(Stream::Lane(0), batch);
        // As much as congestion control and pacing let go, in as many turns as it takes.
        loop {
            let time = now();
            ends.near.transmit(time);
            if ends.near.machine.poll_transmit(time, 1, &mut Vec::new()).is_none() {
                break;
            }
            // That packet is lost, and will be repeated.
            assert!(ends.near.deadline().is_some_and(|due| due <= time));
            unsent += 1;
        }
        let time = now();
        ends.far.receive(time);
        ends.far.read(&mut |_, _| {});
        // The kernel delivers when it likes, so nobody else can tell whether there was more.
        if ends.far.more_to_receive {
            assert!(ends.far.deadline().is_some_and(|due| due <= time));
            unreceived += 1;
        }
        while ends.near.outgoing.kept_bytes() > 0 {
            ends.turn(&mut |_, _| {});
        }
    }
}

#[test]
fn a_peer_that_breaks_the_rules_of_the_streams_is_told_so_and_cut_off() {
    let twice = Preamble::Lane(3).encode();
    for (begins, ends_too, complaint) in [
        (&b"no preamble here"[..], false, "which is no preamble"),
        (&twice[..], false, "a second stream says that it is Lane(3)"),
        (&Preamble::Lane(9).encode()[..], true, "the stream Some(Lane(9)) has ended"),
        (&b"short"[..], true, "the stream None has ended"),
    ] {
        let mut ends = Ends::open();
        let mut batch = Batch::default();
        batch.push(Bytes::from_static(b"x"));
        ends.near.write(Stream::Lane(3), batch);
        ends.turn(&mut |_, _| {});
        let id = ends.near.machine.streams().open(Dir::Uni).expect("the peer allows more");
        let mut stream = ends.near.machine.send_stream(id);
        assert_eq!(stream.write(begins), Ok(begins.len()));
        if ends_too {
            stream.finish().expect("it is open");
        }
        while !ends.near.is_closed() {
            ends.turn(&mut |_, _| {});
        }
        let (near, far) = (ends.near.state.clone(), ends.far.connection().clone());
        let Connection::Closed(Closed::ByPeer(near)) = near else { panic!("{near:?}") };
        let Connection::Closed(Closed::Failed(far)) = far else { panic!("{far:?}") };
        assert!(near == far && near.contains(complaint), "{near}, {far}");
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "certificates are checked against the system's clock")]
fn a_stranger_who_has_not_heard_that_it_is_refused_hears_it_again() {
    let (ours, theirs, today, day) = (ca(), ca(), SystemTime::now(), Duration::from_secs(86_400));
    let node = node(Over::Quic, &ours, 1, Duration::from_secs(20));
    let stranger = theirs.issue(WorkerId(2), today, day).unwrap();
    // It believes the node, which does not believe it.
    let identity = Identity {
        certificates: stranger.certificates,
        key: stranger.key,
        ..ours.issue(WorkerId(2), today, day).unwrap()
    };
    let dialler = QuicListener::bind(([127, 0, 0, 1], 0).into(), identity, Options::default()).unwrap();
    let mut near = dialler.dial(now(), WorkerId(1), node.exchange.address()).unwrap();
    let limit = now() + Duration::from_secs(20);
    let mut lost = 0;
    while !near.is_closed() {
        assert!(now() < limit, "{lost} answers were lost, and nothing came after them");
        // Once it has sent its certificate, what comes is the answer to that.
        if near.verified.is_some() && lost < 1 {
            lost += usize::from(recv(near.socket.as_raw_fd(), &mut [0; 2048], MsgFlags::MSG_DONTWAIT).is_ok());
            if near.timer.is_some_and(|due| due <= now()) {
                near.machine.handle_timeout(now());
                near.pump();
            }
        } else {
            near.receive(now());
        }
        near.transmit(now());
    }
    assert!(
        matches!(&near.state, Connection::Closed(Closed::Refused(why)) if why.contains("by the peer")),
        "{:?}",
        near.state
    );
}
