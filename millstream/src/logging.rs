//! Log lines on standard error: time, level, where, what.

use std::{
    fmt::Write,
    io::{self, Write as _},
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use millstream_model::config::{Configuration, LOG_LEVEL, LogLevel};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

/// Starts logging for this process. A program that has set up its own is left alone.
pub fn start(configuration: &Configuration) {
    let level = match configuration.get(&LOG_LEVEL) {
        Ok(LogLevel::Off) | Err(_) => return,
        Ok(LogLevel::Error) => Level::ERROR,
        Ok(LogLevel::Warn) => Level::WARN,
        Ok(LogLevel::Info) => Level::INFO,
        Ok(LogLevel::Debug) => Level::DEBUG,
        Ok(LogLevel::Trace) => Level::TRACE,
    };
    let _ = tracing::subscriber::set_global_default(Lines { level, spans: AtomicU64::new(1) });
}

/// Writes a line per event; spans are not shown.
struct Lines {
    level: Level,
    spans: AtomicU64,
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(self.level.into())
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(self.spans.fetch_add(1, Ordering::Relaxed))
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line { text: String::new(), fields: String::new() };
        event.record(&mut line);
        let metadata = event.metadata();
        #[expect(clippy::disallowed_methods, reason = "log lines say when")]
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (seconds, millis) = (now.as_secs() % 86_400, now.subsec_millis());
        let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        let Line { text, fields } = line;
        let line = format!(
            "{hours:02}:{minutes:02}:{seconds:02}.{millis:03}Z {:5} {} {text}{fields}\n",
            metadata.level(),
            metadata.target()
        );
        // Nobody can be told that standard error is gone.
        let _ = io::stderr().lock().write_all(line.as_bytes());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Line {
    text: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.text, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
