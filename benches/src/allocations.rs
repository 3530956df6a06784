//! How many allocations there were, of all threads. Counted only in a build without the feature `engine-allocator`:
//!
//! ```sh
//! cargo run --release -p millstream-benches --no-default-features --bin word_count_local -- --input FILE
//! ```
//! The engine's own allocator is the facade's, and a program has only one; hence a build of its own, which is not for
//! figures of speed.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Whether this build counts.
pub const COUNTED: bool = cfg!(not(feature = "engine-allocator"));

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

/// Allocations and reallocations so far.
pub fn so_far() -> u64 {
    ALLOCATIONS.load(Relaxed)
}

#[cfg(not(feature = "engine-allocator"))]
mod counting {
    use std::alloc::{GlobalAlloc, Layout, System};

    use super::{ALLOCATIONS, Relaxed};

    #[global_allocator]
    static ALLOCATOR: Counting = Counting;

    struct Counting;

    // SAFETY: every call is passed on unchanged to the system's allocator.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            ALLOCATIONS.fetch_add(1, Relaxed);
            // SAFETY: the caller's promises are those that `System` asks for.
            unsafe { System.alloc(layout) }
        }
        unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
            ALLOCATIONS.fetch_add(1, Relaxed);
            // SAFETY: as above.
            unsafe { System.alloc_zeroed(layout) }
        }
        unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
            ALLOCATIONS.fetch_add(1, Relaxed);
            // SAFETY: as above.
            unsafe { System.realloc(pointer, layout, bytes) }
        }
        unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
            // SAFETY: as above.
            unsafe { System.dealloc(pointer, layout) }
        }
    }
}
