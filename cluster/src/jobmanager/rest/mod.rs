//! Flink's REST interface, version 1, as far as it goes: beside gRPC on the port of clients, each path also below
//! `/v1`.
//!
//! ```text
//!   request ─► router ─► same_origin ─► in_flinks_form ─► handler ─► Cluster: jobs, slots
//!                 │                                         └──────► jars: Artifacts, Programs
//!                 └► gRPC services
//! ```
//! Shapes are those of Flink 2.3.0; a test compares them with recorded answers. What has no counterpart here is -1
//! where Flink says "unknown" so, and else what the guide says.
//!
//! | Look here for | module |
//! |---|---|
//! | how answers and errors look | `answer` |
//! | how large and how slow bodies may be | `body` |
//! | queries, bodies of several parts | `query`, `multipart` |
//! | browsers that another site sends here | `same_origin` |
//! | `/overview`, `/config` | `overview` |
//! | `/jobs` | `jobs`, with `vertices` and the job graph as a `plan` |
//! | `/taskmanagers` | `task_managers` |
//! | `/jobmanager/logs`, `/taskmanagers/:id/logs` and their neighbours | `logs` |
//! | `/jars` | `jars`, `upload`, `upload_folder`, `run` |
//! | what Java clients of Flink send and nothing here can run | `java` |

mod answer;
mod body;
#[cfg(test)]
mod fuzz;
mod jars;
mod java;
mod jobs;
mod logs;
mod multipart;
mod overview;
mod plan;
mod query;
mod run;
mod same_origin;
mod task_managers;
mod upload;
mod upload_folder;
mod vertices;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{Uri, header},
    middleware,
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use millstream_model::{
    config::{
        Configuration, REST_ADDRESS, REST_MAX_CONTENT_LENGTH, REST_MAX_UPLOAD_SIZE, WEB_CANCEL_ENABLED,
        WEB_REFRESH_INTERVAL, WEB_SUBMIT_ENABLED,
    },
    fault::Failure,
};
use tonic::Status;

pub(super) use self::plan::Plan;
use self::{body::Limit, jars::Jars};
use super::{cluster::Cluster, programs::Programs};
use crate::artifacts::Artifacts;

/// What handlers work with.
pub(super) struct Rest {
    cluster: Cluster,
    artifacts: Arc<Artifacts>,
    programs: Programs,
    jars: Jars,
    /// Where this port is.
    address: SocketAddr,
    /// The name that clients know it by.
    host: String,
    refresh_interval: Duration,
    submit_enabled: bool,
    cancel_enabled: bool,
    /// Of a body, without the files in it.
    content_max: Limit,
    /// Of a file.
    upload_max: Limit,
}

impl Rest {
    /// # Errors
    /// If the configuration has a bad value, or a folder in it cannot be had.
    pub(super) async fn new(
        configuration: &Configuration,
        cluster: Cluster,
        artifacts: Arc<Artifacts>,
        address: SocketAddr,
    ) -> Result<Rest, Failure> {
        let upload_max = configuration.get(&REST_MAX_UPLOAD_SIZE)?.bytes();
        let content_max = configuration.get(&REST_MAX_CONTENT_LENGTH)?.bytes();
        Ok(Rest {
            jars: Jars::load(configuration, &artifacts).await?,
            programs: Programs::new(configuration, cluster.clone(), artifacts.clone())?,
            cluster,
            artifacts,
            address,
            host: configuration.get(&REST_ADDRESS)?,
            refresh_interval: configuration.get(&WEB_REFRESH_INTERVAL)?,
            submit_enabled: configuration.get(&WEB_SUBMIT_ENABLED)?,
            cancel_enabled: configuration.get(&WEB_CANCEL_ENABLED)?,
            content_max: Limit { bytes: content_max, key: REST_MAX_CONTENT_LENGTH.name() },
            upload_max: Limit { bytes: upload_max, key: REST_MAX_UPLOAD_SIZE.name() },
        })
    }
}

impl Rest {
    /// The cluster is for one application: no other program is run on it.
    pub(super) fn take_no_programs(&mut self) {
        self.submit_enabled = false;
    }
}

/// Everything that is served at the port of clients.
pub(super) fn router(rest: Rest, grpc: Router) -> Router {
    let mut routes = Router::new()
        .route("/overview", get(overview::overview))
        .route("/config", get(overview::config))
        .route("/jobs", get(jobs::all).post(java::job_graph))
        .route("/jobs/overview", get(jobs::overview))
        .route("/jobs/{jobid}", get(jobs::details).patch(jobs::terminate))
        .route("/jobs/{jobid}/status", get(jobs::status))
        .route("/taskmanagers", get(task_managers::all))
        .route("/taskmanagers/{taskmanagerid}", get(task_managers::details))
        .route("/jobmanager/logs", get(logs::of_jobmanager))
        .route("/jobmanager/log", get(logs::jobmanager_log))
        .route("/jobmanager/stdout", get(logs::jobmanager_stdout))
        .route("/jobmanager/logs/{filename}", get(logs::jobmanager_file))
        .route("/taskmanagers/{taskmanagerid}/logs", get(logs::of_task_manager))
        .route("/taskmanagers/{taskmanagerid}/log", get(logs::task_manager_log))
        .route("/taskmanagers/{taskmanagerid}/stdout", get(logs::task_manager_stdout))
        .route("/taskmanagers/{taskmanagerid}/logs/{filename}", get(logs::task_manager_file));
    if rest.submit_enabled {
        routes = routes
            .route("/jars", get(jars::all))
            .route("/jars/upload", post(upload::upload))
            .route("/jars/{jarid}", delete(jars::remove))
            .route("/jars/{jarid}/run", post(run::run));
    }
    let routes = routes.method_not_allowed_fallback(answer::wrong_method);
    let rest = Arc::new(rest);
    let rest_routes = Router::new()
        .merge(routes.clone())
        .nest("/v1", routes)
        .layer(middleware::from_fn(answer::in_flinks_form))
        .layer(middleware::from_fn_with_state(rest.clone(), same_origin::check))
        .with_state(rest);
    grpc.merge(rest_routes).fallback(unknown)
}

/// What no path leads to: each kind of client is told so in its own words.
async fn unknown(uri: Uri, headers: axum::http::HeaderMap) -> Response {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if content_type.starts_with("application/grpc") {
        let (parts, ()) = Status::unimplemented("").into_http::<()>().into_parts();
        return Response::from_parts(parts, Body::empty());
    }
    answer::unknown_path(&uri).into_response()
}
