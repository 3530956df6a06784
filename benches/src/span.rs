//! From a job's submission to the moment when its last sink had seen everything. In statics, since the embedded cluster
//! runs in this process, one job at a time.
//!
//! The hand-written opponents count from their first record to the end of their last worker; this counts planning and
//! deployment too, a millisecond or two, but not the end of the job (its last checkpoint).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::machine::now_nanos;

static STARTED: AtomicU64 = AtomicU64::new(0);
static ENDED: AtomicU64 = AtomicU64::new(0);

/// A job is about to be submitted.
pub fn start() {
    ENDED.store(0, Relaxed);
    STARTED.store(now_nanos(), Relaxed);
}

/// A sink has seen everything so far. Called at every flush: the last one counts.
pub fn ended() {
    ENDED.fetch_max(now_nanos(), Relaxed);
}

/// From the start to the last end.
pub fn seconds() -> f64 {
    ENDED.load(Relaxed).saturating_sub(STARTED.load(Relaxed)) as f64 / 1e9
}
