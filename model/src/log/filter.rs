//! Which lines somebody wants to see.

use crate::{config::LogLevel, id::JobId};

use super::{LogLine, Origin};

/// What must be true of a line; nothing is asked where there is `None`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LogFilter {
    pub job: Option<JobId>,
    /// The name of a vertex, a part of the name, or at least eight digits of its id. Case does not matter.
    pub task: Option<String>,
    pub subtask: Option<u32>,
    /// At least so important.
    pub level: Option<LogLevel>,
    /// Not earlier, in milliseconds since 1970.
    pub since_millis: Option<i64>,
    pub origin: Option<Origin>,
}

impl LogFilter {
    /// Whether a line is wanted.
    pub fn admits(&self, line: &LogLine) -> bool {
        let of_task = |wanted: &str| line.task.as_ref().is_some_and(|task| is_of(wanted, &task.name, &task.vertex));
        self.job.is_none_or(|job| line.job == Some(job))
            && self.task.as_deref().is_none_or(of_task)
            && self.subtask.is_none_or(|index| line.task.as_ref().is_some_and(|task| task.subtask == index))
            && self.level.is_none_or(|level| line.level.verbosity() <= level.verbosity())
            && self.since_millis.is_none_or(|since| line.time_millis >= since)
            && self.origin.is_none_or(|origin| line.origin == origin)
    }
}

/// Of the two forms of a vertex's id, one may be the beginning of the other.
fn is_of(wanted: &str, name: &str, vertex: &str) -> bool {
    const DIGITS_MIN: usize = 8;
    let wanted = wanted.to_lowercase();
    let is_id = wanted.len() >= DIGITS_MIN && wanted.bytes().all(|byte| byte.is_ascii_hexdigit());
    name.to_lowercase().contains(&wanted) || is_id && (wanted.starts_with(vertex) || vertex.starts_with(&wanted))
}

#[cfg(test)]
mod tests {
    use super::{super::LogTask, *};

    #[test]
    fn a_line_is_wanted_if_all_is_true_of_it() {
        let mut line = LogLine::printed(100, Origin::Stderr, "text");
        line.job = Some(JobId(1));
        let vertex = "0123abcd".to_owned();
        line.task = Some(LogTask { vertex, name: "Count -> Print".to_owned(), subtask: 2, parallelism: 4, attempt: 0 });
        let all = LogFilter {
            job: Some(JobId(1)),
            task: Some("count".to_owned()),
            subtask: Some(2),
            level: Some(LogLevel::Warn),
            since_millis: Some(100),
            origin: Some(Origin::Stderr),
        };
        assert!(all.admits(&line) && LogFilter::default().admits(&line));
        let id = |digits: &str| LogFilter { task: Some(digits.to_owned()), ..LogFilter::default() };
        assert!(id("0123ABCD00000000").admits(&line) && id("0123abcd").admits(&line) && !id("0123abce").admits(&line));
        let others: [LogFilter; 6] = [
            LogFilter { job: Some(JobId(2)), ..all.clone() },
            LogFilter { task: Some("map".to_owned()), ..all.clone() },
            LogFilter { subtask: Some(1), ..all.clone() },
            LogFilter { level: Some(LogLevel::Error), ..all.clone() },
            LogFilter { since_millis: Some(101), ..all.clone() },
            LogFilter { origin: Some(Origin::Stdout), ..all },
        ];
        for other in others {
            assert!(!other.admits(&line), "{other:?}");
        }
    }
}
