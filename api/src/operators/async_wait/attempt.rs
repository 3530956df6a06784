//! One run of an async function, on the I/O runtime: whatever becomes of its future, the operator hears of it once,
//! unless it has given the attempt up.

use std::{
    future::Future,
    mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use millstream_model::fault::Failure;

use super::queue::Ticket;
use crate::{context::TaskWaker, panics};

/// What an attempt came to.
pub(crate) type Arrival<R> = (Ticket, Result<R, Failure>);

/// Results on their way from the I/O threads to the slot's thread. It never holds more than the operator's capacity
/// twice over: each attempt puts one in, unless it was given up before; so many are running at the most, and so many may
/// have been given up, with their results here, since the operator last looked.
pub(crate) struct Arrivals<R> {
    arrived: Mutex<Vec<Arrival<R>>>,
    waker: TaskWaker,
}

impl<R> Arrivals<R> {
    pub(crate) fn new(waker: TaskWaker) -> Self {
        Arrivals { arrived: Mutex::default(), waker }
    }

    /// Everything that has arrived, in exchange for the empty `into`, whose memory is used again.
    pub(crate) fn take(&self, into: &mut Vec<Arrival<R>>) {
        debug_assert!(into.is_empty());
        mem::swap(&mut *lock(&self.arrived), into);
    }

    fn put(&self, arrival: Arrival<R>) {
        lock(&self.arrived).push(arrival);
        self.waker.wake();
    }
}

/// Nothing is left half done under these locks, so a panic elsewhere does not matter.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

enum Fate {
    /// Somebody waits for the result. The waker is that of the I/O task, from its last poll.
    Awaited(Option<Waker>),
    /// The result was handed over, or nobody wants it.
    Settled,
}

/// The operator's hold on an attempt. When it is dropped, the future is dropped soon after, wherever it was.
pub(crate) struct Hold(Arc<Mutex<Fate>>);

impl Drop for Hold {
    fn drop(&mut self) {
        let fate = mem::replace(&mut *lock(&self.0), Fate::Settled);
        if let Fate::Awaited(Some(waker)) = fate {
            waker.wake();
        }
    }
}

/// The attempt itself.
pub(crate) struct Attempt<F, R> {
    /// `None` after its end.
    future: Option<Pin<Box<F>>>,
    fate: Arc<Mutex<Fate>>,
    ticket: Ticket,
    arrivals: Arc<Arrivals<R>>,
}

impl<F, R> Attempt<F, R> {
    pub(crate) fn new(future: F, ticket: Ticket, arrivals: &Arc<Arrivals<R>>) -> (Attempt<F, R>, Hold) {
        let fate = Arc::new(Mutex::new(Fate::Awaited(None)));
        let hold = Hold(fate.clone());
        (Attempt { future: Some(Box::pin(future)), fate, ticket, arrivals: arrivals.clone() }, hold)
    }

    /// Whether the result is wanted; `waker` is called when it no longer is.
    fn is_awaited_by(&self, waker: &Waker) -> bool {
        match &mut *lock(&self.fate) {
            Fate::Awaited(Some(known)) if known.will_wake(waker) => true,
            Fate::Awaited(known) => {
                *known = Some(waker.clone());
                true
            }
            Fate::Settled => false,
        }
    }

    fn settle(&mut self, outcome: impl FnOnce() -> Result<R, Failure>) {
        let fate = mem::replace(&mut *lock(&self.fate), Fate::Settled);
        if let Fate::Awaited(_) = fate {
            self.arrivals.put((self.ticket, outcome()));
        }
    }

    /// Drops what is left of the future. If that panics, nobody is left who cares: its result was given, or given up.
    fn end(&mut self) -> Poll<()> {
        let future = self.future.take();
        let _ = panics::catch(|| drop(future));
        Poll::Ready(())
    }
}

impl<R, F: Future<Output = Result<R, Failure>>> Future for Attempt<F, R> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if !this.is_awaited_by(context.waker()) {
            return this.end();
        }
        let Some(future) = &mut this.future else { return Poll::Ready(()) };
        match panics::catch(|| future.as_mut().poll(context)) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(outcome)) => this.settle(|| outcome),
            Err(failure) => this.settle(|| Err(failure)),
        }
        this.end()
    }
}

impl<F, R> Drop for Attempt<F, R> {
    /// The runtime may drop a task that it has not run to its end. The job must not wait for it for ever.
    fn drop(&mut self) {
        self.settle(|| Err(Failure::new("the I/O runtime ended before the async function did")));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::{pending, poll_fn, ready},
        sync::atomic::{AtomicU32, Ordering::SeqCst},
    };

    use super::*;

    const TICKET: Ticket = Ticket { serial: 7, attempt: 1 };

    struct Rig {
        arrivals: Arc<Arrivals<u64>>,
        wakes: Arc<AtomicU32>,
    }

    impl Rig {
        fn new() -> Rig {
            let wakes = Arc::new(AtomicU32::new(0));
            let count = wakes.clone();
            let waker = TaskWaker::new(move || {
                count.fetch_add(1, SeqCst);
            });
            Rig { arrivals: Arc::new(Arrivals::new(waker)), wakes }
        }

        fn start<F>(&self, future: F) -> (Pin<Box<Attempt<F, u64>>>, Hold) {
            let (attempt, hold) = Attempt::new(future, TICKET, &self.arrivals);
            (Box::pin(attempt), hold)
        }

        fn arrived(&self) -> Vec<Arrival<u64>> {
            let mut arrived = Vec::new();
            self.arrivals.take(&mut arrived);
            assert_eq!(self.wakes.swap(0, SeqCst) as usize, arrived.len(), "a wake for each arrival");
            arrived
        }
    }

    fn poll<F: Future<Output = Result<u64, Failure>>>(attempt: &mut Pin<Box<Attempt<F, u64>>>) -> Poll<()> {
        attempt.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_result_arrives_once_and_wakes_the_task() {
        let rig = Rig::new();
        let (mut attempt, hold) = rig.start(ready(Ok(3)));
        assert!(poll(&mut attempt).is_ready());
        drop((attempt, hold));
        assert_eq!(rig.arrived(), [(TICKET, Ok(3))]);
    }

    #[test]
    fn a_panic_arrives_as_a_failure_with_its_text_and_place() {
        let rig = Rig::new();
        let (mut attempt, _hold) = rig.start(poll_fn(|_| -> Poll<Result<u64, Failure>> { panic!("no luck") }));
        assert!(poll(&mut attempt).is_ready());
        let failure = rig.arrived().remove(0).1.unwrap_err();
        assert!(failure.message.contains("attempt.rs") && failure.message.ends_with(": no luck"), "{failure}");
        assert!(failure.backtrace.is_some());
    }

    #[test]
    fn a_future_that_the_runtime_drops_must_not_be_waited_for() {
        let rig = Rig::new();
        let (mut attempt, _hold) = rig.start(pending());
        assert!(poll(&mut attempt).is_pending());
        assert_eq!(rig.arrived(), []);
        drop(attempt);
        assert!(rig.arrived().remove(0).1.is_err());
    }

    #[test]
    fn an_attempt_that_was_given_up_is_woken_drops_its_future_and_says_nothing() {
        struct Woken(AtomicU32);
        impl std::task::Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, SeqCst);
            }
        }
        let rig = Rig::new();
        let held = Arc::new(());
        let inner = held.clone();
        let (mut attempt, hold) = rig.start(poll_fn(move |_| {
            let _ = &inner;
            Poll::Pending
        }));
        let woken = Arc::new(Woken(AtomicU32::new(0)));
        let waker = Waker::from(woken.clone());
        assert!(attempt.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        drop(hold);
        assert_eq!(woken.0.load(SeqCst), 1);
        assert_eq!(Arc::strong_count(&held), 2);
        assert!(attempt.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
        assert_eq!(Arc::strong_count(&held), 1, "what the future held is released");
        drop(attempt);
        assert_eq!(rig.arrived(), []);
    }
}
