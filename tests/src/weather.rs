//! The way to a host, as rough as wanted: what is sent to it goes through a relay at the switch, which delays, loses and
//! reorders datagrams by a seed. Kernels need not have `netem`.

use std::{
    collections::{BTreeMap, HashMap},
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use fastrand::Rng;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::hosts::Hosts;

/// What becomes of the datagrams of a path, in each direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Weather {
    /// All of them are so late.
    pub delay: Duration,
    /// So many of a thousand are lost.
    pub lost_of_thousand: u32,
    /// So many of a thousand are later than the others by up to `stray`, and arrive behind them.
    pub stray_of_thousand: u32,
    pub stray: Duration,
}

/// A relay that others take for the host.
#[derive(Debug)]
pub struct Relay {
    pub address: SocketAddr,
    tally: Arc<Tally>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Tally {
    has_ended: AtomicBool,
    passed: AtomicU64,
    lost: AtomicU64,
    strayed: AtomicU64,
}

impl Relay {
    /// Passes on to `target` what arrives at the relay's address, and back.
    ///
    /// # Panics
    /// If there is no socket for it.
    pub fn to(target: SocketAddr, hosts: &Hosts, weather: Weather, seed: u64) -> Relay {
        let socket = move |address: SocketAddr| {
            let socket = UdpSocket::bind(address).expect("the switch has a free port");
            socket.set_nonblocking(true).expect("it is a socket");
            socket
        };
        let own = SocketAddr::new(hosts.switch_address(), 0);
        let tally = Arc::new(Tally::default());
        let counted = tally.clone();
        let start = move || {
            let front = socket(own);
            let address = front.local_addr().expect("it is bound");
            // Threads belong to where they are started from, so later sockets are of the switch, too.
            let thread = thread::spawn(move || {
                let (backs, late, rng) = (HashMap::new(), BTreeMap::new(), Rng::with_seed(seed));
                let mut path = Path { front, own, target, backs, late, taken: 0, rng, weather, tally: counted };
                while path.forward(&socket) {}
            });
            (address, thread)
        };
        let (address, thread) = hosts.on_switch(start);
        Relay { address, tally, thread: Some(thread) }
    }

    /// How many datagrams have passed, were lost, and were later than others.
    pub fn tally(&self) -> [u64; 3] {
        [&self.tally.passed, &self.tally.lost, &self.tally.strayed].map(|count| count.load(SeqCst))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.tally.has_ended.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            // It panics where the test does already.
            let _ = thread.join();
        }
    }
}

struct Path {
    front: UdpSocket,
    own: SocketAddr,
    target: SocketAddr,
    /// By the dialler, what it looks like to the target.
    backs: HashMap<SocketAddr, UdpSocket>,
    /// By the time when they are due, and a number.
    late: BTreeMap<(Instant, u64), Datagram>,
    taken: u64,
    rng: Rng,
    weather: Weather,
    tally: Arc<Tally>,
}

struct Datagram {
    dialler: SocketAddr,
    /// Whether it goes to the target.
    is_ahead: bool,
    bytes: Vec<u8>,
}

impl Path {
    /// Whether to go on.
    fn forward(&mut self, socket: &impl Fn(SocketAddr) -> UdpSocket) -> bool {
        let fds = std::iter::once(&self.front).chain(self.backs.values());
        let mut fds: Vec<PollFd> = fds.map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)).collect();
        // A millisecond, so that what is late is not much later, and the end is noticed.
        poll(&mut fds, PollTimeout::from(1_u8)).expect("the sockets are open");
        let mut datagram = vec![0; 1 << 16];
        while let Ok((length, dialler)) = self.front.recv_from(&mut datagram) {
            self.backs.entry(dialler).or_insert_with(|| {
                let back = socket(SocketAddr::new(self.own.ip(), 0));
                back.connect(self.target).expect("the switch reaches all hosts");
                back
            });
            self.meet(Datagram { dialler, is_ahead: true, bytes: datagram[..length].to_vec() });
        }
        for dialler in self.backs.keys().copied().collect::<Vec<_>>() {
            while let Ok(length) = self.backs[&dialler].recv(&mut datagram) {
                self.meet(Datagram { dialler, is_ahead: false, bytes: datagram[..length].to_vec() });
            }
        }
        let now = Instant::now();
        while let Some(first) = self.late.first_entry().filter(|first| first.key().0 <= now) {
            let datagram = first.remove();
            self.pass(&datagram);
        }
        !self.tally.has_ended.load(SeqCst)
    }

    fn meet(&mut self, datagram: Datagram) {
        let Weather { delay, lost_of_thousand, stray_of_thousand, stray } = self.weather;
        let chance = self.rng.u32(0..1_000);
        if chance < lost_of_thousand {
            self.tally.lost.fetch_add(1, SeqCst);
            return;
        }
        let mut due = Instant::now() + delay;
        if chance < lost_of_thousand + stray_of_thousand {
            self.tally.strayed.fetch_add(1, SeqCst);
            due += stray.mul_f64(self.rng.f64());
        }
        self.taken += 1;
        self.late.insert((due, self.taken), datagram);
    }

    fn pass(&self, datagram: &Datagram) {
        self.tally.passed.fetch_add(1, SeqCst);
        // What cannot be sent is lost, as on any path.
        let _ = match datagram.is_ahead {
            true => self.backs[&datagram.dialler].send(&datagram.bytes),
            false => self.front.send_to(&datagram.bytes, datagram.dialler),
        };
    }
}
