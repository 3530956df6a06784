//! The ring against real sockets, and what is done without one.

use std::{
    io::{ErrorKind, IoSlice, Read as _, Write as _},
    net::UdpSocket,
    os::unix::net::UnixStream,
    sync::{Arc, Mutex},
};

use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

use super::*;

/// A ring, or nothing where the machine has none.
fn ring() -> Option<Ring> {
    Ring::probe().inspect_err(|error| println!("there is no io_uring here, and nothing to test: {error}")).ok()
}

fn bytes(outcome: &Outcome) -> Result<usize, ErrorKind> {
    match outcome.as_ref().expect("it was made") {
        Ok(bytes) => Ok(*bytes),
        Err(error) => Err(error.kind()),
    }
}

#[test]
fn calls_are_made_in_order_and_none_waits() {
    let Some(mut ring) = ring() else { return };
    let (near, far) = UnixStream::pair().unwrap();
    let (mut first, mut second) = ([0; 6], [0; 6]);
    let (hello, world) = (IoSlice::new(b"hello"), IoSlice::new(b" world"));
    let mut calls = [
        Call::peek(&far),
        Call::send(&near, vec![hello, world]),
        Call::receive(&far, &mut first),
        Call::peek(&far),
        Call::receive(&far, &mut second),
        Call::peek(&far),
    ];
    ring.execute(&mut calls).unwrap();
    let outcomes: Vec<_> = calls.iter().map(|call| bytes(&call.outcome)).collect();
    let none = Err(ErrorKind::WouldBlock);
    assert_eq!(outcomes, [none, Ok(11), Ok(6), Ok(1), Ok(5), none]);
    assert_eq!((&first, &second[..5]), (b"hello ", &b"world"[..]));
    drop(near);
    let mut calls = [Call::peek(&far), Call::send(&far, vec![hello])];
    ring.execute(&mut calls).unwrap();
    assert_eq!(bytes(&calls[0].outcome), Ok(0), "the end");
    assert_eq!(bytes(&calls[1].outcome), Err(ErrorKind::BrokenPipe), "and no signal that kills the process");
}

#[test]
fn a_stream_takes_what_it_has_room_for() {
    let Some(mut ring) = ring() else { return };
    let (near, mut far) = UnixStream::pair().unwrap();
    let much = vec![7; 50 << 20];
    let mut calls = [Call::send(&near, vec![IoSlice::new(&much)]), Call::send(&near, vec![IoSlice::new(&much)])];
    ring.execute(&mut calls).unwrap();
    let sent = bytes(&calls[0].outcome).unwrap();
    assert!((1..much.len()).contains(&sent), "{sent}");
    assert_eq!(bytes(&calls[1].outcome), Err(ErrorKind::WouldBlock));
    drop(near);
    let mut read = Vec::new();
    far.read_to_end(&mut read).unwrap();
    assert_eq!(read.len(), sent);
}

#[test]
fn more_calls_than_fit_into_the_ring_are_made_and_threads_take_turns_at_it() {
    let Some(mut ring) = ring() else { return };
    for round in 0..20_u8 {
        // Each round on a thread of its own, which is gone when the next one comes.
        let moved = std::thread::spawn(move || {
            let pairs: Vec<_> = (0..3 * CALLS_MAX + 5).map(|_| UnixStream::pair().unwrap()).collect();
            let bytes_of = |index: usize| [round, index as u8];
            for (index, (near, _)) in pairs.iter().enumerate() {
                (&*near).write_all(&bytes_of(index)).unwrap();
            }
            let mut rooms = vec![[0; 4]; pairs.len()];
            let mut calls: Vec<_> =
                pairs.iter().zip(&mut rooms).map(|((_, far), room)| Call::receive(far, room)).collect();
            ring.execute(&mut calls).unwrap();
            assert!(calls.iter().all(|call| bytes(&call.outcome) == Ok(2)));
            drop(calls);
            assert!(rooms.iter().enumerate().all(|(index, room)| room[..2] == bytes_of(index)));
            ring
        });
        ring = moved.join().unwrap();
    }
}

#[test]
fn a_train_is_received_with_what_the_kernel_says_about_it() {
    let Some(mut ring) = ring() else { return };
    let [near, far] = [0; 2].map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
    near.connect(far.local_addr().unwrap()).unwrap();
    let states = [&near, &far].map(|socket| quinn_udp::UdpSocketState::new(socket.into()).unwrap());
    assert!(states[0].max_gso_segments() > 1, "this kernel sends no trains");
    let contents: Vec<u8> = (0..5_500).map(|byte| (byte % 251) as u8).collect();
    let segment = 1_000_u16;
    let control = Control::default().with(nix::libc::SOL_UDP, nix::libc::UDP_SEGMENT, &segment.to_ne_bytes());
    let mut calls = [Call::send_train(&near, &contents, control)];
    ring.execute(&mut calls).unwrap();
    assert_eq!(bytes(&calls[0].outcome), Ok(5_500));
    let mut trains = Trains::default();
    let [first, second] = trains.vacant::<2>();
    let mut calls = [Call::receive_train(&far, first), Call::receive_train(&far, second)];
    ring.execute(&mut calls).unwrap();
    let [first, second] = calls.map(Call::into_answer).map(Option::unwrap);
    assert_eq!(second.outcome.unwrap_err().kind(), ErrorKind::WouldBlock);
    let (train, control) = first.train.expect("it has arrived");
    assert_eq!(train, contents);
    let gro = control.messages().find(|(level, kind, _)| (*level, *kind) == (nix::libc::SOL_UDP, nix::libc::UDP_GRO));
    assert_eq!(gro.map(|(_, _, data)| data[..2].to_vec()), Some(segment.to_ne_bytes().to_vec()));
}

#[test]
fn nobody_at_the_other_end_is_an_outcome() {
    let Some(mut ring) = ring() else { return };
    let near = UdpSocket::bind("127.0.0.1:0").unwrap();
    let vacant = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    near.connect(vacant).unwrap();
    let mut calls = [Call::send_train(&near, b"hello", Control::default()), Call::peek(&near)];
    ring.execute(&mut calls).unwrap();
    assert_eq!(bytes(&calls[0].outcome), Ok(5));
    assert_eq!(bytes(&calls[1].outcome), Err(ErrorKind::ConnectionRefused));
}

/// Keeps what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        struct Text(String);
        impl Visit for Text {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                self.0 += &format!(" {field}={value:?}");
            }
        }
        let mut text = Text(event.metadata().level().to_string());
        event.record(&mut text);
        self.0.lock().unwrap().push(text.0);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

fn logged(wanted: NetworkIo, probe: impl FnOnce() -> io::Result<Ring>) -> (Io, Vec<String>) {
    let log = Log::default();
    let io = tracing::subscriber::with_default(log.clone(), || Io::with(wanted, probe));
    let lines = log.0.lock().unwrap().clone();
    (io, lines)
}

#[test]
fn without_a_ring_there_are_system_calls_and_a_line_that_says_why() {
    for (wanted, level) in [(NetworkIo::Uring, "WARN"), (NetworkIo::Auto, "INFO")] {
        let (io, lines) = logged(wanted, || Err(io::Error::from_raw_os_error(nix::libc::EPERM)));
        let [line] = &lines[..] else { panic!("{lines:?}") };
        assert!(!io.has_ring());
        assert!(line.starts_with(level) && line.contains("there is no io_uring"), "{line}");
        assert!(line.contains("system calls") && line.contains("Operation not permitted"), "{line}");
    }
    let (io, lines) = logged(NetworkIo::Syscall, || panic!("nobody has asked for a ring"));
    assert!(!io.has_ring() && lines.len() == 1 && lines[0].contains("as configured"), "{lines:?}");
    let Some(ring) = ring() else { return };
    let (io, lines) = logged(NetworkIo::Uring, || Ok(ring));
    assert!(io.has_ring() && lines.len() == 1 && lines[0].contains("io_uring"), "{lines:?}");
}
