//! Counters of one task: written by its thread with plain stores, read by whoever reports them.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use millstream_model::message::TaskMetrics;

/// The counters. Only the task's thread writes, so no read-modify-write is needed.
#[derive(Debug, Default)]
pub(crate) struct TaskCounters {
    records_in: AtomicU64,
    records_out: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    busy_nanos: AtomicU64,
    idle_nanos: AtomicU64,
    backpressured_nanos: AtomicU64,
    longest_step_nanos: AtomicU64,
    input_queue_bytes: AtomicU64,
    input_promised_bytes: AtomicU64,
    input_target_bytes: AtomicU64,
    watermark_millis: AtomicI64,
}

fn add(counter: &AtomicU64, amount: u64) {
    counter.store(counter.load(Relaxed) + amount, Relaxed);
}

/// What a task spent time on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Spent {
    Busy,
    Idle,
    Backpressured,
}

impl TaskCounters {
    pub(crate) fn new() -> TaskCounters {
        TaskCounters { watermark_millis: AtomicI64::new(i64::MIN), ..TaskCounters::default() }
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

    pub(crate) fn spent(&self, what: Spent, nanos: u64) {
        match what {
            Spent::Busy => {
                add(&self.busy_nanos, nanos);
                if nanos > self.longest_step_nanos.load(Relaxed) {
                    self.longest_step_nanos.store(nanos, Relaxed);
                }
            }
            Spent::Idle => add(&self.idle_nanos, nanos),
            Spent::Backpressured => add(&self.backpressured_nanos, nanos),
        }
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

    pub(crate) fn snapshot(&self) -> TaskMetrics {
        TaskMetrics {
            records_in: self.records_in.load(Relaxed),
            records_out: self.records_out.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
            busy_nanos: self.busy_nanos.load(Relaxed),
            idle_nanos: self.idle_nanos.load(Relaxed),
            backpressured_nanos: self.backpressured_nanos.load(Relaxed),
            longest_step_nanos: self.longest_step_nanos.load(Relaxed),
            input_queue_bytes: self.input_queue_bytes.load(Relaxed),
            input_promised_bytes: self.input_promised_bytes.load(Relaxed),
            input_target_bytes: self.input_target_bytes.load(Relaxed),
            watermark_millis: self.watermark_millis.load(Relaxed),
        }
    }
}
