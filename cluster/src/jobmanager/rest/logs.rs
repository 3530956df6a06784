//! The files of the JobManager and of TaskManagers, as plain text.
//!
//! What the workers of a TaskManager print is in its jobs' logs here; Flink's `stdout` has it as well, so it follows there.

use std::sync::Arc;

use axum::{
    body::{Body, Bytes},
    extract::{Path, State},
    http::{HeaderValue, header},
    response::Response,
};
use millstream_client::proto::v1::{self, log_answer::Answer as LogAnswer, log_call::Call, read_log_file::Which};
use millstream_model::id::{JobId, TaskManagerId};
use serde_json::json;
use tokio::{sync::mpsc, task::spawn_blocking};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    Rest,
    answer::{Answer, RestError, ok},
};
use crate::{jobmanager::cluster::Cluster, logs::files::Files};

type Chunks = mpsc::Sender<Result<Bytes, String>>;

/// A process with files.
#[derive(Clone)]
struct Process {
    cluster: Cluster,
    /// `None` for this one.
    task_manager: Option<TaskManagerId>,
}

impl Process {
    async fn ask(&self, call: Call) -> Result<LogAnswer, String> {
        if let Some(id) = self.task_manager {
            return self.cluster.ask_about_logs(id, call).await;
        }
        let answered = spawn_blocking(move || {
            let Some(files) = Files::own() else { return Ok(LogAnswer::Files(v1::LogFiles::default())) };
            match call {
                Call::ReadFile(request) => match files.read(&request).map_err(|cause| cause.to_string())? {
                    Some(piece) => Ok(LogAnswer::Piece(piece)),
                    None => Ok(LogAnswer::Files(files.describe())),
                },
                _ => Ok(LogAnswer::Files(files.describe())),
            }
        });
        answered.await.map_err(|cause| cause.to_string()).flatten()
    }

    async fn files(&self) -> Result<Vec<v1::LogFile>, String> {
        match self.ask(Call::ListFiles(v1::ListLogFiles {})).await? {
            LogAnswer::Files(v1::LogFiles { files }) => Ok(files),
            _ => Err("it answers something else".to_owned()),
        }
    }

    /// `None` if there is no such file.
    async fn piece(&self, which: Which, offset: u64) -> Result<Option<v1::LogFilePiece>, String> {
        match self.ask(Call::ReadFile(v1::ReadLogFile { which: Some(which), offset })).await? {
            LogAnswer::Piece(piece) => Ok(Some(piece)),
            LogAnswer::Files(_) => Ok(None),
            LogAnswer::Page(_) | LogAnswer::Failure(_) => Err("it answers something else".to_owned()),
        }
    }

    async fn list(&self) -> Answer {
        let files = self.files().await.map_err(unavailable)?;
        let files = files.into_iter().map(|v1::LogFile { name, bytes, modified_millis }| {
            json!({ "name": name, "size": bytes, "mtime": modified_millis })
        });
        ok(&json!({ "logs": files.collect::<Vec<_>>() }))
    }

    /// A file as it is now; what is written to it meanwhile is left out.
    async fn file(self, which: Which, with_jobs: bool) -> Answer {
        let Some(first) = self.piece(which.clone(), 0).await.map_err(unavailable)? else {
            return match self.task_manager {
                // The words are Flink's.
                None => Err(RestError::not_found("This file does not exist in JobManager log dir.")),
                Some(id) if !with_jobs => {
                    Err(RestError::not_found(format!("Failed to transfer file from TaskExecutor {id}.")))
                }
                Some(_) => Ok(plain_text(self, which, v1::LogFilePiece::default(), true)),
            };
        };
        Ok(plain_text(self, which, first, with_jobs))
    }

    async fn send(
        &self,
        which: Which,
        first: v1::LogFilePiece,
        with_jobs: bool,
        chunks: &Chunks,
    ) -> Result<(), String> {
        let (mut offset, bytes) = (0, first.file_bytes);
        let mut piece = Some(first);
        while let Some(v1::LogFilePiece { bytes: mut text, .. }) = piece.take().filter(|piece| !piece.bytes.is_empty())
        {
            text.truncate(usize::try_from(bytes - offset).unwrap_or(usize::MAX));
            offset += text.len() as u64;
            let Ok(()) = chunks.send(Ok(text.into())).await else { return Ok(()) };
            if offset < bytes {
                piece = self.piece(which.clone(), offset).await?;
            }
        }
        if !with_jobs {
            return Ok(());
        }
        let mut jobs: Vec<JobId> = self.files().await?.iter().filter_map(|file| job_of(&file.name)).collect();
        jobs.dedup();
        for job in jobs {
            self.send_printed(job, chunks).await?;
        }
        Ok(())
    }

    /// What workers of a job have printed to standard output.
    async fn send_printed(&self, job: JobId, chunks: &Chunks) -> Result<(), String> {
        let Some(id) = self.task_manager else { return Ok(()) };
        let filter = v1::LogFilter { origin: v1::LogOrigin::Stdout.into(), ..v1::LogFilter::default() };
        let mut position = 0;
        loop {
            let from = Some(v1::read_log_page::From::Position(position));
            let call = v1::ReadLogPage { job_id: job.to_string(), filter: Some(filter.clone()), from };
            let LogAnswer::Page(page) = self.cluster.ask_about_logs(id, Call::ReadPage(call)).await? else {
                return Err("it answers something else".to_owned());
            };
            let text: String = page.lines.into_iter().map(|line| line.message + "\n").collect();
            if !text.is_empty() && chunks.send(Ok(text.into())).await.is_err() || page.is_at_end {
                return Ok(());
            }
            position = page.next_position;
        }
    }
}

/// A file's name ends with the id of its job.
fn job_of(name: &str) -> Option<JobId> {
    name.split(".log").next()?.rsplit('-').next()?.parse().ok()
}

fn plain_text(process: Process, which: Which, first: v1::LogFilePiece, with_jobs: bool) -> Response {
    let (chunks, stream) = mpsc::channel(1);
    tokio::spawn(async move {
        if let Err(why) = process.send(which, first, with_jobs, &chunks).await {
            // It ends the connection: half a file is not taken for a whole one.
            let _ = chunks.send(Err(why)).await;
        }
    });
    let mut response = Response::new(Body::from_stream(ReceiverStream::new(stream)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=UTF-8"));
    response
}

fn unavailable(why: String) -> RestError {
    RestError::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR, format!("Could not find any file: {why}"))
}

fn own(rest: &Rest) -> Process {
    Process { cluster: rest.cluster.clone(), task_manager: None }
}

/// One of the TaskManagers that are there; `unknown` are Flink's words.
fn task_manager(rest: &Rest, id: &str, unknown: impl FnOnce(String) -> String) -> Result<Process, RestError> {
    let known =
        rest.cluster.task_managers().into_iter().find(|known| known.id == id).and_then(|known| known.id.parse().ok());
    match known {
        Some(known) => Ok(Process { cluster: rest.cluster.clone(), task_manager: Some(known) }),
        None => Err(RestError::not_found(unknown(id.escape_debug().to_string()))),
    }
}

fn to_transfer(id: String) -> String {
    format!("Failed to transfer file from TaskExecutor {id} because it was unknown.")
}

/// `GET /jobmanager/logs`
pub(super) async fn of_jobmanager(State(rest): State<Arc<Rest>>) -> Answer {
    own(&rest).list().await
}

/// `GET /jobmanager/log`
pub(super) async fn jobmanager_log(State(rest): State<Arc<Rest>>) -> Answer {
    own(&rest).file(Which::Log(true), false).await
}

/// `GET /jobmanager/stdout`
pub(super) async fn jobmanager_stdout(State(rest): State<Arc<Rest>>) -> Answer {
    own(&rest).file(Which::Stdout(true), false).await
}

/// `GET /jobmanager/logs/:filename`
pub(super) async fn jobmanager_file(State(rest): State<Arc<Rest>>, Path(name): Path<String>) -> Answer {
    own(&rest).file(Which::Name(name), false).await
}

/// `GET /taskmanagers/:taskmanagerid/logs`
pub(super) async fn of_task_manager(State(rest): State<Arc<Rest>>, Path(id): Path<String>) -> Answer {
    task_manager(&rest, &id, |id| format!("Could not find TaskExecutor {id}."))?.list().await
}

/// `GET /taskmanagers/:taskmanagerid/log`
pub(super) async fn task_manager_log(State(rest): State<Arc<Rest>>, Path(id): Path<String>) -> Answer {
    task_manager(&rest, &id, to_transfer)?.file(Which::Log(true), false).await
}

/// `GET /taskmanagers/:taskmanagerid/stdout`
pub(super) async fn task_manager_stdout(State(rest): State<Arc<Rest>>, Path(id): Path<String>) -> Answer {
    task_manager(&rest, &id, to_transfer)?.file(Which::Stdout(true), true).await
}

/// `GET /taskmanagers/:taskmanagerid/logs/:filename`
pub(super) async fn task_manager_file(
    State(rest): State<Arc<Rest>>,
    Path((id, name)): Path<(String, String)>,
) -> Answer {
    task_manager(&rest, &id, to_transfer)?.file(Which::Name(name), false).await
}
