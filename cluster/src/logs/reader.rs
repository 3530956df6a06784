//! Pages of what is in a file of lines. A page says where the next one begins, so that nothing is remembered between two.

use std::{
    collections::VecDeque,
    io::{self, BufRead, BufReader, Seek, SeekFrom},
};

use millstream::logging::rolling::{Piece, Pieces};
use millstream_model::log::{LogFilter, LogLine, Parser, form::goes_on};

const LINES_MAX: usize = 1000;
/// Of text in a page; and that is looked at for one, so that nobody waits for long who wants few of many lines.
const PAGE_BYTES: usize = 256 << 10;
const LOOK_BYTES: u64 = 16 << 20;
/// That are looked at: the newest.
const PIECES_MAX: usize = 2;

/// Where a page begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum From {
    Position(u64),
    /// At the newest lines that are wanted, so many.
    Last(u32),
}

/// Lines one after the other.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) lines: Vec<LogLine>,
    /// Where the next one begins.
    pub(crate) next: u64,
    /// Whether there is nothing behind it yet.
    pub(crate) is_at_end: bool,
}

/// Reads a page of the lines that are wanted. Blocks on files.
///
/// # Errors
/// If they cannot be read. That there is no file is none.
pub(crate) fn read(pieces: &Pieces, filter: &LogFilter, from: From) -> io::Result<Page> {
    let pieces = pieces.open(PIECES_MAX)?;
    let position = match from {
        From::Position(position) => position,
        From::Last(count) => position_of_last(&pieces, filter, count as usize)?,
    };
    read_from(&pieces, filter, position)
}

fn read_from(pieces: &[Piece], filter: &LogFilter, position: u64) -> io::Result<Page> {
    let mut page = Page { lines: Vec::new(), next: position, is_at_end: true };
    let (mut looked, mut bytes) = (0, 0);
    for piece in pieces.iter().filter(|piece| piece.begin + piece.bytes > position) {
        let mut parser = Parser::default();
        let mut take = |line: Option<LogLine>, page: &mut Page| {
            if let Some(line) = line.filter(|line| filter.admits(line)) {
                let fields = line.fields.iter().map(|(name, value)| name.len() + value.as_str().map_or(20, str::len));
                bytes += line.message.len() + fields.sum::<usize>() + 200;
                page.lines.push(line);
            }
            page.lines.len() >= LINES_MAX || bytes >= PAGE_BYTES
        };
        let mut raw = RawLines::open(piece, position)?;
        while let Some((at, text)) = raw.next()? {
            // Else the line before is over.
            if !goes_on(text) && (take(parser.finish(), &mut page) || looked >= LOOK_BYTES) {
                page.is_at_end = false;
                page.next = at;
                return Ok(page);
            }
            parser.push(&String::from_utf8_lossy(text));
            looked += text.len() as u64 + 1;
            page.next = at + text.len() as u64 + 1;
        }
        take(parser.finish(), &mut page);
    }
    Ok(page)
}

/// Where the newest lines that are wanted begin.
fn position_of_last(pieces: &[Piece], filter: &LogFilter, count: usize) -> io::Result<u64> {
    let end = pieces.last().map_or(0, |piece| piece.begin + piece.bytes);
    let wants_all = *filter == LogFilter::default();
    let mut missing = count;
    let mut position = end;
    for piece in pieces.iter().rev() {
        if missing == 0 {
            break;
        }
        let mut found = VecDeque::new();
        let mut note = |at: u64, line: Option<LogLine>| {
            if wants_all || line.is_some_and(|line| filter.admits(&line)) {
                found.push_back(at);
                if found.len() > missing {
                    found.pop_front();
                }
            }
        };
        let mut parser = Parser::default();
        let mut begun = None;
        let mut raw = RawLines::open(piece, 0)?;
        while let Some((at, text)) = raw.next()? {
            if !goes_on(text)
                && let Some(begun) = begun.replace(at)
            {
                note(begun, parser.finish());
            }
            if !wants_all {
                parser.push(&String::from_utf8_lossy(text));
            }
        }
        if let Some(begun) = begun {
            note(begun, parser.finish());
        }
        missing -= found.len();
        position = found.front().copied().unwrap_or(position);
    }
    Ok(position)
}

/// The whole lines of a piece from a position on, and where they are.
struct RawLines<'a> {
    file: BufReader<&'a std::fs::File>,
    at: u64,
    /// That are read, though more may have been written since.
    end: u64,
    line: Vec<u8>,
}

impl<'a> RawLines<'a> {
    fn open(piece: &'a Piece, position: u64) -> io::Result<RawLines<'a>> {
        let at = position.max(piece.begin);
        let mut file = BufReader::with_capacity(64 << 10, &piece.file);
        file.seek(SeekFrom::Start(at - piece.begin))?;
        Ok(RawLines { file, at, end: piece.begin + piece.bytes, line: Vec::new() })
    }

    fn next(&mut self) -> io::Result<Option<(u64, &[u8])>> {
        self.line.clear();
        let length = self.file.read_until(b'\n', &mut self.line)?;
        let at = self.at;
        // What has no end yet will have one.
        if self.line.last() != Some(&b'\n') || at + length as u64 > self.end {
            return Ok(None);
        }
        self.line.pop();
        self.at += length as u64;
        Ok(Some((at, &self.line)))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use millstream_model::log::{LogForm, Origin};

    use super::*;

    /// A file of two pieces whose lines are numbers; each third goes on in a second line.
    fn numbers(count: u32) -> (tempfile::TempDir, Pieces) {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a.log");
        let text = |from: u32, to: u32| -> String {
            let message = |number: u32| number.to_string() + if number.is_multiple_of(3) { "\nmore" } else { "" };
            let line = |number: u32| LogLine::printed(i64::from(number), Origin::Stdout, &message(number));
            (from..to).map(|number| LogForm::Text.write(&line(number))).collect()
        };
        fs::write(root.path().join("a.log.1"), text(0, count / 2)).unwrap();
        fs::write(&path, text(count / 2, count) + "no end").unwrap();
        let pieces = Pieces::of(&path);
        (root, pieces)
    }

    /// All pages, as the numbers in them.
    fn read_all(pieces: &Pieces, filter: &LogFilter, mut from: From) -> Vec<u32> {
        let mut numbers = Vec::new();
        loop {
            let page = read(pieces, filter, from).unwrap();
            assert!(page.lines.len() <= LINES_MAX);
            for line in &page.lines {
                let number: u32 = line.message.lines().next().unwrap().parse().unwrap();
                assert_eq!(line.message.ends_with("more"), number.is_multiple_of(3), "{line:?}");
                numbers.push(number);
            }
            if page.is_at_end {
                let again = read(pieces, filter, From::Position(page.next)).unwrap();
                assert!(again.lines.is_empty() && again.is_at_end && again.next == page.next);
                return numbers;
            }
            from = From::Position(page.next);
        }
    }

    #[test]
    fn pages_have_each_line_once_and_whole() {
        let (_root, pieces) = numbers(5000);
        let all: Vec<u32> = (0..5000).collect();
        assert_eq!(read_all(&pieces, &LogFilter::default(), From::Position(0)), all);
        let late = LogFilter { since_millis: Some(4990), ..LogFilter::default() };
        assert_eq!(read_all(&pieces, &late, From::Position(0)), all[4990..]);
    }

    #[test]
    fn the_last_lines_are_the_last_that_are_wanted() {
        let (_root, pieces) = numbers(5000);
        let all: Vec<u32> = (0..5000).collect();
        for count in [0, 1, 2, 3, 1200, 2500, 2501, 4000, 5000, 6000] {
            let expected = &all[5000_usize.saturating_sub(count)..];
            assert_eq!(read_all(&pieces, &LogFilter::default(), From::Last(count as u32)), expected, "{count}");
        }
        let early = LogFilter { origin: Some(Origin::Stdout), ..LogFilter::default() };
        assert_eq!(read_all(&pieces, &early, From::Last(3)), all[4997..]);
        let none = LogFilter { origin: Some(Origin::Log), ..LogFilter::default() };
        assert_eq!(read_all(&pieces, &none, From::Last(3)), Vec::<u32>::new());
    }

    #[test]
    fn a_file_that_is_not_there_has_no_lines() {
        let root = tempfile::tempdir().unwrap();
        let page = read(&Pieces::of(&root.path().join("none")), &LogFilter::default(), From::Last(5)).unwrap();
        assert!(page.lines.is_empty() && page.is_at_end && page.next == 0);
    }
}
