//! From what a worker process writes to lines of its job's log.
//!
//! What the engine or user code logs comes on standard error as an event in JSON between a separator and the end of the
//! line; all else was printed. A user function that prints such an event itself fools only whoever reads its job's log.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use millstream::logging::{RECORD_SEPARATOR, wall_millis};
use millstream_model::{
    config::LogLevel,
    id::WorkerId,
    log::{LogForm, LogLine, LogTask, Origin, Parser, form::CRASH},
};
use millstream_providers::process::OutputStream;

use nix::sys::signal::Signal;

use super::store::JobFile;

/// Longer lines are made several.
const LINE_BYTES_MAX: usize = 16 << 10;
/// Events have messages and fields of so much each, in JSON.
const EVENT_BYTES_MAX: usize = 512 << 10;
/// That a failure of the worker shows.
const LAST_LINES: usize = 20;
const LAST_LINE_CHARS: usize = 400;

/// Takes what one worker writes.
pub(crate) struct WorkerOutput {
    worker: WorkerId,
    file: JobFile,
    streams: [Mutex<Vec<u8>>; 2],
    last: Mutex<VecDeque<LogLine>>,
    /// That ran on the thread which a signal has ended.
    crashed: Mutex<Option<String>>,
    /// How many bytes could not be allocated, when that has ended the worker.
    allocation_failed: Mutex<Option<u64>>,
}

impl WorkerOutput {
    pub(crate) fn new(worker: WorkerId, file: JobFile) -> WorkerOutput {
        WorkerOutput {
            worker,
            file,
            streams: Default::default(),
            last: Mutex::default(),
            crashed: Mutex::default(),
            allocation_failed: Mutex::default(),
        }
    }

    /// Takes the next piece of a stream; an empty one is the last. Called on the thread of the stream, which may wait a
    /// moment for the disk.
    pub(crate) fn take(&self, stream: OutputStream, piece: &[u8]) {
        let mut lines = Vec::new();
        {
            let mut rest = locked(&self.streams[stream as usize]);
            split(&mut rest, piece, |text| lines.push(self.line(stream, text)));
        }
        if lines.is_empty() {
            return;
        }
        let mut last = locked(&self.last);
        last.extend(lines[lines.len().saturating_sub(LAST_LINES)..].iter().cloned());
        let surplus = last.len().saturating_sub(LAST_LINES);
        last.drain(..surplus);
        drop(last);
        self.file.write(&lines);
    }

    fn line(&self, stream: OutputStream, text: &[u8]) -> LogLine {
        let worker = Some(self.worker);
        if let (OutputStream::Stderr, Some(event)) = (stream, text.strip_prefix(&[RECORD_SEPARATOR])) {
            let event = String::from_utf8_lossy(event);
            if let Some(line) = event.strip_prefix(CRASH).and_then(crash_line) {
                *locked(&self.crashed) = line.task.as_ref().map(|task| task.name.clone());
                return LogLine { worker, ..line };
            }
            let mut parser = Parser::default();
            parser.push(&event);
            // What is none has no time of its own.
            if let Some(line) = parser.finish().filter(|line| line.time_millis != 0) {
                return LogLine { worker, ..line };
            }
        }
        let origin = match stream {
            OutputStream::Stdout => Origin::Stdout,
            OutputStream::Stderr => {
                if let Some(bytes) = failed_allocation(text) {
                    *locked(&self.allocation_failed) = Some(bytes);
                }
                Origin::Stderr
            }
        };
        LogLine { worker, ..LogLine::printed(wall_millis(), origin, &String::from_utf8_lossy(text)) }
    }

    /// The operators that the thread ran which a signal has ended, if it was one of a task.
    pub(crate) fn crashed(&self) -> Option<String> {
        locked(&self.crashed).clone()
    }

    /// How many bytes could not be allocated, if the worker has ended by that.
    pub(crate) fn allocation_failed(&self) -> Option<u64> {
        *locked(&self.allocation_failed)
    }

    /// What the worker has written last, each line on a new one.
    pub(crate) fn last_words(&self) -> LastLines {
        LastLines(locked(&self.last).iter().cloned().collect())
    }
}

/// What Rust's standard library says before it has a process abort that cannot allocate; whatever its allocator is.
fn failed_allocation(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    text.strip_prefix("memory allocation of ")?.split_once(" bytes failed")?.0.parse().ok()
}

/// The line of a log that says which signal has ended a worker in which task.
fn crash_line(said: &str) -> Option<LogLine> {
    let (number, task) = said.split_once(' ')?;
    let task = LogTask::parse(task)?;
    let signal = number.parse().ok().and_then(|number: i32| Signal::try_from(number).ok())?;
    let message = format!("{signal} while this task was running");
    let target = module_path!().to_owned();
    let line = LogLine {
        level: LogLevel::Error,
        origin: Origin::Log,
        target,
        task: Some(task),
        ..LogLine::printed(wall_millis(), Origin::Log, &message)
    };
    Some(line)
}

/// The end of what a worker has written.
pub(crate) struct LastLines(Vec<LogLine>);

impl fmt::Display for LastLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| {
            let text = LogForm::Text.write(line);
            let text = text.trim_end().replace("\n\t", "\n  |   ");
            let cut: String = text.chars().take(LAST_LINE_CHARS).collect();
            write!(f, "\n  | {cut}{}", if cut.len() < text.len() { "…" } else { "" })
        })
    }
}

/// Hands over whole lines and events, and leaves the beginning of the next one.
fn split(rest: &mut Vec<u8>, piece: &[u8], mut take: impl FnMut(&[u8])) {
    if piece.is_empty() {
        if !rest.is_empty() {
            take(rest);
            rest.clear();
        }
        return;
    }
    rest.extend_from_slice(piece);
    let mut begin = 0;
    loop {
        let text = &rest[begin..];
        // An event may follow on what was printed without an end of line.
        let is_event = text.first() == Some(&RECORD_SEPARATOR);
        let bytes_max = if is_event { EVENT_BYTES_MAX } else { LINE_BYTES_MAX };
        let end = memchr::memchr(b'\n', text);
        let event =
            memchr::memchr(RECORD_SEPARATOR, &text[usize::from(is_event)..]).map(|at| at + usize::from(is_event));
        let (length, skipped) = match (end, event) {
            (Some(end), None) => (end, 1),
            (Some(end), Some(event)) if end < event => (end, 1),
            (_, Some(event)) => (event, 0),
            (None, None) if text.len() >= bytes_max => (bytes_max, 0),
            (None, None) => break,
        };
        // Lines are cut at the limit, the rest is another one.
        let (length, skipped) = if length > bytes_max { (bytes_max, 0) } else { (length, skipped) };
        take(&text[..length]);
        begin += length + skipped;
    }
    rest.drain(..begin);
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(text: &[u8], size: usize) -> Vec<String> {
        let (mut rest, mut lines) = (Vec::new(), Vec::new());
        for piece in text.chunks(size).chain([&[][..]]) {
            split(&mut rest, piece, |line| lines.push(String::from_utf8_lossy(line).into_owned()));
        }
        assert!(rest.is_empty());
        lines
    }

    #[test]
    fn lines_and_events_are_told_apart_however_they_come() {
        let text = b"one\n\ntwo\x1e{event}\nthree\n\x1e{other}\nno end";
        for size in 1..=text.len() {
            let expected = ["one", "", "two", "\x1e{event}", "three", "\x1e{other}", "no end"];
            assert_eq!(pieces(text, size), expected, "{size}");
        }
    }

    #[test]
    fn a_crash_names_the_task() {
        let line = crash_line("11 0a1b2c3d count (words) (2/4) #3").unwrap();
        assert_eq!(line.message, "SIGSEGV while this task was running");
        let task = line.task.unwrap();
        assert_eq!((task.name.as_str(), task.subtask, task.parallelism, task.attempt), ("count (words)", 1, 4, 3));
        for text in ["", "11", "11 x", "x 0a1b2c3d count (2/4) #3", "999 0a1b2c3d count (2/4) #3"] {
            assert_eq!(crash_line(text), None, "{text}");
        }
    }

    #[test]
    fn a_failed_allocation_is_known_by_its_words() {
        assert_eq!(failed_allocation(b"memory allocation of 4096 bytes failed"), Some(4096));
        assert_eq!(failed_allocation(b"memory allocation of many bytes failed"), None);
        assert_eq!(failed_allocation(b"the memory allocation of 4096 bytes failed"), None);
    }

    #[test]
    fn a_line_without_an_end_takes_no_more_room_than_others() {
        let text = vec![b'x'; 3 * LINE_BYTES_MAX + 7];
        let lengths: Vec<usize> = pieces(&text, 1000).iter().map(String::len).collect();
        assert_eq!(lengths, [LINE_BYTES_MAX, LINE_BYTES_MAX, LINE_BYTES_MAX, 7]);
    }
}
