//! The channels of one deployment from this worker to one peer.

use std::sync::Arc;

use crate::{
    channel::ChannelReceiver,
    credit::{Grant, Spender},
    gate::{GateSignal, InputGate},
    transport::Stream,
    wire::{
        Header, Kind,
        message::{ChannelKey, Message},
    },
};

use super::lanes::Lanes;

/// The sending ends, in the order of their keys.
pub(super) struct Outlets {
    pub(super) keys: Vec<ChannelKey>,
    gate: InputGate,
    states: Vec<State>,
    /// Without room on the connection; looked at again when there may be some.
    stalled: Vec<usize>,
    /// How many have something to send and no credit for it.
    starved: usize,
}

enum State {
    /// The receiver has not asked for it yet.
    Unasked,
    Open {
        channel: u32,
        spender: Spender,
        is_starved: bool,
        /// The receiver takes each frame for a whole segment.
        is_lent: bool,
        /// The receiver has a segment that may get more.
        has_segment: bool,
    },
    /// The receiver reads no more. What the task still writes is thrown away.
    Closed,
}

impl Outlets {
    pub(super) fn new(keys: Vec<ChannelKey>, receivers: Vec<ChannelReceiver>, signal: Arc<GateSignal>) -> Outlets {
        let states = keys.iter().map(|_| State::Unasked).collect();
        Outlets { keys, gate: InputGate::new(receivers, signal), states, stalled: Vec::new(), starved: 0 }
    }

    pub(super) fn segment_bytes(&self, index: usize) -> u64 {
        self.gate.channel(index).segment_bytes()
    }

    pub(super) fn ends_at_flush(&self, index: usize) -> bool {
        self.gate.channel(index).ends_at_flush()
    }

    /// The receiver asks for a channel. Whether it had not done so before.
    pub(super) fn open(&mut self, index: usize, channel: u32, granted: Grant, is_lent: bool) -> bool {
        if !matches!(self.states[index], State::Unasked) {
            return false;
        }
        let mut spender = Spender::default();
        spender.on_grant(granted);
        self.states[index] = State::Open { channel, spender, is_starved: false, is_lent, has_segment: false };
        self.gate.unblock(index);
        true
    }

    /// The receiver has made room, and says how much should wait here at most.
    pub(super) fn grant(&mut self, index: usize, total: Grant, share: u64) {
        if let State::Open { spender, is_starved, .. } = &mut self.states[index] {
            spender.on_grant(total);
            self.starved -= usize::from(std::mem::take(is_starved));
            self.gate.set_limit(index, share);
            self.gate.unblock(index);
        }
    }

    pub(super) fn close(&mut self, index: usize) {
        let before = std::mem::replace(&mut self.states[index], State::Closed);
        self.starved -= usize::from(matches!(before, State::Open { is_starved: true, .. }));
        self.gate.unblock(index);
    }

    /// Moves what was written into the lanes, in turns, as far as there is credit and `room`, which all lanes share. Where
    /// credit is missing, the receiver is told how much waits.
    pub(super) fn pump(&mut self, lanes: &mut Lanes, room: impl Fn(Stream) -> usize, mut tell: impl FnMut(Message)) {
        for index in self.stalled.drain(..) {
            self.gate.unblock(index);
        }
        while let Some(index) = self.gate.next_ready() {
            let consumer = self.keys[index].consumer;
            let is_fresh = self.gate.channel(index).is_fresh();
            match &mut self.states[index] {
                State::Unasked => {
                    self.gate.block(index);
                    continue;
                }
                State::Closed => {
                    let bytes = self.gate.available(index).len();
                    self.gate.consume(index, bytes);
                }
                State::Open { channel, spender, is_starved, is_lent, has_segment } => {
                    let stream = lanes.stream(*channel, consumer);
                    if lanes.bytes() >= room(stream) {
                        self.gate.block(index);
                        self.stalled.push(index);
                        continue;
                    }
                    let segment_bytes = self.gate.channel(index).segment_bytes();
                    if is_fresh && !spender.try_spend(segment_bytes) {
                        self.starved += usize::from(!std::mem::replace(is_starved, true));
                        let waiting = 1 + self.gate.channel(index).queued_segments() as u64;
                        if let Some(total) = spender.announce(waiting * segment_bytes) {
                            tell(Message::Backlog { channel: *channel, total });
                        }
                        // The end of a segment goes with the next one, which cannot go before this one is freed, perhaps.
                        if std::mem::take(has_segment) {
                            lanes.end_of_segment(stream, *channel);
                        }
                        self.gate.block(index);
                        continue;
                    }
                    let Some(part) = self.gate.channel(index).share() else { continue };
                    let length = part.as_ref().len();
                    let header = Header {
                        kind: Kind::Data,
                        opens_segment: is_fresh,
                        ends_segment: *is_lent,
                        channel: *channel,
                        length: length as u32,
                    };
                    *has_segment = !*is_lent;
                    lanes.data(stream, header, part);
                    self.gate.consume(index, length);
                }
            }
            self.gate.rotate();
        }
    }

    pub(super) fn is_starved(&self) -> bool {
        self.starved > 0
    }

    /// Bytes that wait here for credit or room, about.
    pub(super) fn backlog(&mut self) -> u64 {
        self.gate.queued_bytes()
    }

    /// Room that the receivers have granted, and what was used of it.
    pub(super) fn credit(&self) -> (u64, u64) {
        let open = self.states.iter().filter_map(|state| match state {
            State::Open { spender, .. } => Some(spender.totals()),
            State::Unasked | State::Closed => None,
        });
        open.fold((0, 0), |(granted, spent), (Grant(total), used)| (granted + total, spent + used))
    }
}
