//! The sender's end of one channel.

use super::{Backlog, Grant};

/// What was granted, and what was used of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spender {
    granted: u64,
    sent: u64,
    announced: u64,
}

impl Spender {
    /// Takes note of a grant; an old one changes nothing.
    pub fn on_grant(&mut self, grant: Grant) {
        self.granted = self.granted.max(grant.0);
    }

    /// Uses `bytes` of room if they were granted.
    #[must_use]
    pub fn try_spend(&mut self, bytes: u64) -> bool {
        let fits = self.sent.checked_add(bytes).is_some_and(|sent| sent <= self.granted);
        if fits {
            self.sent += bytes;
        }
        fits
    }

    /// What the receiver is to be told when `bytes` wait for room; `None` if it knows.
    #[must_use]
    pub fn announce(&mut self, bytes: u64) -> Option<Backlog> {
        let total = self.sent + bytes;
        (total > self.announced.max(self.granted)).then(|| {
            self.announced = total;
            Backlog(total)
        })
    }

    /// What was granted, and what was used of it.
    pub fn totals(&self) -> (Grant, u64) {
        (Grant(self.granted), self.sent)
    }

    /// Room that was granted and not used.
    pub fn available(&self) -> u64 {
        self.granted - self.sent
    }
}
