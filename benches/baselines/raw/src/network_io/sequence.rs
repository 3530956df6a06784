//! The bytes of a stream, which say where they belong: lost, doubled, misplaced ones are noticed.

use std::sync::OnceLock;

use harness::records::splitmix;

use super::READ_BYTES;

/// Bytes of one write, and after how many the pattern comes again. As the engine's transport has it.
pub const WRITE_BYTES: usize = 128 << 10;

/// How much is looked at of each end of what arrives at once. The kernel moves what is between them
/// together with them; looking at all of it, as tests do, would take the receiver as long as receiving it.
const CHECKED_BYTES: usize = if cfg!(test) { READ_BYTES } else { 64 };

fn pattern() -> &'static [u8] {
    static PATTERN: OnceLock<Vec<u8>> = OnceLock::new();
    PATTERN.get_or_init(|| {
        (0..WRITE_BYTES as u64 / 8).flat_map(|n| splitmix(n).to_ne_bytes()).collect()
    })
}

/// A position in the bytes of the `nth` stream. Streams begin at places of their own, as many bytes
/// apart that a ping is always in one piece.
#[derive(Clone, Copy, Debug)]
pub struct Sequence {
    start: u64,
    /// Bytes that have passed.
    passed: u64,
}

impl Sequence {
    pub fn new(nth: usize) -> Sequence {
        Sequence { start: nth as u64 * 1_024, passed: 0 }
    }

    pub fn passed(&self) -> u64 {
        self.passed
    }

    /// What to send next: up to `limit` bytes, and as far as one piece of memory goes.
    pub fn next(&self, limit: usize) -> &'static [u8] {
        let rest = &pattern()[self.offset()..];
        &rest[..rest.len().min(limit)]
    }

    /// Counts `bytes` as sent.
    pub fn advance(&mut self, bytes: usize) {
        self.passed += bytes as u64;
    }

    /// Counts `bytes` as received.
    ///
    /// # Panics
    /// If others should have come.
    pub fn take(&mut self, bytes: &[u8]) {
        let edge = bytes.len().min(CHECKED_BYTES);
        let end = Sequence { passed: self.passed + (bytes.len() - edge) as u64, ..*self };
        assert!(self.begins(&bytes[..edge]), "bytes were lost, doubled or misplaced");
        assert!(end.begins(&bytes[bytes.len() - edge..]), "bytes were lost, doubled or misplaced");
        self.advance(bytes.len());
    }

    fn begins(&self, bytes: &[u8]) -> bool {
        let mut at = *self;
        while at.passed < self.passed + bytes.len() as u64 {
            let rest = &bytes[(at.passed - self.passed) as usize..];
            let expected = at.next(rest.len());
            if rest[..expected.len()] != *expected {
                return false;
            }
            at.advance(expected.len());
        }
        true
    }

    fn offset(&self) -> usize {
        ((self.start + self.passed) % WRITE_BYTES as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    /// The first `bytes` of the third stream.
    fn sent(bytes: usize) -> Vec<u8> {
        let (mut sequence, mut sent) = (Sequence::new(3), Vec::new());
        while sent.len() < bytes {
            let next = sequence.next(bytes - sent.len());
            sent.extend_from_slice(next);
            sequence.advance(next.len());
        }
        sent
    }

    #[test]
    fn pieces_of_any_size_are_what_was_sent() {
        let mut receiver = Sequence::new(3);
        for piece in sent(1_000_000).chunks(70_001) {
            receiver.take(piece);
        }
        assert_eq!(receiver.passed(), 1_000_000);
    }

    #[test]
    fn bytes_that_are_lost_doubled_or_anothers_are_noticed() {
        let sent = sent(200_000);
        for (stream, first, second) in [
            (3, 0..1_000, 1_001..2_000),
            (3, 0..1_000, 999..2_000),
            (3, 1_000..2_000, 0..1_000),
            (4, 0..0, 0..1_000),
        ] {
            let taken = catch_unwind(|| {
                let mut receiver = Sequence::new(stream);
                receiver.take(&sent[first.clone()]);
                receiver.take(&sent[second.clone()]);
            });
            assert!(taken.is_err(), "{first:?} and {second:?} passed for stream {stream}");
        }
    }
}
