//! Cuts bytes that come in pieces into records that end with a delimiter.

use memchr::memmem::Finder;

/// Bytes that are done with and still lie in front of the others are removed when they are more than this.
const DONE_BYTES_KEPT: usize = 256 << 10;

/// Such a cutter.
#[derive(Debug)]
pub struct Delimited {
    delimiter: Finder<'static>,
    bytes: Vec<u8>,
    /// Where the next record starts.
    start: usize,
    /// There is no delimiter before this.
    searched: usize,
    /// What is there is all that the record will have.
    ended: bool,
}

impl Delimited {
    pub fn new(delimiter: String) -> Delimited {
        let delimiter = Finder::new(delimiter.as_bytes()).into_owned();
        Delimited { delimiter, bytes: Vec::new(), start: 0, searched: 0, ended: false }
    }

    pub fn feed(&mut self, bytes: &[u8]) {
        if self.start == self.bytes.len() || self.start > DONE_BYTES_KEPT {
            self.bytes.drain(..self.start);
            self.searched -= self.start;
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The connection has ended: what is left is a record too, if there is anything.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// The next record.
    pub fn next(&mut self) -> Option<&[u8]> {
        let length = self.delimiter.needle().len();
        let from = self.start;
        match self.delimiter.find(&self.bytes[self.searched..]) {
            Some(found) => {
                let end = self.searched + found;
                self.start = end + length;
                self.searched = self.start;
                let record = &self.bytes[from..end];
                let is_line = self.delimiter.needle() == b"\n";
                Some(if is_line { record.strip_suffix(b"\r").unwrap_or(record) } else { record })
            }
            None if self.ended => {
                self.ended = false;
                self.start = self.bytes.len();
                self.searched = self.start;
                Some(&self.bytes[from..]).filter(|rest| !rest.is_empty())
            }
            None => {
                // A delimiter may have begun.
                self.searched = self.start.max((self.bytes.len() + 1).saturating_sub(length));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_of_any_size_give_the_same_records(text in "[ab-]{0,40}", piece in 1_usize..9) {
            let mut delimited = Delimited::new("--".to_owned());
            let mut records = Vec::new();
            let mut take = |delimited: &mut Delimited| {
                while let Some(record) = delimited.next() {
                    records.push(String::from_utf8(record.to_vec()).unwrap());
                }
            };
            for piece in text.as_bytes().chunks(piece) {
                delimited.feed(piece);
                take(&mut delimited);
            }
            delimited.end();
            take(&mut delimited);
            let mut expected: Vec<&str> = text.split("--").collect();
            if expected.last() == Some(&"") {
                expected.pop();
            }
            prop_assert_eq!(records, expected);
        }
    }
}
