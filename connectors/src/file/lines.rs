//! Finds the lines in the blocks of a split. A line within one block is handed out as a range of it; one that straddles
//! blocks is put together in a buffer that is used again and again.

use std::ops::Range;

use memchr::memchr;

/// A buffer that one long line has made larger than this is given back.
const CARRY_BYTES_KEPT: usize = 1 << 20;

/// The lines of one split: see [`super::split`] for which they are.
#[derive(Debug)]
pub struct Lines {
    /// The byte after the last line that was handed out. While `skipping`: the byte after what was skipped.
    next: u64,
    end: u64,
    skipping: bool,
    /// How much of the current block is done with.
    cursor: usize,
    /// The start of a line that goes on in the next block.
    carry: Vec<u8>,
    /// The line in `carry` was handed out.
    carry_done: bool,
}

/// A line without its line end, and where it starts in the file.
#[derive(PartialEq, Eq, Debug)]
pub struct Line<'l> {
    pub start: u64,
    pub place: Place<'l>,
}

/// Where a line's bytes are.
#[derive(PartialEq, Eq, Debug)]
pub enum Place<'l> {
    /// In the block at hand.
    InBlock(Range<usize>),
    PutTogether(&'l [u8]),
}

impl Lines {
    pub fn new(next: u64, at_line_start: bool, end: u64) -> Lines {
        Lines { next, end, skipping: !at_line_start, cursor: 0, carry: Vec::new(), carry_done: false }
    }

    /// Where a later reader goes on, and whether a line starts there.
    pub fn position(&self) -> (u64, bool) {
        (self.next, !self.skipping)
    }

    /// Whether no further line of the file belongs to this split.
    #[inline]
    pub fn is_done(&self) -> bool {
        // While skipping, no line end was found before `next`: the first line starts after it, at the earliest.
        self.next > self.end || self.skipping && self.next == self.end
    }

    /// The next line of `block`; `None` if it goes on in the next block, which then starts at its first byte, or if the
    /// split is done. The split must not be done before.
    #[inline]
    pub fn next_in(&mut self, block: &[u8]) -> Option<Line<'_>> {
        if self.carry_done {
            self.forget_carry();
        }
        if self.skipping {
            self.skip(block);
            if self.skipping || self.is_done() {
                return None;
            }
        }
        let rest = &block[self.cursor..];
        let Some(length) = memchr(b'\n', rest) else {
            self.carry.extend_from_slice(rest);
            self.cursor = 0;
            return None;
        };
        let (first, start) = (self.cursor, self.next);
        self.cursor += length + 1;
        if self.carry.is_empty() {
            self.next += length as u64 + 1;
            let text = without_carriage_return(&rest[..length]);
            return Some(Line { start, place: Place::InBlock(first..first + text.len()) });
        }
        self.carry.extend_from_slice(&rest[..length]);
        self.carry_done = true;
        self.next += self.carry.len() as u64 + 1;
        Some(Line { start, place: Place::PutTogether(without_carriage_return(&self.carry)) })
    }

    /// What lies behind the last line end of the file.
    pub fn last(&mut self) -> Option<Line<'_>> {
        if self.carry_done {
            self.forget_carry();
        }
        if self.carry.is_empty() {
            return None;
        }
        let start = self.next;
        self.next += self.carry.len() as u64;
        self.carry_done = true;
        Some(Line { start, place: Place::PutTogether(without_carriage_return(&self.carry)) })
    }

    /// Looks for the first line end.
    #[cold]
    fn skip(&mut self, block: &[u8]) {
        match memchr(b'\n', block) {
            Some(line_feed) => {
                self.cursor = line_feed + 1;
                self.next += self.cursor as u64;
                self.skipping = false;
            }
            None => self.next += block.len() as u64,
        }
    }

    fn forget_carry(&mut self) {
        self.carry_done = false;
        self.carry.clear();
        if self.carry.capacity() > CARRY_BYTES_KEPT {
            self.carry = Vec::new();
        }
    }
}

#[inline]
fn without_carriage_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Lines and where they start.
    type Found = Vec<(u64, Vec<u8>)>;

    fn owned(line: &Line<'_>, block: &[u8]) -> (u64, Vec<u8>) {
        match &line.place {
            Place::InBlock(range) => (line.start, block[range.clone()].to_vec()),
            Place::PutTogether(bytes) => (line.start, bytes.to_vec()),
        }
    }

    /// Reads a split as a reader does, in blocks of `block` bytes, for at most `limit` lines. Returns where a later
    /// reader would go on.
    fn read(
        content: &[u8],
        (next, at_line_start): (u64, bool),
        end: u64,
        block: usize,
        limit: usize,
    ) -> (Found, (u64, bool)) {
        let mut lines = Lines::new(next, at_line_start, end);
        let mut found = Vec::new();
        for block in content[next as usize..].chunks(block) {
            loop {
                if lines.is_done() || found.len() == limit {
                    return (found, lines.position());
                }
                let Some(line) = lines.next_in(block) else { break };
                found.push(owned(&line, block));
            }
        }
        if !lines.is_done() && found.len() < limit {
            found.extend(lines.last().map(|line| owned(&line, &[])));
        }
        (found, lines.position())
    }

    /// The lines of a file, told independently.
    fn expected(content: &[u8]) -> Found {
        let mut start = 0;
        let mut lines = Vec::new();
        for line in content.split_inclusive(|byte| *byte == b'\n') {
            let text = line.strip_suffix(b"\n").unwrap_or(line);
            lines.push((start, text.strip_suffix(b"\r").unwrap_or(text).to_vec()));
            start += line.len() as u64;
        }
        lines
    }

    fn whole(content: &str) -> Vec<String> {
        let (lines, _) = read(content.as_bytes(), (0, true), content.len() as u64, 3, usize::MAX);
        lines.into_iter().map(|(_, text)| String::from_utf8(text).unwrap()).collect()
    }

    #[test]
    fn both_line_ends_are_removed_and_the_last_may_be_missing() {
        assert_eq!(whole("a\nbb\r\n\n\r\nccc"), ["a", "bb", "", "", "ccc"]);
        assert_eq!(whole("a\n"), ["a"]);
        assert_eq!(whole(""), [""; 0]);
        assert_eq!(whole("\n"), [""]);
        assert_eq!(whole("a\rb\r\r\n"), ["a\rb\r"]);
    }

    #[test]
    fn a_line_that_starts_at_a_split_s_end_belongs_to_that_split() {
        let content = b"ab\ncd\n";
        assert_eq!(read(content, (0, true), 3, 100, 9).0, expected(content));
        assert_eq!(read(content, (3, false), 6, 100, 9).0, []);
    }

    #[test]
    fn a_split_inside_a_long_line_reads_no_further_than_its_own_end() {
        let content = [b'x'; 100];
        let mut lines = Lines::new(10, false, 20);
        assert_eq!(lines.next_in(&content[10..20]), None);
        assert!(lines.is_done(), "the first line after a line end can start at 21 at the earliest");
    }

    proptest! {
        #[test]
        fn splits_and_blocks_of_any_size_give_every_line_once(
            content in "[ab\n\r]{0,60}",
            split in 1_usize..70,
            block in 1_usize..70,
        ) {
            let content = content.as_bytes();
            let mut found = Vec::new();
            for start in (0..content.len()).step_by(split) {
                let end = (start + split).min(content.len()) as u64;
                found.extend(read(content, (start as u64, start == 0), end, block, usize::MAX).0);
            }
            prop_assert_eq!(found, expected(content));
        }

        #[test]
        fn reading_can_stop_after_any_line_and_go_on_elsewhere(
            content in "[ab\n]{1,60}",
            start in 0_u64..60,
            length in 1_u64..60,
            limit in 0_usize..20,
            block in 1_usize..20,
        ) {
            let content = content.as_bytes();
            let start = start.min(content.len() as u64 - 1);
            let end = (start + length).min(content.len() as u64);
            let whole = read(content, (start, start == 0), end, block, usize::MAX).0;
            let (mut found, position) = read(content, (start, start == 0), end, block, limit);
            found.extend(read(content, position, end, block + 1, usize::MAX).0);
            prop_assert_eq!(found, whole);
        }
    }
}
