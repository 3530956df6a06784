//! What a JobManager answers to requests that no client of ours makes, by the protocol as it is described: each is refused
//! with the reason, and the cluster goes on.

#![allow(clippy::disallowed_methods, reason = "tests wait for conditions, with a limit on the wall clock")]

use std::{
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    time::{Duration, Instant},
};

use millstream::model::{id::JobId, job_graph::JobGraph};
use millstream_client::{
    Client, ClientError,
    proto::v1::{self, job_submission_client::JobSubmissionClient, task_managers_client::TaskManagersClient},
};
use millstream_tests::{standalone::StandaloneCluster, worker_processes::planned};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Status, Streaming, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

const ARTIFACT: &str = env!("CARGO_BIN_EXE_two_pipelines_job");

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn channel(address: &str) -> Channel {
    Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

fn is(status: &Status, code: Code, words: &str) {
    assert_eq!(status.code(), code, "{status}");
    assert!(status.message().contains(words), "{status}");
}

async fn submit(calls: &mut JobSubmissionClient<Channel>, job_graph: impl Into<Vec<u8>>) -> Status {
    calls.submit_job(v1::SubmitJobRequest { job_graph: job_graph.into() }).await.unwrap_err()
}

async fn upload(calls: &mut JobSubmissionClient<Channel>, sha256: &str, bytes: &[u8]) -> Result<u64, Status> {
    let message = v1::UploadArtifactRequest { sha256: sha256.to_owned(), chunk: bytes.to_vec() };
    Ok(calls.upload_artifact(tokio_stream::once(message)).await?.into_inner().bytes)
}

fn text(graph: &JobGraph) -> Vec<u8> {
    serde_json::to_vec(graph).unwrap()
}

#[tokio::test]
async fn bad_requests_are_refused_with_the_reason() {
    let cluster = StandaloneCluster::start(1, 2, &[]);
    let mut calls = JobSubmissionClient::new(channel(&cluster.address()).await);

    is(&submit(&mut calls, "no graph").await, Code::InvalidArgument, "cannot be read");
    is(&submit(&mut calls, [0xff; 100]).await, Code::InvalidArgument, "cannot be read");
    let mut graph = planned(ARTIFACT.as_ref(), &[]);
    let artifact = graph.artifact.take().unwrap();
    is(&submit(&mut calls, text(&graph)).await, Code::InvalidArgument, "names no artifact");
    graph.artifact = Some(artifact.clone());
    is(&submit(&mut calls, text(&graph)).await, Code::FailedPrecondition, "was not uploaded");
    graph.artifact.as_mut().unwrap().engine_version = "0.0.1".to_owned();
    is(&submit(&mut calls, text(&graph)).await, Code::InvalidArgument, "0.0.1");

    is(&upload(&mut calls, &hash(b"one"), b"other").await.unwrap_err(), Code::InvalidArgument, "damaged on its way");
    is(&upload(&mut calls, "../../etc/passwd", b"").await.unwrap_err(), Code::InvalidArgument, "no SHA-256");
    is(&calls.upload_artifact(tokio_stream::empty()).await.unwrap_err(), Code::InvalidArgument, "without a message");
    assert_eq!(upload(&mut calls, &hash(b"one"), b"one").await.unwrap(), 3);

    let job_id = "nonsense".to_owned();
    let unknown = JobId(7).to_string();
    is(&calls.cancel_job(v1::CancelJobRequest { job_id }).await.unwrap_err(), Code::InvalidArgument, "nonsense");
    is(&calls.get_job(v1::GetJobRequest { job_id: unknown }).await.unwrap_err(), Code::NotFound, "there is no job");

    // After all that it still runs jobs.
    let output = cluster.ask(&["run", ARTIFACT]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A file that is no program of the engine's, uploaded by a client that does not look.
#[tokio::test]
async fn an_artifact_that_cannot_be_started_fails_its_job_with_the_reason() {
    let cluster = StandaloneCluster::start(1, 2, &[]);
    let mut calls = JobSubmissionClient::new(channel(&cluster.address()).await);
    let mut graph = planned(ARTIFACT.as_ref(), &[]);
    let broken = b"#!/bin/sh\nexit 3\n";
    upload(&mut calls, &hash(broken), broken).await.unwrap();
    graph.artifact.as_mut().unwrap().sha256 = hash(broken);
    graph.configuration.apply_dynamic(["-Dslot.request.timeout=1 s"]).unwrap();
    calls.submit_job(v1::SubmitJobRequest { job_graph: text(&graph) }).await.unwrap();

    let mut client = Client::connect(&cluster.address()).await.unwrap();
    let mut watch = client.watch(graph.job_id, Duration::from_millis(50)).await.unwrap();
    let mut problems = Vec::new();
    let result = loop {
        let answer = watch.next().await.unwrap();
        problems.extend(answer.job.and_then(|job| job.last_failure));
        if let Some(result) = answer.result {
            break result;
        }
    };
    assert_eq!(result.status(), v1::JobStatus::Failed);
    assert!(problems.iter().any(|problem| problem.message.contains("exit code 3")), "{problems:?}");
    // Its slots are free again, once its TaskManager has said so.
    let limit = Instant::now() + Duration::from_secs(60);
    while client.cluster().await.unwrap().task_managers[0].free_slots < 2 {
        assert!(Instant::now() < limit, "the slots are not free");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn the_server_says_that_it_is_well_and_what_it_serves() {
    let cluster = StandaloneCluster::start(0, 1, &[]);
    let mut health = HealthClient::new(channel(&cluster.address()).await);
    let service = "millstream.v1.JobSubmission".to_owned();
    let answer = health.check(HealthCheckRequest { service }).await.unwrap().into_inner();
    assert_eq!(answer.status(), ServingStatus::Serving);
    // The services of TaskManagers are not for clients.
    let mut calls = TaskManagersClient::new(channel(&cluster.address()).await);
    let request = v1::DownloadArtifactRequest { sha256: hash(b"") };
    assert_eq!(calls.download_artifact(request).await.unwrap_err().code(), Code::Unimplemented);
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// A registration of a TaskManager with three slots, and what keeps its connection open.
async fn attach(
    address: &str,
    resource_id: &str,
) -> Result<(UnboundedSender<v1::FromTaskManager>, Streaming<v1::ToTaskManager>), Status> {
    let registration = v1::Registration {
        task_manager_id: format!("{:032x}", NEXT_ID.fetch_add(1, SeqCst)),
        resource_id: resource_id.to_owned(),
        address: "nowhere".to_owned(),
        slots: 3,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..v1::Registration::default()
    };
    let (sender, messages) = unbounded_channel();
    let body = Some(v1::from_task_manager::Body::Registration(registration));
    sender.send(v1::FromTaskManager { body }).unwrap();
    let mut calls = TaskManagersClient::new(channel(address).await);
    Ok((sender, calls.attach(UnboundedReceiverStream::new(messages)).await?.into_inner()))
}

#[tokio::test]
async fn a_task_manager_that_registers_again_before_its_loss_is_noticed_counts_once() {
    let cluster = StandaloneCluster::start(0, 1, &["heartbeat.timeout: 60 s"]);
    let (rpc, mut calls) = (cluster.rpc_address(), JobSubmissionClient::new(channel(&cluster.address()).await));
    let Err(nonsense) = attach(&rpc, "one of many").await else { panic!("this is no id") };
    is(&nonsense, Code::InvalidArgument, "resource_id");
    let mut counted = async || {
        let answer = calls.get_cluster(v1::GetClusterRequest {}).await.unwrap().into_inner();
        answer.task_managers.iter().map(|one| one.slots).collect::<Vec<_>>()
    };
    let (this, another) = (format!("{:032x}", 1), format!("{:032x}", 2));
    let (_first, mut cut_off) = attach(&rpc, &this).await.unwrap();
    assert_eq!(counted().await, [3]);
    let _again = attach(&rpc, &this).await.unwrap();
    assert_eq!(counted().await, [3]);
    // Whoever is at the other end of the first connection is to know that it counts no more.
    let told = loop {
        match cut_off.message().await {
            Ok(message) => assert!(message.is_some(), "the connection has ended without a word"),
            Err(status) => break status,
        }
    };
    is(&told, Code::Aborted, "registered anew");
    let _other = attach(&rpc, &another).await.unwrap();
    assert_eq!(counted().await, [3, 3]);
}

#[tokio::test]
async fn a_client_names_what_is_wrong_with_an_address() {
    for address in ["localhost", "localhost:many", ":8081"] {
        assert!(matches!(Client::connect(address).await, Err(ClientError::BadAddress(_))), "{address}");
    }
    let refused = Client::connect("127.0.0.1:1").await.unwrap_err();
    assert!(matches!(refused, ClientError::Unreachable { .. }), "{refused}");
}
