//! Paths that lose, peers that vanish, and strangers that write nonsense.

use std::{
    io::Write,
    net::{SocketAddr, TcpStream, UdpSocket},
    os::fd::{FromRawFd, OwnedFd},
    time::{Duration, Instant},
};

use fastrand::Rng;
use millstream_model::id::WorkerId;
use millstream_shuffle::transport::{Closed, Options, Stream};
use nix::sys::socket::{MsgFlags, send};

use crate::{
    net::{Kind, Link, Net, Node},
    patient,
    proxy::{Proxy, Weather},
    streams,
};

fn impatient() -> Options {
    Options { keep_alive: Duration::from_millis(100), idle_timeout: Duration::from_millis(700), ..Options::default() }
}

pub fn a_peer_learns_why_the_connection_was_closed(kind: Kind) {
    let mut net = Net::pair(kind, &Options::default());
    net.link(0, 0).send(Stream::Control, 1000);
    net.until(|net| net.link(1, 0).received_bytes() == 1000);
    net.link(1, 0).transport.close(Instant::now(), "the job is finished");
    assert_eq!(net.link(1, 0).closed(), Some(&Closed::Locally));
    net.until(|net| net.link(0, 0).closed().is_some());
    assert_eq!(net.link(0, 0).closed(), Some(&Closed::ByPeer("the job is finished".to_owned())));
}

pub fn a_dropped_connection_ends_for_the_peer(kind: Kind) {
    let mut net = Net::pair(kind, &Options::default());
    net.nodes[1].links.clear();
    net.until(|net| net.link(0, 0).closed().is_some());
    assert!(matches!(net.link(0, 0).closed(), Some(Closed::ByPeer(_))));
}

pub fn a_silent_peer_is_given_up(kind: Kind) {
    let mut net = Net::pair(kind, &impatient());
    net.nodes[1].paused = true;
    let start = Instant::now();
    net.link(0, 0).send(Stream::Lane(1), 100_000);
    net.until(|net| net.link(0, 0).closed().is_some());
    assert_eq!(net.link(0, 0).closed(), Some(&Closed::TimedOut));
    assert!(start.elapsed() >= Duration::from_millis(500) && start.elapsed() < Duration::from_secs(3));
}

pub fn an_idle_connection_is_kept(kind: Kind) {
    let mut net = Net::pair(kind, &impatient());
    net.drive(Duration::from_millis(1500));
    assert!(net.all_links(2, Link::is_open));
}

pub fn nobody_at_the_address_is_noticed_at_once(kind: Kind) {
    let mut net = Net::of_workers(kind, 2, &Options::default());
    let vacant = net.nodes.pop().expect("there are two").listener.address();
    let start = Instant::now();
    net.dial_at(0, WorkerId(1), vacant);
    net.until(|net| net.link(0, 0).closed().is_some());
    assert!(start.elapsed() < Duration::from_secs(1));
    assert!(matches!(net.link(0, 0).closed(), Some(Closed::Failed(_))));
}

/// A worker's process ends without a word, and its kernel closes the sockets.
fn die(node: Node) {
    for link in &node.links {
        // SAFETY: nobody uses the descriptor any more; its owner is forgotten below.
        drop(unsafe { OwnedFd::from_raw_fd(link.transport.socket()) });
    }
    // SAFETY: as above.
    drop(unsafe { OwnedFd::from_raw_fd(node.listener.sockets()[0]) });
    std::mem::forget(node);
}

pub fn a_peer_that_dies_is_noticed_long_before_the_timeout(kind: Kind) {
    let mut net = Net::pair(kind, &patient());
    die(net.nodes.pop().expect("there are two"));
    let start = Instant::now();
    net.link(0, 0).send(Stream::Lane(0), 1000);
    net.until(|net| net.link(0, 0).closed().is_some());
    assert!(start.elapsed() < Duration::from_secs(2));
    assert!(matches!(net.link(0, 0).closed(), Some(Closed::Failed(_))));
}

pub fn what_a_dying_peer_has_sent_still_arrives(kind: Kind) {
    let mut net = Net::pair(kind, &patient());
    net.nodes[0].paused = true;
    net.write_now(1, 0, Stream::Lane(0), 1000);
    die(net.nodes.pop().expect("there are two"));
    net.nodes[0].paused = false;
    net.until(|net| net.link(0, 0).closed().is_some());
    assert_eq!(net.link(0, 0).received_bytes(), 1000);
    assert!(matches!(net.link(0, 0).closed(), Some(Closed::Failed(_))));
}

/// From a port scan to a worker that is set up otherwise.
pub fn a_stranger_that_writes_nonsense_is_turned_away(kind: Kind) {
    let mut net = Net::pair(kind, &Options::default());
    let mut rng = Rng::with_seed(4);
    let mut strangers = Vec::new();
    for nonsense in 0..50 {
        let mut bytes = vec![0; rng.usize(64..4000)];
        rng.fill(&mut bytes);
        match nonsense {
            // Looks like TLS for a while.
            0..10 => bytes[..5].copy_from_slice(&[0x16, 3, 1, 0, 200]),
            10 => bytes = b"GET / HTTP/1.1\r\n\r\n".repeat(20),
            // A proper greeting, and then nonsense.
            11..20 => bytes[..24].copy_from_slice(b"\0\0\0\0\x10\0\0\0MILL\x01\0\0\0\x01\0\0\0\0\0\0\0"),
            _ => {}
        }
        let mut stranger = TcpStream::connect(net.nodes[1].listener.address()).expect("it listens");
        stranger.write_all(&bytes).expect("the kernel takes it");
        // Half of them go away at once.
        strangers.extend(rng.bool().then_some(stranger));
    }
    net.link(0, 0).send(Stream::Lane(2), 5_000_000);
    drop(strangers);
    net.until(|net| {
        net.nodes[1].links.len() == 51 && net.nodes[1].links[1..].iter().all(|link| link.closed().is_some())
    });
    net.until(|net| net.link(1, 0).received_bytes() == 5_000_000);
}

fn a_rough_path_loses_nothing(kind: Kind) {
    let seed = 0x5eed;
    let mut net = Net::of_workers(kind, 2, &Options::default());
    let proxy = Proxy::to(net.nodes[1].listener.address(), seed);
    proxy.weather(Weather::Rough);
    net.dial_at(0, WorkerId(1), proxy.address);
    net.until(|net| net.all_links(2, Link::is_open));
    for node in [0, 1] {
        for stream in streams(16) {
            net.link(node, 0).send(stream, 400_000);
        }
    }
    net.until(|net| net.all_links(2, |link| link.received_bytes() == 17 * 400_000));
    let path = net.link(0, 0).transport.path();
    assert!(path.lost_packets > 0, "the path was not rough: {path:?}");
}

fn a_dark_path_is_given_up(kind: Kind) {
    let mut net = Net::of_workers(kind, 2, &impatient());
    let proxy = Proxy::to(net.nodes[1].listener.address(), 1);
    net.dial_at(0, WorkerId(1), proxy.address);
    net.until(|net| net.all_links(2, Link::is_open));
    proxy.weather(Weather::Dark);
    net.until(|net| net.all_links(2, |link| link.closed().is_some()));
    assert!(net.links().all(|link| link.closed() == Some(&Closed::TimedOut)));
}

fn a_short_darkness_is_survived(kind: Kind) {
    let mut net = Net::of_workers(kind, 2, &impatient());
    let proxy = Proxy::to(net.nodes[1].listener.address(), 1);
    net.dial_at(0, WorkerId(1), proxy.address);
    net.until(|net| net.all_links(2, Link::is_open));
    net.link(0, 0).send(Stream::Lane(0), 20_000_000);
    net.until(|net| net.link(1, 0).received_bytes() > 1_000_000);
    proxy.weather(Weather::Dark);
    net.drive(Duration::from_millis(200));
    proxy.weather(Weather::Clear);
    net.until(|net| net.link(1, 0).received_bytes() == 20_000_000);
}

/// Two workers over a rough path, of which `sender` sends without end: as much is under way as congestion control allows.
fn congested(kind: Kind, sender: usize) -> (Net, Proxy) {
    let options = Options { idle_timeout: Duration::from_secs(4), ..impatient() };
    let mut net = Net::of_workers(kind, 2, &options);
    let proxy = Proxy::to(net.nodes[1].listener.address(), 0x0dd);
    proxy.weather(Weather::Rough);
    net.dial_at(0, WorkerId(1), proxy.address);
    net.until(|net| net.all_links(2, Link::is_open));
    net.link(sender, 0).send(Stream::Lane(0), 2_000_000_000);
    (net, proxy)
}

/// More is under way than congestion control allows when it gets dark, so nothing of it makes room for anything else.
fn light_is_seen_at_once_even_if_it_got_dark_while_much_was_under_way(kind: Kind) {
    let (mut net, proxy) = congested(kind, 0);
    for dark in [1_500, 1_700, 1_900] {
        let before = net.link(1, 0).received_bytes();
        net.until(|net| net.link(1, 0).received_bytes() > before + 3_000_000);
        proxy.weather(Weather::Dark);
        net.drive(Duration::from_millis(dark));
        let before = net.link(1, 0).received_bytes();
        proxy.weather(Weather::Rough);
        let light = Instant::now();
        net.until(|net| net.link(1, 0).received_bytes() > before);
        assert!(light.elapsed() < Duration::from_millis(400), "after {dark} ms it took {:?}", light.elapsed());
    }
}

/// One side hears the other all the time, and is not heard while more is under way than congestion control allows.
fn who_was_not_heard_answers_as_soon_as_it_can_be_although_it_has_much_to_send(kind: Kind) {
    let (mut net, proxy) = congested(kind, 1);
    for mute in [1_500, 1_700, 1_900] {
        let before = net.link(0, 0).received_bytes();
        net.until(|net| net.link(0, 0).received_bytes() > before + 3_000_000);
        proxy.weather(Weather::Mute);
        let since = Instant::now();
        while since.elapsed() < Duration::from_millis(mute) {
            net.link(0, 0).send(Stream::Control, 10);
            net.drive(Duration::from_millis(20));
        }
        let before = net.link(0, 0).received_bytes();
        proxy.weather(Weather::Rough);
        let heard = Instant::now();
        net.until(|net| net.link(0, 0).received_bytes() > before);
        assert!(heard.elapsed() < Duration::from_millis(400), "after {mute} ms it took {:?}", heard.elapsed());
    }
}

/// The other worker has restarted at the same address, or forgotten the connection, and its last words were lost.
fn a_forgotten_connection_is_reset(kind: Kind) {
    let mut net = Net::of_workers(kind, 2, &Options::default());
    let proxy = Proxy::to(net.nodes[1].listener.address(), 1);
    net.dial_at(0, WorkerId(1), proxy.address);
    net.until(|net| net.all_links(2, Link::is_open));
    proxy.weather(Weather::Mute);
    net.nodes[1].links.clear();
    net.drive(Duration::from_millis(50));
    proxy.weather(Weather::Clear);
    net.link(0, 0).send(Stream::Lane(0), 1000);
    net.until(|net| net.link(0, 0).closed().is_some());
    let text = net.link(0, 0).closed().expect("it is closed").to_string();
    assert!(text.contains("does not know this connection any more"), "{text}");
}

fn garbage_does_no_harm(kind: Kind) {
    let mut net = Net::pair(kind, &Options::default());
    let mut rng = Rng::with_seed(3);
    let stranger = UdpSocket::bind("127.0.0.1:0").expect("loopback has a free port");
    let listeners: Vec<SocketAddr> = net.nodes.iter().map(|node| node.listener.address()).collect();
    for node in [0, 1] {
        net.link(node, 0).send(Stream::Lane(2), 20_000_000);
    }
    while net.links().any(|link| link.received_bytes() < 20_000_000) {
        let mut garbage = vec![0; rng.usize(0..2000)];
        rng.fill(&mut garbage);
        if let Some(first) = garbage.first_mut() {
            // Long headers of the real version now and then.
            *first |= 0x40 | rng.u8(..) << 7;
        }
        if rng.bool() && garbage.len() > 5 {
            garbage[1..5].copy_from_slice(&[0, 0, 0, 1]);
        }
        for listener in &listeners {
            stranger.send_to(&garbage, listener).expect("loopback takes it");
        }
        // From the very address of the peer, too. A full buffer is no harm either.
        for node in [0, 1] {
            let _ = send(net.link(node, 0).transport.socket(), &garbage, MsgFlags::MSG_DONTWAIT);
        }
        net.turn();
    }
    assert_eq!(net.links().count(), 2);
    net.dial(0, 1);
    net.until(|net| net.all_links(4, Link::is_open));
}

crate::over! { [quic, tls, plain, quic_by_ring, tls_by_ring, plain_by_ring, quic_by_channels, tls_by_channels, plain_by_channels] {
    a_peer_learns_why_the_connection_was_closed,
    a_dropped_connection_ends_for_the_peer,
    a_silent_peer_is_given_up,
    an_idle_connection_is_kept,
    nobody_at_the_address_is_noticed_at_once,
    a_peer_that_dies_is_noticed_long_before_the_timeout,
    what_a_dying_peer_has_sent_still_arrives,
} }

mod tcp {
    use super::a_stranger_that_writes_nonsense_is_turned_away;

    crate::over! { [tls, plain, tls_by_ring, plain_by_ring] {
        a_stranger_that_writes_nonsense_is_turned_away,
    } }
}

mod over_quic {
    use super::{
        a_dark_path_is_given_up, a_forgotten_connection_is_reset, a_rough_path_loses_nothing,
        a_short_darkness_is_survived, garbage_does_no_harm,
        light_is_seen_at_once_even_if_it_got_dark_while_much_was_under_way,
        who_was_not_heard_answers_as_soon_as_it_can_be_although_it_has_much_to_send,
    };

    crate::over! { [quic, quic_by_ring, quic_by_channels] {
        a_rough_path_loses_nothing,
        a_dark_path_is_given_up,
        a_short_darkness_is_survived,
        light_is_seen_at_once_even_if_it_got_dark_while_much_was_under_way,
        who_was_not_heard_answers_as_soon_as_it_can_be_although_it_has_much_to_send,
        a_forgotten_connection_is_reset,
        garbage_does_no_harm,
    } }
}
