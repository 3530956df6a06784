//! What clients may ask about logs: lines of all processes that have some, in the order of their times.
//!
//! ```text
//!   TaskManager ──pages──┐
//!   TaskManager ──pages──┼──► merged by time ──► client
//!   own file ────pages───┘
//! ```
//! A page is asked for when the one before is used up, so a slow client costs a page for each process and no more. Who
//! follows asks again and again: files have no way to say that there is more.

use std::{
    collections::{BTreeMap, VecDeque},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use millstream::logging;
use millstream_client::proto::v1::{
    self, log_answer::Answer, log_call::Call, logs_server, read_log_page, read_logs_request::Of,
};
use millstream_model::{
    id::{JobId, TaskManagerId},
    log::{LogFilter, LogLevels},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::spawn_blocking,
    time::{Instant, sleep},
};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

use super::cluster::Cluster;
use crate::logs::reader::{From, Page, read};

/// Clients that read at once.
const READERS_MAX: usize = 64;
/// That can be asked for by their number, since they are held here until all are known.
const LAST_MAX: u32 = 100_000;
/// Lines of an answer.
const BATCH: usize = 500;
/// Between two looks of who follows.
const FOLLOW_PAUSE: Duration = Duration::from_millis(200);
/// How long lines of a job are waited for that has ended.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// The service.
pub(super) struct Logs {
    cluster: Cluster,
    room: Arc<Semaphore>,
}

impl Logs {
    pub(super) fn new(cluster: Cluster) -> Logs {
        Logs { cluster, room: Arc::new(Semaphore::new(READERS_MAX)) }
    }
}

#[tonic::async_trait]
impl logs_server::Logs for Logs {
    type ReadLogsStream = Pin<Box<dyn Stream<Item = Result<v1::ReadLogsResponse, Status>> + Send>>;

    async fn read_logs(&self, request: Request<v1::ReadLogsRequest>) -> Result<Response<Self::ReadLogsStream>, Status> {
        let v1::ReadLogsRequest { of, filter, last, follow } = request.into_inner();
        let filter = filter.unwrap_or_default();
        let malformed =
            |what: &str, cause: &dyn std::fmt::Display| Status::invalid_argument(format!("{what}: {cause}"));
        let of = match of {
            Some(Of::JobId(id)) => Whose::Job(parse_job(&id)?),
            Some(Of::TaskManagerId(id)) => {
                Whose::TaskManager(id.parse().map_err(|cause| malformed("task_manager_id", &cause))?)
            }
            Some(Of::JobManager(_)) => Whose::JobManager,
            None => {
                return Err(Status::invalid_argument(
                    "whose log is wanted: of a job, a TaskManager, or the JobManager?",
                ));
            }
        };
        if last.is_some_and(|last| last > LAST_MAX) {
            return Err(Status::invalid_argument(format!(
                "{LAST_MAX} lines are the most that can be asked for by number"
            )));
        }
        let permit = self.room.clone().try_acquire_owned();
        let permit =
            permit.map_err(|_| Status::resource_exhausted(format!("{READERS_MAX} clients read logs already")))?;
        let mut reading = Reading::new(self.cluster.clone(), of, filter, last);
        // What is wrong is said before anything else is.
        reading.find_processes().await?;
        let (answers, stream) = mpsc::channel(1);
        tokio::spawn(reading.run(answers, follow, permit));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn get_log_levels(
        &self,
        _request: Request<v1::GetLogLevelsRequest>,
    ) -> Result<Response<v1::GetLogLevelsResponse>, Status> {
        let set = self.cluster.log_levels();
        let jobs = set.jobs().into_iter();
        Ok(Response::new(v1::GetLogLevelsResponse {
            levels: logging::levels().to_string(),
            set: set.all().to_string(),
            jobs: jobs.map(|(job, set)| v1::JobLogLevels { job_id: job.to_string(), set: set.to_string() }).collect(),
        }))
    }

    async fn set_log_levels(
        &self,
        request: Request<v1::SetLogLevelsRequest>,
    ) -> Result<Response<v1::SetLogLevelsResponse>, Status> {
        let v1::SetLogLevelsRequest { job_id, levels, reset } = request.into_inner();
        let levels: LogLevels = levels.parse().map_err(|cause| Status::invalid_argument(format!("levels: {cause}")))?;
        let job = if job_id.is_empty() { None } else { Some(parse_job(&job_id)?) };
        if let Some(job) = job
            && self.cluster.with_job(job, |job| job.has_ended()) != Some(false)
        {
            return Err(Status::not_found(format!("there is no job {job} that runs")));
        }
        let cluster = self.cluster.clone();
        let set = spawn_blocking(move || cluster.set_log_levels(job, &levels, reset).to_string()).await;
        let set = set.map_err(|cause| Status::internal(format!("the call has failed: {cause}")))?;
        Ok(Response::new(v1::SetLogLevelsResponse { set }))
    }
}

fn parse_job(job_id: &str) -> Result<JobId, Status> {
    job_id.parse().map_err(|cause| Status::invalid_argument(format!("job_id: {cause}")))
}

/// Whose log.
#[derive(Clone, Copy)]
enum Whose {
    Job(JobId),
    TaskManager(TaskManagerId),
    JobManager,
}

/// A client that reads.
struct Reading {
    cluster: Cluster,
    of: Whose,
    filter: v1::LogFilter,
    last: Option<u32>,
    /// By their addresses, which outlive a lost connection.
    processes: BTreeMap<String, Process>,
    /// Of the job.
    ended: Option<watch::Receiver<bool>>,
}

/// A process that may have lines.
struct Process {
    /// `None` for this one.
    id: Option<TaskManagerId>,
    from: read_log_page::From,
    ready: VecDeque<v1::LogLine>,
    is_at_end: bool,
    is_open: bool,
    has_failed: bool,
}

type Answers = mpsc::Sender<Result<v1::ReadLogsResponse, Status>>;

/// The client is gone, or was told that it gets no more.
struct Over;

impl Reading {
    fn new(cluster: Cluster, of: Whose, filter: v1::LogFilter, last: Option<u32>) -> Reading {
        Reading { cluster, of, filter, last, processes: BTreeMap::new(), ended: None }
    }

    /// Takes in processes that are new, at the first call with their first pages.
    async fn find_processes(&mut self) -> Result<(), Status> {
        let is_first = self.processes.is_empty();
        let own = match self.of {
            Whose::JobManager | Whose::Job(_) => Some((String::new(), None)),
            Whose::TaskManager(_) => None,
        };
        let all =
            self.cluster.task_managers().into_iter().filter_map(|one| Some((one.address, Some(one.id.parse().ok()?))));
        let of = self.of;
        let wanted = all.filter(|(_, id): &(_, Option<TaskManagerId>)| match of {
            Whose::JobManager => false,
            Whose::TaskManager(wanted) => *id == Some(wanted),
            Whose::Job(_) => true,
        });
        for (address, id) in own.into_iter().chain(wanted) {
            // Whoever was not there at the beginning has nothing that was left out then.
            let from = match self.last.filter(|_| is_first) {
                Some(last) => read_log_page::From::Last(last),
                None => read_log_page::From::Position(0),
            };
            let new = Process { id, from, ready: VecDeque::new(), is_at_end: false, is_open: true, has_failed: false };
            let process = self.processes.entry(address).or_insert(new);
            if process.id != id {
                // It has come back.
                (process.id, process.has_failed) = (id, false);
            }
        }
        if !is_first {
            return Ok(());
        }
        if let Whose::Job(job) = self.of {
            self.ended = self.cluster.with_job(job, |job| job.ended.subscribe());
        }
        match self.of {
            Whose::TaskManager(id) if self.processes.is_empty() => {
                return Err(Status::not_found(format!("there is no TaskManager {id}")));
            }
            _ => {}
        }
        self.fetch().await?;
        let has_lines = self.processes.values().any(|process| !process.ready.is_empty() || !process.is_at_end);
        match self.of {
            // Of one that an earlier JobManager had, TaskManagers may have lines.
            Whose::Job(job) if self.ended.is_none() && !has_lines => {
                Err(Status::not_found(format!("there is no job {job}")))
            }
            _ => Ok(()),
        }
    }

    /// Gets the next page of each process of which nothing is at hand.
    async fn fetch(&mut self) -> Result<(), Status> {
        let (of, only_one) = (self.of, self.processes.len() == 1);
        for (address, process) in &mut self.processes {
            if !process.ready.is_empty() || process.is_at_end || process.has_failed {
                continue;
            }
            if let Err(why) = process.fetch(&self.cluster, of, &self.filter).await {
                if only_one {
                    return Err(Status::failed_precondition(why));
                }
                tracing::debug!(address, why, "lines of a process are missing");
                process.has_failed = true;
            }
        }
        Ok(())
    }

    async fn run(mut self, answers: Answers, follow: bool, _permit: OwnedSemaphorePermit) {
        if let Err(status) = self.send_all(&answers, follow).await {
            let _ = answers.send(Err(status)).await;
        }
    }

    async fn send_all(&mut self, answers: &Answers, follow: bool) -> Result<(), Status> {
        if self.send_what_is_there(answers).await?.is_err() || !follow {
            return Ok(());
        }
        let mut ended_at: Option<Instant> = None;
        loop {
            let has_ended = self.has_ended();
            if has_ended && ended_at.is_none() {
                ended_at = Some(now());
            }
            let is_patient = ended_at.is_none_or(|at| now() - at < END_PATIENCE);
            let is_open =
                self.processes.values().any(|process| process.is_open && !process.has_failed && process.id.is_some());
            for process in self.processes.values_mut() {
                process.is_at_end = false;
            }
            self.find_processes().await?;
            if self.send_what_is_there(answers).await?.is_err() {
                return Ok(());
            }
            // What was asked for after the end, and when no worker wrote any more, is all that there will be.
            if has_ended && (!is_open || !is_patient) {
                return Ok(());
            }
            sleep(FOLLOW_PAUSE).await;
        }
    }

    /// Whether no more is to come: of processes it always is.
    fn has_ended(&self) -> bool {
        match self.of {
            Whose::Job(_) => self.ended.as_ref().is_none_or(|ended| *ended.borrow()),
            Whose::TaskManager(_) | Whose::JobManager => false,
        }
    }

    /// Sends the lines up to the ends of all files, the earliest first.
    async fn send_what_is_there(&mut self, answers: &Answers) -> Result<Result<(), Over>, Status> {
        let mut batch = VecDeque::new();
        let last = self.last.take().map(|last| last as usize);
        loop {
            self.fetch().await?;
            let earliest = self.processes.values_mut().filter(|process| !process.ready.is_empty());
            let earliest = earliest.min_by_key(|process| process.ready.front().map(|line| line.time_millis));
            let line = earliest.and_then(|process| process.ready.pop_front());
            let is_end = line.is_none();
            // With nothing at hand a process may still have more: then its page had nothing that was wanted.
            if is_end && self.processes.values().any(|process| !process.is_at_end && !process.has_failed) {
                continue;
            }
            batch.extend(line);
            match last {
                Some(last) if batch.len() > last => drop(batch.pop_front()),
                _ => {}
            }
            if is_end || last.is_none() && batch.len() >= BATCH {
                while !batch.is_empty() {
                    let lines = batch.drain(..batch.len().min(BATCH)).collect();
                    if answers.send(Ok(v1::ReadLogsResponse { lines })).await.is_err() {
                        return Ok(Err(Over));
                    }
                }
            }
            if is_end {
                return Ok(if answers.is_closed() { Err(Over) } else { Ok(()) });
            }
        }
    }
}

impl Process {
    async fn fetch(&mut self, cluster: &Cluster, of: Whose, filter: &v1::LogFilter) -> Result<(), String> {
        let page = match self.id {
            Some(id) => {
                let job_id = match of {
                    Whose::Job(job) => job.to_string(),
                    _ => String::new(),
                };
                let call = v1::ReadLogPage { job_id, filter: Some(filter.clone()), from: Some(self.from) };
                match cluster.ask_about_logs(id, Call::ReadPage(call)).await? {
                    Answer::Page(page) => page,
                    _ => return Err("it answers something else".to_owned()),
                }
            }
            None => own_page(of, filter.clone(), self.from).await?,
        };
        let id = self.id.map(|id| id.to_string()).unwrap_or_default();
        let mut lines = page.lines;
        let mut time_millis = 0;
        for line in &mut lines {
            // What has no time of its own stays where it is.
            time_millis = if line.time_millis == 0 { time_millis } else { line.time_millis };
            line.time_millis = time_millis;
            line.task_manager_id.clone_from(&id);
        }
        // What a worker has printed is read a moment after what it has logged meanwhile, or before.
        lines.sort_by_key(|line| line.time_millis);
        self.ready = lines.into();
        self.from = read_log_page::From::Position(page.next_position);
        (self.is_at_end, self.is_open) = (page.is_at_end, page.is_open);
        Ok(())
    }
}

/// Of this process; about a job, what says so.
async fn own_page(of: Whose, filter: v1::LogFilter, from: read_log_page::From) -> Result<v1::LogPage, String> {
    let mut filter = LogFilter::from(filter);
    if let Whose::Job(job) = of {
        filter.job = Some(job);
    }
    let from = match from {
        read_log_page::From::Position(position) => From::Position(position),
        read_log_page::From::Last(last) => From::Last(last),
    };
    let Some(pieces) = logging::pieces() else {
        return match of {
            Whose::Job(_) => Ok(v1::LogPage { is_at_end: true, ..v1::LogPage::default() }),
            _ => Err("the JobManager logs to its standard error, and no file keeps that".to_owned()),
        };
    };
    let read = spawn_blocking(move || read(&pieces, &filter, from)).await.map_err(|cause| cause.to_string())?;
    let Page { lines, next, is_at_end } = read.map_err(|cause| format!("the log cannot be read: {cause}"))?;
    let lines = lines.into_iter().map(v1::LogLine::from).collect();
    Ok(v1::LogPage { lines, next_position: next, is_at_end, is_open: true })
}

fn now() -> Instant {
    Instant::now()
}
