//! Control messages of a datagram, as the kernel lays them out: see cmsg(3).

use nix::libc::cmsghdr;

/// Enough for what is asked for: the length of a train's datagrams, congestion, and the receiver's address.
const CAPACITY: usize = 128;
const HEADER_BYTES: usize = size_of::<cmsghdr>();
const LENGTH_BYTES: usize = size_of::<usize>();

/// A few control messages, written for the kernel or by it.
#[derive(Clone, Debug)]
#[repr(C, align(8))]
pub struct Control {
    memory: [u8; CAPACITY],
    length: usize,
}

impl Default for Control {
    fn default() -> Control {
        Control { memory: [0; CAPACITY], length: 0 }
    }
}

impl Control {
    /// Adds a message.
    ///
    /// # Panics
    /// If there is no room for it.
    #[must_use]
    pub fn with(mut self, level: i32, kind: i32, data: &[u8]) -> Control {
        let memory = &mut self.memory[self.length..];
        memory[..LENGTH_BYTES].copy_from_slice(&(HEADER_BYTES + data.len()).to_ne_bytes());
        memory[LENGTH_BYTES..][..4].copy_from_slice(&level.to_ne_bytes());
        memory[LENGTH_BYTES + 4..][..4].copy_from_slice(&kind.to_ne_bytes());
        memory[HEADER_BYTES..][..data.len()].copy_from_slice(data);
        self.length += (HEADER_BYTES + data.len()).next_multiple_of(align_of::<usize>());
        self
    }

    pub fn bytes(&self) -> &[u8] {
        &self.memory[..self.length]
    }

    /// All of it, for the kernel to write to.
    pub(super) fn memory(&mut self) -> &mut [u8] {
        &mut self.memory
    }

    /// The kernel has written so much.
    pub(super) fn filled(&mut self, bytes: usize) {
        self.length = bytes.min(CAPACITY);
    }

    /// Level, kind and data of each message, as far as they are whole.
    pub fn messages(&self) -> impl Iterator<Item = (i32, i32, &[u8])> {
        let mut rest = self.bytes();
        std::iter::from_fn(move || {
            let length = usize::from_ne_bytes(rest.get(..LENGTH_BYTES)?.try_into().ok()?);
            let level = i32::from_ne_bytes(rest.get(LENGTH_BYTES..LENGTH_BYTES + 4)?.try_into().ok()?);
            let kind = i32::from_ne_bytes(rest.get(LENGTH_BYTES + 4..LENGTH_BYTES + 8)?.try_into().ok()?);
            let data = rest.get(HEADER_BYTES..length)?;
            rest = rest.get(length.next_multiple_of(align_of::<usize>())..).unwrap_or_default();
            Some((level, kind, data))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_as_they_were_written() {
        let control = Control::default().with(1, 2, &[3]).with(4, 5, &[6; 20]).with(7, 8, &[]);
        let read: Vec<_> = control.messages().collect();
        assert_eq!(read, [(1, 2, &[3][..]), (4, 5, &[6; 20]), (7, 8, &[])]);
    }

    #[test]
    fn nonsense_has_no_messages_and_no_panic() {
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..10_000 {
            let mut control = Control::default();
            rng.fill(&mut control.memory);
            // Lengths that are nearly right, too.
            control.memory[..LENGTH_BYTES].copy_from_slice(&rng.usize(0..40).to_ne_bytes());
            if rng.bool() {
                control.memory[..LENGTH_BYTES].copy_from_slice(&(usize::MAX - rng.usize(0..40)).to_ne_bytes());
            }
            control.filled(rng.usize(0..2 * CAPACITY));
            assert!(control.messages().map(|(_, _, data)| data.len()).sum::<usize>() <= CAPACITY);
        }
    }
}
