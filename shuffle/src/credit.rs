//! Credit: how many bytes of room a receiver has promised to a sender. Both ends are here.
//!
//! Credits are running totals per channel ("you may use up to byte n"), so repeated and reordered grants are harmless.
//!
//! **Invariant:** `freed ≤ received ≤ sent ≤ granted`, and `granted` is at most the largest `freed + window` so far.

use serde::{Deserialize, Serialize};

/// The receiver's end of one channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granter {
    window: u64,
    received: u64,
    freed: u64,
    granted: u64,
}

/// A total up to which the sender may use room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Grant(pub u64);

/// The peer has broken the rules of credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sender used {used} bytes of room where {granted} were granted")]
pub struct Overrun {
    pub used: u64,
    pub granted: u64,
}

impl Granter {
    /// Promises `window` bytes from the start.
    pub fn new(window: u64) -> Granter {
        Granter { window, received: 0, freed: 0, granted: window }
    }

    /// What is promised so far.
    pub fn granted(&self) -> Grant {
        Grant(self.granted)
    }

    /// Counts `bytes` of room as used by what the sender has sent.
    ///
    /// # Errors
    /// If they were not granted.
    pub fn receive(&mut self, bytes: u64) -> Result<(), Overrun> {
        let used = self.received.saturating_add(bytes);
        if used > self.granted {
            return Err(Overrun { used, granted: self.granted });
        }
        self.received = used;
        Ok(())
    }

    /// Counts `bytes` as reusable and returns the grant to send to the peer. A grant never takes room back.
    pub fn grant(&mut self, bytes: u64) -> Grant {
        self.freed += bytes;
        assert!(self.freed <= self.received, "freed bytes that were never received");
        self.granted = self.granted.max(self.freed + self.window);
        Grant(self.granted)
    }

    /// Changes the window. A smaller one grants nothing until the sender has caught up with it.
    pub fn set_window(&mut self, window: u64) -> Grant {
        self.window = window;
        self.granted = self.granted.max(self.freed + window);
        Grant(self.granted)
    }
}

/// The sender's end of one channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spender {
    granted: u64,
    sent: u64,
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

    /// What was granted, and what was used of it.
    pub fn totals(&self) -> (Grant, u64) {
        (Grant(self.granted), self.sent)
    }

    /// Room that was granted and not used.
    pub fn available(&self) -> u64 {
        self.granted - self.sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Marsaglia's xorshift64.
    fn random(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    #[test]
    fn random_operations_never_break_the_chain() {
        for seed in 1..200_u64 {
            let mut state = seed;
            let window = 1 + random(&mut state) % 10_000;
            let (mut granter, mut spender) = (Granter::new(window), Spender::default());
            spender.on_grant(granter.granted());
            let (mut on_the_way, mut held) = (Vec::new(), 0);
            let (mut grants, mut largest) = (vec![granter.granted()], window);
            for _ in 0..2_000 {
                match random(&mut state) % 5 {
                    0 | 1 => {
                        let bytes = random(&mut state) % 3_000;
                        if spender.try_spend(bytes) {
                            on_the_way.push(bytes);
                        }
                    }
                    2 if !on_the_way.is_empty() => {
                        let bytes = on_the_way.remove(0);
                        assert_eq!(granter.receive(bytes), Ok(()), "seed {seed}");
                        held += bytes;
                    }
                    3 => {
                        let bytes = if held == 0 { 0 } else { random(&mut state) % (held + 1) };
                        held -= bytes;
                        grants.push(granter.grant(bytes));
                    }
                    _ => grants.push(granter.set_window(1 + random(&mut state) % 10_000)),
                }
                largest = largest.max(granter.freed + granter.window);
                // Grants arrive late, repeated and in any order.
                let any = random(&mut state) as usize % grants.len();
                spender.on_grant(grants[any]);
                assert!(granter.freed <= granter.received && granter.received <= spender.sent, "seed {seed}");
                assert!(spender.sent <= spender.granted && spender.granted <= granter.granted, "seed {seed}");
                assert!(granter.granted <= largest, "seed {seed}");
            }
        }
    }

    #[test]
    fn a_sender_that_ignores_its_credit_is_noticed() {
        let mut granter = Granter::new(100);
        assert_eq!(granter.receive(100), Ok(()));
        assert_eq!(granter.receive(1), Err(Overrun { used: 101, granted: 100 }));
        assert_eq!(granter.receive(u64::MAX), Err(Overrun { used: u64::MAX, granted: 100 }));
    }

    #[test]
    fn a_shrunk_window_grants_nothing_until_it_has_caught_up() {
        let mut granter = Granter::new(100);
        granter.receive(100).unwrap();
        assert_eq!(granter.set_window(10), Grant(100));
        assert_eq!(granter.grant(90), Grant(100));
        assert_eq!(granter.grant(10), Grant(110));
    }
}
