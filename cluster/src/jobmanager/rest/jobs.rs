//! Jobs.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Path, RawQuery, State},
    http::StatusCode,
};
use millstream_controlplane::{ExecutionSnapshot, JobHandle, TaskCounts};
use millstream_model::{config::CHECKPOINT_RETENTION, id::JobId, state::JobStatus};
use serde_json::{Map, Value, json};

use super::{
    Rest,
    answer::{Answer, RestError, accepted, ok},
    plan::Plan,
    query::Query,
    vertices,
};
use crate::jobmanager::{cluster::wall_millis, ended::EndedJob, job::Job};

/// How long a JobMaster may take to say how its tasks are.
const PATIENCE: Duration = Duration::from_secs(5);
/// A time that has not come.
const NO_VALUE: i64 = -1;

/// What is known of a job without asking its JobMaster.
struct Known {
    id: JobId,
    name: String,
    status: JobStatus,
    start: i64,
    /// -1 while it runs.
    end: i64,
    changed: i64,
    counts: TaskCounts,
    /// `None` if it has ended with an earlier JobManager; then nothing is known of its vertices either.
    handle: Option<JobHandle>,
    plan: Arc<Plan>,
}

impl Known {
    fn of(job: &Job) -> Known {
        let (status, metrics) = (job.handle.status(), job.handle.metrics());
        let changed = metrics.last_modification.unix_millis() as i64;
        let end = match job.end_time_millis {
            // It has just ended, or never began.
            0 if status.is_terminal() => changed.max(job.start_time_millis),
            0 => NO_VALUE,
            end => end,
        };
        Known {
            id: job.handle.job(),
            name: job.name.clone(),
            status,
            start: job.start_time_millis,
            end,
            changed: changed.max(job.start_time_millis),
            counts: metrics.tasks_by_state,
            handle: Some(job.handle.clone()),
            plan: job.plan.clone(),
        }
    }

    fn earlier(id: JobId, ended: &EndedJob) -> Option<Known> {
        let EndedJob { job, .. } = ended;
        Some(Known {
            id,
            name: job.name.clone(),
            status: ended.status()?,
            start: job.start_time_millis,
            end: job.end_time_millis,
            changed: job.end_time_millis,
            counts: TaskCounts::default(),
            handle: None,
            plan: Arc::default(),
        })
    }

    /// Those of this JobManager and of those before it, oldest first.
    fn all(rest: &Rest) -> Vec<Known> {
        let mut all: Vec<Known> = rest.cluster.each_earlier(Known::earlier).into_iter().flatten().collect();
        all.extend(rest.cluster.each_job(Known::of));
        all.sort_by_key(|job| job.start);
        all
    }

    fn duration(&self, now: i64) -> i64 {
        let until = if self.end == NO_VALUE { now } else { self.end };
        (until - self.start).max(0)
    }
}

/// The id in a path. The words are Flink's.
fn job_id(text: &str) -> Result<JobId, RestError> {
    text.parse().map_err(|_| {
        RestError::bad_request(format!(
            "Bad request, could not parse parameters: Cannot resolve path parameter (jobid) from value \"{}\".",
            text.escape_debug()
        ))
    })
}

fn known(rest: &Rest, text: &str) -> Result<Known, RestError> {
    let id = job_id(text)?;
    let known = rest.cluster.with_job(id, Known::of);
    let known = known.or_else(|| Known::earlier(id, &rest.cluster.earlier(id)?));
    known.ok_or_else(|| RestError::not_found(format!("Job {id} not found")))
}

/// Asks a JobMaster for all tasks. It answers on its thread, so this waits on another one than those of requests.
pub(super) async fn snapshot(handle: JobHandle) -> Result<Option<ExecutionSnapshot>, RestError> {
    let asked = tokio::task::spawn_blocking(move || handle.execution(PATIENCE)).await;
    let asked = asked.map_err(|cause| RestError::new(StatusCode::INTERNAL_SERVER_ERROR, cause.to_string()))?;
    // Clients of Flink ask again.
    asked.map_err(|busy| RestError::new(StatusCode::SERVICE_UNAVAILABLE, busy.to_string()))
}

/// `GET /jobs`
pub(super) async fn all(State(rest): State<Arc<Rest>>) -> Answer {
    let jobs = Known::all(&rest).into_iter().map(|job| json!({ "id": job.id.to_string(), "status": job.status }));
    ok(&json!({ "jobs": jobs.collect::<Vec<_>>() }))
}

/// `GET /jobs/overview`
pub(super) async fn overview(State(rest): State<Arc<Rest>>) -> Answer {
    let now = wall_millis();
    let jobs = Known::all(&rest).into_iter().map(|job| {
        json!({
            "jid": job.id.to_string(),
            "name": job.name,
            "jobType": "STREAMING",
            "schedulerType": "Default",
            "start-time": job.start,
            "end-time": job.end,
            "duration": job.duration(now),
            "state": job.status,
            "last-modification": job.changed,
            "tasks": vertices::by_state_with_total(&job.counts),
            "pending-operators": 0,
        })
    });
    ok(&json!({ "jobs": jobs.collect::<Vec<_>>() }))
}

/// `GET /jobs/:jobid`
pub(super) async fn details(State(rest): State<Arc<Rest>>, Path(id): Path<String>) -> Answer {
    let job = known(&rest, &id)?;
    let snapshot = match job.handle.clone() {
        Some(handle) => snapshot(handle).await?,
        None => None,
    };
    let now = wall_millis();
    let vertices = vertices::all(&job.plan, snapshot.as_ref(), now);
    let mut counts = TaskCounts::default();
    vertices.iter().for_each(|vertex| counts.add(vertex.state));
    let id = job.id.to_string();
    ok(&json!({
        "jid": id,
        // Since Flink 2.3 each job is one of an application; of a job that was submitted alone it has the job's id.
        "application-id": id,
        "name": job.name,
        "isStoppable": false,
        "state": job.status,
        "job-type": "STREAMING",
        "schedulerType": "Default",
        "start-time": job.start,
        "end-time": job.end,
        "duration": job.duration(now),
        "maxParallelism": job.plan.vertices.iter().map(|vertex| vertex.max_parallelism).max().unwrap_or_default(),
        "now": now,
        "timestamps": timestamps(&job, snapshot.as_ref()),
        "vertices": vertices.iter().map(vertices::Vertex::to_json).collect::<Vec<_>>(),
        "status-counts": vertices::by_state(&counts),
        "plan": job.plan.to_json(&id, &job.name),
        "pending-operators": 0,
    }))
}

fn name(status: JobStatus) -> String {
    match json!(status) {
        Value::String(name) => name,
        other => unreachable!("states are written as texts: {other}"),
    }
}

/// When the job last entered each state; 0 for those in which it never was.
fn timestamps(job: &Known, snapshot: Option<&ExecutionSnapshot>) -> Value {
    let mut times: Map<String, Value> = JobStatus::ALL.iter().map(|status| (name(*status), 0.into())).collect();
    // Flink's words for jobs whose JobMaster leads no more, or finds its tasks again. None is ever seen in them here.
    times.extend(["SUSPENDED", "RECONCILING"].map(|name| (name.to_owned(), 0.into())));
    match snapshot {
        Some(snapshot) => {
            let entered = snapshot.history.iter().map(|(status, at)| (name(*status), at.unix_millis().into()));
            times.extend(entered);
        }
        None => {
            times.insert(name(JobStatus::Initializing), job.start.into());
            if job.end != NO_VALUE {
                times.insert(name(job.status), job.end.into());
            }
        }
    }
    Value::Object(times)
}

/// `GET /jobs/:jobid/status`
pub(super) async fn status(State(rest): State<Arc<Rest>>, Path(id): Path<String>) -> Answer {
    ok(&json!({ "status": known(&rest, &id)?.status }))
}

/// `PATCH /jobs/:jobid?mode=cancel`
pub(super) async fn terminate(
    State(rest): State<Arc<Rest>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Answer {
    let query = Query::parse(query.as_deref())?;
    query.only(&["mode"])?;
    match query.get("mode").unwrap_or("cancel") {
        "cancel" => {}
        "stop" => {
            return Err(RestError::bad_request(format!(
                "A job is stopped with a savepoint, and there are none here yet. Cancel it (mode=cancel), and start the \
                 next one from its latest checkpoint, which {} keeps.",
                CHECKPOINT_RETENTION.name()
            )));
        }
        other => {
            return Err(RestError::bad_request(format!(
                "Bad request, could not parse parameters: mode '{}' is none; cancel is expected.",
                other.escape_debug()
            )));
        }
    }
    let job = known(&rest, &id)?;
    if job.status.is_terminal() && job.status != JobStatus::Canceled {
        let message = format!(
            "Job cancellation failed because the job has already reached another terminal state ({}).",
            name(job.status)
        );
        return Err(RestError::new(StatusCode::CONFLICT, message));
    }
    let Some(handle) = job.handle else { return accepted() };
    // It waits if the JobMaster has very many requests.
    let cancelled = tokio::task::spawn_blocking(move || handle.cancel()).await;
    cancelled.map_err(|cause| RestError::new(StatusCode::INTERNAL_SERVER_ERROR, cause.to_string()))?;
    accepted()
}
