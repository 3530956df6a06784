//! The command line of a real Flink against a JobManager of ours: it lists and cancels jobs, and whoever runs a JAR
//! with it is told what runs here instead.

use std::{fs, path::Path, process::Output};

use millstream_tests::{flink::Flink, http::Http, standalone::StandaloneCluster, wait_until};
use serde_json::json;

/// It never ends by itself.
const GROWING_WORD_COUNT: &str = env!("CARGO_BIN_EXE_growing_word_count_job");

fn said(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn flinks_client_lists_and_cancels_jobs_and_is_told_what_runs_here() {
    let flink = Flink::find();
    let cluster = StandaloneCluster::start(1, 2, &[]);
    let address = cluster.address();
    let http = Http(address.clone());
    let ask = |arguments: &[&str]| flink.command(arguments).output().expect("bash is there");

    let jar = flink.jar(&Path::new(env!("CARGO_MANIFEST_DIR")).join("java/Job.java"));
    let refused = ask(&["run", "-m", &address, jar.to_str().unwrap()]);
    let words = said(&refused);
    assert!(!refused.status.success(), "{words}");
    for word in ["This job cannot run here", "there is no JVM here", "millstream run -m HOST:PORT EXECUTABLE"] {
        assert!(words.contains(word), "{word}: {words}");
    }
    let refused = http.upload("/v1/jars/upload", "job.jar", &fs::read(&jar).unwrap());
    assert_eq!(refused.status, 400);
    assert!(refused.error().contains("'job.jar' is a Java archive"), "{}", refused.error());
    assert_eq!(http.get("/jobs").json(), json!({ "jobs": [] }));

    let root = tempfile::tempdir().unwrap();
    let folder = millstream_tests::job_process::JobFolder::new(root.path());
    let [input, output] = [folder.input(), folder.output()];
    let started = cluster.ask(&["run", "-d", GROWING_WORD_COUNT, input.to_str().unwrap(), output.to_str().unwrap()]);
    assert!(started.status.success(), "{}", said(&started));
    let jobs = || http.get("/jobs").json()["jobs"].clone();
    wait_until("the job runs", || jobs()[0]["status"] == "RUNNING");
    let job = jobs()[0]["id"].as_str().unwrap().to_owned();
    let listed = ask(&["list", "-m", &address]);
    let words = said(&listed);
    assert!(listed.status.success() && words.contains(&format!("{job} : growing word count (RUNNING)")), "{words}");
    let cancelled = ask(&["cancel", "-m", &address, &job]);
    assert!(cancelled.status.success(), "{}", said(&cancelled));
    wait_until("its end", || jobs()[0]["status"] == "CANCELED");
    let words = said(&ask(&["list", "--all", "-m", &address]));
    assert!(words.contains(&format!("{job} : growing word count (CANCELED)")), "{words}");
}
