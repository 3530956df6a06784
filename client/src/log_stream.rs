//! Lines of logs, as they come from a JobManager.

use std::collections::VecDeque;

use millstream_model::{
    config::LogLevel,
    id::WorkerId,
    log::{LogFilter, LogLine, LogTask, Origin},
};
use tonic::Streaming;

use crate::{
    client::{Client, ClientError},
    convert::Misunderstood,
    proto::v1,
};

/// Lines that come one after the other.
#[derive(Debug)]
pub struct LogStream {
    answers: Streaming<v1::ReadLogsResponse>,
    ready: VecDeque<v1::LogLine>,
    client: Client,
}

impl Client {
    /// Reads logs.
    ///
    /// # Errors
    /// If there is no such job or TaskManager, or something of the request is malformed.
    pub async fn read_logs(&mut self, request: v1::ReadLogsRequest) -> Result<LogStream, ClientError> {
        let answers = self.logs.read_logs(request).await.map_err(|status| self.error(&status))?.into_inner();
        Ok(LogStream { answers, ready: VecDeque::new(), client: self.clone() })
    }
}

impl Client {
    /// What is logged.
    ///
    /// # Errors
    /// If the connection is lost.
    pub async fn log_levels(&mut self) -> Result<v1::GetLogLevelsResponse, ClientError> {
        let levels = self.logs.get_log_levels(v1::GetLogLevelsRequest {}).await;
        Ok(levels.map_err(|status| self.error(&status))?.into_inner())
    }

    /// Changes what is logged. Returns all that is set at run time then.
    ///
    /// # Errors
    /// If the levels are malformed, or there is no such job.
    pub async fn set_log_levels(&mut self, request: v1::SetLogLevelsRequest) -> Result<String, ClientError> {
        let set = self.logs.set_log_levels(request).await;
        Ok(set.map_err(|status| self.error(&status))?.into_inner().set)
    }
}

impl LogStream {
    /// The next line; `None` if there are no more.
    ///
    /// # Errors
    /// If the connection is lost.
    pub async fn next(&mut self) -> Result<Option<v1::LogLine>, ClientError> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Ok(Some(line));
            }
            match self.answers.message().await.map_err(|status| self.client.error(&status))? {
                Some(answer) => self.ready.extend(answer.lines),
                None => return Ok(None),
            }
        }
    }
}

impl From<LogLevel> for v1::LogLevel {
    fn from(level: LogLevel) -> v1::LogLevel {
        match level {
            LogLevel::Off => v1::LogLevel::Off,
            LogLevel::Error => v1::LogLevel::Error,
            LogLevel::Warn => v1::LogLevel::Warn,
            LogLevel::Info => v1::LogLevel::Info,
            LogLevel::Debug => v1::LogLevel::Debug,
            LogLevel::Trace => v1::LogLevel::Trace,
        }
    }
}

impl v1::LogLevel {
    /// `None` if nothing is said.
    pub fn known(self) -> Option<LogLevel> {
        Some(match self {
            v1::LogLevel::Unspecified => return None,
            v1::LogLevel::Off => LogLevel::Off,
            v1::LogLevel::Error => LogLevel::Error,
            v1::LogLevel::Warn => LogLevel::Warn,
            v1::LogLevel::Info => LogLevel::Info,
            v1::LogLevel::Debug => LogLevel::Debug,
            v1::LogLevel::Trace => LogLevel::Trace,
        })
    }
}

impl From<Origin> for v1::LogOrigin {
    fn from(origin: Origin) -> v1::LogOrigin {
        match origin {
            Origin::Log => v1::LogOrigin::Log,
            Origin::Stdout => v1::LogOrigin::Stdout,
            Origin::Stderr => v1::LogOrigin::Stderr,
        }
    }
}

impl v1::LogOrigin {
    /// `None` if nothing is said.
    pub fn known(self) -> Option<Origin> {
        match self {
            v1::LogOrigin::Unspecified => None,
            v1::LogOrigin::Log => Some(Origin::Log),
            v1::LogOrigin::Stdout => Some(Origin::Stdout),
            v1::LogOrigin::Stderr => Some(Origin::Stderr),
        }
    }
}

impl From<v1::LogFilter> for LogFilter {
    fn from(filter: v1::LogFilter) -> LogFilter {
        let (level, origin) = (filter.level().known(), filter.origin().known());
        let v1::LogFilter { task, subtask, since_millis, .. } = filter;
        LogFilter { job: None, task: Some(task).filter(|task| !task.is_empty()), subtask, level, since_millis, origin }
    }
}

impl From<LogLine> for v1::LogLine {
    fn from(line: LogLine) -> v1::LogLine {
        let LogLine { time_millis, level, origin, job, worker, thread, task, target, message, fields } = line;
        v1::LogLine {
            time_millis,
            level: v1::LogLevel::from(level).into(),
            origin: v1::LogOrigin::from(origin).into(),
            task_manager_id: String::new(),
            job_id: job.map(|job| job.to_string()).unwrap_or_default(),
            worker: worker.map(|worker| worker.0),
            thread,
            task: task.map(|LogTask { vertex, name, subtask, parallelism, attempt }| v1::LogTask {
                vertex_id: vertex,
                name,
                subtask,
                parallelism,
                attempt,
            }),
            target,
            message,
            fields: fields.into_iter().map(|(name, value)| v1::LogField { name, value: value.to_string() }).collect(),
        }
    }
}

impl TryFrom<v1::LogLine> for LogLine {
    type Error = Misunderstood;

    fn try_from(line: v1::LogLine) -> Result<LogLine, Misunderstood> {
        let misunderstood = |what: &str| Misunderstood(format!("a line of a log {what}"));
        let level = line.level().known().ok_or_else(|| misunderstood("without a level"))?;
        let origin = line.origin().known().ok_or_else(|| misunderstood("without an origin"))?;
        let job = match line.job_id.as_str() {
            "" => None,
            id => Some(id.parse().map_err(|_| misunderstood("of a job without an id"))?),
        };
        let fields = line.fields.into_iter().map(|v1::LogField { name, value }| {
            let value = serde_json::from_str(&value).map_err(|_| misunderstood("with a field that is no JSON"))?;
            Ok((name, value))
        });
        Ok(LogLine {
            time_millis: line.time_millis,
            level,
            origin,
            job,
            worker: line.worker.map(WorkerId),
            thread: line.thread,
            task: line.task.map(|v1::LogTask { vertex_id, name, subtask, parallelism, attempt }| LogTask {
                vertex: vertex_id,
                name,
                subtask,
                parallelism,
                attempt,
            }),
            target: line.target,
            message: line.message,
            fields: fields.collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use millstream_model::id::JobId;

    use super::*;

    #[test]
    fn a_line_survives_the_way_there_and_back() {
        for (level, origin) in [
            (LogLevel::Off, Origin::Log),
            (LogLevel::Error, Origin::Stdout),
            (LogLevel::Warn, Origin::Stderr),
            (LogLevel::Info, Origin::Log),
            (LogLevel::Debug, Origin::Log),
            (LogLevel::Trace, Origin::Log),
        ] {
            let line = LogLine {
                level,
                origin,
                job: Some(JobId(7)),
                worker: Some(WorkerId(3)),
                thread: "slot-1".to_owned(),
                task: Some(LogTask {
                    vertex: "01234567".to_owned(),
                    name: "count".to_owned(),
                    subtask: 1,
                    parallelism: 2,
                    attempt: 3,
                }),
                target: "shop".to_owned(),
                fields: vec![("a".to_owned(), 1.into()), ("b".to_owned(), "1".into())],
                ..LogLine::printed(5, origin, "text")
            };
            assert_eq!(LogLine::try_from(v1::LogLine::from(line.clone())), Ok(line));
        }
        assert!(LogLine::try_from(v1::LogLine::default()).is_err());
    }
}
