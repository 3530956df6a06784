//! Which stream each channel's frames go to, and what has been gathered for each.

use std::collections::BTreeMap;

use bytes::BytesMut;

use super::gather::Gather;
use crate::{
    segment::SegmentPart,
    transport::{Batch, Stream},
    wire::Header,
};

/// What has been gathered: for lanes that channels share, or for channels that have a stream each.
pub(super) struct Lanes {
    /// 0 where each channel has a stream of its own.
    count: u8,
    /// Those that were used. Where they are channels, which may be thousands, only those that have something.
    gathers: BTreeMap<Stream, Gather>,
    /// For the small frames of channels.
    memory: BytesMut,
    bytes: usize,
}

impl Lanes {
    pub(super) fn new(count: u8) -> Lanes {
        Lanes { count, gathers: BTreeMap::new(), memory: BytesMut::new(), bytes: 0 }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.gathers.is_empty()
    }

    pub(super) fn are_channels(&self) -> bool {
        self.count == 0
    }

    /// The stream of a channel, by its number and the subtask that consumes it.
    pub(super) fn stream(&self, channel: u32, consumer: u32) -> Stream {
        match consumer.checked_rem(u32::from(self.count)) {
            Some(lane) => Stream::Lane(lane as u8),
            None => Stream::Channel(channel),
        }
    }

    pub(super) fn data(&mut self, stream: Stream, header: Header, payload: SegmentPart) {
        self.add(stream, |gather| gather.data(header, payload));
    }

    /// A frame that says nothing but that the channel's segment is complete.
    pub(super) fn end_of_segment(&mut self, stream: Stream, channel: u32) {
        self.add(stream, |gather| gather.end_of_segment(channel));
    }

    fn add(&mut self, stream: Stream, frame: impl FnOnce(&mut Gather)) {
        let gather = self.gathers.entry(stream).or_default();
        let before = gather.bytes();
        match stream {
            Stream::Channel(_) => gather.with(&mut self.memory, frame),
            Stream::Control | Stream::Lane(_) => frame(gather),
        }
        self.bytes += gather.bytes() - before;
    }

    /// What has been gathered for all of them. They share the room that there is.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Hands over all that was gathered.
    pub(super) fn take(&mut self, mut hand_over: impl FnMut(Stream, Batch)) {
        if self.bytes == 0 {
            return;
        }
        self.bytes = 0;
        let are_channels = self.are_channels();
        self.gathers.retain(|stream, gather| {
            if gather.bytes() > 0 {
                hand_over(*stream, gather.take());
            }
            !are_channels
        });
    }
}
