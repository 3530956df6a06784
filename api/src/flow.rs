//! What travels beside the records of one task: the current time stamp and key hash, and whether it must stop.
//!
//! A task's operators run on one thread, so these are plain cells; reading one costs a load.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    mem, panic,
};

use millstream_model::{fault::Failure, key_group::KeyHash, time::EventTime};

/// The state that all operators of one task share.
#[derive(Debug)]
pub struct Flow {
    timestamp: Cell<i64>,
    key_hash: Cell<KeyHash>,
    /// Milliseconds since 1970, as of the last look at the clock.
    now_millis: Cell<i64>,
    /// When the earliest processing-time timer is due; `i64::MAX` if there is none.
    next_clock_millis: Cell<i64>,
    /// Outputs that have no room.
    full_outputs: Cell<u32>,
    /// How often an output ran out of room or got some again.
    room_changes: Cell<u64>,
    /// Operators that have not finished with what they were given, and could if there were room.
    pending_operators: Cell<u32>,
    /// Operators that take no further record until something reaches them from outside the thread.
    waiting_operators: Cell<u32>,
    /// See [`Overflow`](crate::overflow::Overflow).
    overflow_bytes: Cell<u64>,
}

impl Default for Flow {
    fn default() -> Self {
        Flow {
            timestamp: Cell::new(i64::MIN),
            key_hash: Cell::new(KeyHash::NONE),
            now_millis: Cell::new(0),
            next_clock_millis: Cell::new(i64::MAX),
            full_outputs: Cell::new(0),
            room_changes: Cell::new(0),
            pending_operators: Cell::new(0),
            waiting_operators: Cell::new(0),
            overflow_bytes: Cell::new(0),
        }
    }
}

impl Flow {
    /// The time stamp of the record that is being processed; `EventTime::MIN` if it has none.
    #[inline]
    pub fn timestamp(&self) -> EventTime {
        EventTime(self.timestamp.get())
    }

    #[inline]
    pub fn set_timestamp(&self, time: EventTime) {
        self.timestamp.set(time.0);
    }

    /// The hash of the key that the record came by, if it came over a hash edge.
    #[inline]
    pub fn key_hash(&self) -> KeyHash {
        self.key_hash.get()
    }

    #[inline]
    pub fn set_key_hash(&self, hash: KeyHash) {
        self.key_hash.set(hash);
    }

    /// Processing time in milliseconds since 1970; as coarse as the task's steps.
    pub fn now_millis(&self) -> i64 {
        self.now_millis.get()
    }

    pub fn set_now_millis(&self, now: i64) {
        self.now_millis.set(now);
    }

    /// Asks for a [`Signal::Clock`](crate::signal::Signal::Clock) at `millis` or soon after.
    pub fn wake_at(&self, millis: i64) {
        self.next_clock_millis.set(self.next_clock_millis.get().min(millis));
    }

    /// When the next clock signal is due.
    pub fn next_clock_millis(&self) -> i64 {
        self.next_clock_millis.get()
    }

    /// Takes the wish for a clock signal, for the task that now fulfils it.
    pub fn take_next_clock(&self) -> i64 {
        self.next_clock_millis.replace(i64::MAX)
    }

    /// Whether no further record may enter: an output has no room, or an operator is still at work.
    #[inline]
    pub fn halted(&self) -> bool {
        (self.full_outputs.get() | self.pending_operators.get() | self.waiting_operators.get()) != 0
    }

    /// Whether an output has no room. Operators that can pause ask [`Out::is_blocked`](crate::push::Out), which also
    /// looks for operators behind them that wait.
    #[inline]
    pub fn full(&self) -> bool {
        self.full_outputs.get() != 0
    }

    /// Whether an operator waits for something from outside.
    #[inline]
    pub fn waits(&self) -> bool {
        self.waiting_operators.get() != 0
    }

    /// Whether nothing but such waiting keeps records out. Then nothing lies between two operators, and what is no
    /// record may still pass through the chain.
    pub fn only_waits(&self) -> bool {
        self.waits() && !self.full() && self.pending_operators.get() == 0
    }

    /// How many operators have not finished with what they were given.
    pub fn pending(&self) -> u32 {
        self.pending_operators.get()
    }

    /// How often an output ran out of room or got some again. If it is the same after a
    /// [`Signal::Resume`](crate::signal::Signal) as before, every output that is full has asked to be woken when there
    /// is room, and every operator that can pause has seen how things are.
    pub fn room_changes(&self) -> u64 {
        self.room_changes.get()
    }

    pub fn output_filled(&self) {
        self.room_changes.set(self.room_changes.get() + 1);
        self.full_outputs.set(self.full_outputs.get() + 1);
    }

    pub fn output_freed(&self) {
        self.room_changes.set(self.room_changes.get() + 1);
        self.full_outputs.set(self.full_outputs.get() - 1);
    }

    pub fn operator_paused(&self) {
        self.pending_operators.set(self.pending_operators.get() + 1);
    }

    pub fn operator_resumed(&self) {
        self.pending_operators.set(self.pending_operators.get() - 1);
    }

    /// An operator takes no further record until its task is woken; see [`TaskWaker`](crate::context::TaskWaker).
    pub fn operator_waits(&self) {
        self.waiting_operators.set(self.waiting_operators.get() + 1);
    }

    pub fn operator_goes_on(&self) {
        self.waiting_operators.set(self.waiting_operators.get() - 1);
    }

    /// What all holders of overflow have together.
    pub fn overflow_bytes(&self) -> u64 {
        self.overflow_bytes.get()
    }

    pub(crate) fn overflow_changed(&self, before: u64, now: u64) {
        self.overflow_bytes.set(self.overflow_bytes.get() - before + now);
    }
}

thread_local! {
    static BLAMED: RefCell<Option<String>> = const { RefCell::new(None) };
    /// Whether the innermost operator is not to blame.
    static CALLER_IS_TO_BLAME: Cell<bool> = const { Cell::new(false) };
}

/// Ends the current record, and with it the task's attempt. The failure reaches the JobMaster with the operator's
/// name and the record's position.
///
/// This unwinds to the task's loop, which is what lets record code return nothing on its hot path.
pub fn fail(failure: Failure) -> ! {
    panic::resume_unwind(Box::new(failure))
}

/// As [`fail`], for what an operator cannot take: the one that emitted it is named.
pub(crate) fn fail_caller(failure: Failure) -> ! {
    CALLER_IS_TO_BLAME.set(true);
    fail(failure)
}

/// Remembers which operator a panic came from. Forgotten on the normal path, so it costs nothing there.
pub(crate) struct Blame<'a>(&'a str);

impl<'a> Blame<'a> {
    #[inline]
    pub(crate) fn on(operator: &'a str) -> Blame<'a> {
        Blame(operator)
    }

    #[inline]
    pub(crate) fn lift(self) {
        mem::forget(self);
    }
}

impl Drop for Blame<'_> {
    #[cold]
    fn drop(&mut self) {
        if CALLER_IS_TO_BLAME.take() {
            return;
        }
        // The innermost operator unwinds first; those around it only called it.
        BLAMED.with_borrow_mut(|blamed| {
            blamed.get_or_insert_with(|| self.0.to_owned());
        });
    }
}

/// Makes a failure of what a panic carried, naming the operator that it unwound from.
pub fn failure_of_panic(payload: Box<dyn Any + Send>, what: Option<PanicFacts>) -> Failure {
    let blamed = BLAMED.with_borrow_mut(Option::take);
    let mut failure = match payload.downcast::<Failure>() {
        Ok(failure) => *failure,
        Err(payload) => {
            let text = payload
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| payload.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "a panic without a text".to_owned());
            let place = what.as_ref().and_then(|facts| facts.location.clone());
            let place = place.map_or(String::new(), |place| format!(" at {place}"));
            let mut failure = Failure::new(format!("the user function panicked{place}: {text}"));
            failure.backtrace = what.and_then(|facts| facts.backtrace);
            failure
        }
    };
    if let Some(operator) = blamed {
        failure = failure.in_operator(&operator);
    }
    failure
}

/// What a panic hook has seen of a panic.
#[derive(Clone, Debug, Default)]
pub struct PanicFacts {
    /// File, line and column.
    pub location: Option<String>,
    pub backtrace: Option<String>,
}
