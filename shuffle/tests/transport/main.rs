//! Connections over real sockets, the same tests over each transport.

#![allow(clippy::disallowed_methods, reason = "the tests drive sockets, so they own the clock")]

mod net;
mod proxy;
mod trouble;
mod trust;

use std::{collections::BTreeSet, time::Duration};

use millstream_model::id::WorkerId;
use millstream_shuffle::transport::{Options, Stream};
use net::{Kind, Link, Net, authority, identity};
use nix::sys::socket::{SockaddrIn, getpeername, getsockname};

/// Makes a test of each function for each kind of transport.
macro_rules! over {
    ([$($module:ident),*] $tests:tt) => { $($crate::over! { @ $module $tests })* };
    (@ $module:ident { $($test:ident,)* }) => {
        mod $module {
            $(#[test] fn $test() { super::$test($crate::Kind::$module()) })*
        }
    };
}

pub(crate) use over;

over! { [quic, tls, plain, quic_by_ring, tls_by_ring, plain_by_ring, quic_by_channels, tls_by_channels, plain_by_channels] {
    bytes_of_all_streams_arrive_complete_and_in_order_both_ways,
    one_lane_alone_carries_everything,
    each_of_eight_peers_has_a_socket_of_its_own,
    a_crowd_of_peers_that_dial_at_once_is_let_in,
    control_overtakes_the_data_of_lanes,
    queued_data_never_fills_more_than_the_window,
    listeners_at_every_kind_of_address_can_be_dialled,
    both_sides_know_what_the_connection_runs_over,
    small_socket_buffers_are_never_overrun,
    no_lane_starves_while_others_have_plenty,
} }

/// No keep-alive comes to the help of a wake-up that was forgotten.
fn patient() -> Options {
    Options { keep_alive: Duration::from_secs(100), idle_timeout: Duration::from_secs(300), ..Options::default() }
}

mod over_quic {
    use super::diallers_that_do_not_answer_get_few_sockets;

    over! { [quic, quic_by_ring, quic_by_channels] {
        diallers_that_do_not_answer_get_few_sockets,
    } }
}

fn streams(lanes: u8) -> impl Iterator<Item = Stream> {
    (0..lanes).map(Stream::Lane).chain([Stream::Control])
}

fn bytes_of_all_streams_arrive_complete_and_in_order_both_ways(kind: Kind) {
    let mut net = Net::pair(kind, &patient());
    for node in [0, 1] {
        for stream in streams(16) {
            net.link(node, 0).send(stream, 3_000_017);
        }
    }
    net.until(|net| net.all_links(2, |link| link.received_bytes() == 17 * 3_000_017));
    assert!(net.links().all(|link| link.received.values().all(|&bytes| bytes == 3_000_017)));
}

fn one_lane_alone_carries_everything(kind: Kind) {
    let mut net = Net::pair(kind, &Options { lanes: 1, ..patient() });
    net.link(0, 0).send(Stream::Lane(0), 50_000_000);
    net.until(|net| net.link(1, 0).received_bytes() == 50_000_000);
}

fn each_of_eight_peers_has_a_socket_of_its_own(kind: Kind) {
    let mut net = Net::of_workers(kind, 9, &patient());
    for peer in 1..9 {
        net.dial(peer, 0);
    }
    net.until(|net| net.all_links(16, Link::is_open));
    let listener = &net.nodes[0].listener;
    let local: BTreeSet<String> = net.nodes[0]
        .links
        .iter()
        .map(|link| getsockname::<SockaddrIn>(link.transport.socket()).expect("it is open").to_string())
        .collect();
    assert_eq!(local, BTreeSet::from([listener.address().to_string()]));
    let peers: BTreeSet<String> = net.nodes[0]
        .links
        .iter()
        .map(|link| getpeername::<SockaddrIn>(link.transport.socket()).expect("it is connected").to_string())
        .collect();
    let dialled: BTreeSet<String> = net.nodes[1..]
        .iter()
        .map(|node| getsockname::<SockaddrIn>(node.links[0].transport.socket()).expect("it is open").to_string())
        .collect();
    assert_eq!(peers, dialled);
    if kind.proves_identity() {
        let known: BTreeSet<_> = net.nodes[0].links.iter().map(Link::peer).collect();
        assert_eq!(known, (1..9).map(|worker| Some(WorkerId(worker))).collect());
        assert!(net.nodes[1..].iter().all(|node| node.links[0].peer() == Some(WorkerId(0))));
    }
    for node in 0..9 {
        for link in &mut net.nodes[node].links {
            streams(16).for_each(|stream| link.send(stream, 100_000));
        }
    }
    net.until(|net| net.all_links(16, |link| link.received_bytes() == 1_700_000));
}

/// Addresses can be forged, and each handshake has a socket.
fn diallers_that_do_not_answer_get_few_sockets(kind: Kind) {
    let mut net = Net::of_workers(kind, 2, &patient());
    for _ in 0..100 {
        net.dial(0, 1);
    }
    net.nodes[0].paused = true;
    net.drive(Duration::from_millis(100));
    assert_eq!(net.nodes[1].links.len(), 64);
    net.nodes[0].paused = false;
    net.until(|net| net.all_links(200, Link::is_open));
}

fn a_crowd_of_peers_that_dial_at_once_is_let_in(kind: Kind) {
    let mut net = Net::of_workers(kind, 2, &patient());
    for _ in 0..100 {
        net.dial(0, 1);
    }
    net.until(|net| net.all_links(200, Link::is_open));
    for link in 0..100 {
        net.link(0, link).send(Stream::Lane(3), 10_000);
    }
    net.until(|net| net.nodes[1].links.iter().all(|link| link.received_bytes() == 10_000));
}

fn control_overtakes_the_data_of_lanes(kind: Kind) {
    let mut net = Net::pair(kind, &patient());
    net.nodes[1].paused = true;
    // More than there is room for, than the kernel takes, and than congestion control lets go at first.
    let each = kind.kernel_bytes() / 16 + 400_000;
    for lane in 0..16 {
        net.write_now(0, 0, Stream::Lane(lane), each);
    }
    net.write_now(0, 0, Stream::Control, 500_000);
    net.nodes[1].paused = false;
    net.until(|net| net.link(1, 0).received_bytes() == 16 * each + 500_000);
    let log = &net.link(1, 0).log;
    let last = log.iter().rposition(|(stream, _)| *stream == Stream::Control).expect("it has arrived");
    let before: usize =
        log[..last].iter().filter(|(stream, _)| *stream != Stream::Control).map(|(_, bytes)| bytes).sum();
    let under_way = kind.kernel_bytes() as usize + 400_000;
    assert!(before < under_way, "{before} bytes of lanes were before the end of control");
}

fn queued_data_never_fills_more_than_the_window(kind: Kind) {
    let options = Options { window: 300_000, ..patient() };
    let mut net = Net::pair(kind, &options);
    net.nodes[1].paused = true;
    net.link(0, 0).send(Stream::Lane(0), 40_000_000);
    let mut sent = 0;
    while sent < net.link(0, 0).sent.get(&Stream::Lane(0)).copied().unwrap_or(1) {
        net.until(|net| net.link(0, 0).transport.room(Stream::Lane(7)) == 0);
        sent = net.link(0, 0).sent[&Stream::Lane(0)];
        net.drive(Duration::from_millis(30)); // the kernel may take more
    }
    let most = kind.kernel_bytes() + 300_000 + (1 << 17); // the last batch may exceed the room
    assert!((100_000..most).contains(&sent), "{sent} bytes were taken");
    assert_eq!(net.link(0, 0).transport.room(Stream::Lane(7)), 0);
    assert!(net.link(0, 0).transport.room(Stream::Control) > 100_000);
    net.nodes[1].paused = false;
    net.until(|net| net.link(1, 0).received_bytes() == 40_000_000);
}

fn listeners_at_every_kind_of_address_can_be_dialled(kind: Kind) {
    for (listens, dialled) in
        [("[::1]:0", &["[::1]"][..]), ("0.0.0.0:0", &["127.0.0.1", "127.0.0.2"]), ("[::]:0", &["[::1]", "127.0.0.1"])]
    {
        let (mut net, ca) = (Net::new(kind, 1), authority(1));
        net.add(kind.listen(identity(&ca, 0), patient()));
        net.add(kind.listen_at(listens.parse().expect("it is one"), identity(&ca, 1), patient()));
        let port = net.nodes[1].listener.address().port();
        for address in dialled {
            net.dial_at(0, WorkerId(1), format!("{address}:{port}").parse().expect("it is one"));
        }
        net.until(|net| net.all_links(2 * dialled.len(), Link::is_open));
        for link in net.nodes.iter_mut().flat_map(|node| &mut node.links) {
            link.send(Stream::Lane(1), 1_000_000);
        }
        net.until(|net| net.links().all(|link| link.received_bytes() == 1_000_000));
    }
}

fn both_sides_know_what_the_connection_runs_over(kind: Kind) {
    let mut net = Net::pair(kind, &Options::default());
    let address = net.nodes[1].listener.address();
    net.until(|net| net.links().all(|link| !kind.is_quic() || link.transport.path().mtu > 65_000));
    let paths: Vec<_> = net.links().map(|link| link.transport.path()).collect();
    assert_eq!(paths[0].peer, address);
    for path in paths {
        assert_eq!(path.transport, if kind.is_quic() { "quic" } else { "tcp" });
        assert!(path.socket_buffer > 0);
        assert_eq!(path.cipher.is_some(), kind.proves_identity(), "{path:?}");
        assert!(path.cipher.is_none_or(|cipher| cipher.starts_with("TLS13_")));
    }
}

/// Containers get these, and may not have larger ones.
fn small_socket_buffers_are_never_overrun(kind: Kind) {
    let small = Options { socket_buffer: 212_992, ..patient() };
    // One side only has one, and the other must know.
    for (near, far) in [(&small, &small), (&patient(), &small)] {
        let (mut net, ca) = (Net::new(kind, 1), authority(1));
        net.add(kind.listen(identity(&ca, 0), near.clone()));
        net.add(kind.listen(identity(&ca, 1), far.clone()));
        net.dial(0, 1);
        net.until(|net| net.all_links(2, Link::is_open));
        (0..16).for_each(|lane| net.link(0, 0).send(Stream::Lane(lane), 2_000_000));
        net.until(|net| net.link(1, 0).received_bytes() == 16 * 2_000_000);
        let path = net.link(0, 0).transport.path();
        // Probes for a larger MTU are not counted.
        assert_eq!(path.lost_packets, 0, "{path:?}");
    }
}

fn no_lane_starves_while_others_have_plenty(kind: Kind) {
    let mut net = Net::pair(kind, &Options { window: 100_000, ..patient() });
    net.nodes[1].paused = true;
    let each = kind.kernel_bytes() / 8 + 1_000_000;
    for lane in 0..16 {
        net.write_now(0, 0, Stream::Lane(lane), each);
    }
    net.nodes[1].paused = false;
    net.until(|net| net.link(1, 0).received_bytes() > 8 * each);
    let received = &net.link(1, 0).received;
    assert!(received.len() == 16 && received.values().all(|&bytes| bytes > each / 4), "{received:?}");
}
