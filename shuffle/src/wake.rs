//! Waking a thread that may be asleep, at the price of one atomic operation if it is not.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use crate::sync::{self, AtomicU32, Ordering, Thread};

const RUNNING: u32 = 0;
const PARKED: u32 = 1;
/// For sockets.
const WAITING: u32 = 2;
const NOTIFIED: u32 = 3;

/// Puts one thread to sleep; anybody may wake it. A wake between two sleeps makes the next one end at once.
#[derive(Debug, Default)]
pub struct Waker {
    state: AtomicU32,
    /// That parks.
    thread: OnceLock<Thread>,
    /// Ends the wait for sockets.
    poll: OnceLock<Arc<mio::Waker>>,
}

impl Waker {
    /// Names the calling thread as the one that parks. To be called once, by that thread.
    pub fn bind(&self) {
        let _ = self.thread.set(sync::current());
    }

    /// Names what ends a wait for sockets. To be called once.
    pub fn bind_poll(&self, waker: Arc<mio::Waker>) {
        let _ = self.poll.set(waker);
    }

    /// Lets this waker end a wait for the sockets of another one.
    pub fn share_poll(&self, other: &Waker) {
        if let Some(waker) = other.poll.get() {
            let _ = self.poll.set(waker.clone());
        }
    }

    /// Makes the thread's current or next sleep end.
    #[inline]
    pub fn wake(&self) {
        // Already notified: whoever did it has woken the thread, and it will look at everything again. The order is
        // kept by the swap below, which the thread answers with a swap of its own.
        match self.state.swap(NOTIFIED, Ordering::SeqCst) {
            PARKED => self.thread.get().into_iter().for_each(Thread::unpark),
            // Writing to an eventfd fails only if its count is full, which wakes as well.
            WAITING => self.poll.get().into_iter().for_each(|waker| drop(waker.wake())),
            _ => {}
        }
    }

    /// Whether somebody has called `wake` since the last sleep.
    pub fn is_notified(&self) -> bool {
        self.state.load(Ordering::SeqCst) == NOTIFIED
    }

    /// Sleeps until `wake`, or until `timeout` is over. Called by the bound thread only.
    pub fn park(&self, timeout: Option<Duration>) {
        if self.state.compare_exchange(RUNNING, PARKED, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            // A spurious return costs one look at the inputs; no loop is needed.
            match timeout {
                Some(timeout) => sync::park_timeout(timeout),
                None => sync::park(),
            }
        }
        // Not a store: it takes away the notifications of all who have come meanwhile, so what they told of must be seen
        // by the look that follows.
        self.state.swap(RUNNING, Ordering::SeqCst);
    }

    /// From now on `wake` ends a wait for sockets; `false` if somebody has called it since the last sleep, which then must
    /// not begin.
    #[must_use]
    pub fn begin_wait(&self) -> bool {
        self.state.compare_exchange(RUNNING, WAITING, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// There is no wait any more. Whether `wake` was called; it counts for the next sleep.
    pub fn end_wait(&self) -> bool {
        let ended = self.state.compare_exchange(WAITING, RUNNING, Ordering::SeqCst, Ordering::SeqCst);
        ended == Err(NOTIFIED)
    }

    /// Forgets a notification, before everything it could be about is looked at.
    pub fn clear(&self) {
        if self.state.load(Ordering::Relaxed) == NOTIFIED {
            self.state.swap(RUNNING, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicU64, Ordering::SeqCst},
        },
        thread,
    };

    use super::*;

    #[test]
    fn no_wake_is_lost() {
        // Two threads hand a number back and forth; a lost wake would stop them for good.
        let wakers = Arc::new([Waker::default(), Waker::default()]);
        let number = Arc::new(AtomicU64::new(0));
        let rounds = 20_000;
        let play = |me: usize| {
            let (wakers, number) = (wakers.clone(), number.clone());
            move || {
                wakers[me].bind();
                loop {
                    wakers[me].clear();
                    let now = number.load(SeqCst);
                    if now >= rounds {
                        break wakers[1 - me].wake();
                    }
                    if now as usize % 2 == me {
                        number.store(now + 1, SeqCst);
                        wakers[1 - me].wake();
                    } else {
                        wakers[me].park(None);
                    }
                }
            }
        };
        thread::scope(|scope| {
            scope.spawn(play(0));
            scope.spawn(play(1));
        });
        assert!(number.load(SeqCst) >= rounds);
    }
}
