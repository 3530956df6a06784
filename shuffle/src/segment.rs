//! Segments: fixed pieces of memory that one thread fills while another reads what is already there.
//!
//! A [`SegmentWriter`] fills a segment from its start and publishes how far it has come; a [`SegmentReader`] sees
//! exactly that part. When both are gone the memory goes back to its pool.
//!
//! **Invariant:** `read ≤ committed ≤ filled ≤ capacity`. Bytes below `committed` never change while a reader lives.

use std::{
    alloc::{self, Layout},
    ptr::NonNull,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicUsize},
};

use crate::sync::{AtomicU32, Ordering};

/// Set in `committed` once nothing more will be written.
const SEALED: u32 = 1 << 31;

/// What segments start at a multiple of, in bytes: a cache line.
const LINE_BYTES: usize = 64;

/// The segments of one worker: fixed size, fixed number, allocated when first needed.
#[derive(Clone)]
pub struct SegmentPool(Arc<Pool>);

struct Pool {
    /// The one that came back last is used next: it is the likeliest to be in the processor's cache still, and what a short
    /// rush has taken stays untouched after it.
    free: Mutex<Vec<Memory>>,
    free_max: usize,
    segment_bytes: usize,
    allocated: AtomicUsize,
    in_use: Arc<AtomicUsize>,
}

/// How many segments of a pool are held by somebody; outlives the pool.
#[derive(Clone, Debug)]
pub struct Census(Arc<AtomicUsize>);

impl Census {
    pub fn in_use(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }

    /// Whether nobody holds any, nor ever will: the pool is gone.
    pub fn is_over(&self) -> bool {
        // The pool counts in it, and goes with its last segment.
        Arc::strong_count(&self.0) == 1
    }
}

impl SegmentPool {
    /// A pool that keeps up to `segments` of `segment_bytes` each for reuse.
    ///
    /// # Panics
    /// If the size is no multiple of 64, or too large to count.
    pub fn new(segment_bytes: usize, segments: usize) -> SegmentPool {
        assert!(segment_bytes.is_multiple_of(LINE_BYTES) && segment_bytes > 0, "segments consist of cache lines");
        assert!(segment_bytes < SEALED as usize, "segment sizes fit 31 bits");
        SegmentPool(Arc::new(Pool {
            free: Mutex::default(),
            free_max: segments.max(1),
            segment_bytes,
            allocated: AtomicUsize::new(0),
            in_use: Arc::default(),
        }))
    }

    pub fn segment_bytes(&self) -> usize {
        self.0.segment_bytes
    }

    /// Segments that are held by somebody. Callers bound it: each takes only what it has credit or overdraft for.
    pub fn in_use(&self) -> usize {
        self.0.in_use.load(Ordering::Relaxed)
    }

    /// For whoever has to know that all of them came back.
    pub fn census(&self) -> Census {
        Census(self.0.in_use.clone())
    }

    /// Segments that were ever allocated.
    pub fn allocated(&self) -> usize {
        self.0.allocated.load(Ordering::Relaxed)
    }

    /// An empty segment.
    pub fn take(&self) -> SegmentWriter {
        let free = self.0.free().pop();
        let memory = free.unwrap_or_else(|| {
            self.0.allocated.fetch_add(1, Ordering::Relaxed);
            Memory::zeroed(self.0.segment_bytes)
        });
        self.0.in_use.fetch_add(1, Ordering::Relaxed);
        let segment = Segment {
            memory: Some(memory),
            committed: AtomicU32::new(0),
            pool: self.0.clone(),
            #[cfg(loom)]
            touched: (0..self.0.segment_bytes).map(|_| loom::cell::UnsafeCell::new(())).collect(),
        };
        let (start, capacity) = (segment.start(), segment.capacity());
        SegmentWriter { segment: Arc::new(segment), start, capacity, filled: 0 }
    }
}

impl Pool {
    fn free(&self) -> MutexGuard<'_, Vec<Memory>> {
        // Nothing that is done with it can panic half-way.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self, memory: Memory) {
        let mut free = self.free();
        if free.len() < self.free_max {
            free.push(memory);
        } else {
            // More were allocated than are kept (overdraft): the surplus is freed, without the lock.
            drop(free);
            drop(memory);
        }
    }
}

/// Initialised memory that nobody else owns. No `Box`: to move one says that no pointer into it is left, and the writer of
/// a segment has one.
struct Memory {
    /// Invariant: from the global allocator, with `layout`.
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: it owns the memory, which belongs to no thread.
unsafe impl Send for Memory {}

impl Memory {
    /// Zeroes, which the kernel gives without touching them.
    fn zeroed(bytes: usize) -> Memory {
        let layout = Layout::from_size_align(bytes, LINE_BYTES).expect("sizes were checked when the pool was made");
        // SAFETY: the layout is not of size 0: a pool's segments have at least one line.
        let start = NonNull::new(unsafe { alloc::alloc_zeroed(layout) });
        Memory { start: start.unwrap_or_else(|| alloc::handle_alloc_error(layout)), layout }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout, and whoever had a pointer into it is gone: the ends of a segment and
        // its parts hold the segment, which holds this.
        unsafe { alloc::dealloc(self.start.as_ptr(), self.layout) }
    }
}

struct Segment {
    /// `Some` until it is dropped.
    memory: Option<Memory>,
    /// How many bytes a reader may see, and [`SEALED`].
    committed: AtomicU32,
    pool: Arc<Pool>,
    /// For each byte, so that Loom sees who touches it when: it knows nothing of the memory itself.
    #[cfg(loom)]
    touched: Vec<loom::cell::UnsafeCell<()>>,
}

// SAFETY: the memory is written only through the one `SegmentWriter`, at and above what is committed, and read only
// below it; `committed` is stored with Release after the writes and loaded with Acquire before the reads.
unsafe impl Sync for Segment {}
// SAFETY: nothing in it belongs to a thread.
unsafe impl Send for Segment {}

impl Segment {
    fn start(&self) -> *mut u8 {
        self.memory.as_ref().expect("present until drop").start.as_ptr()
    }

    fn capacity(&self) -> usize {
        self.pool.segment_bytes
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.pool.in_use.fetch_sub(1, Ordering::Release);
        if let Some(memory) = self.memory.take() {
            self.pool.give_back(memory);
        }
    }
}

/// The filling end of a segment.
pub struct SegmentWriter {
    segment: Arc<Segment>,
    /// Of the segment's memory, which stays where it is: each record asks for it.
    start: *mut u8,
    capacity: usize,
    /// Raised by callers through `room`; checked before it is used.
    filled: usize,
}

// SAFETY: `start` is into the segment, which is `Send`, lives as long as this, and is written by nobody else.
unsafe impl Send for SegmentWriter {}

impl SegmentWriter {
    /// The unused end of the segment, and how much is used, to be raised by what was written.
    #[inline]
    pub fn room(&mut self) -> (&mut [u8], &mut usize) {
        assert!(self.filled <= self.capacity, "a segment was filled beyond its end");
        // SAFETY: `filled..capacity` lies within the memory, which is initialised (zeroed, or used before). Readers see
        // only what is below `committed <= filled`, and this is the only writer, so the slice is unshared.
        let room = unsafe { std::slice::from_raw_parts_mut(self.start.add(self.filled), self.capacity - self.filled) };
        (room, &mut self.filled)
    }

    /// Bytes written so far.
    pub fn filled(&self) -> usize {
        self.filled
    }

    /// Lets readers see everything written so far; whether there was anything new.
    #[inline]
    pub fn commit(&mut self) -> bool {
        assert!(self.filled <= self.capacity, "a segment was filled beyond its end");
        let filled = self.filled as u32;
        let news = self.segment.committed.load(Ordering::Relaxed) != filled;
        debug_assert!(self.segment.committed.load(Ordering::Relaxed) <= filled, "what is committed stays");
        if news {
            #[cfg(loom)]
            self.segment.touched[self.segment.committed.load(Ordering::Relaxed) as usize..self.filled]
                .iter()
                .for_each(|byte| byte.with_mut(|_| ()));
            self.segment.committed.store(filled, Ordering::Release);
        }
        news
    }

    /// Commits, and tells readers that nothing more follows: who sees the last bytes sees that they are the last.
    pub fn seal(self) {
        assert!(self.filled <= self.capacity, "a segment was filled beyond its end");
        self.segment.committed.store(self.filled as u32 | SEALED, Ordering::Release);
    }

    /// The reading end. To be called once: two readers would both see everything.
    pub fn reader(&self) -> SegmentReader {
        SegmentReader { segment: self.segment.clone(), read: 0 }
    }
}

/// The reading end of a segment.
pub struct SegmentReader {
    segment: Arc<Segment>,
    read: usize,
}

impl SegmentReader {
    /// What was committed and not yet consumed.
    #[inline]
    pub fn available(&self) -> &[u8] {
        let committed = (self.segment.committed.load(Ordering::Acquire) & !SEALED) as usize;
        #[cfg(loom)]
        self.segment.touched[self.read..committed].iter().for_each(|byte| byte.with(|_| ()));
        // SAFETY: `read..committed` was written before it was committed (Release, Acquire) and is never written again
        // while this reader holds the segment.
        unsafe { std::slice::from_raw_parts(self.segment.start().add(self.read), committed - self.read) }
    }

    /// Counts `bytes` as read.
    ///
    /// # Panics
    /// If more than what is available.
    #[inline]
    pub fn consume(&mut self, bytes: usize) {
        assert!(bytes <= self.available().len(), "bytes were consumed that nobody has written");
        self.read += bytes;
    }

    /// Whether nothing was consumed yet.
    pub fn is_fresh(&self) -> bool {
        self.read == 0
    }

    /// All that can be read now, to be kept for as long as the caller likes; the memory returns to its pool after it.
    pub fn share(&self) -> SegmentPart {
        SegmentPart { segment: self.segment.clone(), start: self.read, end: self.read + self.available().len() }
    }

    /// Whether everything was read and nothing more follows.
    #[inline]
    pub fn is_finished(&self) -> bool {
        let committed = self.segment.committed.load(Ordering::Acquire);
        committed & SEALED != 0 && self.read == (committed & !SEALED) as usize
    }
}

/// A piece of a segment that was committed, and so never changes.
pub struct SegmentPart {
    segment: Arc<Segment>,
    start: usize,
    end: usize,
}

impl AsRef<[u8]> for SegmentPart {
    fn as_ref(&self) -> &[u8] {
        #[cfg(loom)]
        self.segment.touched[self.start..self.end].iter().for_each(|byte| byte.with(|_| ()));
        // SAFETY: `start..end` was committed when this was made (`available` loaded `committed` with Acquire), and is
        // never written again while this holds the segment.
        unsafe { std::slice::from_raw_parts(self.segment.start().add(self.start), self.end - self.start) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(writer: &mut SegmentWriter, bytes: &[u8]) {
        let (room, filled) = writer.room();
        room[..bytes.len()].copy_from_slice(bytes);
        *filled += bytes.len();
    }

    #[test]
    fn a_reader_sees_exactly_what_was_committed() {
        let pool = SegmentPool::new(128, 1);
        let mut writer = pool.take();
        let mut reader = writer.reader();
        write(&mut writer, b"one");
        assert_eq!(reader.available(), b"");
        assert!(writer.commit() && !writer.commit());
        write(&mut writer, b"two");
        assert_eq!(reader.available(), b"one");
        reader.consume(3);
        writer.seal();
        assert_eq!((reader.available(), reader.is_finished()), (&b"two"[..], false));
        reader.consume(3);
        assert!(reader.is_finished());
    }

    #[test]
    fn memory_returns_to_the_pool_when_both_ends_are_gone() {
        let pool = SegmentPool::new(64, 4);
        for _ in 0..10 {
            let writer = pool.take();
            let reader = writer.reader();
            writer.seal();
            assert_eq!(pool.in_use(), 1);
            drop(reader);
            assert_eq!(pool.in_use(), 0);
        }
        assert_eq!(pool.allocated(), 1);
    }

    #[test]
    fn a_census_outlives_its_pool_and_counts_what_is_still_held() {
        let pool = SegmentPool::new(64, 1);
        let census = pool.census();
        let writers = [pool.take(), pool.take()];
        let part = writers[0].reader().share();
        drop((pool, writers));
        assert_eq!(census.in_use(), 1);
        drop(part);
        assert_eq!(census.in_use(), 0);
    }

    #[test]
    fn a_part_outlives_both_ends_and_holds_the_memory() {
        let pool = SegmentPool::new(64, 4);
        let mut writer = pool.take();
        let mut reader = writer.reader();
        write(&mut writer, b"kept");
        writer.commit();
        let part = reader.share();
        reader.consume(4);
        write(&mut writer, b"more");
        writer.seal();
        drop(reader);
        let other = pool.take();
        assert_eq!((part.as_ref(), pool.in_use(), pool.allocated()), (&b"kept"[..], 2, 2));
        drop((part, other));
        assert_eq!(pool.in_use(), 0);
    }

    #[test]
    fn two_threads_agree_on_every_byte() {
        let pool = SegmentPool::new(4096, 4);
        let mut writer = pool.take();
        let mut reader = writer.reader();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for byte in 0..4096_u32 {
                    write(&mut writer, &[byte as u8]);
                    writer.commit();
                }
                writer.seal();
            });
            let mut seen = 0_u32;
            while !reader.is_finished() {
                // Looked at once: by a second look there may be more.
                let available = reader.available();
                for byte in available {
                    assert_eq!(*byte, seen as u8);
                    seen += 1;
                }
                let count = available.len();
                reader.consume(count);
                std::thread::yield_now();
            }
            assert_eq!(seen, 4096);
        });
    }
}
