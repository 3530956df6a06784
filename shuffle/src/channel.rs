//! One channel between two threads of a process: a queue of segments and a running total of credit. Between two tasks it
//! is all there is; a channel to another process is one from the task to the net loop, the wire, and one from the net
//! loop to the task.
//!
//! The sender writes into its open segment, which the receiver may already be reading. A segment costs its whole size
//! in credit when it is opened; without credit the sender goes on in segments that stay with it (overdraft), says that it
//! has no room, and tells the receiver how much waits.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use crossbeam_queue::ArrayQueue;

use crate::{
    credit::{Backlog, Grant, Opening, Spender},
    gate::GateSignal,
    segment::{SegmentPart, SegmentPool, SegmentReader, SegmentWriter},
    wake::Waker,
};

/// What both ends share.
struct Link {
    queue: ArrayQueue<SegmentReader>,
    granted: AtomicU64,
    /// What the receiver would have the sender keep under way behind this channel.
    share: AtomicU64,
    /// What the sender could use: a total, as what is granted.
    backlog: AtomicU64,
    /// The sender wants to hear of the next grant.
    watched: AtomicBool,
    sender: GrantSignal,
}

/// What a grant wakes.
#[derive(Clone)]
pub enum GrantSignal {
    /// A thread that knows which channels it waits for.
    Thread(Arc<Waker>),
    /// One of the channels of a thread that has many.
    Channel(Arc<GateSignal>, usize),
}

impl GrantSignal {
    fn notify(&self) {
        match self {
            GrantSignal::Thread(waker) => waker.wake(),
            GrantSignal::Channel(signal, index) => signal.notify(*index),
        }
    }
}

/// Makes a channel that has a window to itself, in bytes; at least two segments, one to read and one to fill.
pub fn channel(
    pool: &SegmentPool,
    window: u64,
    sender: GrantSignal,
    signal: Arc<GateSignal>,
    index: usize,
) -> (ChannelSender, ChannelReceiver) {
    let segment_bytes = pool.segment_bytes() as u64;
    let window = (window / segment_bytes).max(2) * segment_bytes;
    let opening = Opening { granted: Grant(window), window, is_lent: false };
    opened_channel(pool, opening, false, sender, signal, index)
}

/// Makes a channel with the room that a gate's granter has for it. If it `ends_at_flush`, nothing is added to a segment
/// after it was flushed.
pub fn opened_channel(
    pool: &SegmentPool,
    opening: Opening,
    ends_at_flush: bool,
    sender: GrantSignal,
    signal: Arc<GateSignal>,
    index: usize,
) -> (ChannelSender, ChannelReceiver) {
    let segment_bytes = pool.segment_bytes() as u64;
    let Opening { granted, window, is_lent } = opening;
    let ends_at_flush = ends_at_flush || is_lent;
    let link = Arc::new(Link {
        queue: ArrayQueue::new((window / segment_bytes) as usize),
        granted: AtomicU64::new(granted.0),
        share: AtomicU64::new(u64::MAX),
        backlog: AtomicU64::new(0),
        watched: AtomicBool::new(false),
        sender,
    });
    let mut spender = Spender::default();
    spender.on_grant(granted);
    (
        ChannelSender {
            link: link.clone(),
            spender,
            pool: pool.clone(),
            open: None,
            waiting: VecDeque::new(),
            signal,
            index,
            ends_at_flush,
            sent_bytes: 0,
        },
        ChannelReceiver { link, current: None, segment_bytes, window, ends_at_flush },
    )
}

/// The sending end.
pub struct ChannelSender {
    link: Arc<Link>,
    spender: Spender,
    pool: SegmentPool,
    open: Option<SegmentWriter>,
    /// Segments that there is no credit for, oldest first; the open one is the last of them.
    waiting: VecDeque<SegmentReader>,
    signal: Arc<GateSignal>,
    index: usize,
    ends_at_flush: bool,
    sent_bytes: u64,
}

impl ChannelSender {
    /// The unused end of the open segment, and how much of it is used.
    #[inline]
    pub fn room(&mut self) -> (&mut [u8], &mut usize) {
        if self.open.is_none() {
            self.next_segment();
        }
        self.open.as_mut().expect("just opened").room()
    }

    /// Closes the open segment and opens another.
    pub fn next_segment(&mut self) {
        self.end_segment();
        let segment = self.pool.take();
        if self.waiting.is_empty() && self.has_credit() {
            self.enqueue(segment.reader());
        } else {
            self.waiting.push_back(segment.reader());
        }
        self.open = Some(segment);
    }

    /// Closes the open segment: its reader is not kept waiting for more.
    pub fn end_segment(&mut self) {
        if let Some(segment) = self.open.take() {
            self.sent_bytes += segment.filled() as u64;
            segment.seal();
            if self.waiting.is_empty() {
                self.signal.notify(self.index);
            }
        }
    }

    fn has_credit(&mut self) -> bool {
        let segment_bytes = self.pool.segment_bytes() as u64;
        if self.spender.available() < segment_bytes {
            // In one order with the flag that asks for a wake: see `resume`.
            self.spender.on_grant(Grant(self.link.granted.load(Ordering::SeqCst)));
        }
        self.spender.try_spend(segment_bytes)
    }

    fn enqueue(&self, reader: SegmentReader) {
        let pushed = self.link.queue.push(reader);
        assert!(pushed.is_ok(), "the queue has a place for every segment that is granted");
    }

    /// Segments that wait for credit.
    #[inline]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Lets the receiver see everything that was written, as far as there is credit.
    pub fn flush(&mut self) {
        if self.ends_at_flush {
            return self.end_segment();
        }
        if let Some(segment) = &mut self.open
            && segment.commit()
            && self.waiting.is_empty()
        {
            self.signal.notify(self.index);
        }
    }

    /// Hands over waiting segments as far as there is credit. Once it returns false, the receiver knows what waits, and
    /// the sender's waker will be called when there is more.
    pub fn resume(&mut self) -> bool {
        self.hand_over_waiting();
        if self.waiting.is_empty() {
            return true;
        }
        let waiting_bytes = self.waiting.len() as u64 * self.pool.segment_bytes() as u64;
        if let Some(backlog) = self.spender.announce(waiting_bytes) {
            self.announce(backlog);
        }
        // Either the receiver sees the flag after its grant, or we see the grant after setting the flag.
        self.link.watched.store(true, Ordering::SeqCst);
        self.hand_over_waiting();
        self.waiting.is_empty()
    }

    /// What was granted in all, and a promise to be told of the next grant.
    pub fn watch_grants(&mut self) -> Grant {
        self.link.watched.store(true, Ordering::SeqCst);
        Grant(self.link.granted.load(Ordering::SeqCst))
    }

    /// Tells the receiver what could be sent if there were room.
    pub fn announce(&self, backlog: Backlog) {
        self.link.backlog.store(backlog.0, Ordering::SeqCst);
        self.signal.notify(self.index);
    }

    /// What was granted so far, as far as the receiver has told, and what was used of it.
    pub fn credit(&self) -> (Grant, u64) {
        (Grant(self.link.granted.load(Ordering::Acquire)), self.spender.totals().1)
    }

    /// What the receiver would have under way behind this channel, in bytes.
    pub fn share(&self) -> u64 {
        self.link.share.load(Ordering::Relaxed)
    }

    /// Whether each flush ends a segment.
    pub fn ends_at_flush(&self) -> bool {
        self.ends_at_flush
    }

    /// Whether there is a segment that is being filled.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// The size of the segments that it writes into.
    pub fn segment_bytes(&self) -> usize {
        self.pool.segment_bytes()
    }

    fn hand_over_waiting(&mut self) {
        let mut handed_over = false;
        while !self.waiting.is_empty() && self.has_credit() {
            if self.ends_at_flush && self.waiting.len() == 1 {
                // The open one: it would be held by a sender that has no more.
                self.end_segment();
            }
            let reader = self.waiting.pop_front().expect("not empty");
            self.enqueue(reader);
            handed_over = true;
        }
        if handed_over {
            self.signal.notify(self.index);
        }
    }

    /// Bytes in segments that were closed, and in the open one.
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes + self.open.as_ref().map_or(0, |segment| segment.filled() as u64)
    }
}

/// The receiving end. What it receives and frees is for the granter of its gate to count.
pub struct ChannelReceiver {
    link: Arc<Link>,
    current: Option<SegmentReader>,
    segment_bytes: u64,
    window: u64,
    ends_at_flush: bool,
}

/// What a receiver has come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Advanced {
    /// There is something to read.
    Readable,
    /// Nothing is there.
    Empty,
    /// A segment was begun, to be counted as received.
    Begun,
    /// A segment was read, to be counted as freed.
    Freed,
}

impl ChannelReceiver {
    /// Takes one step to the next bytes that can be read.
    #[inline]
    pub fn advance(&mut self) -> Advanced {
        match &self.current {
            Some(segment) if !segment.available().is_empty() => Advanced::Readable,
            Some(segment) if !segment.is_finished() => Advanced::Empty,
            Some(_) => {
                self.current = None;
                Advanced::Freed
            }
            None => match self.link.queue.pop() {
                Some(next) => {
                    self.current = Some(next);
                    Advanced::Begun
                }
                None => Advanced::Empty,
            },
        }
    }

    /// Tells the sender what it may use in all.
    pub fn grant(&self, total: Grant) {
        self.link.granted.store(total.0, Ordering::SeqCst);
        if self.link.watched.load(Ordering::SeqCst) && self.link.watched.swap(false, Ordering::SeqCst) {
            self.link.sender.notify();
        }
    }

    /// Tells what should be under way behind the sender, with its next grant.
    pub fn set_share(&self, bytes: u64) {
        self.link.share.store(bytes, Ordering::Relaxed);
    }

    /// What the sender has said that it could use.
    #[inline]
    pub fn backlog(&self) -> Backlog {
        Backlog(self.link.backlog.load(Ordering::SeqCst))
    }

    /// The most that may be granted to the sender and not freed, in bytes.
    pub fn window(&self) -> u64 {
        self.window
    }

    /// Whether each flush of the sender ends a segment.
    pub fn ends_at_flush(&self) -> bool {
        self.ends_at_flush
    }

    /// Whether the current segment is read and closed.
    pub fn is_finished(&self) -> bool {
        self.current.as_ref().is_some_and(SegmentReader::is_finished)
    }

    /// What can be read; call `advance` first.
    #[inline]
    pub fn available(&self) -> &[u8] {
        self.current.as_ref().map_or(&[], SegmentReader::available)
    }

    /// Whether what can be read begins a segment.
    pub fn is_fresh(&self) -> bool {
        self.current.as_ref().is_some_and(SegmentReader::is_fresh)
    }

    /// What can be read, to be kept beyond the next call; call `advance` first.
    pub fn share(&self) -> Option<SegmentPart> {
        self.current.as_ref().map(SegmentReader::share)
    }

    pub fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// Counts `bytes` as read.
    #[inline]
    pub fn consume(&mut self, bytes: usize) {
        if let Some(segment) = &mut self.current {
            segment.consume(bytes);
        }
    }

    /// Segments behind the current one.
    pub fn queued_segments(&self) -> usize {
        self.link.queue.len()
    }

    /// Bytes that wait to be read, about: the segments behind the current one count whole.
    pub fn queued_bytes(&self) -> u64 {
        self.available().len() as u64 + self.link.queue.len() as u64 * self.segment_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{credit::Granter, gate::InputGate};

    fn pair(window: u64) -> (ChannelSender, InputGate) {
        let pool = SegmentPool::new(64, 64);
        let signal = Arc::new(GateSignal::new(1, Arc::default()));
        let (sender, receiver) = channel(&pool, window, GrantSignal::Thread(Arc::default()), signal.clone(), 0);
        (sender, InputGate::new(vec![receiver], signal))
    }

    fn write(sender: &mut ChannelSender, byte: u8) {
        if sender.room().0.len() < 8 {
            sender.next_segment();
        }
        let (room, filled) = sender.room();
        room[..8].fill(byte);
        *filled += 8;
    }

    fn read_all(gate: &mut InputGate) -> Vec<u8> {
        let mut seen = Vec::new();
        while let Some(channel) = gate.next_ready() {
            seen.push(gate.available(channel)[0]);
            gate.consume(channel, 8);
        }
        seen
    }

    #[test]
    fn everything_arrives_in_order_however_far_the_sender_runs_ahead() {
        let (mut sender, mut receiver) = pair(128);
        (0..100).for_each(|byte| write(&mut sender, byte));
        sender.flush();
        // Two segments of eight elements each were granted; eleven wait.
        assert_eq!(sender.waiting(), 11);
        let mut seen = Vec::new();
        loop {
            let news = read_all(&mut receiver);
            if news.is_empty() {
                break;
            }
            seen.extend(news);
            sender.resume();
        }
        assert_eq!(seen, (0..100).collect::<Vec<u8>>());
        assert!(sender.resume());
    }

    #[test]
    fn a_flush_shows_a_half_full_segment_and_writing_goes_on_in_it() {
        let (mut sender, mut receiver) = pair(128);
        write(&mut sender, 1);
        assert!(read_all(&mut receiver).is_empty());
        sender.flush();
        assert_eq!(read_all(&mut receiver), [1]);
        write(&mut sender, 2);
        sender.flush();
        assert_eq!(read_all(&mut receiver), [2]);
        assert_eq!(sender.pool.allocated(), 1);
    }

    #[test]
    fn a_starved_sender_is_woken_by_the_next_grant() {
        let (mut sender, mut receiver) = pair(128);
        (0..20).for_each(|byte| write(&mut sender, byte));
        assert!(!sender.resume());
        let GrantSignal::Thread(waker) = sender.link.sender.clone() else { panic!("it was made so") };
        waker.clear();
        read_all(&mut receiver);
        assert!(waker.is_notified());
        assert!(sender.resume());
    }

    #[test]
    fn senders_without_a_floor_take_turns_and_hold_nothing_while_they_are_idle_or_wait_for_a_barrier() {
        // Three of four segments are floors, one is lent to 37 channels.
        let count = 40;
        let pool = SegmentPool::new(64, 64);
        let granter = Granter::new(64, 256, &vec![128; count]);
        let signal = Arc::new(GateSignal::new(count, Arc::default()));
        let make = |index| {
            let wakes = GrantSignal::Thread(Arc::default());
            opened_channel(&pool, granter.opening(index), false, wakes, signal.clone(), index)
        };
        let (mut senders, receivers): (Vec<_>, Vec<_>) = (0..count).map(make).unzip();
        let mut gate = InputGate::with_granter(receivers, signal, granter);
        let (mut written, mut seen, mut blocked) = (vec![0_u8; count], vec![0_u8; count], 0);
        let mut rounds = 0;
        while seen.iter().any(|seen| *seen < 30) {
            rounds += 1;
            assert!(rounds < 20_000, "nothing moves any more: {seen:?}");
            for (sender, written) in senders.iter_mut().zip(&mut written) {
                sender.resume();
                // One or many before a flush; the tenth is a barrier.
                while sender.waiting() == 0 && *written < 30 {
                    write(sender, *written);
                    *written += 1;
                    if *written % 7 < 3 || *written == 10 {
                        sender.flush();
                    }
                }
                sender.flush();
            }
            assert!(gate.promised().0 <= 256, "{:?}", gate.promised());
            while let Some(channel) = gate.next_ready() {
                assert_eq!(gate.available(channel)[0], seen[channel], "channel {channel}");
                gate.consume(channel, 8);
                seen[channel] += 1;
                if seen[channel] == 10 {
                    gate.block(channel);
                    blocked += 1;
                }
                if blocked == count {
                    blocked += 1;
                    gate.unblock_all();
                }
            }
        }
        // Nobody has anything, and only floors are promised.
        assert!(senders.iter_mut().all(|sender| sender.resume()));
        assert_eq!(gate.next_ready(), None);
        assert_eq!(gate.promised().0, 3 * 64);
    }
}
