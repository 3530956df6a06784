//! The channels of one deployment from one peer to this worker.

use std::sync::Arc;

use crate::{
    channel::ChannelSender,
    copies::{Place, copied},
    credit::Grant,
    gate::GateSignal,
    wire::message::{ChannelKey, Message},
};

/// The receiving ends, in the order of their keys.
pub(super) struct Inlets {
    inlets: Vec<Inlet>,
    /// A bit for each whose task has freed room.
    grants: Arc<GateSignal>,
    /// What the first of them is called on the wire; the others follow.
    pub(super) first_channel: u32,
}

struct Inlet {
    key: ChannelKey,
    sender: ChannelSender,
    /// What the peer was told of.
    told: Grant,
    window: u64,
    /// What the current frame has still to bring.
    missing: usize,
}

/// The peer has broken the rules of a channel.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Broken {
    #[error("a frame of {bytes} bytes does not fit the {room} bytes that are left of its segment")]
    BeyondSegment { bytes: usize, room: usize },
    #[error("a segment was sent without credit")]
    WithoutCredit,
    #[error("its first frame begins no segment")]
    NoSegment,
}

impl Inlets {
    pub(super) fn new(
        keys: Vec<ChannelKey>,
        senders: Vec<ChannelSender>,
        grants: Arc<GateSignal>,
        first_channel: u32,
    ) -> Inlets {
        let inlet = |(key, mut sender): (ChannelKey, ChannelSender)| {
            let told = sender.watch_grants();
            Inlet { key, sender, told, window: told.0, missing: 0 }
        };
        Inlets { inlets: keys.into_iter().zip(senders).map(inlet).collect(), grants, first_channel }
    }

    pub(super) fn len(&self) -> usize {
        self.inlets.len()
    }

    /// What the peer is asked for: key, size of segments, and first grant of each.
    pub(super) fn requests(&self) -> impl Iterator<Item = (u32, ChannelKey, u32, Grant)> {
        (self.first_channel..)
            .zip(&self.inlets)
            .map(|(channel, inlet)| (channel, inlet.key, inlet.sender.segment_bytes() as u32, inlet.told))
    }

    /// What the peer may use since the last call, told once half a window has come together.
    pub(super) fn take_grants(&mut self, mut tell: impl FnMut(Message)) {
        let Inlets { inlets, grants, first_channel } = self;
        grants.take(|index| {
            let inlet = &mut inlets[index];
            let total = inlet.sender.watch_grants();
            if total.0 - inlet.told.0 >= inlet.window / 2 {
                inlet.told = total;
                tell(Message::Grant { channel: *first_channel + index as u32, total });
            }
        });
    }

    /// A frame of `bytes` begins.
    ///
    /// # Errors
    /// If the peer had no room for it.
    pub(super) fn begin(&mut self, index: usize, opens_segment: bool, bytes: usize) -> Result<(), Broken> {
        let inlet = &mut self.inlets[index];
        if opens_segment {
            inlet.sender.next_segment();
            if inlet.sender.waiting() > 0 {
                return Err(Broken::WithoutCredit);
            }
        } else if !inlet.sender.is_open() {
            return Err(Broken::NoSegment);
        }
        let room = inlet.sender.room().0.len();
        if bytes > room {
            return Err(Broken::BeyondSegment { bytes, room });
        }
        inlet.missing = bytes;
        Ok(())
    }

    /// Copies the next bytes of the frame into the channel's segment: the one copy on the way of a record.
    pub(super) fn write(&mut self, index: usize, bytes: &[u8]) {
        let inlet = &mut self.inlets[index];
        let (room, filled) = inlet.sender.room();
        copied(Place::Inlet, bytes.len());
        room[..bytes.len()].copy_from_slice(bytes);
        *filled += bytes.len();
        inlet.missing -= bytes.len();
    }

    /// The frame is whole: the task may see it.
    pub(super) fn end(&mut self, index: usize) {
        let inlet = &mut self.inlets[index];
        debug_assert_eq!(inlet.missing, 0, "the decoder counts");
        inlet.sender.flush();
    }
}
