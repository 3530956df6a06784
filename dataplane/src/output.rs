//! The runtime's half of an edge's producing end: the channels to all consumers, and what happens when they have no
//! room in the middle of a record.
//!
//! (1) A few segments of overdraft; (2) then overflow, charged to the slot's memory; (3) then the job fails. While
//! anything waits, the task takes no input: that is backpressure.

use std::{rc::Rc, sync::Arc};

use millstream_api::{
    flow::Flow,
    output::{Channels, Room},
    overflow::Overflow,
};
use millstream_model::fault::Failure;
use millstream_shuffle::channel::ChannelSender;

use crate::metrics::TaskCounters;

/// How much may wait without credit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) overdraft_segments: usize,
    pub(crate) overflow_bytes: u64,
    pub(crate) segment_bytes: u64,
}

pub(crate) struct EdgeChannels {
    senders: Vec<ChannelSender>,
    flow: Rc<Flow>,
    counters: Arc<TaskCounters>,
    limits: Limits,
    overflow: Overflow,
    /// A bit for each channel that was written to since the last flush.
    dirty: Box<[u64]>,
    /// Whether the task was told that there is no room.
    full: bool,
    sent_bytes: u64,
}

impl EdgeChannels {
    pub(crate) fn new(
        senders: Vec<ChannelSender>,
        flow: Rc<Flow>,
        counters: Arc<TaskCounters>,
        limits: Limits,
    ) -> Self {
        let dirty = vec![0; senders.len().div_ceil(64)].into();
        let overflow = Overflow::new(flow.clone(), limits.overflow_bytes);
        EdgeChannels { senders, flow, counters, limits, overflow, dirty, full: false, sent_bytes: 0 }
    }

    #[cold]
    fn without_credit(&mut self) -> Result<(), Failure> {
        if !self.full {
            self.full = true;
            self.flow.output_filled();
        }
        let waiting: usize = self.senders.iter().map(ChannelSender::waiting).sum();
        self.overflow.set(waiting.saturating_sub(self.limits.overdraft_segments) as u64 * self.limits.segment_bytes);
        self.overflow.check("for room downstream")
    }
}

impl Channels for EdgeChannels {
    fn count(&self) -> usize {
        self.senders.len()
    }

    #[inline]
    fn room(&mut self, channel: usize) -> Room<'_> {
        self.dirty[channel / 64] |= 1 << (channel % 64);
        let (bytes, filled) = self.senders[channel].room();
        Room { bytes, filled }
    }

    fn next_segment(&mut self, channel: usize) -> Result<(), Failure> {
        self.senders[channel].next_segment();
        if self.senders[channel].waiting() == 0 { Ok(()) } else { self.without_credit() }
    }

    fn flush(&mut self, records: u64) {
        for (index, word) in self.dirty.iter_mut().enumerate() {
            let mut bits = std::mem::take(word);
            while bits != 0 {
                let channel = index * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                let sender = &mut self.senders[channel];
                sender.flush();
            }
        }
        let sent: u64 = self.senders.iter().map(ChannelSender::sent_bytes).sum();
        self.counters.wrote_records(records);
        self.counters.wrote_bytes(sent - self.sent_bytes);
        self.sent_bytes = sent;
        // The first segment of a channel may be without credit, too.
        if !self.full && self.senders.iter().any(|sender| sender.waiting() > 0) {
            self.full = true;
            self.flow.output_filled();
        }
    }

    fn resume(&mut self) {
        if self.full {
            // All are asked: each that still waits must be woken when its receiver frees room.
            let waiting = self.senders.iter_mut().filter(|sender| sender.waiting() > 0);
            let still_waiting = waiting.map(|sender| !sender.resume()).fold(false, |any, one| any | one);
            if !still_waiting {
                self.full = false;
                self.overflow.set(0);
                self.flow.output_freed();
            }
        }
    }
}
