//! The memory that trains of datagrams are received into; one serves many sockets.

use bytes::BytesMut;

use super::control::Control;
use crate::copies::{Place, copied};

const TRAIN_BYTES_MAX: usize = 1 << 16;
/// Trains shorter than this are copied, so that no small frame holds on to a large buffer.
const COPIED_BYTES_MAX: usize = 8 << 10;

/// Where one train is received, and what the kernel says about it.
pub struct Train {
    pub memory: BytesMut,
    pub control: Control,
}

impl Train {
    fn new() -> Train {
        Train { memory: BytesMut::zeroed(TRAIN_BYTES_MAX), control: Control::default() }
    }

    /// Takes out what was received: as it lies there, if it is long.
    pub fn take(&mut self, bytes: usize) -> BytesMut {
        if bytes >= COPIED_BYTES_MAX {
            return self.memory.split_to(bytes);
        }
        copied(Place::Train, bytes);
        BytesMut::from(&self.memory[..bytes])
    }
}

/// Room for some trains.
#[derive(Default)]
pub struct Trains(Vec<Train>);

impl Trains {
    /// Room for so many, all of it vacant: what was taken out is made good, in the same place once nobody refers to it any
    /// more, which is most often so, since what arrives is read at once.
    pub fn vacant<const COUNT: usize>(&mut self) -> &mut [Train; COUNT] {
        for Train { memory, .. } in &mut self.0 {
            if memory.len() < TRAIN_BYTES_MAX {
                memory.clear();
                if !memory.try_reclaim(TRAIN_BYTES_MAX) {
                    *memory = BytesMut::with_capacity(TRAIN_BYTES_MAX);
                }
                memory.resize(TRAIN_BYTES_MAX, 0);
            }
        }
        while self.0.len() < COUNT {
            self.0.push(Train::new());
        }
        self.0.first_chunk_mut().expect("there are as many")
    }
}
