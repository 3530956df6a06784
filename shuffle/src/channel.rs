//! One channel between two threads of a process: a queue of segments and a running total of credit. Between two tasks it
//! is all there is; a channel to another process is one from the task to the net loop, the wire, and one from the net
//! loop to the task.
//!
//! The sender writes into its open segment, which the receiver may already be reading. A segment costs its whole size
//! in credit when it is opened; without credit the sender goes on in segments that stay with it (overdraft), and says
//! that it has no room.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use crossbeam_queue::ArrayQueue;

use crate::{
    credit::{Grant, Granter, Spender},
    gate::GateSignal,
    segment::{SegmentPart, SegmentPool, SegmentReader, SegmentWriter},
    wake::Waker,
};

/// What both ends share.
struct Link {
    queue: ArrayQueue<SegmentReader>,
    granted: AtomicU64,
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

/// Makes a channel. `window` is what the receiver promises, in bytes; at least two segments are promised, one to read
/// and one to fill.
pub fn channel(
    pool: &SegmentPool,
    window: u64,
    sender: GrantSignal,
    signal: Arc<GateSignal>,
    index: usize,
) -> (ChannelSender, ChannelReceiver) {
    let segment_bytes = pool.segment_bytes() as u64;
    let segments = (window / segment_bytes).max(2);
    let granter = Granter::new(segments * segment_bytes);
    let link = Arc::new(Link {
        queue: ArrayQueue::new(segments as usize),
        granted: AtomicU64::new(granter.granted().0),
        watched: AtomicBool::new(false),
        sender,
    });
    let mut spender = Spender::default();
    spender.on_grant(granter.granted());
    (
        ChannelSender {
            link: link.clone(),
            spender,
            pool: pool.clone(),
            open: None,
            waiting: VecDeque::new(),
            signal,
            index,
            sent_bytes: 0,
        },
        ChannelReceiver { link, granter, current: None, segment_bytes },
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
        if let Some(segment) = self.open.take() {
            self.sent_bytes += segment.filled() as u64;
            segment.seal();
            if self.waiting.is_empty() {
                self.signal.notify(self.index);
            }
        }
        let segment = self.pool.take();
        if self.waiting.is_empty() && self.has_credit() {
            self.enqueue(segment.reader());
        } else {
            self.waiting.push_back(segment.reader());
        }
        self.open = Some(segment);
    }

    fn has_credit(&mut self) -> bool {
        let segment_bytes = self.pool.segment_bytes() as u64;
        if self.spender.available() < segment_bytes {
            self.spender.on_grant(Grant(self.link.granted.load(Ordering::Acquire)));
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
        if let Some(segment) = &mut self.open
            && segment.commit()
            && self.waiting.is_empty()
        {
            self.signal.notify(self.index);
        }
    }

    /// Hands over waiting segments as far as there is credit. Once it returns false, the sender's waker will be called
    /// when there is more.
    pub fn resume(&mut self) -> bool {
        self.hand_over_waiting();
        if self.waiting.is_empty() {
            return true;
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

/// The receiving end.
pub struct ChannelReceiver {
    link: Arc<Link>,
    granter: Granter,
    current: Option<SegmentReader>,
    segment_bytes: u64,
}

impl ChannelReceiver {
    /// Moves on to the next segment if the current one is read; whether there is something to read.
    #[inline]
    pub fn advance(&mut self) -> bool {
        loop {
            match &self.current {
                Some(segment) if !segment.available().is_empty() => return true,
                Some(segment) if !segment.is_finished() => return false,
                Some(_) => self.free(),
                None => {}
            }
            let Some(next) = self.link.queue.pop() else { return false };
            let received = self.granter.receive(self.segment_bytes);
            assert!(received.is_ok(), "a sender of this process used room that was not granted");
            self.current = Some(next);
        }
    }

    #[cold]
    fn free(&mut self) {
        self.current = None;
        let Grant(total) = self.granter.grant(self.segment_bytes);
        self.link.granted.store(total, Ordering::SeqCst);
        if self.link.watched.load(Ordering::SeqCst) && self.link.watched.swap(false, Ordering::SeqCst) {
            self.link.sender.notify();
        }
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

    /// Bytes that wait to be read, about: the segments behind the current one count whole.
    pub fn queued_bytes(&self) -> u64 {
        self.available().len() as u64 + self.link.queue.len() as u64 * self.segment_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(window: u64) -> (ChannelSender, ChannelReceiver) {
        let pool = SegmentPool::new(64, 64);
        channel(&pool, window, GrantSignal::Thread(Arc::default()), Arc::new(GateSignal::new(1, Arc::default())), 0)
    }

    fn write(sender: &mut ChannelSender, byte: u8) {
        if sender.room().0.len() < 8 {
            sender.next_segment();
        }
        let (room, filled) = sender.room();
        room[..8].fill(byte);
        *filled += 8;
    }

    fn read_all(receiver: &mut ChannelReceiver) -> Vec<u8> {
        let mut seen = Vec::new();
        while receiver.advance() {
            seen.push(receiver.available()[0]);
            receiver.consume(8);
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
}
