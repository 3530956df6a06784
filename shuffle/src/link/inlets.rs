//! The channels of one deployment from one peer to this worker.

use std::sync::Arc;

use crate::{
    channel::ChannelSender,
    copies::{Place, copied},
    credit::{Backlog, Grant},
    gate::GateSignal,
    wire::message::{ChannelKey, Message},
};

/// The receiving ends, in the order of their keys.
pub(super) struct Inlets {
    inlets: Vec<Inlet>,
    /// A bit for each whose task has freed room.
    grants: Arc<GateSignal>,
    /// Whose peer has used so much that it is to be told of what was kept back.
    due: Vec<usize>,
    /// What the first of them is called on the wire; the others follow.
    pub(super) first_channel: u32,
}

struct Inlet {
    key: ChannelKey,
    sender: ChannelSender,
    /// What the peer was told of.
    told: Grant,
    /// What the current frame has still to bring, and whether its segment is complete with it.
    missing: usize,
    ends_segment: bool,
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

impl Inlet {
    /// Whether there is as much news as the peer has left of what it was told of. So a peer that has nothing left is
    /// told of every segment, and one that has much is told seldom.
    fn is_worth_telling(&self, total: Grant) -> bool {
        let (_, used) = self.sender.credit();
        let news = total.0 - self.told.0;
        news > 0 && news >= self.told.0.saturating_sub(used)
    }
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
            Inlet { key, sender, told, missing: 0, ends_segment: false }
        };
        let inlets = keys.into_iter().zip(senders).map(inlet).collect();
        Inlets { inlets, grants, due: Vec::new(), first_channel }
    }

    pub(super) fn len(&self) -> usize {
        self.inlets.len()
    }

    /// What the peer is asked for: number, key, size of segments, first grant of each, and whether room is lent to it.
    pub(super) fn requests(&self) -> impl Iterator<Item = (u32, ChannelKey, u32, Grant, bool)> {
        (self.first_channel..).zip(&self.inlets).map(|(channel, Inlet { key, sender, told, .. })| {
            (channel, *key, sender.segment_bytes() as u32, *told, sender.ends_at_flush())
        })
    }

    /// What peers may use since the last call. It is kept back as long as a peer has more than that left.
    pub(super) fn take_grants(&mut self, mut tell: impl FnMut(Message)) {
        let Inlets { inlets, grants, due, first_channel } = self;
        let mut look = |index: usize| {
            let inlet = &mut inlets[index];
            let total = inlet.sender.watch_grants();
            if inlet.is_worth_telling(total) {
                inlet.told = total;
                let share = inlet.sender.share();
                tell(Message::Grant { channel: *first_channel + index as u32, total, share });
            }
        };
        due.drain(..).for_each(&mut look);
        grants.take(&mut look);
    }

    /// The peer could use so much.
    pub(super) fn announce(&mut self, index: usize, backlog: Backlog) {
        self.inlets[index].sender.announce(backlog);
    }

    /// A frame of `bytes` begins.
    ///
    /// # Errors
    /// If the peer had no room for it.
    pub(super) fn begin(
        &mut self,
        index: usize,
        opens_segment: bool,
        ends_segment: bool,
        bytes: usize,
    ) -> Result<(), Broken> {
        let inlet = &mut self.inlets[index];
        if opens_segment {
            inlet.sender.next_segment();
            if inlet.sender.waiting() > 0 {
                return Err(Broken::WithoutCredit);
            }
            if inlet.is_worth_telling(inlet.sender.credit().0) {
                self.due.push(index);
            }
        } else if !inlet.sender.is_open() {
            return Err(Broken::NoSegment);
        }
        let room = inlet.sender.room().0.len();
        if bytes > room {
            return Err(Broken::BeyondSegment { bytes, room });
        }
        inlet.missing = bytes;
        inlet.ends_segment = ends_segment;
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
        if inlet.ends_segment { inlet.sender.end_segment() } else { inlet.sender.flush() }
    }
}
