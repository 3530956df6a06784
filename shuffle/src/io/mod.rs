//! How the sockets of a worker are read and written: each with system calls of its own, or many with one, by a ring.
//!
//! ```text
//!  due connections ── ask ──► calls ─► Ring::execute ─► outcomes ── answer ──► receive, read
//!                  ── load ─►                                    ── sent ────► what is left is sent next time
//! ```
//! Waiting is not the ring's: sockets are polled whichever way they are read (see [`exchange`](crate::exchange)), and no call
//! outlives the turn in which it was made. So a turn may use the ring or not, as it suits the number of its connections.

mod call;
mod control;
mod ring;
mod trains;

use std::{io, time::Instant};

use millstream_model::config::NetworkIo;

use self::ring::CALLS_MAX;
pub use self::{
    call::{Call, Outcome},
    control::Control,
    ring::Ring,
    trains::{Train, Trains},
};
use crate::transport::Transport;

/// From so many due connections on the ring is used if nobody says otherwise: see docs/decisions/0013-io-uring.md.
const CONNECTIONS_MIN: usize = 4;
/// Trains that one system call receives at most, over all sockets: 2 MiB.
const TRAINS_MAX: usize = 32;
/// What one connection asks for at most.
const CALLS_PER_ASK: usize = 2;
/// No more connections load anything when so many bytes are loaded: what is to be sent should still be in the processor's cache when it is.
const LOADED_BYTES: usize = 128 << 10;

/// The way to the sockets of a worker. For one thread at a time.
pub struct Io {
    ring: Option<Ring>,
    connections_min: usize,
    trains: Trains,
}

/// A connection that has its turn.
pub struct Served<'a> {
    pub transport: &'a mut dyn Transport,
    /// Counts the calls to its socket that a ring has made.
    pub submissions: &'a mut u64,
}

/// What a worker's sockets have brought.
pub struct Answer {
    pub outcome: io::Result<usize>,
    /// What was received, if that is a train; as far as the outcome says.
    pub train: Option<(bytes::BytesMut, Control)>,
}

impl Io {
    /// Finds out what the kernel has, and says so.
    pub fn start(wanted: NetworkIo) -> Io {
        Io::with(wanted, Ring::probe)
    }

    fn with(wanted: NetworkIo, probe: impl FnOnce() -> io::Result<Ring>) -> Io {
        let connections_min = if wanted == NetworkIo::Auto { CONNECTIONS_MIN } else { 1 };
        let mut io = Io { ring: None, connections_min, trains: Trains::default() };
        match (wanted, (wanted != NetworkIo::Syscall).then(probe)) {
            (_, Some(Ok(ring))) => {
                io.ring = Some(ring);
                tracing::info!(connections_min, "sockets are read and written with io_uring");
            }
            (NetworkIo::Uring, Some(Err(error))) => {
                tracing::warn!(%error, "there is no io_uring: sockets are read and written with system calls");
            }
            (_, Some(Err(error))) => {
                tracing::info!(%error, "there is no io_uring: sockets are read and written with system calls");
            }
            (_, None) => tracing::info!("sockets are read and written with system calls, as configured"),
        }
        io
    }

    /// Whether there is a ring.
    pub fn has_ring(&self) -> bool {
        self.ring.is_some()
    }

    /// Asks the sockets of `count` connections what they have, so that the `receive` which follows knows it already. Leaves
    /// it to that where the ring is of no use.
    pub fn ask<'a>(&mut self, count: usize, due: impl Iterator<Item = Served<'a>>) {
        let Some(ring) = self.ring.as_mut().filter(|_| count >= self.connections_min) else { return };
        let mut due: Vec<Served<'_>> = due.collect();
        let (mut rest, mut failure) = (&mut due[..], None);
        while !rest.is_empty() && failure.is_none() {
            let mut asked = Vec::with_capacity(rest.len());
            let mut questions = Questions { calls: Vec::new(), trains: self.trains.vacant::<TRAINS_MAX>().iter_mut() };
            for served in rest.iter_mut() {
                if !questions.have_room() {
                    break;
                }
                let before = questions.calls.len();
                served.transport.ask(&mut questions);
                asked.push(questions.calls.len() - before);
            }
            failure = ring.execute(&mut questions.calls).err();
            let answers: Vec<Option<Answer>> = questions.calls.into_iter().map(Call::into_answer).collect();
            let (group, more) = rest.split_at_mut(asked.len());
            let mut answers = answers.into_iter();
            for (served, asked) in group.iter_mut().zip(asked) {
                for answer in answers.by_ref().take(asked).flatten() {
                    *served.submissions += 1;
                    served.transport.answer(answer);
                }
            }
            rest = more;
        }
        self.end_ring(failure);
    }

    /// Lets `count` connections send what they can.
    pub fn transmit<'a>(&mut self, now: Instant, count: usize, due: impl Iterator<Item = Served<'a>>) {
        let Some(ring) = self.ring.as_mut().filter(|_| count >= self.connections_min) else {
            return due.for_each(|served| served.transport.transmit(now));
        };
        let mut due: Vec<Served<'_>> = due.collect();
        let (mut rest, mut failure) = (&mut due[..], None);
        while !rest.is_empty() && failure.is_none() {
            let mut loaded = Vec::with_capacity(rest.len());
            let mut load = Load::default();
            for served in rest.iter_mut() {
                if !load.has_room(0) {
                    break;
                }
                let before = load.calls.len();
                served.transport.load(now, &mut load);
                loaded.push(load.calls.len() - before);
            }
            failure = ring.execute(&mut load.calls).err();
            let outcomes: Vec<Outcome> = load.calls.into_iter().map(|call| call.outcome).collect();
            let (group, more) = rest.split_at_mut(loaded.len());
            let mut outcomes = outcomes.into_iter();
            for (served, loaded) in group.iter_mut().zip(loaded) {
                let mut own = outcomes.by_ref().take(loaded).inspect(|outcome| {
                    *served.submissions += u64::from(outcome.is_some());
                });
                served.transport.sent(now, &mut own);
                own.for_each(drop);
            }
            rest = more;
        }
        rest.iter_mut().for_each(|served| served.transport.transmit(now));
        self.end_ring(failure);
    }

    /// Goes on without the ring if it has failed.
    fn end_ring(&mut self, failure: Option<io::Error>) {
        if let Some(error) = failure {
            self.ring = None;
            tracing::warn!(%error, "io_uring has failed: sockets are read and written with system calls from now on");
        }
    }
}

/// Calls that are to find out what sockets have.
pub struct Questions<'a> {
    calls: Vec<Call<'a>>,
    trains: std::slice::IterMut<'a, Train>,
}

impl<'a> Questions<'a> {
    /// Whether there is room for what a connection asks.
    fn have_room(&self) -> bool {
        self.trains.len() >= CALLS_PER_ASK && self.calls.len() + CALLS_PER_ASK <= CALLS_MAX
    }

    /// Asks. Twice at most.
    pub fn push(&mut self, call: Call<'a>) {
        self.calls.push(call);
    }

    /// Asks a socket for some trains, two at most.
    pub fn push_trains(&mut self, socket: &'a impl std::os::fd::AsFd, count: usize) {
        let trains = self.trains.by_ref().take(count.min(CALLS_PER_ASK));
        self.calls.extend(trains.map(|train| Call::receive_train(socket, train)));
    }
}

/// Calls that are to send.
#[derive(Default)]
pub struct Load<'a> {
    calls: Vec<Call<'a>>,
    bytes: usize,
}

impl<'a> Load<'a> {
    /// Whether there is room for another call when a connection has so many in mind.
    pub fn has_room(&self, calls: usize) -> bool {
        self.bytes < LOADED_BYTES && self.calls.len() + calls < CALLS_MAX
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.calls.len()
    }

    pub fn push(&mut self, call: Call<'a>) {
        self.bytes += call.bytes_to_send();
        self.calls.push(call);
    }
}

#[cfg(test)]
mod tests;
