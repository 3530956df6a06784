//! What the protocols between threads are made of: the standard library's, or Loom's when their models are checked
//! (`--cfg loom`, see `models`). Counters that nobody decides by are the standard library's in any case.

#[cfg(loom)]
pub(crate) use loom::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    thread::{Thread, current, park},
};
#[cfg(not(loom))]
pub(crate) use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    thread::{Thread, current, park, park_timeout},
};

/// In a model no time passes: whoever sleeps sleeps until it is woken.
#[cfg(loom)]
pub(crate) fn park_timeout(_: std::time::Duration) {
    park();
}
