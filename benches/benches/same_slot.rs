//! What the atomics of a channel cost when both of its ends are on one thread: the channel as it is, against the same
//! queue, segments and credit made of cells. See docs/decisions/0009-one-channel-for-same-slot.md.
#![allow(missing_docs, reason = "criterion's macro writes the main function")]

use std::{
    cell::{Cell, RefCell, UnsafeCell},
    collections::VecDeque,
    hint::black_box,
    rc::Rc,
    sync::Arc,
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use millstream_shuffle::{
    channel::{ChannelReceiver, ChannelSender, GrantSignal, channel},
    gate::{GateSignal, InputGate},
    segment::SegmentPool,
};

const SEGMENT: usize = 32 << 10;
const WINDOW: usize = 4 * SEGMENT;
/// A record of 100 bytes, as it lies in a segment.
const RECORD: usize = 104;
/// Fills a segment up to less than a record.
const RECORDS: usize = SEGMENT / RECORD;

/// Both ends of a channel on one thread.
trait Ends {
    fn room(&mut self) -> (&mut [u8], &mut usize);
    fn next_segment(&mut self);
    fn flush(&mut self);
    /// Shows what can be read, and takes as much of it as `each` says; whether there was anything.
    fn read(&mut self, each: impl FnMut(&[u8]) -> usize) -> bool;
}

/// The channel, and the gate that its reader reads it through.
struct Atomics(ChannelSender, InputGate);

impl Atomics {
    fn new() -> Self {
        let signal = Arc::new(GateSignal::new(1, Arc::default()));
        let pool = SegmentPool::new(SEGMENT, 8);
        let ends: (ChannelSender, ChannelReceiver) =
            channel(&pool, WINDOW as u64, GrantSignal::Thread(Arc::default()), signal.clone(), 0);
        Atomics(ends.0, InputGate::new(vec![ends.1], signal))
    }
}

impl Ends for Atomics {
    #[inline]
    fn room(&mut self) -> (&mut [u8], &mut usize) {
        self.0.room()
    }

    fn next_segment(&mut self) {
        self.0.next_segment();
        assert_eq!(self.0.waiting(), 0, "there is credit for what the other end has read");
    }

    fn flush(&mut self) {
        self.0.flush();
    }

    #[inline]
    fn read(&mut self, mut each: impl FnMut(&[u8]) -> usize) -> bool {
        let Some(channel) = self.1.next_ready() else { return false };
        let taken = each(self.1.available(channel));
        self.1.consume(channel, taken);
        self.1.rotate();
        true
    }
}

/// A segment between two ends of one thread.
struct CellSegment {
    /// Invariant: written only by the writer, at and above `committed`.
    memory: UnsafeCell<Box<[u8]>>,
    committed: Cell<usize>,
    is_sealed: Cell<bool>,
}

/// What both ends of a channel of cells share, and the pool of its segments.
#[derive(Default)]
struct CellLink {
    queue: RefCell<VecDeque<Rc<CellSegment>>>,
    free: RefCell<Vec<Box<[u8]>>>,
    granted: Cell<usize>,
    /// The bit of the gate.
    has_news: Cell<bool>,
}

struct Cells {
    link: Rc<CellLink>,
    open: Option<Rc<CellSegment>>,
    filled: usize,
    spent: usize,
    current: Option<Rc<CellSegment>>,
    read: usize,
    freed: usize,
    /// As the gate has it.
    ready: VecDeque<usize>,
}

impl Cells {
    fn new() -> Self {
        let link = Rc::new(CellLink { granted: Cell::new(WINDOW), ..CellLink::default() });
        let (open, current) = (None, None);
        Cells { link, open, filled: 0, spent: 0, current, read: 0, freed: 0, ready: VecDeque::new() }
    }

    fn commit(&mut self) {
        if let Some(open) = &self.open
            && open.committed.replace(self.filled) != self.filled
        {
            self.link.has_news.set(true);
        }
    }

    fn advance(&mut self) -> bool {
        loop {
            match &self.current {
                Some(segment) if segment.committed.get() > self.read => return true,
                Some(segment) if !segment.is_sealed.get() => return false,
                Some(_) => {
                    let segment = self.current.take().and_then(Rc::into_inner).expect("its writer has let it go");
                    self.link.free.borrow_mut().push(segment.memory.into_inner());
                    self.freed += SEGMENT;
                    self.link.granted.set(self.freed + WINDOW);
                }
                None => {}
            }
            let Some(next) = self.link.queue.borrow_mut().pop_front() else { return false };
            (self.current, self.read) = (Some(next), 0);
        }
    }
}

impl Ends for Cells {
    #[inline]
    fn room(&mut self) -> (&mut [u8], &mut usize) {
        if self.open.is_none() {
            self.next_segment();
        }
        let memory = self.open.as_ref().expect("just opened").memory.get();
        // SAFETY: the reader looks only below `committed`, which is at most `filled`, and nothing else writes.
        let room = unsafe { &mut (&mut *memory)[self.filled..] };
        (room, &mut self.filled)
    }

    fn next_segment(&mut self) {
        self.commit();
        if let Some(open) = self.open.take() {
            open.is_sealed.set(true);
            self.link.has_news.set(true);
        }
        assert!(self.spent + SEGMENT <= self.link.granted.get(), "there is credit for what the other end has read");
        self.spent += SEGMENT;
        let memory = self.link.free.borrow_mut().pop().unwrap_or_else(|| vec![0; SEGMENT].into());
        let (committed, is_sealed) = (Cell::new(0), Cell::new(false));
        let segment = Rc::new(CellSegment { memory: UnsafeCell::new(memory), committed, is_sealed });
        self.link.queue.borrow_mut().push_back(segment.clone());
        (self.open, self.filled) = (Some(segment), 0);
    }

    fn flush(&mut self) {
        self.commit();
    }

    #[inline]
    fn read(&mut self, mut each: impl FnMut(&[u8]) -> usize) -> bool {
        if self.ready.is_empty() && self.link.has_news.take() {
            self.ready.push_back(0);
        }
        if self.ready.is_empty() {
            return false;
        }
        if !self.advance() {
            self.ready.pop_front();
            return false;
        }
        let segment = self.current.as_ref().expect("it has advanced");
        // SAFETY: what is below `committed` was written before it was committed, and is never written again.
        let available = unsafe { &(&*segment.memory.get())[self.read..segment.committed.get()] };
        self.read += each(available);
        true
    }
}

/// Writes `records`, flushing after every `per_flush`, and reads what was flushed.
fn carry(ends: &mut impl Ends, records: usize, per_flush: usize) -> u64 {
    let (record, mut sum) = ([7_u8; RECORD], 0_u64);
    for first in (0..records).step_by(per_flush) {
        for _ in first..(first + per_flush).min(records) {
            if ends.room().0.len() < RECORD {
                ends.next_segment();
            }
            let (room, filled) = ends.room();
            room[..RECORD].copy_from_slice(black_box(&record));
            *filled += RECORD;
        }
        ends.flush();
        while ends.read(|bytes| {
            for record in bytes.chunks_exact(RECORD) {
                sum = sum.wrapping_add(u64::from(record[0]) + u64::from(record[RECORD - 1]));
            }
            bytes.len()
        }) {}
    }
    sum
}

fn same_slot(criterion: &mut Criterion) {
    // A step's worth; what is flushed when a task has nothing more to do may be a single record.
    for (what, per_flush) in
        [("a flush per segment", RECORDS), ("a flush per 16 records", 16), ("a flush per record", 1)]
    {
        let mut group = criterion.benchmark_group(format!("same slot/{what}"));
        let records = RECORDS * 8;
        group.throughput(Throughput::Elements(records as u64));
        let (mut atomics, mut cells) = (Atomics::new(), Cells::new());
        group.bench_function("atomics", |bencher| bencher.iter(|| carry(&mut atomics, records, per_flush)));
        group.bench_function("cells", |bencher| bencher.iter(|| carry(&mut cells, records, per_flush)));
        group.finish();
    }
    // Segments alone, each with 8 bytes.
    let mut group = criterion.benchmark_group("same slot/a segment");
    group.throughput(Throughput::Elements(1));
    fn segment(ends: &mut impl Ends) {
        ends.next_segment();
        *ends.room().1 += 8;
        ends.flush();
        while ends.read(<[u8]>::len) {}
    }
    let (mut atomics, mut cells) = (Atomics::new(), Cells::new());
    group.bench_function("atomics", |bencher| bencher.iter(|| segment(&mut atomics)));
    group.bench_function("cells", |bencher| bencher.iter(|| segment(&mut cells)));
    group.finish();
}

criterion_group!(benches, same_slot);
criterion_main!(benches);
