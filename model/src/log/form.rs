//! The forms of lines in files: text for people, or JSON. Both can be read again.
//!
//! ```text
//! 2026-11-30T14:00:00.123Z WARN  worker-3 [slot-1] [0a1b2c3d count (2/4) #1] shop::orders: late  order=17 cause="no way"
//! └ time                   └ level        └ thread  └ vertex, name, subtask, attempt  └ target └ message └ fields
//! 2026-11-30T14:00:00.124Z OUT   worker-3 what a user function has printed
//! ```
//! A worker, a thread or a task that is not known is left out. Further lines of a message begin with a tab.

use std::fmt::Write;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{LogLine, LogTask, Origin, time};
use crate::{
    config::{LogLevel, value::Value as _},
    id::{JobId, WorkerId},
};

/// After the separator of an event, in place of one: a signal has ended the process. Its number follows, and the task that
/// the thread was running.
pub const CRASH: &str = "crash ";

/// How lines are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogForm {
    Text,
    Json,
}

/// A line in JSON.
#[derive(Serialize, Deserialize)]
struct JsonLine {
    time: String,
    level: String,
    #[serde(default = "log", skip_serializing_if = "is_log")]
    origin: Origin,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    job: Option<JobId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    worker: Option<WorkerId>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    thread: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    task: Option<LogTask>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    target: String,
    message: String,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    fields: Map<String, Value>,
}

fn log() -> Origin {
    Origin::Log
}

fn is_log(origin: &Origin) -> bool {
    *origin == Origin::Log
}

impl LogForm {
    /// The line as it is in a file, with its end.
    pub fn write(self, line: &LogLine) -> String {
        match self {
            LogForm::Text => to_text(line),
            LogForm::Json => to_json(line),
        }
    }
}

fn to_json(line: &LogLine) -> String {
    let LogLine { time_millis, level, origin, job, worker, thread, task, target, message, fields } = line.clone();
    let (time, level) = (time::to_text(time_millis), level.to_text());
    let fields = fields.into_iter().collect();
    let line = JsonLine { time, level, origin, job, worker, thread, task, target, message, fields };
    let mut text = serde_json::to_string(&line).expect("a line has a form in JSON");
    text.push('\n');
    text
}

fn to_text(line: &LogLine) -> String {
    let mut text = time::to_text(line.time_millis);
    let kind = match line.origin {
        Origin::Log => line.level.to_text(),
        Origin::Stdout => "OUT".to_owned(),
        Origin::Stderr => "ERR".to_owned(),
    };
    // Writing to a string cannot fail.
    let _ = write!(text, " {kind:5} ");
    if let Some(worker) = line.worker {
        let _ = write!(text, "worker-{} ", worker.0);
    }
    if line.origin == Origin::Log {
        if !line.thread.is_empty() {
            let _ = write!(text, "[{}] ", bracketed(&line.thread));
        }
        if let Some(task) = &line.task {
            text.push('[');
            let _ = task.write_to(&mut text);
            text.push_str("] ");
        }
        let _ = write!(text, "{}: ", bracketed(&line.target));
    }
    text.push_str(&line.message.replace('\n', "\n\t"));
    for (at, (name, value)) in line.fields.iter().enumerate() {
        let _ = write!(text, "{}{}={}", if at == 0 { "  " } else { " " }, bracketed(name), field(value));
    }
    text.push('\n');
    text
}

/// Without what would end the brackets.
fn bracketed(name: &str) -> String {
    name.chars().map(|c| if c == ']' || c.is_control() { '.' } else { c }).collect()
}

/// A field's value: as it is where that is told apart from what follows, else as JSON.
fn field(value: &Value) -> String {
    match value {
        Value::String(text) if is_bare(text) => text.clone(),
        value => value.to_string(),
    }
}

fn is_bare(text: &str) -> bool {
    let is_plain = |c: char| !c.is_whitespace() && !c.is_control() && c != '"' && c != '=';
    !text.is_empty() && text.chars().all(is_plain) && serde_json::from_str::<Value>(text).is_err()
}

/// Reads lines of files again, whatever form they have. Give it one line of a file after the other.
#[derive(Debug, Default)]
pub struct Parser {
    /// May go on.
    last: Option<LogLine>,
}

impl Parser {
    /// Takes a line of a file, without its end. What it returns is the line before, which is now known to be over.
    pub fn push(&mut self, text: &str) -> Option<LogLine> {
        if let (Some(rest), Some(last)) = (text.strip_prefix('\t'), &mut self.last) {
            last.message.push('\n');
            last.message.push_str(rest);
            return None;
        }
        self.last.replace(parse(text)).map(with_fields)
    }

    /// The last line.
    pub fn finish(&mut self) -> Option<LogLine> {
        self.last.take().map(with_fields)
    }
}

/// Whether a line of a file goes on with the one before.
pub fn goes_on(text: &[u8]) -> bool {
    text.starts_with(b"\t")
}

/// Of a line that nobody here has written, nothing is known but its text.
fn parse(text: &str) -> LogLine {
    let parsed = if text.starts_with('{') { from_json(text) } else { from_text(text) };
    parsed.unwrap_or_else(|| LogLine::printed(0, Origin::Stderr, text))
}

fn from_json(text: &str) -> Option<LogLine> {
    let line: JsonLine = serde_json::from_str(text).ok()?;
    let JsonLine { time, level, origin, job, worker, thread, task, target, message, fields } = line;
    let (time_millis, level) = (time::from_text(&time)?, LogLevel::parse(&level).ok()?);
    let fields = fields.into_iter().collect();
    Some(LogLine { time_millis, level, origin, job, worker, thread, task, target, message, fields })
}

fn from_text(text: &str) -> Option<LogLine> {
    let (time, rest) = text.split_once(' ')?;
    let time_millis = time::from_text(time)?;
    let kind = rest.get(..5)?;
    let mut rest = rest[5..].strip_prefix(' ')?;
    let mut worker = None;
    if let Some((number, after)) = rest.strip_prefix("worker-").and_then(|rest| rest.split_once(' '))
        && let Ok(number) = number.parse()
    {
        (worker, rest) = (Some(WorkerId(number)), after);
    }
    let (level, origin) = match kind.trim_end() {
        "OUT" => (LogLevel::Info, Origin::Stdout),
        "ERR" => (LogLevel::Warn, Origin::Stderr),
        level => (LogLevel::parse(level).ok()?, Origin::Log),
    };
    if origin != Origin::Log {
        return Some(LogLine { worker, ..LogLine::printed(time_millis, origin, rest) });
    }
    let (mut thread, mut task) = (String::new(), None);
    while let Some((inside, after)) = rest.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        match LogTask::parse(inside) {
            Some(known) => task = Some(known),
            None => thread = inside.to_owned(),
        }
        rest = after;
    }
    let (target, message) = rest.split_once(": ")?;
    Some(LogLine {
        time_millis,
        level,
        origin,
        job: None,
        worker,
        thread,
        task,
        target: target.to_owned(),
        message: message.to_owned(),
        fields: Vec::new(),
    })
}

/// Takes the fields out of a message that was read from text, once all of it is there.
fn with_fields(mut line: LogLine) -> LogLine {
    if line.origin == Origin::Log && line.fields.is_empty() {
        // The first place from which on there is nothing but fields.
        let found =
            line.message.match_indices("  ").find_map(|(at, _)| Some((at, fields_of(&line.message[at + 2..])?)));
        if let Some((at, fields)) = found {
            line.message.truncate(at);
            line.fields = fields;
        }
        let job = line.fields.iter().find(|(name, _)| name == "job").and_then(|(_, value)| value.as_str());
        line.job = line.job.or_else(|| job?.parse().ok());
    }
    line
}

fn fields_of(mut text: &str) -> Option<Vec<(String, Value)>> {
    let mut fields = Vec::new();
    loop {
        let (name, rest) = text.split_once('=')?;
        if name.is_empty() || name.contains(char::is_whitespace) || name.contains('"') {
            return None;
        }
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        let read = values.next().and_then(Result::ok).map(|value| (value, values.byte_offset()));
        // What begins as JSON and does not end as it is a bare word.
        let read = read.filter(|(_, length)| rest[*length..].is_empty() || rest[*length..].starts_with(' '));
        let (value, length) = match read {
            Some(read) => read,
            None => {
                let word = rest.split(' ').next().filter(|word| is_bare(word))?;
                (Value::String(word.to_owned()), word.len())
            }
        };
        fields.push((name.to_owned(), value));
        match rest[length..].strip_prefix(' ') {
            Some(more) => text = more,
            None => return Some(fields),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> LogLine {
        LogLine {
            time_millis: 1_796_047_199_999,
            level: LogLevel::Warn,
            origin: Origin::Log,
            job: Some(JobId(7)),
            worker: Some(WorkerId(3)),
            thread: "slot-1".to_owned(),
            task: Some(LogTask {
                vertex: "0a1b2c3d".to_owned(),
                name: "count (words) -> print".to_owned(),
                subtask: 1,
                parallelism: 4,
                attempt: 2,
            }),
            target: "shop::orders".to_owned(),
            message: "two  spaces: and\nlines\n".to_owned(),
            fields: vec![
                ("job".to_owned(), JobId(7).to_string().into()),
                ("order".to_owned(), 17.into()),
                ("text".to_owned(), "17".into()),
                ("ratio".to_owned(), 0.5.into()),
                ("transport".to_owned(), "quic".into()),
                ("at".to_owned(), "Some(CheckpointId(1))".into()),
                ("cause".to_owned(), "no \"way\"\nx=1".into()),
                ("empty".to_owned(), "".into()),
            ],
        }
    }

    fn read(text: &str) -> Vec<LogLine> {
        let mut parser = Parser::default();
        let mut lines: Vec<_> = text.lines().filter_map(|line| parser.push(line)).collect();
        lines.extend(parser.finish());
        lines
    }

    #[test]
    fn lines_survive_both_forms() {
        let printed = LogLine { worker: Some(WorkerId(0)), ..LogLine::printed(5, Origin::Stdout, "[a] b: c  d=1") };
        let bare = LogLine { job: None, worker: None, thread: String::new(), task: None, fields: Vec::new(), ..line() };
        for line in [line(), printed, bare] {
            for form in [LogForm::Text, LogForm::Json] {
                let text = form.write(&line) + &form.write(&line);
                let mut expected = line.clone();
                if form == LogForm::Json {
                    // Objects are in the order of their names.
                    expected.fields.sort_by(|(a, _), (b, _)| a.cmp(b));
                }
                assert_eq!(read(&text), [expected.clone(), expected], "{text}");
            }
        }
    }

    #[test]
    fn text_is_as_people_read_it() {
        let line = LogLine { message: "late".to_owned(), fields: line().fields[1..5].to_vec(), ..line() };
        assert_eq!(
            LogForm::Text.write(&line),
            "2026-11-30T13:59:59.999Z WARN  worker-3 [slot-1] [0a1b2c3d count (words) -> print (2/4) #2] shop::orders: \
             late  order=17 text=\"17\" ratio=0.5 transport=quic\n"
        );
    }

    #[test]
    fn what_nobody_here_has_written_is_a_line_of_unknown_time() {
        for text in [
            "",
            "garbage",
            "{}",
            "{\"time\":1}",
            "2026-11-30T13:59:59.999Z",
            "2026-11-30T13:59:59.999Z LOUD  a: b",
            "\té",
        ] {
            let lines = read(text);
            assert_eq!(lines.first().map(|line| line.time_millis).unwrap_or_default(), 0, "{text}");
        }
        assert_eq!(read("2026-11-30T13:59:59.999Z INFé")[0].time_millis, 0);
    }
}
