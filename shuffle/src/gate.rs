//! The channels into one task, and which of them have something to read.
//!
//! A sender sets its channel's bit when it has news; the task takes all bits at once. So a gate of a thousand silent
//! channels costs nothing.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    channel::{Advanced, ChannelReceiver},
    credit::Granter,
    sync::{AtomicU64, Ordering},
    wake::Waker,
};

/// A bit for each channel of a gate, set by senders.
#[derive(Debug)]
pub struct GateSignal {
    words: Box<[AtomicU64]>,
    waker: Arc<Waker>,
}

impl GateSignal {
    /// For `channels` channels into a task on the thread that `waker` wakes.
    pub fn new(channels: usize, waker: Arc<Waker>) -> Self {
        GateSignal { words: (0..channels.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(), waker }
    }

    /// Says that `channel` has something to read.
    #[inline]
    pub fn notify(&self, channel: usize) {
        let bit = 1 << (channel % 64);
        // A bit that is already set: whoever set it has woken the task, which has not taken it yet.
        if self.words[channel / 64].fetch_or(bit, Ordering::SeqCst) & bit == 0 {
            self.waker.wake();
        }
    }
}

impl GateSignal {
    /// Shows the channels that were notified since the last call.
    pub fn take(&self, mut each: impl FnMut(usize)) {
        for (index, word) in self.words.iter().enumerate() {
            // Most words are 0 most of the time; a load does not take the line from the senders.
            if word.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let mut bits = word.swap(0, Ordering::SeqCst);
            while bits != 0 {
                each(index * 64 + bits.trailing_zeros() as usize);
                bits &= bits - 1;
            }
        }
    }
}

/// The consuming end of all edges into one task.
pub struct InputGate {
    channels: Vec<ChannelReceiver>,
    signal: Arc<GateSignal>,
    /// Channels that may have something to read, each at most once.
    ready: VecDeque<usize>,
    is_ready: Vec<bool>,
    blocked: Vec<bool>,
    waiting: Waiting,
    granter: Granter,
}

/// How many bytes wait to be read: of each channel when it was looked at last, and of all.
struct Waiting {
    of: Vec<u64>,
    sum: u64,
}

impl Waiting {
    fn set(&mut self, channel: usize, bytes: u64) {
        let before = std::mem::replace(&mut self.of[channel], bytes);
        self.sum = self.sum - before + bytes;
    }
}

impl InputGate {
    /// For channels that have a window each and share nothing.
    pub fn new(channels: Vec<ChannelReceiver>, signal: Arc<GateSignal>) -> Self {
        let windows: Vec<u64> = channels.iter().map(ChannelReceiver::window).collect();
        let segment_bytes = channels.first().map_or(1, ChannelReceiver::segment_bytes);
        Self::with_granter(channels, signal, Granter::fixed(segment_bytes, &windows))
    }

    /// For channels that were made with what `granter` has for them.
    pub fn with_granter(channels: Vec<ChannelReceiver>, signal: Arc<GateSignal>, granter: Granter) -> Self {
        let count = channels.len();
        InputGate {
            granter,
            channels,
            signal,
            ready: VecDeque::new(),
            is_ready: vec![false; count],
            blocked: vec![false; count],
            waiting: Waiting { of: vec![0; count], sum: 0 },
        }
    }

    pub fn channel_count(&self) -> usize {
        self.channels.len()
    }

    /// The next channel that has something to read and is not blocked; they take turns.
    #[inline]
    pub fn next_ready(&mut self) -> Option<usize> {
        loop {
            if self.ready.is_empty() {
                self.take_signals();
            }
            // Only with all signals taken nothing is there: a wake that came before was about one of them, perhaps.
            let channel = self.ready.front().copied()?;
            if !self.blocked[channel] && self.advance(channel) {
                return Some(channel);
            }
            self.ready.pop_front();
            self.is_ready[channel] = false;
        }
    }

    /// Moves on to the next segment of a channel if the current one is read; whether there is something to read.
    #[inline]
    fn advance(&mut self, channel: usize) -> bool {
        loop {
            match self.channels[channel].advance() {
                Advanced::Readable => return true,
                Advanced::Empty => return false,
                step @ (Advanced::Begun | Advanced::Freed) => self.count(channel, step),
            }
        }
    }

    #[cold]
    fn count(&mut self, channel: usize, step: Advanced) {
        let bytes = self.channels[channel].segment_bytes();
        self.waiting.set(channel, self.channels[channel].queued_bytes());
        if step == Advanced::Freed {
            self.granter.free(channel, bytes);
            self.tell_grants();
        } else {
            let received = self.granter.receive(channel, bytes);
            assert!(received.is_ok(), "a sender of this process used room that was not granted");
        }
    }

    fn tell_grants(&mut self) {
        let InputGate { granter, channels, .. } = self;
        granter.take_grants(|channel, total| channels[channel].grant(total));
    }

    /// Lets the other channels have their turn.
    pub fn rotate(&mut self) {
        self.take_signals();
        self.ready.rotate_left(usize::from(self.ready.len() > 1));
    }

    fn take_signals(&mut self) {
        let InputGate { signal, ready, is_ready, granter, channels, waiting, .. } = self;
        signal.take(|channel| {
            if !std::mem::replace(&mut is_ready[channel], true) {
                ready.push_back(channel);
            }
            waiting.set(channel, channels[channel].queued_bytes());
            granter.announce(channel, channels[channel].backlog());
        });
        if self.granter.has_grants() {
            self.tell_grants();
        }
    }

    /// A channel of the gate.
    pub fn channel(&self, channel: usize) -> &ChannelReceiver {
        &self.channels[channel]
    }

    /// What can be read from a channel that `next_ready` has returned.
    #[inline]
    pub fn available(&self, channel: usize) -> &[u8] {
        self.channels[channel].available()
    }

    /// Counts `bytes` of a channel as read.
    #[inline]
    pub fn consume(&mut self, channel: usize, bytes: usize) {
        self.channels[channel].consume(bytes);
        // There may be more since it was looked at last, which is told of by a signal to come.
        self.waiting.set(channel, self.waiting.of[channel].saturating_sub(bytes as u64));
    }

    /// Stops reading a channel: it waits for a barrier on the others. Its credit runs out, and so does its sender's.
    pub fn block(&mut self, channel: usize) {
        self.blocked[channel] = true;
        self.granter.block(channel);
        // A segment that ends with the barrier is not held until the others are there.
        if self.channels[channel].is_finished() {
            self.channels[channel].advance();
            self.count(channel, Advanced::Freed);
        }
    }

    /// Reads a channel again.
    pub fn unblock(&mut self, channel: usize) {
        if !std::mem::take(&mut self.blocked[channel]) {
            return;
        }
        self.granter.unblock(channel);
        self.tell_grants();
        if !std::mem::replace(&mut self.is_ready[channel], true) {
            self.ready.push_back(channel);
        }
    }

    /// Reads all channels again.
    pub fn unblock_all(&mut self) {
        (0..self.channels.len()).for_each(|channel| self.unblock(channel));
    }

    /// Changes how many bytes may be under way on all channels together, within the gate's pool.
    pub fn set_target(&mut self, bytes: u64) {
        self.granter.set_target(bytes);
        let share = self.granter.share();
        self.channels.iter().for_each(|channel| channel.set_share(share));
        self.tell_grants();
    }

    /// Changes how many bytes may be under way on one channel, within its window.
    pub fn set_limit(&mut self, channel: usize, bytes: u64) {
        self.granter.set_limit(channel, bytes);
        self.tell_grants();
    }

    /// Bytes that are promised to senders and not freed, and how many there may be for now.
    pub fn promised(&self) -> (u64, u64) {
        (self.granter.outstanding(), self.granter.target())
    }

    /// Bytes that wait to be read, as far as senders have told, about: segments that are not begun count whole. It costs the
    /// same however many channels there are.
    pub fn queued_bytes(&mut self) -> u64 {
        self.take_signals();
        let Waiting { of, sum } = &self.waiting;
        debug_assert_eq!(of.iter().sum::<u64>(), *sum, "the sum is that of the channels");
        // What senders are adding right now is not told of yet.
        debug_assert!(of.iter().zip(&self.channels).all(|(of, channel)| *of <= channel.queued_bytes()));
        *sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        channel::{ChannelSender, GrantSignal, opened_channel},
        segment::SegmentPool,
    };

    const SEGMENT: usize = 64;

    #[test]
    fn what_waits_is_known_without_looking_at_every_channel() {
        for seed in 0..30 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let count = rng.usize(1..100);
            let pool = SegmentPool::new(SEGMENT, 64);
            let granter =
                Granter::new(SEGMENT as u64, rng.u64(2..300) * SEGMENT as u64, &vec![4 * SEGMENT as u64; count]);
            let signal = Arc::new(GateSignal::new(count, Arc::default()));
            let make = |index| {
                let wakes = GrantSignal::Thread(Arc::default());
                opened_channel(&pool, granter.opening(index), false, wakes, signal.clone(), index)
            };
            let (mut senders, receivers): (Vec<ChannelSender>, Vec<_>) = (0..count).map(make).unzip();
            let mut gate = InputGate::with_granter(receivers, signal, granter);
            let mut most = 0;
            for _ in 0..2_000 {
                let channel = rng.usize(0..count);
                match rng.u32(0..8) {
                    0..4 => {
                        let sender = &mut senders[channel];
                        if sender.resume() {
                            let bytes = 8 * rng.usize(1..=SEGMENT / 8);
                            if sender.room().0.len() < bytes {
                                sender.next_segment();
                            }
                            *sender.room().1 += bytes;
                            sender.flush();
                        }
                    }
                    4..6 => {
                        if let Some(channel) = gate.next_ready() {
                            let bytes = gate.available(channel).len();
                            gate.consume(channel, 8 * rng.usize(1..=bytes / 8));
                            gate.rotate();
                        }
                    }
                    6 => gate.block(channel),
                    _ => gate.unblock(channel),
                }
                let walked: u64 = gate.channels.iter().map(ChannelReceiver::queued_bytes).sum();
                assert_eq!(gate.queued_bytes(), walked, "seed {seed}");
                most = most.max(walked);
            }
            assert!(most > 0, "seed {seed}: nothing ever waited");
        }
    }
}
