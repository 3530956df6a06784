//! The log of this process: which events are in it, and where it goes.
//!
//! ```text
//!  tracing event ──levels──► LogLine ──► standard error    a program that a person has started
//!                                   ├──► a rolling file    JobManager, TaskManager
//!                                   └──► its TaskManager   a worker: between RECORD_SEPARATOR and the end of a line
//!                                        on standard error, beside what the user's functions print
//! ```
//! | Look here for | module |
//! |---|---|
//! | what becomes of an event | `subscriber` |
//! | files that never outgrow their limit | [`rolling`] |

pub mod rolling;
mod subscriber;

use std::{
    env,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError, RwLock},
    time::{SystemTime, UNIX_EPOCH},
};

use millstream_model::{
    config::{Configuration, LOG_FILE_MAX_SIZE, LOG_FILES_MAX, LOG_FORMAT, LOG_LEVEL, LOG_LEVELS, LogFormat, LogLevel},
    log::{LogForm, LogLevels},
};
use serde::{Deserialize, Serialize};

use self::{
    rolling::{Limits, Pieces, RollingFile},
    subscriber::Lines,
};

/// Names the file that a JobManager or TaskManager logs to; without it, that is standard error. Set by the scripts in
/// `bin/`.
pub(crate) const LOG_FILE_VARIABLE: &str = "MILLSTREAM_LOG_FILE";

/// Before each event that a worker hands to its TaskManager; a JSON object and the end of the line follow, as in RFC 7464.
pub const RECORD_SEPARATOR: u8 = 0x1e;

/// How a worker process logs.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct WorkerLog {
    /// As everywhere, if nothing is said.
    pub levels: LogLevels,
    /// Whether the other end of standard error reads events; else people do.
    pub is_captured: bool,
}

/// The log of this process, once it was started.
struct Log {
    /// As it was started with.
    configured: LogLevels,
    levels: RwLock<LogLevels>,
    form: LogForm,
    out: Out,
}

enum Out {
    StandardError,
    /// Standard error, which a TaskManager reads.
    Captured,
    File {
        path: PathBuf,
        file: Mutex<RollingFile>,
        pieces: Arc<Pieces>,
    },
}

static LOG: OnceLock<Log> = OnceLock::new();

/// Starts logging to standard error. A program that has set up its own is left alone.
pub fn start(configuration: &Configuration) {
    set_up(configured(configuration), form(configuration), Out::StandardError);
}

/// Starts logging for a JobManager or a TaskManager.
pub fn start_daemon(configuration: &Configuration) {
    let form = form(configuration);
    let out = match env::var_os(LOG_FILE_VARIABLE) {
        None => Out::StandardError,
        Some(path) => {
            let path = PathBuf::from(path);
            // Values that are none were refused when the configuration was loaded.
            let limits = Limits {
                bytes_max: configuration.get(&LOG_FILE_MAX_SIZE).map_or(100 << 20, |size| size.bytes()),
                old_pieces_max: configuration.get(&LOG_FILES_MAX).unwrap_or(10),
            };
            let mut file = RollingFile::open(path.clone(), limits, form);
            if let Err(cause) = file.roll() {
                eprintln!("warning: the older log {} cannot be moved out of the way: {cause}", path.display());
            }
            let pieces = file.pieces();
            Out::File { path, file: Mutex::new(file), pieces }
        }
    };
    set_up(configured(configuration), form, out);
}

/// Starts logging for a worker process.
pub(crate) fn start_worker(log: &WorkerLog) {
    let levels = LogLevels::all(LogLevel::Info).with(&log.levels);
    set_up(levels, LogForm::Text, if log.is_captured { Out::Captured } else { Out::StandardError });
}

fn set_up(levels: LogLevels, form: LogForm, out: Out) {
    let log = Log { configured: levels.clone(), levels: RwLock::new(levels), form, out };
    if LOG.set(log).is_ok()
        && let Some(log) = LOG.get()
    {
        // Fails where the program has its own.
        let _ = tracing::subscriber::set_global_default(Lines::new(log));
    }
}

/// What the configuration says about levels.
pub fn configured(configuration: &Configuration) -> LogLevels {
    // Values that are none were refused when the configuration was loaded.
    let all = LogLevels::all(configuration.get(&LOG_LEVEL).unwrap_or(LogLevel::Info));
    all.with(&configuration.get(&LOG_LEVELS).ok().flatten().unwrap_or_default())
}

/// The form of lines in files.
pub fn form(configuration: &Configuration) -> LogForm {
    match configuration.get(&LOG_FORMAT) {
        Ok(LogFormat::Json) => LogForm::Json,
        _ => LogForm::Text,
    }
}

/// The levels of this process.
pub fn levels() -> LogLevels {
    LOG.get().map(|log| log.levels.read().unwrap_or_else(PoisonError::into_inner).clone()).unwrap_or_default()
}

/// From now on these levels are stronger than those that the process was started with, and earlier ones of this kind are
/// forgotten. Returns what that makes.
pub fn set_levels(stronger: &LogLevels) -> LogLevels {
    let Some(log) = LOG.get() else { return LogLevels::default() };
    let levels = log.configured.with(stronger);
    replace_levels(levels.clone());
    levels
}

/// From now on these levels are those of this process, whatever it was started with.
pub(crate) fn replace_levels(levels: LogLevels) {
    let Some(log) = LOG.get() else { return };
    *log.levels.write().unwrap_or_else(PoisonError::into_inner) = levels;
    tracing::callsite::rebuild_interest_cache();
}

/// The file that this process logs to.
pub fn file() -> Option<&'static Path> {
    match &LOG.get()?.out {
        Out::File { path, .. } => Some(path),
        _ => None,
    }
}

/// The pieces of the file that this process logs to.
pub fn pieces() -> Option<Arc<Pieces>> {
    match &LOG.get()?.out {
        Out::File { pieces, .. } => Some(pieces.clone()),
        _ => None,
    }
}

/// Milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "log lines say when")]
pub fn wall_millis() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

fn thread_name() -> String {
    std::thread::current().name().unwrap_or_default().to_owned()
}
