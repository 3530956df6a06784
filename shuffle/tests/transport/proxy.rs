//! A path between two workers that loses, delays and reorders datagrams, by a seed; or passes nothing for a while.

use std::{
    collections::{BTreeMap, HashMap},
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::SeqCst},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use fastrand::Rng;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{setsockopt, sockopt},
};

/// What becomes of datagrams.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Weather {
    Clear,
    /// Loses 2 %, delays 10 % by up to 5 ms, which reorders them.
    Rough,
    /// Nothing passes.
    Dark,
    /// Nothing passes from the one that was dialled.
    Mute,
    End,
}

pub struct Proxy {
    pub address: SocketAddr,
    weather: Arc<AtomicU8>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Forwards to `target` what arrives at its address, and back.
    pub fn to(target: SocketAddr, seed: u64) -> Self {
        let front = socket();
        let address = front.local_addr().expect("it is bound");
        let weather = Arc::new(AtomicU8::new(Weather::Clear as u8));
        let now = Arc::clone(&weather);
        let thread = std::thread::spawn(move || {
            let mut path = Path {
                front,
                target,
                backs: HashMap::new(),
                late: BTreeMap::new(),
                sent: 0,
                rng: Rng::with_seed(seed),
            };
            while path.forward(&now) {}
        });
        Proxy { address, weather, thread: Some(thread) }
    }

    pub fn weather(&self, weather: Weather) {
        self.weather.store(weather as u8, SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.weather(Weather::End);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the proxy does not panic");
        }
    }
}

struct Path {
    front: UdpSocket,
    target: SocketAddr,
    /// By the dialler, what it looks like to the target.
    backs: HashMap<SocketAddr, UdpSocket>,
    /// By the time when they are due, and a number: the dialler, whether it is sent to the target, and the datagram.
    late: BTreeMap<(Instant, u64), (SocketAddr, bool, Vec<u8>)>,
    sent: u64,
    rng: Rng,
}

impl Path {
    /// Returns whether to go on.
    fn forward(&mut self, weather: &AtomicU8) -> bool {
        let now = Instant::now();
        while let Some(first) = self.late.first_entry().filter(|first| first.key().0 <= now) {
            let (dialler, ahead, datagram) = first.remove();
            self.pass(dialler, ahead, &datagram);
        }
        let fds = std::iter::once(&self.front).chain(self.backs.values());
        let mut fds: Vec<PollFd> = fds.map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)).collect();
        // A millisecond, so that a change of the weather is noticed.
        poll(&mut fds, PollTimeout::from(1u8)).expect("the sockets are open");
        let mut datagram = vec![0; 1 << 16];
        while let Ok((length, dialler)) = self.front.recv_from(&mut datagram) {
            if !self.backs.contains_key(&dialler) {
                let back = socket();
                back.connect(self.target).expect("loopback is there");
                self.backs.insert(dialler, back);
            }
            self.meet(weather, dialler, true, &datagram[..length]);
        }
        for dialler in self.backs.keys().copied().collect::<Vec<_>>() {
            while let Ok(length) = self.backs[&dialler].recv(&mut datagram) {
                self.meet(weather, dialler, false, &datagram[..length]);
            }
        }
        weather.load(SeqCst) != Weather::End as u8
    }

    fn meet(&mut self, weather: &AtomicU8, dialler: SocketAddr, ahead: bool, datagram: &[u8]) {
        let weather = weather.load(SeqCst);
        if weather == Weather::Dark as u8 || weather == Weather::Mute as u8 && !ahead {
            return;
        }
        let chance = if weather == Weather::Rough as u8 { self.rng.u32(0..100) } else { 100 };
        match chance {
            0..2 => {}
            2..12 => {
                self.sent += 1;
                let due = Instant::now() + Duration::from_micros(self.rng.u64(0..5_000));
                self.late.insert((due, self.sent), (dialler, ahead, datagram.to_vec()));
            }
            _ => self.pass(dialler, ahead, datagram),
        }
    }

    fn pass(&self, dialler: SocketAddr, ahead: bool, datagram: &[u8]) {
        // What cannot be sent is lost, as on any path.
        let _ = match ahead {
            true => self.backs[&dialler].send(datagram),
            false => self.front.send_to(datagram, dialler),
        };
    }
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback has a free port");
    socket.set_nonblocking(true).expect("it is a socket");
    setsockopt(&socket, sockopt::RcvBuf, &(4 << 20)).expect("any size is cut to the allowed");
    socket
}
