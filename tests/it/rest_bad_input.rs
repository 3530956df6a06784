//! What REST answers to requests that are wrong or hostile, and to programs that do not do what they should: each is
//! refused with the reason, and the cluster goes on.

use std::{fs, path::Path};

use fastrand::Rng;
use millstream_tests::{has_ended, http::Http, job_process::JOB_ID, signal, standalone::StandaloneCluster, wait_until};
use serde_json::{Value, json};

const ODD_PROGRAM: &str = env!("CARGO_BIN_EXE_odd_program");

fn uploaded(http: &Http, artifact: &str) -> String {
    let answer = http.upload("/jars/upload", "odd", &fs::read(artifact).unwrap());
    answer.json()["filename"].as_str().unwrap().rsplit('/').next().unwrap().to_owned()
}

/// The id of a process that has written it to a file.
fn process_in(file: &Path) -> u32 {
    let read = || fs::read_to_string(file).ok()?.parse().ok();
    wait_until("the program runs", || read().is_some());
    read().unwrap()
}

#[test]
fn a_program_that_executes_nothing_is_an_error_that_says_why() {
    let cluster = StandaloneCluster::start(1, 1, &["web.timeout: 3 s"]);
    let http = Http(cluster.address());
    let root = tempfile::tempdir().unwrap();
    let jar = uploaded(&http, ODD_PROGRAM);
    let run = |arguments: Value| http.post(&format!("/jars/{jar}/run"), &json!({ "programArgsList": arguments }));
    let pid = root.path().join("pid");
    for (arguments, words) in [
        (json!(["panics"]), &["panicked", "it was told to panic"][..]),
        (json!(["exits"]), &["exit status 3", "it was told to exit"]),
        (json!(["executes-nothing"]), &["without a job"]),
        (json!(["hangs", pid]), &["has not called execute() within 3s", "web.timeout"]),
        (json!(["executes", "-Dparallelism.default=none"]), &["exit status 2", "parallelism.default"]),
        (json!(["executes", "\0"]), &["cannot be started"]),
        (json!(["executes", "x".repeat(200_000)]), &["cannot be started"]),
    ] {
        let answer = run(arguments.clone());
        let error = answer.error();
        assert_eq!(answer.status, 400, "{error}");
        for word in words {
            assert!(error.contains(word), "{word}: {error}");
        }
    }
    // The one that hung was ended.
    assert!(has_ended(process_in(&pid)));
    // One that does what it should still runs, and nothing of the others does.
    let answer = run(json!(["executes"]));
    let job = answer.json()["jobid"].as_str().unwrap().to_owned();
    wait_until("its end", || http.get(&format!("/jobs/{job}/status")).json()["status"] == "FINISHED");
    assert_eq!(http.get("/jobs").json()["jobs"].as_array().unwrap().len(), 1);
}

#[test]
fn a_program_executes_one_job_and_ends_with_the_jobmanager() {
    let cluster = StandaloneCluster::start(1, 1, &[]);
    let http = Http(cluster.address());
    let root = tempfile::tempdir().unwrap();
    let [second, pid] = ["second", "pid"].map(|name| root.path().join(name));
    let jar = uploaded(&http, ODD_PROGRAM);
    let run = |arguments: Value| http.post(&format!("/jars/{jar}/run"), &json!({ "programArgsList": arguments }));
    assert_eq!(run(json!(["executes-twice", second])).status, 200);
    let told = || fs::read_to_string(&second).unwrap_or_default();
    wait_until("the second is refused", || told().contains("can execute one job"));
    assert_eq!(run(json!(["goes-on", pid])).status, 200);
    let program = process_in(&pid);
    assert!(!has_ended(program));
    let jobmanager = cluster.processes("jobmanager")[0];
    signal("KILL", jobmanager);
    wait_until("the end of the program", || has_ended(program));
}

#[test]
fn what_is_no_artifact_is_refused_with_what_runs_here() {
    let cluster = StandaloneCluster::start(0, 1, &["rest.server.max-upload-size: 300 mb"]);
    let http = Http(cluster.address());
    let refused = |name: &str, content: &[u8], words: &str| {
        let answer = http.upload("/jars/upload", name, content);
        let error = answer.error();
        assert_eq!(answer.status, 400, "{error}");
        assert!(error.contains(words), "{error}");
        error
    };
    let error = refused("job.jar", b"PK\x03\x04 and the rest of an archive", "'job.jar' is a Java archive");
    assert!(error.contains("millstream run"), "{error}");
    // Also one that takes long to send.
    refused("job.jar", &[b"PK\x03\x04".as_slice(), &[7; 4 << 20]].concat(), "is a Java archive");
    refused("job.sh", b"#!/bin/sh\n", "no ELF executable");
    refused("empty", b"", "no ELF executable");
    refused("short", b"\x7fEL", "no ELF executable");
    refused("broken", b"\x7fELF and nothing that follows", "built for 32 bits");
    refused("true", &fs::read("/bin/true").unwrap(), "no Millstream artifact");
    let mut other = fs::read(ODD_PROGRAM).unwrap();
    let version = format!("\"engine_version\":\"{}\"", millstream::artifact::ENGINE_VERSION);
    let at = other.windows(version.len()).position(|window| window == version.as_bytes()).unwrap();
    other[at + version.len() - 2] = b'9';
    refused("other", &other, "build it with that version");

    // The form itself.
    let send =
        |content_type: &str, body: &[u8]| http.send("POST", "/jars/upload", &[("Content-Type", content_type)], body);
    let part = |head: &str| format!("--B\r\nContent-Disposition: form-data; {head}\r\n\r\n\x7fELF\r\n");
    let unended = part("name=\"x\"");
    let two = format!("{}{}--B--", part("filename=a"), part("filename=b"));
    for (content_type, body, words) in [
        ("application/octet-stream", &b"\x7fELF"[..], "curl -F"),
        ("multipart/form-data", b"--B--", "curl -F"),
        ("multipart/form-data; boundary=B", b"--B--", "Exactly 1 file must be sent, received 0"),
        ("multipart/form-data; boundary=B", b"nothing of the kind", "ends within a part"),
        ("multipart/form-data; boundary=B", unended.as_bytes(), "ends within a part"),
        ("multipart/form-data; boundary=B", two.as_bytes(), "Exactly 1 file must be sent, received more"),
    ] {
        let answer = send(content_type, body);
        assert_eq!(answer.status, 400);
        assert!(answer.error().contains(words), "{}", answer.error());
    }
    // A client that says how much it would send is told before it does.
    let head = "POST /jars/upload HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
                Content-Type: multipart/form-data; boundary=B\r\nContent-Length: 99999999999\r\n\r\n";
    let answer = http.raw(head.as_bytes()).expect("an answer before the body");
    assert_eq!(answer.status, 413);
    assert!(answer.error().contains("rest.server.max-upload-size"), "{}", answer.error());
    // Nothing of all that is left.
    let left = cluster.left_behind();
    assert!(left.iter().all(|folder| fs::read_dir(folder).unwrap().count() == 0), "{left:?}");
    assert_eq!(http.get("/jars").json()["files"], json!([]));
}

#[test]
fn unknown_and_malformed_things_are_refused_in_flinks_words() {
    let cluster = StandaloneCluster::start(0, 1, &[]);
    let http = Http(cluster.address());
    for (method, path, status, words) in [
        ("GET", "/nonexistent", 404, "Unable to load requested file /nonexistent."),
        ("GET", "/v1/nonexistent", 404, "Unable to load requested file /v1/nonexistent."),
        ("GET", "/jobs/xyz", 400, "Cannot resolve path parameter (jobid) from value \"xyz\"."),
        ("GET", "/jobs/00000000000000000000000000000000", 404, "Job 00000000000000000000000000000000 not found"),
        ("GET", "/jobs/%ff", 400, "UTF-8"),
        ("GET", "/jobs/..%2F..%2Fetc%2Fpasswd/status", 400, "etc/passwd"),
        ("PATCH", "/jobs/00000000000000000000000000000000?mode=cancel", 404, "not found"),
        ("PATCH", "/jobs/00000000000000000000000000000000?mode=stop", 400, "savepoint"),
        ("PATCH", "/jobs/00000000000000000000000000000000?mode=what", 400, "what"),
        ("GET", "/taskmanagers/..%2F..%2Fetc", 404, "Could not find TaskExecutor"),
        ("DELETE", "/jars/..%2F..%2Fetc%2Fpasswd", 404, "no uploaded artifact"),
        ("POST", "/jars/..%2F..%2Fbin%2Ftrue/run", 404, "no uploaded artifact"),
        ("POST", "/overview", 405, "POST"),
        ("DELETE", "/jobs", 405, "DELETE"),
        ("POST", "/jobs", 400, "Millstream runs programs that are written in Rust"),
    ] {
        let answer = http.send(method, path, &[], b"{}");
        let error = answer.error();
        assert_eq!(answer.status, status, "{method} {path}: {error}");
        assert!(error.contains(words), "{method} {path}: {error}");
    }
    let answer = http.send("POST", "/overview", &[], b"");
    assert!(answer.headers.to_lowercase().contains("allow: get,head"), "{}", answer.headers);
    assert_eq!(http.get(&format!("/jobs?get={}", "a,".repeat(15_000))).status, 200);
    // What HTTP itself refuses.
    let long = format!("GET /jobs?{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(70_000));
    let header = format!("GET /jobs HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(1 << 20));
    let many = format!("GET /jobs HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: a\r\n".repeat(1_000));
    for (request, status, words) in [(long, 414, "too long"), (header, 431, "too large"), (many, 431, "too large")] {
        let answer = http.raw(request.as_bytes()).unwrap();
        let error = answer.error();
        assert!(answer.status == status && error.contains(words), "{status}: {error}");
    }
}

#[test]
fn paths_of_jars_are_not_there_if_the_configuration_says_so() {
    let cluster = StandaloneCluster::start(0, 1, &["web.submit.enable: false"]);
    let http = Http(cluster.address());
    assert_eq!(http.get("/config").json()["features"]["web-submit"], false);
    assert_eq!(http.get("/jars").status, 404);
    assert_eq!(http.upload("/jars/upload", "odd", b"\x7fELF").status, 404);
}

/// Bytes that are nearly requests, with a seed for each.
#[test]
fn whatever_bytes_come_the_jobmanager_lives_on() {
    const ROUNDS: u64 = 400;
    let cluster = StandaloneCluster::start(0, 1, &[]);
    let http = Http(cluster.address());
    let jobmanager = cluster.processes("jobmanager")[0];
    let head = "HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    let form = "--B\r\nContent-Disposition: form-data; name=\"jarfile\"; filename=\"a\"\r\n\r\n\x7fELF\r\n--B--\r\n";
    let kind = "Content-Type: multipart/form-data; boundary=B";
    let requests = [
        format!("GET /jobs/{JOB_ID} {head}\r\n"),
        format!("POST /jars/upload {head}{kind}\r\nContent-Length: {}\r\n\r\n{form}", form.len()),
        format!("PATCH /jobs/{JOB_ID}?mode=cancel {head}Content-Length: 2\r\n\r\n{{}}"),
        format!("POST /jobs {head}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0".to_owned(),
    ];
    for seed in 0..ROUNDS {
        let random = &mut Rng::with_seed(seed);
        let mut bytes = requests[random.usize(..requests.len())].clone().into_bytes();
        for _ in 0..random.usize(..6) {
            let at = random.usize(..bytes.len());
            match random.u8(..4) {
                0 => bytes[at] = random.u8(..),
                1 => bytes.truncate(at.max(1)),
                2 => bytes.insert(at, random.u8(..)),
                _ => drop(bytes.drain(at..bytes.len().min(at + random.usize(..8)))),
            }
            if bytes.is_empty() {
                bytes.push(b'\n');
            }
        }
        http.send_and_leave(&bytes);
    }
    assert_eq!(http.get("/overview").status, 200);
    assert_eq!(cluster.processes("jobmanager"), [jobmanager]);
    assert!(!has_ended(jobmanager));
    let log = cluster.log("jobmanager");
    assert!(!log.contains("panicked"), "{log}");
}
