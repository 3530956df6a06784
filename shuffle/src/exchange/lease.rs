//! Who drives the network: the threads of slots, as long as one of them comes by often enough, or else the net thread.
//!
//! ```text
//!                      a slot takes a turn
//!   Net thread ────────────────────────────────► Slots ──┐ a turn, or a slot that
//!    drives    ◄──────────────────────────────── drive ◄─┘ waits for the sockets
//!                no turn until the lease is over
//! ```
//! A turn is one round of the net loop. Whichever slot takes it renews the lease for all of them, and at most one of them
//! waits for the sockets. The net thread looks when the lease is over; a turn puts that off, so as long as slots come by, or
//! one of them waits, the net thread sleeps. **Invariant:** where slots drive and none of them waits, a look is to come.
//!
//! Plain state: what is done with it is in [`drive`](super::drive).

use std::time::{Duration, Instant};

/// How long a turn is good for. To come back later, because a user's function takes longer, costs the net thread a wake.
pub(super) const LEASE: Duration = Duration::from_micros(500);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Driver {
    NetThread,
    Slots { is_waited: bool },
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Lease {
    driver: Driver,
    /// When the net thread looks whether slots still drive.
    look_at: Option<Instant>,
}

/// What the net thread has to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Duty {
    /// The network is its own.
    Drive,
    /// The next look is asked for, or somebody will ask for it.
    Sleep,
}

impl Lease {
    pub(super) fn new() -> Lease {
        Lease { driver: Driver::NetThread, look_at: None }
    }

    /// Whether a slot waits for the sockets.
    pub(super) fn is_waited(&self) -> bool {
        self.driver == Driver::Slots { is_waited: true }
    }

    /// A slot takes a turn; none of them waits, or it is the one that did. Whether it has to ask for a look after [`LEASE`]:
    /// not at every turn, since that is a system call.
    #[must_use]
    pub(super) fn take_turn(&mut self, now: Instant) -> bool {
        self.driver = Driver::Slots { is_waited: false };
        let is_far = self.look_at.is_some_and(|look| look >= now + LEASE / 2);
        if !is_far {
            self.look_at = Some(now + LEASE);
        }
        !is_far
    }

    /// The slot that has taken a turn waits for the sockets. It takes a turn when it has waited.
    pub(super) fn wait(&mut self) {
        debug_assert_eq!(self.driver, Driver::Slots { is_waited: false }, "it has taken a turn");
        self.driver = Driver::Slots { is_waited: true };
    }

    /// The net thread is awake: because it is time for a look, or for another reason.
    pub(super) fn on_net_thread(&mut self, now: Instant) -> Duty {
        if self.driver == Driver::NetThread {
            return Duty::Drive;
        }
        if self.look_at.is_some_and(|look| look <= now) {
            self.look_at = None;
            if !self.is_waited() {
                self.driver = Driver::NetThread;
                return Duty::Drive;
            }
        }
        Duty::Sleep
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "some time has to be the first")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn slots_keep_the_lease_while_they_take_turns_and_lose_it_when_they_do_not() {
        let (mut lease, start) = (Lease::new(), start());
        let at = |parts: u32| start + LEASE * parts / 4;
        assert_eq!(lease.on_net_thread(at(0)), Duty::Drive);
        assert!(lease.take_turn(at(0)), "the first look is to be asked for");
        assert!(!lease.take_turn(at(1)), "it is far enough away");
        // Woken by a socket, as it was the one who waited.
        assert_eq!(lease.on_net_thread(at(2)), Duty::Sleep);
        assert!(lease.take_turn(at(3)), "it is to be put off");
        assert_eq!(lease.on_net_thread(at(4)), Duty::Sleep);
        assert_eq!(lease.on_net_thread(at(7)), Duty::Drive);
        assert_eq!(lease.on_net_thread(at(8)), Duty::Drive);
        assert!(lease.take_turn(at(8)));
    }

    #[test]
    fn while_a_slot_waits_the_net_thread_sleeps() {
        let (mut lease, start) = (Lease::new(), start());
        assert!(lease.take_turn(start));
        lease.wait();
        assert_eq!(lease.on_net_thread(start + LEASE * 2), Duty::Sleep);
        assert!(lease.take_turn(start + LEASE * 3), "it has to look again from now on");
        assert_eq!(lease.on_net_thread(start + LEASE * 4), Duty::Drive);
    }

    #[test]
    fn where_slots_drive_and_none_waits_a_look_is_to_come() {
        /// Everything that can be done in some steps of some length; `asked` is when the timer goes off.
        fn go(lease: &Lease, asked: Option<Instant>, now: Instant, steps: u32) {
            assert!(lease.driver != Driver::Slots { is_waited: false } || asked.is_some(), "{lease:?}");
            if steps == 0 {
                return;
            }
            for now in [now, now + LEASE / 3, now + LEASE * 2] {
                let mut turn = lease.clone();
                let asked_by_turn = turn.take_turn(now).then_some(now + LEASE).or(asked);
                go(&turn, asked_by_turn, now, steps - 1);
                if lease.driver == (Driver::Slots { is_waited: false }) {
                    let mut waiting = lease.clone();
                    waiting.wait();
                    go(&waiting, asked, now, steps - 1);
                }
                let mut woken = lease.clone();
                let _ = woken.on_net_thread(now);
                go(&woken, asked.filter(|asked| *asked > now), now, steps - 1);
            }
        }
        go(&Lease::new(), None, start(), 5);
    }
}
