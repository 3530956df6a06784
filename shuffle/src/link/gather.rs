//! Gathers frames of one stream into a batch: small ones are copied together, large payloads stay where they are.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    copies::{Place, copied},
    segment::SegmentPart,
    transport::Batch,
    wire::{Header, Kind, message::Message},
};

/// Payloads from this size on are handed over by reference: one more chunk costs about as much as copying this much.
const BY_REFERENCE: usize = 2 << 10;

/// What is gathered before memory is asked for again.
const GATHER_BYTES: usize = 16 << 10;

/// Frames that wait to be handed over.
#[derive(Debug, Default)]
pub(super) struct Gather {
    batch: Batch,
    open: BytesMut,
}

impl Gather {
    pub(super) fn message(&mut self, message: &Message) {
        message.encode(&mut self.open);
    }

    /// A frame that says nothing but that the channel's segment is complete.
    pub(super) fn end_of_segment(&mut self, channel: u32) {
        let header = Header { kind: Kind::Data, opens_segment: false, ends_segment: true, channel, length: 0 };
        self.open.put_slice(&header.encode());
    }

    pub(super) fn data(&mut self, header: Header, payload: SegmentPart) {
        let bytes = payload.as_ref().len();
        if self.open.capacity() - self.open.len() < crate::wire::HEADER_BYTES + BY_REFERENCE {
            self.close_open();
            self.open.reserve(GATHER_BYTES);
        }
        self.open.put_slice(&header.encode());
        if bytes < BY_REFERENCE {
            copied(Place::Gather, bytes);
            self.open.put_slice(payload.as_ref());
        } else {
            self.close_open();
            self.batch.push(Bytes::from_owner(payload));
        }
    }

    /// Like the calls that `frames` makes, but with memory that many share: each would keep its own half empty.
    pub(super) fn with(&mut self, memory: &mut BytesMut, frames: impl FnOnce(&mut Gather)) {
        std::mem::swap(&mut self.open, memory);
        frames(self);
        self.close_open();
        std::mem::swap(&mut self.open, memory);
    }

    fn close_open(&mut self) {
        if !self.open.is_empty() {
            self.batch.push(self.open.split().freeze());
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.batch.bytes + self.open.len()
    }

    /// All that was gathered.
    pub(super) fn take(&mut self) -> Batch {
        self.close_open();
        std::mem::take(&mut self.batch)
    }
}
