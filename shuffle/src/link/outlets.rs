//! The channels of one deployment from this worker to one peer.

use std::sync::Arc;

use crate::{
    channel::ChannelReceiver,
    credit::{Grant, Spender},
    gate::{GateSignal, InputGate},
    wire::{Header, Kind, message::ChannelKey},
};

use super::gather::Gather;

/// The sending ends, in the order of their keys.
pub(super) struct Outlets {
    pub(super) keys: Vec<ChannelKey>,
    gate: InputGate,
    states: Vec<State>,
    /// Without room on their lane; looked at again when there may be some.
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

    /// The receiver asks for a channel. Whether it had not done so before.
    pub(super) fn open(&mut self, index: usize, channel: u32, granted: Grant) -> bool {
        if !matches!(self.states[index], State::Unasked) {
            return false;
        }
        let mut spender = Spender::default();
        spender.on_grant(granted);
        self.states[index] = State::Open { channel, spender, is_starved: false };
        self.gate.unblock(index);
        true
    }

    pub(super) fn grant(&mut self, index: usize, total: Grant) {
        if let State::Open { spender, is_starved, .. } = &mut self.states[index] {
            spender.on_grant(total);
            self.starved -= usize::from(std::mem::take(is_starved));
            self.gate.unblock(index);
        }
    }

    pub(super) fn close(&mut self, index: usize) {
        let before = std::mem::replace(&mut self.states[index], State::Closed);
        self.starved -= usize::from(matches!(before, State::Open { is_starved: true, .. }));
        self.gate.unblock(index);
    }

    /// Moves what was written into the lanes, in turns, as far as there is credit and `room` on the lane.
    pub(super) fn pump(&mut self, lanes: &mut [Gather], room: impl Fn(usize) -> usize) {
        for index in self.stalled.drain(..) {
            self.gate.unblock(index);
        }
        while let Some(index) = self.gate.next_ready() {
            let lane = self.keys[index].consumer as usize % lanes.len();
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
                State::Open { channel, spender, is_starved } => {
                    if lanes[lane].bytes() >= room(lane) {
                        self.gate.block(index);
                        self.stalled.push(index);
                        continue;
                    }
                    let segment_bytes = self.gate.channel(index).segment_bytes();
                    if is_fresh && !spender.try_spend(segment_bytes) {
                        self.starved += usize::from(!std::mem::replace(is_starved, true));
                        self.gate.block(index);
                        continue;
                    }
                    let Some(part) = self.gate.channel(index).share() else { continue };
                    let length = part.as_ref().len();
                    let header =
                        Header { kind: Kind::Data, opens_segment: is_fresh, channel: *channel, length: length as u32 };
                    lanes[lane].data(header, part);
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
    pub(super) fn backlog(&self) -> u64 {
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
