//! What the JobManager wants to know of logs here. Files are read on threads of their own, a few at once.

use std::sync::Arc;

use millstream::logging;
use millstream_client::proto::v1::{
    self, FromTaskManager, from_task_manager, log_answer::Answer, log_call::Call, read_log_page,
};
use millstream_model::{id::JobId, log::LogFilter};
use tokio::sync::Semaphore;

use super::Outbox;
use crate::logs::{
    reader::{From, Page, read},
    store::JobLogs,
};

const AT_ONCE: usize = 4;

/// Answers calls about logs.
pub(super) struct LogCalls {
    logs: JobLogs,
    outbox: Outbox,
    room: Arc<Semaphore>,
}

impl LogCalls {
    pub(super) fn new(logs: JobLogs, outbox: Outbox) -> LogCalls {
        LogCalls { logs, outbox, room: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Has a call answered, later. The JobManager has one call at a time for each of its clients that reads.
    pub(super) fn answer(&self, call: v1::LogCall) {
        let (logs, outbox, room) = (self.logs.clone(), self.outbox.clone(), self.room.clone());
        tokio::spawn(async move {
            let _permit = room.acquire().await;
            let v1::LogCall { call_id, call } = call;
            let answered = tokio::task::spawn_blocking(move || answer_to(&logs, call)).await;
            let answer = answered.map_err(|cause| cause.to_string()).flatten().unwrap_or_else(Answer::Failure);
            let answer = v1::LogAnswer { call_id, answer: Some(answer) };
            // A JobManager that is gone does not wait for it.
            let _ = outbox.send(FromTaskManager { body: Some(from_task_manager::Body::LogAnswer(answer)) });
        });
    }
}

fn answer_to(logs: &JobLogs, call: Option<Call>) -> Result<Answer, String> {
    match call {
        Some(Call::ReadPage(request)) => page(logs, request).map(Answer::Page),
        Some(Call::ListFiles(_)) => Ok(Answer::Files(logs.files().describe())),
        // Where there is no such file, the answer is those that there are.
        Some(Call::ReadFile(request)) => match logs.files().read(&request) {
            Ok(Some(piece)) => Ok(Answer::Piece(piece)),
            Ok(None) => Ok(Answer::Files(logs.files().describe())),
            Err(cause) => Err(format!("the file cannot be read: {cause}")),
        },
        None => Err("it does not know this call".to_owned()),
    }
}

fn page(logs: &JobLogs, request: v1::ReadLogPage) -> Result<v1::LogPage, String> {
    let v1::ReadLogPage { job_id, filter, from } = request;
    let filter = LogFilter::from(filter.unwrap_or_default());
    let from = match from {
        Some(read_log_page::From::Position(position)) => From::Position(position),
        Some(read_log_page::From::Last(count)) => From::Last(count),
        None => From::Position(0),
    };
    let (pieces, is_open, job) = match job_id.as_str() {
        "" => (logging::pieces(), true, None),
        id => {
            let job: JobId = id.parse().map_err(|cause| format!("{cause}"))?;
            let (pieces, is_open) = logs.pieces(job);
            (Some(pieces), is_open, Some(job))
        }
    };
    let Some(pieces) = pieces else {
        return Err("it logs to its standard error, and no file keeps that".to_owned());
    };
    let Page { lines, next, is_at_end } =
        read(&pieces, &filter, from).map_err(|cause| format!("the log cannot be read: {cause}"))?;
    let lines = lines.into_iter().map(|mut line| {
        line.job = job.or(line.job);
        v1::LogLine::from(line)
    });
    Ok(v1::LogPage { lines: lines.collect(), next_position: next, is_at_end, is_open })
}
