//! The JobManager: takes jobs from clients, gives them slots of TaskManagers, and runs a JobMaster for each.
//!
//! ```text
//!  JobSubmission ──► submission ──┐             ┌──► job: JobMaster (a thread), its workers' links
//!  REST ───────────► rest ────────┼──► Cluster ─┤
//!  TaskManagers ──► connections ──┘   (a lock)  └──► slot_manager ──► SlotRequest ──► TaskManager
//! ```
//! All that is known of the cluster is behind one lock that is held for moments and never while something is waited for.
//!
//! | Look here for | module |
//! |---|---|
//! | jobs, slots and TaskManagers together | `cluster`, over `cluster_state` |
//! | one job | `job` |
//! | what holds a job back | `explain` |
//! | jobs that outlive this process | `accepted`, and what is left of them `ended` |
//! | a port, with TLS or without | `port`, `opening`, `refusals` |
//! | what clients may ask by gRPC | `submission` |
//! | and by REST, as Flink's | `rest` |
//! | logs of all processes, for clients | `logs`, by `log_calls` to TaskManagers |
//! | what is logged | `log_levels` |
//! | programs that run beside the JobManager | `programs`, and their `calls` |
//! | a program that the cluster is for | `application` |
//! | a job that the cluster is for | `one_job`, with `own_task_managers` |
//! | the calls of TaskManagers | `connections` |
//! | which TaskManagers may join | `members` |

mod accepted;
mod application;
mod calls;
mod cluster;
mod cluster_state;
mod connections;
mod ended;
mod explain;
mod job;
mod log_calls;
mod log_levels;
mod logs;
mod members;
mod one_job;
mod opening;
mod own_task_managers;
pub(crate) mod port;
mod programs;
mod refusals;
mod rest;
mod submission;

use std::{net::SocketAddr, process, sync::Arc};

use millstream::leadership::Leadership;
use millstream_client::proto::{FILE_DESCRIPTOR_SET, v1};
use millstream_model::{
    config::{
        Configuration, EVENLY_SPREAD_OUT_SLOTS, HEARTBEAT_INTERVAL, HEARTBEAT_TIMEOUT, JOBMANAGER_ADDRESS,
        JOBMANAGER_BIND_HOST, JOBMANAGER_PORT, REST_ADDRESS, REST_PORT, SECURITY_JOIN_TOKEN_FILE,
    },
    fault::Failure,
};
use millstream_slots::Spread;
use tonic::service::Routes;

use self::{
    accepted::{AcceptedJobs, artifacts_directory},
    application::ApplicationRunner,
    cluster::Cluster,
    connections::{Connections, wall_clock},
    ended::EndedJobs,
    log_levels::SetLevels,
    logs::Logs,
    members::Members,
    one_job::OneJobRunner,
    port::Port,
    rest::Rest,
    submission::Submission,
};
use crate::{
    LARGEST_MESSAGE,
    address::{Protection, listen},
    artifacts::Artifacts,
    host_name,
    metrics::{JobManagerMetrics, Reporters},
    security::{Guard, tls},
};

pub use self::{
    application::{Application, ApplicationStatus},
    one_job::OneJob,
    own_task_managers::TaskManagerCommand,
};

/// Where a JobManager can be reached.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// By clients: `rest.address`, `rest.port`.
    pub clients: SocketAddr,
    /// By TaskManagers: `jobmanager.rpc.address`, `jobmanager.rpc.port`.
    pub task_managers: SocketAddr,
}

/// Runs a JobManager until `stop` is there. Calls `ready` when it can be reached.
///
/// # Errors
/// If it cannot start.
pub async fn run(
    configuration: Configuration,
    ready: impl FnOnce(Addresses),
    stop: impl Future<Output = ()>,
) -> Result<(), Failure> {
    serve(configuration, Purpose::Session, ready, stop).await.map(drop)
}

/// Runs a JobManager for an application, until that has ended or `stop` is there. Calls `ready` when it can be reached.
/// How the application ended; `None` if it was stopped.
///
/// # Errors
/// If it cannot start, or the application has failed.
pub async fn run_application(
    configuration: Configuration,
    application: Application,
    ready: impl FnOnce(Addresses),
    stop: impl Future<Output = ()>,
) -> Result<Option<ApplicationStatus>, Failure> {
    serve(configuration, Purpose::Application(application), ready, stop).await
}

/// Runs a JobManager for a job, until that has ended and its client has left, or `stop` is there. How the job ended; `None`
/// if it was stopped.
///
/// # Errors
/// If it cannot start, or the job has failed.
pub async fn run_job(
    configuration: Configuration,
    job: OneJob,
    stop: impl Future<Output = ()>,
) -> Result<Option<ApplicationStatus>, Failure> {
    serve(configuration, Purpose::Job(Box::new(job)), drop, stop).await
}

/// What a cluster is for.
enum Purpose {
    /// The jobs of all who come.
    Session,
    Application(Application),
    Job(Box<OneJob>),
}

impl Purpose {
    /// What it is for alone.
    fn only_for(&self) -> Option<&'static str> {
        match self {
            Purpose::Session => None,
            Purpose::Application(_) => Some("application"),
            Purpose::Job(_) => Some("job"),
        }
    }
}

async fn serve(
    configuration: Configuration,
    purpose: Purpose,
    ready: impl FnOnce(Addresses),
    stop: impl Future<Output = ()>,
) -> Result<Option<ApplicationStatus>, Failure> {
    let rest = configuration.get(&REST_ADDRESS)?;
    let tls = tls::of_clients(&configuration)?;
    let trust = tls.as_ref().and_then(|tls| tls.trust.clone());
    let guard = Guard::of_clients(&configuration, trust)?;
    let protection = Protection::of_clients(tls.is_some() && guard.asks_for_proof());
    let port = configuration.get(&REST_PORT)?;
    let clients = listen(&rest, port, "rest.address, rest.port", protection, &configuration).await?;
    let bind = match configuration.get(&JOBMANAGER_BIND_HOST)? {
        Some(host) => host,
        None => configuration.get(&JOBMANAGER_ADDRESS)?.unwrap_or_else(|| "localhost".to_owned()),
    };
    let keys = "jobmanager.rpc.address, jobmanager.bind-host, jobmanager.rpc.port";
    let protection = match configuration.get(&SECURITY_JOIN_TOKEN_FILE)? {
        Some(_) => Protection::TlsAndProof,
        None => Protection::Missing("set security.join-token-file, for TaskManagers too"),
    };
    let task_managers = listen(&bind, configuration.get(&JOBMANAGER_PORT)?, keys, protection, &configuration).await?;
    let local = |listener: &tokio::net::TcpListener| {
        listener.local_addr().map_err(|cause| Failure::fatal(format!("a port has no address: {cause}")))
    };
    let addresses = Addresses { clients: local(&clients)?, task_managers: local(&task_managers)? };

    let artifacts = match artifacts_directory(&configuration)? {
        Some(directory) => Artifacts::open_kept(directory)?,
        None => Artifacts::open(&configuration, &format!("jobmanager-{}", process::id()))?,
    };
    let artifacts = Arc::new(artifacts);
    let spread = if configuration.get(&EVENLY_SPREAD_OUT_SLOTS)? { Spread::Evenly } else { Spread::Pack };
    let leadership = Leadership::of(&configuration)?;
    let accepted = AcceptedJobs::open(&configuration)?;
    let members = Members::open(&configuration, wall_clock())?;
    let members_tls = members.as_ref().map(|members| members.tls(wall_clock())).transpose()?;
    let ended = EndedJobs::open(&configuration)?;
    let log_levels = SetLevels::open(&configuration)?;
    let cluster = Cluster::new(leadership, accepted, ended, log_levels, configuration.clone(), spread);
    let needed = cluster.recover()?;
    artifacts.retain(|sha256| needed.contains(sha256));
    let connections = Connections {
        cluster: cluster.clone(),
        artifacts: artifacts.clone(),
        members,
        heartbeat_interval: configuration.get(&HEARTBEAT_INTERVAL)?,
        heartbeat_timeout: configuration.get(&HEARTBEAT_TIMEOUT)?,
    };
    let ask = {
        let cluster = cluster.clone();
        move || cluster.numbers()
    };
    let numbers = JobManagerMetrics { host: host_name(), ask };
    let _reporters = Reporters::start(&configuration, Arc::new(numbers)).await?;
    let only_for = purpose.only_for();
    let submission = Submission { cluster: cluster.clone(), artifacts: artifacts.clone(), only_for };
    let submission = v1::job_submission_server::JobSubmissionServer::new(submission)
        .max_decoding_message_size(LARGEST_MESSAGE)
        .max_encoding_message_size(usize::MAX);
    let logs = v1::logs_server::LogsServer::new(Logs::new(cluster.clone()));
    let connections = v1::task_managers_server::TaskManagersServer::new(connections)
        .max_decoding_message_size(LARGEST_MESSAGE)
        .max_encoding_message_size(usize::MAX);
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<v1::job_submission_server::JobSubmissionServer<Submission>>().await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let damaged = |cause| Failure::fatal(format!("the protocol's description is damaged: {cause}"));
    let grpc = Routes::new(submission)
        .add_service(logs)
        .add_service(health_service)
        .add_service(reflection().build_v1().map_err(damaged)?)
        // Python's library still asks by the version before, and by no other.
        .add_service(reflection().build_v1alpha().map_err(damaged)?)
        .into_axum_router();
    let mut rest = Rest::new(&configuration, cluster.clone(), artifacts.clone(), addresses.clients).await?;
    if only_for.is_some() {
        rest.take_no_programs();
    }
    let for_clients = Port::of_clients(tls, guard.protect(rest::router(rest, grpc))).serve(clients);
    let guard = Guard::of_task_managers(members_tls.as_ref().and_then(|tls| tls.trust.clone()));
    let connections = guard.protect(Routes::new(connections).into_axum_router());
    let for_task_managers = Port::of_task_managers(members_tls, connections).serve(task_managers);
    tracing::info!(clients = %addresses.clients, task_managers = %addresses.task_managers, "the JobManager is ready");
    ready(addresses);
    let mut one_job = None;
    let purpose_ends = async {
        match purpose {
            Purpose::Session => std::future::pending().await,
            Purpose::Application(application) => {
                let runner = ApplicationRunner { cluster: cluster.clone(), artifacts: artifacts.clone() };
                runner.run(application).await.map(Some)
            }
            Purpose::Job(job) => {
                let runner = OneJobRunner::new(*job, configuration, cluster.clone(), artifacts.clone(), addresses);
                one_job.insert(runner).run().await.map(Some)
            }
        }
    };
    tokio::select! {
        never = for_clients => match never {},
        never = for_task_managers => match never {},
        ended = purpose_ends => return ended,
        () = stop => {}
    }
    cluster.log_end();
    if let Some(mut one_job) = one_job {
        one_job.end().await;
    }
    Ok(None)
}
