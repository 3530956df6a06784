//! When a job's first source began and when its last sink was done: the time that the hand-written opponents count, too.
//! In statics, since the embedded cluster runs in this process, and one job at a time.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::machine::now_nanos;

static STARTED: AtomicU64 = AtomicU64::new(u64::MAX);
static ENDED: AtomicU64 = AtomicU64::new(0);

/// Forgets the job before.
pub fn reset() {
    STARTED.store(u64::MAX, Relaxed);
    ENDED.store(0, Relaxed);
}

/// A source is about to make its first record.
pub fn started() {
    STARTED.fetch_min(now_nanos(), Relaxed);
}

/// A sink has seen everything so far. Called at every flush: the last one counts.
pub fn ended() {
    ENDED.fetch_max(now_nanos(), Relaxed);
}

/// From the first start to the last end.
pub fn seconds() -> f64 {
    ENDED.load(Relaxed).saturating_sub(STARTED.load(Relaxed)) as f64 / 1e9
}
