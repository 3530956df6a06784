//! Calls that do not wait, and epoll, which tells once of each change (edge-triggered).

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, TcpStream as StdStream},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use harness::machine::now_nanos;
use mio::{Events, Interest, Poll, Token, net::TcpStream};

use super::{
    PING_BYTES, Passed, READ_BYTES, Work, meter::Meter, sequence::Sequence, sequence::WRITE_BYTES,
};

/// Calls for one connection before the others have their turn.
const CALLS_PER_TURN: usize = 16;

struct Link {
    stream: TcpStream,
    outgoing: Sequence,
    incoming: Sequence,
    /// Its socket may have something, or room, of which epoll will not tell again.
    is_ready: bool,
    is_done: bool,
    asked_at: u64,
}

/// What a turn of one connection came to.
#[derive(PartialEq, Eq)]
enum Turn {
    /// epoll will tell when there is more to do.
    Waits,
    HasMore,
    Done,
}

/// The measured thread.
pub fn drive(work: Work, streams: Vec<StdStream>, meter: &mut Meter) -> Vec<Passed> {
    let mut memory = vec![0; READ_BYTES];
    let interest = match work {
        Work::Pings => Interest::READABLE,
        Work::Bulk => Interest::WRITABLE,
    };
    let mut links = links(streams);
    if work == Work::Pings {
        links.iter_mut().for_each(|link| link.ask(meter));
    }
    turns(&mut links, interest, &mut |link, _| match work {
        Work::Pings => link.ping(&mut memory, meter),
        Work::Bulk => link.fill(meter),
    });
    passed(&links)
}

/// All its peers.
pub fn serve(work: Work, streams: Vec<StdStream>, received: &AtomicU64) -> Vec<Passed> {
    let mut memory = vec![0; READ_BYTES];
    let mut links = links(streams);
    turns(&mut links, Interest::READABLE, &mut |link, has_ended| {
        link.answer(work, &mut memory, received, has_ended)
    });
    passed(&links)
}

fn links(streams: Vec<StdStream>) -> Vec<Link> {
    let link = |(nth, stream): (usize, StdStream)| {
        stream.set_nonblocking(true).expect("sockets need not wait");
        Link {
            stream: TcpStream::from_std(stream),
            outgoing: Sequence::new(nth),
            incoming: Sequence::new(nth),
            is_ready: false,
            is_done: false,
            asked_at: 0,
        }
    };
    streams.into_iter().enumerate().map(link).collect()
}

fn passed(links: &[Link]) -> Vec<Passed> {
    links.iter().map(|link| Passed::of(&link.outgoing, &link.incoming)).collect()
}

/// Waits for sockets and has `turn` deal with each, until all are done. `turn` is told whether the
/// other end has said that it sends no more.
fn turns(links: &mut [Link], interest: Interest, turn: &mut dyn FnMut(&mut Link, bool) -> Turn) {
    let mut poll = Poll::new().expect("there are descriptors");
    for (nth, link) in links.iter_mut().enumerate() {
        let registered = poll.registry().register(&mut link.stream, Token(nth), interest);
        registered.expect("it is not there yet");
    }
    let mut events = Events::with_capacity(256);
    let (mut open, mut has_ended) = (links.len(), vec![false; links.len()]);
    while open > 0 {
        let has_more = links.iter().any(|link| link.is_ready);
        match poll.poll(&mut events, has_more.then_some(Duration::ZERO)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            polled => polled.expect("the descriptors are sound"),
        }
        for event in &events {
            let nth = event.token().0;
            links[nth].is_ready = !links[nth].is_done;
            has_ended[nth] |= event.is_read_closed();
        }
        for (link, has_ended) in links.iter_mut().zip(&has_ended).filter(|(link, _)| link.is_ready)
        {
            let after = turn(link, *has_ended);
            link.is_ready = after == Turn::HasMore;
            link.is_done = after == Turn::Done;
            open -= usize::from(link.is_done);
        }
    }
}

impl Link {
    /// Sends a ping.
    fn ask(&mut self, meter: &mut Meter) {
        self.asked_at = now_nanos();
        self.send_ping();
        meter.sent(PING_BYTES);
    }

    /// So few bytes always have room: no more than one ping is under way.
    fn send_ping(&mut self) {
        let sent = self.stream.write(self.outgoing.next(PING_BYTES));
        assert_eq!(sent.expect("the connection is sound"), PING_BYTES);
        self.outgoing.advance(PING_BYTES);
    }

    /// Takes the answer to a ping, and sends the next.
    fn ping(&mut self, memory: &mut [u8], meter: &mut Meter) -> Turn {
        assert!(self.read(memory) != Some(0), "the peer has ended early");
        if self.incoming.passed() < self.outgoing.passed() {
            return Turn::Waits;
        }
        let now = now_nanos();
        meter.answered(self.asked_at, now);
        if meter.goes_on(now) {
            self.ask(meter);
            return Turn::Waits;
        }
        self.finish()
    }

    /// Sends as much as there is room for.
    fn fill(&mut self, meter: &mut Meter) -> Turn {
        for _ in 0..CALLS_PER_TURN {
            if !meter.goes_on(now_nanos()) {
                return self.finish();
            }
            let Some(sent) = unless_blocked(self.stream.write(self.outgoing.next(WRITE_BYTES)))
            else {
                return Turn::Waits;
            };
            self.outgoing.advance(sent);
            meter.sent(sent);
        }
        Turn::HasMore
    }

    /// Takes what has come, and sends back what is a ping.
    fn answer(
        &mut self,
        work: Work,
        memory: &mut [u8],
        received: &AtomicU64,
        has_ended: bool,
    ) -> Turn {
        for _ in 0..CALLS_PER_TURN {
            let taken = match self.read(memory) {
                None => return Turn::Waits,
                Some(0) => return Turn::Done,
                Some(taken) => taken,
            };
            received.fetch_add(taken as u64, Relaxed);
            if work == Work::Pings && self.incoming.passed().is_multiple_of(PING_BYTES as u64) {
                self.send_ping();
            }
            // A receive that is not filled has left nothing, unless the end comes after it.
            if taken < memory.len() && !has_ended {
                return Turn::Waits;
            }
        }
        Turn::HasMore
    }

    /// Bytes received; 0 at the end, nothing if there is nothing yet.
    fn read(&mut self, memory: &mut [u8]) -> Option<usize> {
        let taken = unless_blocked(self.stream.read(memory))?;
        self.incoming.take(&memory[..taken]);
        Some(taken)
    }

    fn finish(&mut self) -> Turn {
        self.stream.shutdown(Shutdown::Write).expect("the peer reads to the end");
        Turn::Done
    }
}

/// # Panics
/// On errors other than that a call would have to wait.
fn unless_blocked(result: io::Result<usize>) -> Option<usize> {
    match result {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    }
}
