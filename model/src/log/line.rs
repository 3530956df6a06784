//! One line of a log.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    config::LogLevel,
    id::{JobId, WorkerId},
};

/// Of a vertex's id in text.
const VERTEX_DIGITS: usize = 8;

/// Something that was logged or printed.
#[derive(Clone, PartialEq, Debug)]
pub struct LogLine {
    /// Since 1970, by the clock of the process that wrote it; of what was printed, by that of the one that has read it.
    pub time_millis: i64,
    /// Of what was printed: `Info` for standard output, and `Warn` for standard error.
    pub level: LogLevel,
    pub origin: Origin,
    pub job: Option<JobId>,
    /// The worker process of the job.
    pub worker: Option<WorkerId>,
    /// The name of the thread; empty if it has none, or is not known.
    pub thread: String,
    pub task: Option<LogTask>,
    /// The module that has logged it; empty if it was printed.
    pub target: String,
    pub message: String,
    pub fields: Vec<(String, Value)>,
}

/// How a line came about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    Log,
    Stdout,
    Stderr,
}

/// The task that a line is about.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogTask {
    /// The id of its vertex in hexadecimal digits, or the first eight of them.
    pub vertex: String,
    pub name: String,
    /// From 0 on.
    pub subtask: u32,
    pub parallelism: u32,
    /// The generation of the deployment.
    pub attempt: u64,
}

impl LogTask {
    /// As files have it: the beginning of the vertex's id, name, which subtask of how many, and attempt. Allocates nothing.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_to(&self, to: &mut impl fmt::Write) -> fmt::Result {
        let LogTask { vertex, name, subtask, parallelism, attempt } = self;
        write!(to, "{} ", vertex.get(..VERTEX_DIGITS).unwrap_or(vertex))?;
        name.chars().try_for_each(|c| to.write_char(if c == ']' || c.is_control() { '.' } else { c }))?;
        write!(to, " ({}/{parallelism}) #{attempt}", u64::from(*subtask) + 1)
    }

    /// Back from [`LogTask::write_to`].
    pub fn parse(text: &str) -> Option<LogTask> {
        let (rest, attempt) = text.rsplit_once(") #")?;
        let (rest, place) = rest.rsplit_once(" (")?;
        let (subtask, parallelism) = place.split_once('/')?;
        let (vertex, name) = rest.split_once(' ')?;
        Some(LogTask {
            vertex: vertex.to_owned(),
            name: name.to_owned(),
            subtask: subtask.parse::<u32>().ok()?.checked_sub(1)?,
            parallelism: parallelism.parse().ok()?,
            attempt: attempt.parse().ok()?,
        })
    }
}

impl LogLine {
    /// A line that a worker process has printed.
    pub fn printed(time_millis: i64, origin: Origin, text: &str) -> LogLine {
        LogLine {
            time_millis,
            level: if origin == Origin::Stderr { LogLevel::Warn } else { LogLevel::Info },
            origin,
            job: None,
            worker: None,
            thread: String::new(),
            task: None,
            target: String::new(),
            message: text.to_owned(),
            fields: Vec::new(),
        }
    }
}
