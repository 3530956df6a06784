//! What becomes of bytes on their way to the socket and back: nothing, or TLS records.

use std::{
    collections::VecDeque,
    io,
    io::{ErrorKind, IoSlice, Read as _, Write as _},
    net::TcpStream,
};

use bytes::{Buf, Bytes};
use rustls::{CommonState, client::UnbufferedClientConnection, server::UnbufferedServerConnection};

use crate::{
    copies::{Place, copied},
    io::Call,
};

use super::{
    records::{Machine, State, Tls, TlsError},
    run::Run,
};

/// What is received and not read yet, at most.
const RECEIVE_BYTES: usize = 256 << 10;
/// The memory for it at first. Most of many connections have little to say, and what is touched of their memory is made of
/// zeros by the kernel first, in pages of 2 MiB.
const RECEIVE_BYTES_FIRST: usize = 16 << 10;
/// Chunks that one system call sends at most.
const CHUNKS_PER_SEND: usize = 64;

/// How a call to the socket has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Io {
    /// There may be more to do.
    More,
    /// The socket is empty, or full. It will say when that changes.
    WouldBlock,
    /// The peer sends nothing any more.
    End,
}

pub struct Pipe {
    received: Run,
    /// To be sent, in order. With TLS, to be made records of first.
    wire: VecDeque<Bytes>,
    tls: Option<Box<Tls>>,
}

impl Pipe {
    pub fn plain() -> Self {
        Pipe { received: Run::new(RECEIVE_BYTES_FIRST), wire: VecDeque::new(), tls: None }
    }

    pub fn client(machine: UnbufferedClientConnection) -> Self {
        Pipe { tls: Some(Tls::new(Machine::Client(machine))), ..Pipe::plain() }
    }

    pub fn server(machine: UnbufferedServerConnection) -> Self {
        Pipe { tls: Some(Tls::new(Machine::Server(machine))), ..Pipe::plain() }
    }

    /// What TLS knows of the peer, once the handshake is complete; nothing without TLS.
    pub fn tls(&self) -> Option<&CommonState> {
        self.tls.as_ref().map(|tls| tls.common())
    }

    /// Whether bytes can be sent and read.
    pub fn is_established(&self) -> bool {
        self.tls.as_ref().is_none_or(|tls| tls.established)
    }

    /// Where to put what is to be sent next.
    pub fn wire(&mut self) -> &mut VecDeque<Bytes> {
        &mut self.wire
    }

    /// Bytes that are to be sent and cannot be overtaken any more.
    pub fn wire_bytes(&self) -> usize {
        let records = self.tls.as_ref().map_or(0, |tls| tls.records.len());
        self.wire.iter().map(Bytes::len).sum::<usize>() + records
    }

    pub fn has_received(&self) -> bool {
        !self.received.is_empty() || self.tls.as_ref().is_some_and(|tls| !tls.early.is_empty())
    }

    /// Whether something was decrypted that nobody has asked for yet.
    pub fn has_read_ahead(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| !tls.early.is_empty())
    }

    /// Whether nothing more can be taken in before something is read.
    pub fn is_full(&self) -> bool {
        self.received.vacant() == 0
    }

    /// Where to put what is received; there is some.
    fn room(&mut self) -> &mut [u8] {
        self.received.room(self.received.vacant().min(RECEIVE_BYTES / 2))
    }

    /// Takes in what one system call brings; there is room.
    pub fn receive(&mut self, mut socket: &TcpStream) -> io::Result<Io> {
        let room = self.room();
        loop {
            match socket.read(room) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                outcome => return self.received(outcome),
            }
        }
    }

    /// The call that receives; there is room. It ends in `received`.
    pub fn receive_call<'a>(&'a mut self, socket: &'a TcpStream) -> Call<'a> {
        Call::receive(socket, self.room())
    }

    /// What it means that a call has seen so much without taking it.
    pub fn peeked(outcome: io::Result<usize>) -> io::Result<Io> {
        match outcome {
            Ok(0) => Ok(Io::End),
            Ok(_) => Ok(Io::More),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(Io::More),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Io::WouldBlock),
            Err(error) => Err(error),
        }
    }

    /// Takes in what a call has brought into the room.
    pub fn received(&mut self, outcome: io::Result<usize>) -> io::Result<Io> {
        if let Ok(bytes) = &outcome {
            self.received.fill(*bytes);
            if self.received.is_filled_to_the_end() {
                self.received.grow(RECEIVE_BYTES);
            }
        }
        Pipe::peeked(outcome)
    }

    /// Shows what was received; `each` says how much of it it takes, and is shown no more once it has not taken all. Returns
    /// whether that was everything, as far as it can be read.
    ///
    /// # Errors
    /// Those of `each`, or of TLS.
    pub fn read<E: From<TlsError>>(&mut self, each: &mut dyn FnMut(&[u8]) -> Result<usize, E>) -> Result<bool, E> {
        let Some(tls) = &mut self.tls else {
            let taken = each(self.received.filled())?;
            self.received.drop_front(taken);
            return Ok(self.received.is_empty());
        };
        if !tls.early.is_empty() {
            let taken = each(&tls.early)?;
            tls.early.drain(..taken);
            if !tls.early.is_empty() && tls.established {
                return Ok(false);
            }
        }
        // A handshake goes on whether or not anybody wants what has come after it.
        let mut wanted = tls.early.is_empty();
        loop {
            let (mut outcome, mut early) = (Ok(()), Vec::new());
            let step = tls.step(self.received.filled(), &mut VecDeque::new(), &mut |payload| {
                let mut taken = 0;
                if wanted {
                    match each(payload) {
                        Ok(bytes) => taken = bytes,
                        Err(error) => outcome = Err(error),
                    }
                    wanted = taken == payload.len();
                }
                copied(Place::Aside, payload.len() - taken);
                early.extend_from_slice(&payload[taken..]);
            });
            self.received.drop_front(step.discard);
            tls.early.append(&mut early);
            outcome?;
            match step.state.map_err(|error| tls.fail(&mut self.received, &error))? {
                State::Again if wanted || !tls.established => {}
                State::Again => return Ok(false),
                State::Blocked => return Ok(wanted),
                State::Ready => {
                    tls.established = true;
                    return Ok(wanted);
                }
            }
        }
    }

    /// Makes records of what is to be sent.
    ///
    /// # Errors
    /// Those of TLS, to which something may have been said meanwhile.
    pub fn seal(&mut self) -> Result<(), TlsError> {
        let Some(tls) = self.tls.as_mut().filter(|tls| tls.established && !self.wire.is_empty()) else { return Ok(()) };
        loop {
            let mut early = Vec::new();
            let step = tls.step(self.received.filled(), &mut self.wire, &mut |payload| {
                copied(Place::Aside, payload.len());
                early.extend_from_slice(payload);
            });
            self.received.drop_front(step.discard);
            tls.early.append(&mut early);
            match step.state.map_err(|error| tls.fail(&mut self.received, &error))? {
                State::Again => {}
                State::Ready | State::Blocked => return Ok(()),
            }
        }
    }

    /// Sends everything.
    ///
    /// # Errors
    /// If the socket takes no more for now, or for ever.
    pub fn send(&mut self, socket: &TcpStream) -> io::Result<()> {
        match &mut self.tls {
            None => {
                while !self.wire.is_empty() {
                    let mut slices = [IoSlice::new(&[]); CHUNKS_PER_SEND];
                    let mut count = 0;
                    for (slice, chunk) in slices.iter_mut().zip(&self.wire) {
                        *slice = IoSlice::new(chunk);
                        count += 1;
                    }
                    let sent = write(|| (&*socket).write_vectored(&slices[..count]))?;
                    self.sent(sent);
                }
            }
            Some(tls) => {
                while !tls.records.is_empty() {
                    let sent = write(|| (&*socket).write(tls.records.filled()))?;
                    tls.records.drop_front(sent);
                }
            }
        }
        Ok(())
    }

    /// The call that sends as much as one can, if there is anything. What it has sent is told to `sent`.
    pub fn send_call<'a>(&'a mut self, socket: &'a TcpStream) -> Option<Call<'a>> {
        let slices: Vec<IoSlice<'_>> = match &mut self.tls {
            None => self.wire.iter().take(CHUNKS_PER_SEND).map(|chunk| IoSlice::new(chunk)).collect(),
            Some(tls) if tls.records.is_empty() => Vec::new(),
            Some(tls) => vec![IoSlice::new(tls.records.filled())],
        };
        (!slices.is_empty()).then(|| Call::send(socket, slices))
    }

    /// So many bytes have gone.
    pub fn sent(&mut self, mut bytes: usize) {
        if let Some(tls) = &mut self.tls {
            return tls.records.drop_front(bytes);
        }
        while let Some(chunk) = self.wire.front_mut().filter(|_| bytes > 0) {
            let taken = bytes.min(chunk.len());
            bytes -= taken;
            chunk.advance(taken);
            if chunk.is_empty() {
                self.wire.pop_front();
            }
        }
    }
}

/// Calls until no signal comes between.
fn write(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::Arc,
        time::{Duration, SystemTime},
    };

    use fastrand::Rng;
    use millstream_model::id::WorkerId;

    use super::*;
    use crate::transport::{
        identity::{self, ClusterCa},
        tls,
    };

    #[expect(clippy::disallowed_methods, reason = "certificates are checked against the system's clock")]
    fn ends() -> impl Fn() -> (Pipe, Pipe) {
        let (today, day) = (SystemTime::now(), Duration::from_secs(86_400));
        let ca = ClusterCa::generate(1, today, day).expect("there is randomness");
        let [near, far] = [0, 1].map(|worker| ca.issue(WorkerId(worker), today, day).expect("there is randomness"));
        let client = Arc::new(tls::client(&near).expect("it is sound"));
        let server = Arc::new(tls::server(&far).expect("it is sound"));
        let name = identity::name(WorkerId(1), &far.cluster);
        move || {
            let name = name.clone().try_into().expect("it is a name");
            let client = UnbufferedClientConnection::new(Arc::clone(&client), name).expect("it is sound");
            let server = UnbufferedServerConnection::new(Arc::clone(&server)).expect("it is sound");
            (Pipe::client(client), Pipe::server(server))
        }
    }

    /// Moves some of what one has to send to the other, and lets it read; returns what it has read, if all is well.
    fn carry(from: &mut Pipe, to: &mut Pipe, bytes_max: usize, harm: &mut dyn FnMut(&mut [u8])) -> Option<Vec<u8>> {
        from.seal().ok()?;
        let records = &mut from.tls.as_mut().expect("it has TLS").records;
        let length = records.filled().len().min(bytes_max);
        let room = to.received.room(length);
        room[..length].copy_from_slice(&records.filled()[..length]);
        harm(&mut room[..length]);
        records.drop_front(length);
        to.received.fill(length);
        let mut read = Vec::new();
        let outcome = to.read::<TlsError>(&mut |bytes| {
            read.extend_from_slice(bytes);
            Ok(bytes.len())
        });
        outcome.ok().map(|_| read)
    }

    #[test]
    fn tls_carries_bytes_however_they_are_cut() {
        let (ends, mut rng) = (ends(), Rng::with_seed(1));
        for cut in [1, 5, 100, 17_000, usize::MAX] {
            let (mut near, mut far) = ends();
            while !(near.is_established() && far.is_established()) {
                carry(&mut near, &mut far, cut, &mut |_| {}).expect("all is well");
                carry(&mut far, &mut near, cut, &mut |_| {}).expect("all is well");
            }
            let bytes: Vec<u8> = (0..60_000).map(|_| rng.u8(..)).collect();
            let (small, large) = bytes.split_at(1000);
            near.wire().extend(small.chunks(9).map(Bytes::copy_from_slice));
            near.wire().push_back(Bytes::copy_from_slice(large));
            let mut read = Vec::new();
            while read.len() < bytes.len() {
                read.extend(carry(&mut near, &mut far, cut, &mut |_| {}).expect("all is well"));
            }
            assert!(read == bytes);
        }
    }

    #[test]
    fn what_is_not_taken_is_shown_again() {
        let (mut near, mut far) = ends()();
        while !(near.is_established() && far.is_established()) {
            carry(&mut near, &mut far, usize::MAX, &mut |_| {}).expect("all is well");
            carry(&mut far, &mut near, usize::MAX, &mut |_| {}).expect("all is well");
        }
        let bytes: Vec<u8> = (0..100_000).map(|byte| (byte / 7) as u8).collect();
        near.wire().push_back(Bytes::copy_from_slice(&bytes));
        near.seal().map_err(|_| ()).expect("all is well");
        let records = &mut near.tls.as_mut().expect("it has TLS").records;
        let length = records.len();
        far.received.room(length)[..length].copy_from_slice(records.filled());
        far.received.fill(length);
        let mut read = Vec::new();
        for most in [10, 0, 20_000, usize::MAX] {
            let mut left = most;
            let everything = far.read::<TlsError>(&mut |bytes| {
                let taken = bytes.len().min(left);
                left -= taken;
                read.extend_from_slice(&bytes[..taken]);
                Ok(taken)
            });
            assert!(matches!(everything, Ok(all) if all == (most == usize::MAX)));
            assert_eq!(far.has_received(), most < usize::MAX);
            // Meanwhile it has something to say, for which TLS reads on.
            far.wire().push_back(Bytes::from_static(b"yes"));
            far.seal().map_err(|_| ()).expect("all is well");
        }
        assert!(read == bytes);
    }

    /// A peer is slow to answer, so that it is asked by a ping whether it is there before it has taken in the greeting.
    #[test]
    fn what_comes_after_the_greeting_keeps_no_handshake_from_its_end() {
        let (mut near, mut far) = ends()();
        while !near.is_established() {
            carry(&mut near, &mut far, usize::MAX, &mut |_| {}).expect("all is well");
            carry(&mut far, &mut near, usize::MAX, &mut |_| {}).expect("all is well");
        }
        assert!(!far.is_established(), "the last part of the handshake is on its way");
        for words in ["greeting", "ping"] {
            near.wire().push_back(Bytes::from_static(words.as_bytes()));
            near.seal().map_err(|_| ()).expect("all is well");
        }
        let records = &mut near.tls.as_mut().expect("it has TLS").records;
        let length = records.len();
        far.received.room(length)[..length].copy_from_slice(records.filled());
        far.received.fill(length);
        let mut shown = Vec::new();
        let outcome = far.read::<TlsError>(&mut |bytes| {
            let taken = bytes.len().min("greeting".len() - shown.len());
            shown.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        });
        assert!(matches!(outcome, Ok(false)));
        assert_eq!((&shown[..], far.is_established()), (&b"greeting"[..], true));
    }

    #[test]
    fn harm_on_the_way_is_never_a_panic_and_never_another_byte() {
        let (ends, mut rng) = (ends(), Rng::with_seed(2));
        let mut noticed = 0;
        for _ in 0..400 {
            let (mut near, mut far) = ends();
            let (mut harm_in, cut) = (rng.u32(0..16), 1 << rng.u32(6..14));
            let mut harm = |bytes: &mut [u8]| {
                harm_in = harm_in.wrapping_sub(u32::from(!bytes.is_empty()));
                if harm_in == u32::MAX {
                    harm_in = 1 << 31;
                    let (at, length) = (rng.usize(0..bytes.len()), 1 << rng.u32(0..12));
                    bytes[at..].iter_mut().take(length).for_each(|byte| *byte ^= rng.u8(1..));
                }
            };
            let (mut written, mut read) = (false, Vec::new());
            // A length that has become too large is waited for in vain; the time-out sees to that.
            for _ in 0..200 {
                let Some(bytes) = carry(&mut near, &mut far, cut, &mut harm) else {
                    noticed += 1;
                    break;
                };
                read.extend(bytes);
                if carry(&mut far, &mut near, cut, &mut harm).is_none() {
                    noticed += 1;
                    break;
                }
                if near.is_established() && !std::mem::replace(&mut written, true) {
                    near.wire().push_back(vec![7; 100_000].into());
                }
            }
            assert!(read.iter().all(|&byte| byte == 7));
        }
        assert!(noticed > 200, "only {noticed} were noticed");
    }
}
