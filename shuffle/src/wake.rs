//! Waking a thread that may be asleep, at the price of one atomic operation if it is not.

use std::{sync::OnceLock, time::Duration};

use crate::sync::{self, AtomicU32, Ordering, Thread};

const RUNNING: u32 = 0;
const PARKED: u32 = 1;
const NOTIFIED: u32 = 2;

/// Puts one thread to sleep; anybody may wake it. A wake between two sleeps makes the next one end at once.
#[derive(Debug, Default)]
pub struct Waker {
    state: AtomicU32,
    sleeper: OnceLock<Sleeper>,
}

#[derive(Debug)]
enum Sleeper {
    /// It parks.
    Thread(Thread),
    /// It waits for sockets.
    Poll(mio::Waker),
}

impl Waker {
    /// Names the calling thread as the one that parks. To be called once, by that thread.
    pub fn bind(&self) {
        let _ = self.sleeper.set(Sleeper::Thread(sync::current()));
    }

    /// Names the thread that waits in the poll of `waker`. To be called once.
    pub fn bind_poll(&self, waker: mio::Waker) {
        let _ = self.sleeper.set(Sleeper::Poll(waker));
    }

    /// Makes the thread's current or next park return.
    #[inline]
    pub fn wake(&self) {
        // Already notified: whoever did it has woken the thread, and it will look at everything again. The order is
        // kept by the swap below, which the thread answers with a swap of its own.
        if self.state.swap(NOTIFIED, Ordering::SeqCst) == PARKED {
            match self.sleeper.get() {
                Some(Sleeper::Thread(thread)) => thread.unpark(),
                // Writing to an eventfd fails only if its count is full, which wakes as well.
                Some(Sleeper::Poll(waker)) => drop(waker.wake()),
                None => {}
            }
        }
    }

    /// Whether somebody has called `wake` since the last park.
    pub fn is_notified(&self) -> bool {
        self.state.load(Ordering::SeqCst) == NOTIFIED
    }

    /// Sleeps until `wake`, or until `timeout` is over. Called by the bound thread only.
    pub fn park(&self, timeout: Option<Duration>) {
        self.sleep(|| match timeout {
            // A spurious return costs one look at the inputs; no loop is needed.
            Some(timeout) => sync::park_timeout(timeout),
            None => sync::park(),
        });
    }

    /// Calls `wait`, which `wake` ends, unless somebody has called `wake` since the last sleep. Called by the bound
    /// thread only.
    pub fn sleep(&self, wait: impl FnOnce()) {
        if self.state.compare_exchange(RUNNING, PARKED, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            wait();
        }
        // Not a store: it takes away the notifications of all who have come meanwhile, so what they told of must be seen
        // by the look that follows.
        self.state.swap(RUNNING, Ordering::SeqCst);
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
