//! The end of what a program wrote to standard error: why it ended, more often than not.

use std::{collections::VecDeque, fmt};

const LINES: usize = 30;
/// Of a line; the rest is left out.
const LINE_BYTES: usize = 1024;

/// The last lines of a text that comes in pieces.
#[derive(Clone, Debug, Default)]
pub struct LastWords {
    lines: VecDeque<Vec<u8>>,
    /// Whether the last line goes on.
    is_open: bool,
}

impl LastWords {
    /// Of a whole text.
    pub fn of(text: &[u8]) -> LastWords {
        let mut words = LastWords::default();
        words.add(text);
        words
    }

    /// More of it.
    pub fn add(&mut self, text: &[u8]) {
        for piece in text.split_inclusive(|byte| *byte == b'\n') {
            if !self.is_open {
                self.lines.push_back(Vec::new());
                if self.lines.len() > LINES {
                    self.lines.pop_front();
                }
            }
            self.is_open = !piece.ends_with(b"\n");
            let line = self.lines.back_mut().expect("one was just opened");
            let words = piece.strip_suffix(b"\n").unwrap_or(piece);
            line.extend_from_slice(&words[..words.len().min(LINE_BYTES - line.len().min(LINE_BYTES))]);
        }
    }
}

impl fmt::Display for LastWords {
    /// Each line on a new one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| write!(f, "\n  | {}", String::from_utf8_lossy(line).trim_end()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_in_pieces_is_what_comes_at_once() {
        let text: String = (0..100).map(|number| format!("line {number}\n")).collect();
        let mut pieces = LastWords::default();
        text.as_bytes().chunks(7).for_each(|piece| pieces.add(piece));
        assert_eq!(pieces.to_string(), LastWords::of(text.as_bytes()).to_string());
        assert!(pieces.to_string().starts_with("\n  | line 70\n") && pieces.to_string().ends_with("\n  | line 99"));
    }

    #[test]
    fn a_line_without_an_end_takes_no_more_room_than_others() {
        let mut words = LastWords::default();
        (0..100).for_each(|_| words.add(&[b'x'; 1000]));
        assert_eq!(words.lines.iter().map(Vec::len).collect::<Vec<_>>(), [LINE_BYTES]);
        assert_eq!(LastWords::default().to_string(), "");
    }
}
