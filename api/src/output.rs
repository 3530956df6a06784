//! The producing end of an edge: chooses the channel of a record and writes it into that channel's segment.
//!
//! The typed half is here, since only the program knows the record; the runtime's half is behind [`Channels`].

use std::{marker::PhantomData, rc::Rc};

use millstream_model::{
    fault::Failure,
    key_group::{KeyGroup, KeyHash, MaxParallelism},
};

use crate::{
    flow::{self, Flow},
    frame::{self, Control},
    push::Push,
    record::{
        Key, Record, archive,
        key::{KeyOf, with_key},
    },
    signal::{Barrier, Signal},
};

/// The channels of one edge, from one producer to its consumers. Implemented by the runtime.
pub trait Channels {
    /// How many consumers there are.
    fn count(&self) -> usize;

    /// What is left of the channel's open segment.
    fn room(&mut self, channel: usize) -> Room<'_>;

    /// Closes the channel's open segment and opens another, of the full size.
    ///
    /// # Errors
    /// If the job's memory for records that nobody has room for is used up.
    fn next_segment(&mut self, channel: usize) -> Result<(), Failure>;

    /// Lets consumers see everything that was written: `records` more since the last call.
    fn flush(&mut self, records: u64);

    /// Moves on what waited for room.
    fn resume(&mut self);
}

/// The unused end of a segment. It starts at a multiple of 8.
pub struct Room<'a> {
    pub bytes: &'a mut [u8],
    /// Raised by as many bytes as were written, a multiple of 8.
    pub filled: &'a mut usize,
}

/// Chooses channels.
pub trait Selector<T: Record>: 'static {
    fn select(&mut self, record: T::Ref<'_>) -> Choice;
}

/// Where a record goes.
#[derive(Clone, Copy)]
pub enum Choice {
    One { channel: usize, key_hash: KeyHash },
    All,
}

/// Writes records of type `T` into channels.
pub struct EdgeWriter<T, S> {
    channels: Box<dyn Channels>,
    selector: S,
    flow: Rc<Flow>,
    /// Written since the last flush.
    records: u64,
    of: PhantomData<fn(T)>,
}

impl<T: Record, S: Selector<T>> EdgeWriter<T, S> {
    pub fn new(channels: Box<dyn Channels>, selector: S, flow: Rc<Flow>) -> Self {
        EdgeWriter { channels, selector, flow, records: 0, of: PhantomData }
    }

    fn flush(&mut self) {
        self.channels.flush(std::mem::take(&mut self.records));
    }

    #[inline]
    fn write(&mut self, channel: usize, key_hash: KeyHash, record: T::Ref<'_>) {
        let room = self.channels.room(channel);
        match frame::write_record::<T>(record, self.flow.timestamp(), key_hash, room.bytes) {
            Ok(written) => *room.filled += written,
            Err(archive::Full) => self.write_in_next_segment(channel, key_hash, record),
        }
    }

    #[cold]
    fn write_in_next_segment(&mut self, channel: usize, key_hash: KeyHash, record: T::Ref<'_>) {
        let time = self.flow.timestamp();
        self.channels.next_segment(channel).unwrap_or_else(|failure| flow::fail(failure));
        let room = self.channels.room(channel);
        match frame::write_record::<T>(record, time, key_hash, room.bytes) {
            Ok(written) => *room.filled += written,
            Err(archive::Full) => {
                let alone = frame::write_record_alone::<T>(record, time, key_hash);
                let frame = alone.unwrap_or_else(|failure| flow::fail(failure));
                self.write_fragments(channel, frame.as_slice());
            }
        }
    }

    fn write_fragments(&mut self, channel: usize, mut rest: &[u8]) {
        while !rest.is_empty() {
            let room = self.channels.room(channel);
            match frame::write_fragment(rest, room.bytes) {
                Ok((part, written)) => {
                    *room.filled += written;
                    rest = &rest[part..];
                }
                Err(archive::Full) => {
                    self.channels.next_segment(channel).unwrap_or_else(|failure| flow::fail(failure));
                }
            }
        }
    }

    fn broadcast(&mut self, control: Control) {
        let frame = frame::control(control);
        for channel in 0..self.channels.count() {
            if self.channels.room(channel).bytes.len() < frame.len() {
                self.channels.next_segment(channel).unwrap_or_else(|failure| flow::fail(failure));
            }
            let room = self.channels.room(channel);
            room.bytes[..frame.len()].copy_from_slice(&frame);
            *room.filled += frame.len();
        }
    }
}

impl<T: Record, S: Selector<T>> Push<T> for EdgeWriter<T, S> {
    #[inline]
    fn push(&mut self, record: T::Ref<'_>) {
        self.records += 1;
        match self.selector.select(record) {
            Choice::One { channel, key_hash } => self.write(channel, key_hash, record),
            Choice::All => (0..self.channels.count()).for_each(|channel| self.write(channel, KeyHash::NONE, record)),
        }
    }

    fn signal(&mut self, signal: &mut Signal<'_>) {
        match signal {
            Signal::Watermark(watermark) => self.broadcast(Control::Watermark(*watermark)),
            Signal::Idle(idle) => self.broadcast(Control::Idle(*idle)),
            Signal::Barrier(snapshot) => {
                let Barrier { checkpoint, kind } = snapshot.barrier;
                self.broadcast(Control::Barrier(Barrier { checkpoint, kind }));
                self.flush();
            }
            Signal::EndOfData => {
                self.broadcast(Control::EndOfData);
                self.flush();
            }
            Signal::Flush => self.flush(),
            Signal::Resume => self.channels.resume(),
            Signal::Complete(_) | Signal::Aborted(_) | Signal::Clock | Signal::Finish(_) | Signal::Close => {}
        }
    }
}

/// By key group.
pub struct ByKey<K: Key, T: Record> {
    key: KeyOf<K, T>,
    max_parallelism: MaxParallelism,
    /// The channel of each key group.
    owners: Box<[u32]>,
}

impl<K: Key, T: Record> ByKey<K, T> {
    pub fn new(key: KeyOf<K, T>, max_parallelism: MaxParallelism, consumers: u32) -> Self {
        let groups = 0..max_parallelism.0 as u16;
        let owners = groups.map(|group| KeyGroup(group).subtask(max_parallelism, consumers)).collect();
        ByKey { key, max_parallelism, owners }
    }
}

impl<K: Key, T: Record> Selector<T> for ByKey<K, T> {
    #[inline]
    fn select(&mut self, record: T::Ref<'_>) -> Choice {
        let key_hash = with_key::<K, T, KeyHash>(self.key, record, |key| K::key_hash(key));
        let group = KeyGroup::of(key_hash, self.max_parallelism);
        Choice::One { channel: self.owners[usize::from(group.0)] as usize, key_hash }
    }
}

/// As a function of the program says.
pub struct ByFunction<K: Record, T: Record> {
    key: KeyOf<K, T>,
    partition: PartitionOf<K>,
    channels: u32,
    /// Of the consumer, for messages.
    consumer: Rc<str>,
}

/// Chooses one of so many channels by a key.
pub type PartitionOf<K> = for<'a> fn(<K as Record>::Ref<'a>, u32) -> u32;

impl<K: Record, T: Record> ByFunction<K, T> {
    pub fn new(key: KeyOf<K, T>, partition: PartitionOf<K>, channels: u32, consumer: Rc<str>) -> Self {
        ByFunction { key, partition, channels, consumer }
    }

    #[cold]
    fn refuse(&self, channel: u32) -> ! {
        let ByFunction { channels, consumer, .. } = self;
        flow::fail(Failure::fatal(format!(
            "the custom partitioner in front of '{consumer}' chose channel {channel}, but there are {channels}, from 0; it \
             must return a number below the second one it is given"
        )))
    }
}

impl<K: Record, T: Record> Selector<T> for ByFunction<K, T> {
    #[inline]
    fn select(&mut self, record: T::Ref<'_>) -> Choice {
        // See `with_key`: a selector borrows the handle as long as what the handle borrows.
        let handle = T::shorten(record);
        let channel = (self.partition)((self.key)(&handle), self.channels);
        if channel >= self.channels {
            self.refuse(channel);
        }
        Choice::One { channel: channel as usize, key_hash: KeyHash::NONE }
    }
}

/// Without a key: round robin, at random, to the first, to all.
pub enum Keyless {
    RoundRobin { next: usize, count: usize },
    Random { state: u64, count: usize },
    First,
    All,
}

impl<T: Record> Selector<T> for Keyless {
    #[inline]
    fn select(&mut self, _: T::Ref<'_>) -> Choice {
        let channel = match self {
            Keyless::First => 0,
            Keyless::RoundRobin { next, count } => {
                let channel = *next;
                *next = if channel + 1 == *count { 0 } else { channel + 1 };
                channel
            }
            Keyless::Random { state, count } => {
                // Marsaglia's xorshift64.
                *state ^= *state << 13;
                *state ^= *state >> 7;
                *state ^= *state << 17;
                (*state % *count as u64) as usize
            }
            Keyless::All => return Choice::All,
        };
        Choice::One { channel, key_hash: KeyHash::NONE }
    }
}
