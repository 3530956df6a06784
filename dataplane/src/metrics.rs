//! Counters of one task: written by its thread with plain stores, read by whoever reports them.

use std::{
    sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering::Relaxed},
    time::Instant,
};

use millstream_model::message::TaskMetrics;

/// How often numbers are read again that have changed meanwhile.
const READS_MAX: usize = 8;

/// The counters. Only the task's thread writes, so no read-modify-write is needed; but for `recent_step_nanos`.
#[derive(Debug)]
pub(crate) struct TaskCounters {
    /// From here on all time is spent on one thing or another.
    begun: Instant,
    /// A [`Spent`]: what the time is spent on that is in none of the counters yet.
    doing: AtomicU8,
    records_in: AtomicU64,
    records_out: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    busy_nanos: AtomicU64,
    idle_nanos: AtomicU64,
    backpressured_nanos: AtomicU64,
    longest_step_nanos: AtomicU64,
    /// Of the steps since the last report, which takes it away.
    recent_step_nanos: AtomicU64,
    input_queue_bytes: AtomicU64,
    input_promised_bytes: AtomicU64,
    input_target_bytes: AtomicU64,
    watermark_millis: AtomicI64,
}

fn add(counter: &AtomicU64, amount: u64) {
    counter.store(counter.load(Relaxed) + amount, Relaxed);
}

/// What a task spends time on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Spent {
    Busy,
    Idle,
    Backpressured,
}

/// What a task does that is no more.
const ENDED: u8 = u8::MAX;

impl Spent {
    fn of(number: u8) -> Option<Spent> {
        [Spent::Busy, Spent::Idle, Spent::Backpressured].into_iter().find(|spent| *spent as u8 == number)
    }
}

impl TaskCounters {
    /// Those of a task that waits, from now on.
    pub(crate) fn new(now: Instant) -> TaskCounters {
        let zero = || AtomicU64::new(0);
        TaskCounters {
            begun: now,
            doing: AtomicU8::new(Spent::Idle as u8),
            records_in: zero(),
            records_out: zero(),
            bytes_in: zero(),
            bytes_out: zero(),
            busy_nanos: zero(),
            idle_nanos: zero(),
            backpressured_nanos: zero(),
            longest_step_nanos: zero(),
            recent_step_nanos: zero(),
            input_queue_bytes: zero(),
            input_promised_bytes: zero(),
            input_target_bytes: zero(),
            watermark_millis: AtomicI64::new(i64::MIN),
        }
    }

    pub(crate) fn begun(&self) -> Instant {
        self.begun
    }

    pub(crate) fn read(&self, records: u64, bytes: u64) {
        add(&self.records_in, records);
        add(&self.bytes_in, bytes);
    }

    pub(crate) fn wrote_records(&self, records: u64) {
        add(&self.records_out, records);
    }

    pub(crate) fn wrote_bytes(&self, bytes: u64) {
        add(&self.bytes_out, bytes);
    }

    /// So much time was spent on this, and from its end on it is spent on `next`.
    pub(crate) fn spent(&self, what: Spent, nanos: u64, next: Spent) {
        match what {
            Spent::Busy => {
                add(&self.busy_nanos, nanos);
                if nanos > self.longest_step_nanos.load(Relaxed) {
                    self.longest_step_nanos.store(nanos, Relaxed);
                }
                if nanos > self.recent_step_nanos.load(Relaxed) {
                    self.recent_step_nanos.fetch_max(nanos, Relaxed);
                }
            }
            Spent::Idle => add(&self.idle_nanos, nanos),
            Spent::Backpressured => add(&self.backpressured_nanos, nanos),
        }
        self.doing.store(next as u8, Relaxed);
    }

    /// The task ends: what it did last counts until now, and then its time stands still.
    pub(crate) fn ended(&self, now: Instant) {
        let Times { doing, busy, idle, backpressured } = self.times();
        let under_way = self.elapsed(now).saturating_sub(busy + idle + backpressured);
        match Spent::of(doing) {
            Some(what) => self.spent(what, under_way, what),
            None => return,
        }
        self.doing.store(ENDED, Relaxed);
    }

    fn elapsed(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.begun).as_nanos() as u64
    }

    pub(crate) fn queued(&self, bytes: u64) {
        self.input_queue_bytes.store(bytes, Relaxed);
    }

    /// Room that senders were promised and that is not free again, and how much of it there may be.
    pub(crate) fn promised(&self, (bytes, target): (u64, u64)) {
        self.input_promised_bytes.store(bytes, Relaxed);
        self.input_target_bytes.store(target, Relaxed);
    }

    pub(crate) fn watermark(&self, millis: i64) {
        self.watermark_millis.store(millis, Relaxed);
    }

    /// The counters as of now, what is not over yet among them: a step that has gone on for a minute shows. For one
    /// thread, since it begins a new longest step for the next report.
    pub(crate) fn report(&self, now: Instant) -> TaskMetrics {
        let mut times = self.times();
        for _ in 1..READS_MAX {
            let again = self.times();
            if std::mem::replace(&mut times, again) == again {
                break;
            }
        }
        let Times { doing, mut busy, mut idle, mut backpressured } = times;
        let under_way = self.elapsed(now).saturating_sub(busy + idle + backpressured);
        let mut recent_step_nanos = self.recent_step_nanos.swap(0, Relaxed);
        match Spent::of(doing) {
            Some(Spent::Idle) => idle += under_way,
            Some(Spent::Backpressured) => backpressured += under_way,
            Some(Spent::Busy) => {
                busy += under_way;
                recent_step_nanos = recent_step_nanos.max(under_way);
            }
            None => {}
        }
        TaskMetrics {
            records_in: self.records_in.load(Relaxed),
            records_out: self.records_out.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
            busy_nanos: busy,
            idle_nanos: idle,
            backpressured_nanos: backpressured,
            longest_step_nanos: self.longest_step_nanos.load(Relaxed).max(recent_step_nanos),
            recent_step_nanos,
            input_queue_bytes: self.input_queue_bytes.load(Relaxed),
            input_promised_bytes: self.input_promised_bytes.load(Relaxed),
            input_target_bytes: self.input_target_bytes.load(Relaxed),
            watermark_millis: self.watermark_millis.load(Relaxed),
        }
    }

    fn times(&self) -> Times {
        Times {
            doing: self.doing.load(Relaxed),
            busy: self.busy_nanos.load(Relaxed),
            idle: self.idle_nanos.load(Relaxed),
            backpressured: self.backpressured_nanos.load(Relaxed),
        }
    }
}

/// What all time was spent on, in nanoseconds, and what goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Times {
    doing: u8,
    busy: u64,
    idle: u64,
    backpressured: u64,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;

    const MILLI: u64 = 1_000_000;

    #[test]
    fn what_is_not_over_yet_counts() {
        let begun = clock::now();
        let at = |millis| begun + Duration::from_millis(millis);
        let counters = TaskCounters::new(begun);
        assert_eq!(counters.report(at(5)).idle_nanos, 5 * MILLI);
        counters.spent(Spent::Idle, 10 * MILLI, Spent::Busy);
        let stuck = counters.report(at(60_010));
        assert_eq!((stuck.idle_nanos, stuck.busy_nanos), (10 * MILLI, 60_000 * MILLI));
        assert_eq!((stuck.recent_step_nanos, stuck.longest_step_nanos), (60_000 * MILLI, 60_000 * MILLI));
        counters.spent(Spent::Busy, 70_000 * MILLI, Spent::Backpressured);
        let waits = counters.report(at(70_040));
        assert_eq!((waits.busy_nanos, waits.backpressured_nanos), (70_000 * MILLI, 30 * MILLI));
        assert_eq!(waits.recent_step_nanos, 70_000 * MILLI);
        // The step was reported. What comes after it has steps of its own.
        assert_eq!(counters.report(at(70_050)).recent_step_nanos, 0);
        assert_eq!(counters.report(at(70_050)).longest_step_nanos, 70_000 * MILLI);
        counters.ended(at(70_060));
        assert_eq!(counters.report(at(99_999)).backpressured_nanos, 50 * MILLI, "what has ended spends nothing");
    }
}
