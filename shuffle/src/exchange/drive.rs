//! Drives the net loop: on the thread of a slot, between its steps and while it has nothing to do, and on the net thread
//! when no slot does.
//!
//! ```text
//!  slot: step ─► turn ─► step ─► turn ─► (idle) wait: sockets, own waker, time ─► turn ─► step
//!  net thread: (asleep) ............................................. look, if no turn was taken for a while ─► takes over
//! ```
//! So a record that a slot has written leaves without waking another thread, and one that arrives is there when the thread
//! that waits for it wakes up. Who drives is decided by [`Lease`].
//!
//! Nobody waits with the lock held, and whoever waits for the sockets only learns that there is something: what it is, the
//! round finds out. So more than one may wait by mistake, and none takes anything from the other. A ring in place of the poll
//! would be waited for in the same manner.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use millstream_model::{id::WorkerId, message::ShuffleMetrics};
use mio::Registry;
use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::{
        time::TimeSpec,
        timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
    },
};

use super::{
    lease::{Duty, LEASE, Lease},
    net_loop::NetLoop,
};
use crate::wake::Waker;

/// The net loop, and what its drivers share.
pub(super) struct Drive {
    turn: Mutex<Turn>,
    /// Says that the loop has something to do. Whoever waits for the sockets sleeps on it.
    doorbell: Arc<Waker>,
    /// Of the sockets and the doorbell.
    sockets: Registry,
    /// Goes off when the net thread is to look whether slots still drive.
    look: TimerFd,
    /// Slots that wait for the lock.
    claims: AtomicUsize,
}

/// What one thread at a time has.
struct Turn {
    net_loop: NetLoop,
    lease: Lease,
}

impl Drive {
    /// # Errors
    /// If there are no more file descriptors.
    pub(super) fn new(net_loop: NetLoop, doorbell: Arc<Waker>) -> io::Result<Drive> {
        let sockets = net_loop.registry()?;
        let look = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        let turn = Mutex::new(Turn { net_loop, lease: Lease::new() });
        Ok(Drive { turn, doorbell, sockets, look, claims: AtomicUsize::new(0) })
    }

    pub(super) fn doorbell(&self) -> &Arc<Waker> {
        &self.doorbell
    }

    pub(super) fn metrics(&self) -> Vec<(WorkerId, ShuffleMetrics)> {
        self.lock().net_loop.metrics()
    }

    /// Sees to it that the loop hears that it is to stop, and the net thread that it has ended.
    pub(super) fn end(&self) {
        self.lock().net_loop.round(now());
        self.ask_for_look(Duration::from_nanos(1));
    }

    /// Drives when the slots do not, until the loop is told to stop.
    pub(super) fn run_net_thread(&self) {
        loop {
            let mut turn = self.lock();
            let now = now();
            let duty = turn.lease.on_net_thread(now);
            let mut is_busy = false;
            if duty == Duty::Drive {
                self.doorbell.end_wait();
                is_busy = turn.net_loop.round(now);
            }
            if turn.net_loop.has_ended() {
                return;
            }
            let (sockets, deadline) = match duty {
                // Slots that want the lock would not get it from a thread that never lets go of it.
                _ if self.claims.load(Ordering::Relaxed) > 0 => (None, Some(now + LEASE)),
                Duty::Drive if is_busy || !self.doorbell.begin_wait() => continue,
                Duty::Drive => (Some(self.sockets.as_fd()), turn.net_loop.deadline()),
                Duty::Sleep => (None, None),
            };
            drop(turn);
            wait_for(self.look.as_fd(), sockets, deadline);
            // Fails unless the time has come; the lease knows better.
            let _ = self.look.wait();
        }
    }

    fn ask_for_look(&self, after: Duration) {
        let after = Expiration::OneShot(TimeSpec::from_duration(after));
        // There is no bad time, and nothing else that it could fail for.
        let _ = self.look.set(after, TimerSetTimeFlags::empty());
    }

    fn lock(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(|poisoned| {
            // Its connections have the same end as those of a process that dies.
            let mut turn = poisoned.into_inner();
            turn.net_loop.abandon();
            turn
        })
    }

    /// The lock, for a slot.
    fn claim(&self) -> MutexGuard<'_, Turn> {
        self.claims.fetch_add(1, Ordering::Relaxed);
        let turn = self.lock();
        self.claims.fetch_sub(1, Ordering::Relaxed);
        turn
    }

    /// The network is the calling slot's until it waits or does not come by any more.
    fn take_turn(&self, turn: &mut Turn, now: Instant) {
        self.doorbell.end_wait();
        if turn.lease.take_turn(now) {
            self.ask_for_look(LEASE);
        }
    }
}

/// The network in the hands of a slot's thread.
#[derive(Clone)]
pub struct SlotDrive(Arc<Drive>);

impl SlotDrive {
    pub(super) fn new(drive: Arc<Drive>) -> SlotDrive {
        SlotDrive(drive)
    }

    /// Lets the waker of a slot's thread end its [`SlotDrive::wait`].
    pub fn bind(&self, waker: &Waker) {
        waker.share_poll(&self.0.doorbell);
    }

    /// Whether there is something to send, as far as is known without looking.
    pub fn is_called(&self) -> bool {
        self.0.doorbell.is_notified()
    }

    /// Takes in what has arrived and sends what can go, unless somebody else is at it or waits for it. Never waits.
    pub fn turn(&self) {
        let SlotDrive(drive) = self;
        if let Ok(mut turn) = drive.turn.try_lock()
            && !turn.lease.is_waited()
        {
            let now = now();
            drive.take_turn(&mut turn, now);
            turn.net_loop.round(now);
        }
    }

    /// Drives until `own`, the waker of the calling thread, is called, or something has come or gone, or it is `until`.
    /// Returns `false` at once if another slot is at it: then there is nothing to do but to park.
    pub fn wait(&self, own: &Waker, until: Option<Instant>) -> bool {
        let SlotDrive(drive) = self;
        let mut turn = drive.claim();
        if turn.lease.is_waited() || turn.net_loop.has_ended() {
            return false;
        }
        let mut time = now();
        drive.take_turn(&mut turn, time);
        loop {
            let mut is_called = false;
            // If it was rung, the round comes first.
            if drive.doorbell.begin_wait() {
                if !own.begin_wait() {
                    drive.doorbell.end_wait();
                    return true;
                }
                let deadline = until.into_iter().chain(turn.net_loop.deadline()).min();
                turn.lease.wait();
                drop(turn);
                wait_for(drive.sockets.as_fd(), None, deadline);
                is_called = own.end_wait();
                turn = drive.claim();
                time = now();
                drive.take_turn(&mut turn, time);
            }
            let is_busy = turn.net_loop.round(time);
            let is_over = until.is_some_and(|until| until <= time) || turn.net_loop.has_ended();
            if is_busy || is_called || is_over || own.is_notified() {
                return true;
            }
        }
    }
}

/// Waits until one of them can be read, or until the time has come.
fn wait_for(first: BorrowedFd<'_>, second: Option<BorrowedFd<'_>>, until: Option<Instant>) {
    let mut polled = [PollFd::new(first, PollFlags::POLLIN), PollFd::new(second.unwrap_or(first), PollFlags::POLLIN)];
    let timeout = until.map(|until| TimeSpec::from_duration(until.saturating_duration_since(now())));
    // Interrupted by a signal: whoever waits looks at everything and waits again.
    let _ = ppoll(&mut polled[..1 + usize::from(second.is_some())], timeout, None);
}

#[expect(clippy::disallowed_methods, reason = "the driver of the network owns its clock")]
fn now() -> Instant {
    Instant::now()
}
