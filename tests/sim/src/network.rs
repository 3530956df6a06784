//! Connections: reliable and in order each, as TCP's and QUIC's streams; slow, cut off and lost at any time, and among each
//! other in any order. What is under way when one is lost is lost.

use std::collections::VecDeque;

/// Microseconds since the start of the history.
pub type Time = u64;

/// After so long without a heartbeat the other side is taken for dead.
pub const HEARTBEAT_TIMEOUT: Time = 5_000_000;

/// One direction of a connection.
#[derive(Clone, Debug)]
pub struct Stream<M> {
    waiting: VecDeque<(Time, M)>,
    last: Time,
}

impl<M> Default for Stream<M> {
    fn default() -> Stream<M> {
        Stream { waiting: VecDeque::new(), last: 0 }
    }
}

impl<M> Stream<M> {
    /// Puts a message on its way; returns when it arrives: never before those that were sent before it.
    pub fn push(&mut self, message: M, now: Time, delay: Time) -> Time {
        self.last = self.last.max(now + delay);
        self.waiting.push_back((self.last, message));
        self.last
    }

    /// The next message that has arrived.
    pub fn pop(&mut self, now: Time) -> Option<M> {
        let (at, _) = self.waiting.front()?;
        if *at > now {
            return None;
        }
        self.waiting.pop_front().map(|(_, message)| message)
    }

    /// The first that has arrived, which stays.
    pub fn front(&self, now: Time) -> Option<&M> {
        self.waiting.front().filter(|(at, _)| *at <= now).map(|(_, message)| message)
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
