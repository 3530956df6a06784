//! How a program ended that has executed no job.

use std::{os::unix::process::ExitStatusExt, process::ExitStatus};

use super::LastWords;

/// Why there is no job.
#[derive(Debug, thiserror::Error)]
pub enum NoJob {
    #[error("main() panicked before it called execute(){last_words}")]
    Panicked { last_words: LastWords },
    #[error("main() was ended by {}{last_words}", signal_name(*signal))]
    Killed { signal: i32, last_words: LastWords },
    #[error("main() ended with exit status {code} and without a job{last_words}")]
    Exited { code: i32, last_words: LastWords },
    #[error(
        "main() ended without a job; is it marked with #[millstream::main], and does it call execute() on \
         StreamExecutionEnvironment::get()?{last_words}"
    )]
    Silent { last_words: LastWords },
}

impl NoJob {
    /// Makes of an ended process what it tells.
    pub fn of(status: ExitStatus, last_words: LastWords) -> NoJob {
        match (status.code(), status.signal()) {
            (Some(0), _) => NoJob::Silent { last_words },
            (Some(101), _) => NoJob::Panicked { last_words },
            (Some(code), _) => NoJob::Exited { code, last_words },
            (None, signal) => NoJob::Killed { signal: signal.unwrap_or_default(), last_words },
        }
    }
}

fn signal_name(signal: i32) -> String {
    match signal {
        4 => "an illegal instruction: it was compiled for CPU features that this machine lacks".to_owned(),
        6 => "an abort (signal 6)".to_owned(),
        9 => "signal 9, perhaps for lack of memory".to_owned(),
        11 => "a segmentation fault (signal 11)".to_owned(),
        other => format!("signal {other}"),
    }
}
