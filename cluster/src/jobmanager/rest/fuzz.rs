//! Random requests, seeded: whatever comes, each is answered, in Flink's form, and nothing panics.

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Method, Request, StatusCode, header},
};
use fastrand::Rng;
use millstream::leadership::Leadership;
use millstream_model::config::{Configuration, Origin};
use millstream_slots::Spread;
use serde_json::Value;
use tower::ServiceExt;

use super::*;
use crate::jobmanager::{accepted::AcceptedJobs, ended::EndedJobs, log_levels::SetLevels};

const REQUESTS: usize = 4_000;
const WORDS: [&str; 29] = [
    "jobs",
    "overview",
    "config",
    "taskmanagers",
    "jars",
    "upload",
    "run",
    "status",
    "v1",
    "..",
    ".",
    "%2e%2e",
    "%00",
    "%ff",
    "%",
    "",
    " ",
    "0123456789abcdef0123456789abcdef",
    "ffffffffffffffffffffffffffffffff",
    "xyz",
    "{jobid}",
    "*",
    "é",
    "a=b",
    "%2Fetc%2Fpasswd",
    "millstream.v1.JobSubmission",
    "SubmitJob",
    ";",
    "9999999999999999999999999999999999",
];
const PATHS: [&str; 6] = [
    "/jars/upload",
    "/jars/xyz/run",
    "/jobs",
    "/jobs/0123456789abcdef0123456789abcdef",
    "/jobs/xyz/status",
    "/taskmanagers/xyz",
];
const QUERIES: [&str; 12] = [
    "mode=cancel",
    "mode=stop",
    "mode=%ff",
    "mode",
    "=",
    "&&&",
    "parallelism=-1",
    "parallelism=99999999999999999999",
    "programArg=a,b",
    "entry-class=x",
    "savepointPath=",
    "get=a",
];
const BODIES: [&str; 14] = [
    "{}",
    "[]",
    "null",
    "{\"parallelism\": 1e99}",
    "{\"programArgsList\": [1]}",
    "{\"a\":",
    "\"",
    "--B\r\n",
    "\r\n--B",
    "--B--",
    "Content-Disposition: form-data; name=\"jarfile\"; filename=\"a\"\r\n\r\n",
    "\x7fELF",
    "PK\x03\x04",
    "\r\n\r\n",
];
const TYPES: [&str; 5] = [
    "application/json",
    "multipart/form-data; boundary=B",
    "multipart/form-data",
    "text/plain",
    "application/grpc+proto",
];

/// All that the port of clients serves but gRPC, above a cluster without TaskManagers.
async fn served(root: &std::path::Path) -> Router {
    let mut configuration = Configuration::new();
    for (key, value) in [
        ("io.tmp.dirs", root.to_str().unwrap()),
        ("rest.server.max-upload-size", "10 kb"),
        ("rest.server.max-content-length", "10 kb"),
    ] {
        configuration.set_text(key, value, Origin::Program);
    }
    let leadership = Leadership::of(&configuration).unwrap();
    let accepted = AcceptedJobs::open(&configuration).unwrap();
    let ended = EndedJobs::open(&configuration).unwrap();
    let cluster = Cluster::new(leadership, accepted, ended, SetLevels::default(), configuration.clone(), Spread::Pack);
    let artifacts = Arc::new(Artifacts::open(&configuration, "fuzz").unwrap());
    let address = "127.0.0.1:8081".parse().unwrap();
    router(Rest::new(&configuration, cluster, artifacts, address).await.unwrap(), Router::new())
}

fn some<'a>(random: &mut Rng, words: &[&'a str]) -> &'a str {
    words[random.usize(..words.len())]
}

fn request(random: &mut Rng) -> Option<Request<Body>> {
    let methods =
        [Method::GET, Method::POST, Method::PATCH, Method::DELETE, Method::PUT, Method::HEAD, Method::OPTIONS];
    let mut path: String = (0..random.usize(1..5)).map(|_| format!("/{}", some(random, &WORDS))).collect();
    if random.bool() {
        path = format!("{}{}", some(random, &["", "/v1"]), some(random, &PATHS));
    }
    let query: Vec<&str> = (0..random.usize(..3)).map(|_| some(random, &QUERIES)).collect();
    let mut body: Vec<u8> = (0..random.usize(..8)).flat_map(|_| some(random, &BODIES).bytes()).collect();
    if random.u8(..6) == 0 {
        body.resize(random.usize(..40_000), random.u8(..));
    }
    let request = Request::builder()
        .method(if random.bool() { Method::POST } else { methods[random.usize(..methods.len())].clone() })
        .uri(format!("{path}?{}", query.join("&")))
        .header(header::CONTENT_TYPE, some(random, &TYPES));
    // Some addresses are none: HTTP itself refuses those.
    request.body(Body::from(body)).ok()
}

async fn answer(router: &Router, request: Request<Body>) -> (StatusCode, Vec<u8>) {
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    (status, to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec())
}

#[tokio::test]
async fn every_request_is_answered_in_flinks_form() {
    let root = tempfile::tempdir().unwrap();
    let router = served(root.path()).await;
    let mut seen = std::collections::BTreeMap::<u16, usize>::new();
    for seed in 0..REQUESTS as u64 {
        let random = &mut Rng::with_seed(seed);
        let Some(request) = request(random) else { continue };
        let (asked, is_grpc) = (format!("seed {seed}: {} {}", request.method(), request.uri()), {
            request.headers()[header::CONTENT_TYPE] == "application/grpc+proto"
        });
        let is_head = request.method() == Method::HEAD;
        let (status, body) = answer(&router, request).await;
        *seen.entry(status.as_u16()).or_default() += 1;
        if is_head || (is_grpc && body.is_empty()) {
            continue;
        }
        let body: Value = serde_json::from_slice(&body).unwrap_or_else(|_| panic!("{asked}: {status} without JSON"));
        if status.is_success() {
            assert!(body.is_object(), "{asked}: {body}");
        } else {
            assert!(status.is_client_error(), "{asked}: {status} {body}");
            let errors = body["errors"].as_array().unwrap_or_else(|| panic!("{asked}: {body}"));
            assert!(errors.len() == 1 && body.as_object().unwrap().len() == 1, "{asked}: {body}");
            assert!(errors[0].as_str().is_some_and(|error| !error.is_empty()), "{asked}: {body}");
        }
    }
    // It has come everywhere.
    for status in [200, 400, 404, 405, 413] {
        assert!(seen.contains_key(&status), "{status} was never seen: {seen:?}");
    }
    // What was refused leaves nothing behind.
    let folder = std::fs::read_dir(root.path()).unwrap().next().unwrap().unwrap().path();
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0);
}

#[tokio::test]
async fn a_page_of_another_site_changes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let router = served(root.path()).await;
    let ask = |method: Method, path: &str, origin: &str| {
        let request = Request::builder().method(method).uri(path).header(header::HOST, "localhost:8081");
        answer(&router, request.header(header::ORIGIN, origin).body(Body::empty()).unwrap())
    };
    assert_eq!(ask(Method::POST, "/jars/upload", "http://evil.example").await.0, StatusCode::FORBIDDEN);
    assert_eq!(ask(Method::POST, "/v1/jars/upload", "http://localhost:8081").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(ask(Method::GET, "/overview", "http://evil.example").await.0, StatusCode::OK);
}
