//! What becomes of an event: a line, and that goes where the log goes.
//!
//! Spans are not shown: which task an event is about the thread knows (`millstream_model::log::context`). Whether an event
//! is wanted is asked once for each place in the code, and again when levels change, so that those that are not wanted cost
//! a look at a flag.

use std::{
    io::{self, Write as _},
    sync::{
        PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use millstream_model::{
    config::LogLevel,
    log::{LogForm, LogLine, Origin, context},
};
use serde_json::Value;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span::{Attributes, Id, Record},
};

use super::{Log, Out, RECORD_SEPARATOR, thread_name, wall_millis};

/// Of a message or a field; more is left out.
const TEXT_BYTES_MAX: usize = 16 << 10;

pub(super) struct Lines {
    log: &'static Log,
    spans: AtomicU64,
}

impl Lines {
    pub(super) fn new(log: &'static Log) -> Lines {
        Lines { log, spans: AtomicU64::new(1) }
    }
}

fn level_of(level: Level) -> LogLevel {
    match level {
        Level::ERROR => LogLevel::Error,
        Level::WARN => LogLevel::Warn,
        Level::INFO => LogLevel::Info,
        Level::DEBUG => LogLevel::Debug,
        Level::TRACE => LogLevel::Trace,
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let levels = self.log.levels.read().unwrap_or_else(PoisonError::into_inner);
        level_of(*metadata.level()).verbosity() <= levels.of(metadata.target()).verbosity()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let levels = self.log.levels.read().unwrap_or_else(PoisonError::into_inner);
        Some(match levels.most() {
            LogLevel::Off => LevelFilter::OFF,
            LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Trace => LevelFilter::TRACE,
        })
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(self.spans.fetch_add(1, Ordering::Relaxed))
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let mut line = LogLine {
            level: level_of(*metadata.level()),
            origin: Origin::Log,
            thread: thread_name(),
            task: context::current().map(|task| (*task).clone()),
            target: metadata.target().to_owned(),
            ..LogLine::printed(wall_millis(), Origin::Log, "")
        };
        event.record(&mut Fields(&mut line));
        let job = line.fields.iter().find(|(name, _)| name == "job").and_then(|(_, value)| value.as_str());
        line.job = job.and_then(|job| job.parse().ok());
        match &self.log.out {
            Out::StandardError => to_standard_error(self.log.form.write(&line).as_bytes()),
            Out::Captured => {
                let mut text = vec![RECORD_SEPARATOR];
                text.extend_from_slice(LogForm::Json.write(&line).as_bytes());
                to_standard_error(&text);
            }
            Out::File { file, .. } => {
                let text = self.log.form.write(&line);
                file.lock().unwrap_or_else(PoisonError::into_inner).write(text.as_bytes(), 1);
            }
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn to_standard_error(text: &[u8]) {
    // Nobody can be told that standard error is gone.
    let _ = io::stderr().lock().write_all(text);
}

struct Fields<'a>(&'a mut LogLine);

impl Fields<'_> {
    fn add(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.0.message = text,
            (name, value) => self.0.fields.push((name.to_owned(), value)),
        }
    }
}

fn cut(mut text: String) -> Value {
    if text.len() > TEXT_BYTES_MAX {
        let left_out = text.len() - TEXT_BYTES_MAX;
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        text.push_str(&format!("… ({left_out} bytes more)"));
    }
    Value::String(text)
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.add(field, cut(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, cut(value.to_owned()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no word for those that are no numbers.
        let number = serde_json::Number::from_f64(value);
        self.add(field, number.map_or_else(|| value.to_string().into(), Value::Number));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, RwLock};

    use millstream_model::log::{LogLevels, LogTask, Parser};

    use super::{
        super::rolling::{Limits, RollingFile},
        *,
    };

    #[test]
    fn events_become_lines_that_say_whose_they_are_and_levels_change_what_is_logged() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("log");
        let file = RollingFile::open(path.clone(), Limits { bytes_max: 1 << 20, old_pieces_max: 0 }, LogForm::Text);
        let pieces = file.pieces();
        let levels = LogLevels::all(LogLevel::Info);
        let out = Out::File { path: path.clone(), file: Mutex::new(file), pieces };
        let log = Log { configured: levels.clone(), levels: RwLock::new(levels), form: LogForm::Text, out };
        let log: &'static Log = Box::leak(Box::new(log));
        let task =
            LogTask { vertex: "01234567".to_owned(), name: "count".to_owned(), subtask: 1, parallelism: 2, attempt: 3 };
        let say = || {
            let job = "0".repeat(31) + "7";
            tracing::info!(job, count = 3_u64, cause = %"no way", "a {}", "message");
            tracing::debug!("more");
        };
        tracing::subscriber::with_default(Lines::new(log), || {
            say();
            *log.levels.write().unwrap() = "OFF,millstream=DEBUG".parse().unwrap();
            tracing::callsite::rebuild_interest_cache();
            let _entered = context::enter(&Arc::new(task.clone()));
            say();
            *log.levels.write().unwrap() = "TRACE,millstream=OFF".parse().unwrap();
            tracing::callsite::rebuild_interest_cache();
            say();
        });
        let mut parser = Parser::default();
        let text = std::fs::read_to_string(path).unwrap();
        let mut lines: Vec<LogLine> = text.lines().filter_map(|line| parser.push(line)).collect();
        lines.extend(parser.finish());
        let messages: Vec<_> = lines.iter().map(|line| (line.message.as_str(), line.task.clone())).collect();
        let expected = [("a message", None), ("a message", Some(task.clone())), ("more", Some(task))];
        assert_eq!(messages, expected, "{text}");
        assert_eq!(lines[0].job, Some(millstream_model::id::JobId(7)));
        assert_eq!(lines[0].fields[1..], [("count".to_owned(), 3.into()), ("cause".to_owned(), "no way".into())]);
        assert_eq!(lines[0].target, module_path!());
    }
}
