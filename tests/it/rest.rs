//! The REST interface of a cluster of real processes: the shape of its answers is that of a real Flink's, and what they
//! say is so.

use std::{collections::BTreeSet, fs};

use millstream_tests::{
    counts::{deviation, visible},
    has_ended,
    http::Http,
    job_process::JobFolder,
    signal,
    standalone::StandaloneCluster,
    text::add_text,
    wait_until,
};
use serde_json::{Value, json};

const WORD_COUNT: &str = env!("CARGO_BIN_EXE_word_count_job");
/// It never ends by itself.
const GROWING_WORD_COUNT: &str = env!("CARGO_BIN_EXE_growing_word_count_job");

/// An answer that Flink gave.
fn golden(name: &str) -> Value {
    let path = format!("{}/golden/flink-rest/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read(&path).unwrap_or_else(|cause| panic!("{path}: {cause}"));
    serde_json::from_slice(&text).unwrap_or_else(|cause| panic!("{path}: {cause}"))
}

/// Where `ours` does not have the shape of `flinks`: the keys of objects, and the types of values. Of a list, each of
/// ours is as one of Flink's.
fn differences(at: &str, ours: &Value, flinks: &Value) -> Vec<String> {
    match (ours, flinks) {
        (Value::Object(ours), Value::Object(flinks)) => {
            let keys: BTreeSet<&String> = ours.keys().chain(flinks.keys()).collect();
            let differs = |key: &String| match (ours.get(key), flinks.get(key)) {
                (Some(ours), Some(flinks)) => differences(&format!("{at}.{key}"), ours, flinks),
                (None, _) => vec![format!("{at}.{key} is missing")],
                (_, None) => vec![format!("{at}.{key} is not in Flink's")],
            };
            keys.into_iter().flat_map(differs).collect()
        }
        (Value::Array(ours), Value::Array(flinks)) => {
            let mut all = Vec::new();
            for (place, ours) in ours.iter().enumerate() {
                let of_each = flinks.iter().map(|flinks| differences(&format!("{at}[{place}]"), ours, flinks));
                all.extend(of_each.min_by_key(Vec::len).unwrap_or_else(|| vec![format!("{at} is empty in Flink's")]));
            }
            all
        }
        (Value::String(_), Value::String(_))
        | (Value::Number(_), Value::Number(_))
        | (Value::Bool(_), Value::Bool(_)) => Vec::new(),
        (ours, flinks) => vec![format!("{at} is {ours} and not as {flinks}")],
    }
}

#[track_caller]
fn has_shape(ours: &Value, name: &str) {
    let found = differences("", ours, &golden(name));
    assert!(found.is_empty(), "{name}: {found:#?}\n{ours:#}");
}

/// Uploads an artifact; returns its id.
fn upload(http: &Http, path: &str, prefix: &str) -> String {
    let answer = http.upload(&format!("{prefix}/jars/upload"), "../job", &fs::read(path).unwrap());
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    has_shape(&answer.json(), "020-POST-jars_upload");
    answer.json()["filename"].as_str().unwrap().rsplit('/').next().unwrap().to_owned()
}

fn run(http: &Http, jar: &str, body: &Value) -> String {
    let answer = http.post(&format!("/jars/{jar}/run"), body);
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    has_shape(&answer.json(), "023-POST-jars_jarid_run");
    answer.json()["jobid"].as_str().unwrap().to_owned()
}

#[test]
fn the_shapes_that_are_compared_are_told_apart() {
    let flinks = json!({ "a": [{ "b": 1 }, { "b": 1, "c": "d" }], "e": {} });
    let differs = |ours: Value| differences("", &ours, &flinks).len();
    assert_eq!(differs(json!({ "a": [{ "b": 2.5, "c": "" }, { "b": 0 }], "e": {} })), 0);
    assert_eq!(differs(json!({ "a": [], "e": {} })), 0);
    assert_eq!(differs(json!({ "a": [{ "b": "1" }], "e": {} })), 1);
    assert_eq!(differs(json!({ "a": [{ "b": null }], "e": {} })), 1);
    assert_eq!(differs(json!({ "a": [], "e": { "f": 1 }, "g": 1 })), 2);
    assert_eq!(differs(json!({ "a": [] })), 1);
}

#[test]
fn a_job_is_uploaded_run_looked_at_and_cancelled_by_rest() {
    let cluster = StandaloneCluster::start(2, 2, &["cluster.evenly-spread-out-slots: true"]);
    let http = Http(cluster.address());
    let root = tempfile::tempdir().unwrap();
    let folder = JobFolder::new(root.path());
    folder.add_input("text", &"to be or not to be\n".repeat(1_000));

    let overview = http.get("/overview").json();
    has_shape(&overview, "024-GET-overview");
    assert_eq!((&overview["taskmanagers"], &overview["slots-available"]), (&json!(2), &json!(4)));
    has_shape(&http.get("/config").json(), "002-GET-config");
    has_shape(&http.get("/nonexistent").json(), "017-GET-nonexistent");
    assert_eq!(http.get("/jobs").json(), json!({ "jobs": [] }));

    let jar = upload(&http, GROWING_WORD_COUNT, "");
    assert!(jar.ends_with("_job") && !jar.contains(".."), "{jar}");
    let jars = http.get("/jars").json();
    has_shape(&jars, "021-GET-jars");
    assert_eq!(jars["files"][0]["id"], jar);
    let [input, output] = [folder.input(), folder.output()];
    let asked = json!({ "programArgsList": [input, output], "parallelism": 2 });
    let job = run(&http, &jar, &asked);

    // All of it has been read, by two tasks, each of which has said so.
    let details = || http.get(&format!("/jobs/{job}")).json();
    let lines = |details: &Value| details["vertices"][0]["metrics"]["read-records"].as_u64().unwrap();
    wait_until("all lines are read", || lines(&details()) == 1_000);
    let is_complete = |vertex: &Value| vertex["metrics"]["write-bytes-complete"] == true;
    wait_until("all tasks have reported", || details()["vertices"].as_array().unwrap().iter().all(is_complete));
    let details = details();
    has_shape(&details, "035-GET-jobs_jobid");
    assert_eq!(
        (&details["state"], &details["end-time"], &details["name"]),
        (&json!("RUNNING"), &json!(-1), &json!("growing word count"))
    );
    let vertices = details["vertices"].as_array().unwrap();
    assert_eq!(details["status-counts"]["RUNNING"], vertices.len());
    for vertex in vertices {
        assert_eq!((&vertex["tasks"]["RUNNING"], &vertex["parallelism"]), (&json!(2), &json!(2)), "{vertex}");
        let started = vertex["start-time"].as_i64().unwrap();
        assert!(started >= details["start-time"].as_i64().unwrap() && started <= details["now"].as_i64().unwrap());
    }
    // Six words a line.
    wait_until("all words are counted", || {
        let details = http.get(&format!("/jobs/{job}")).json();
        details["vertices"][1]["metrics"]["read-records"] == 6_000
    });
    let times = &details["timestamps"];
    let time = |status: &str| times[status].as_i64().unwrap();
    assert!(time("INITIALIZING") > 0 && time("INITIALIZING") <= time("CREATED") && time("CREATED") <= time("RUNNING"));
    assert_eq!(time("FINISHED"), 0);
    // The plan leads from the sink to the source.
    let nodes = details["plan"]["nodes"].as_array().unwrap();
    let source = nodes.iter().find(|node| node.get("inputs").is_none()).unwrap();
    assert_eq!(source["id"], vertices[0]["id"]);
    assert!(
        nodes
            .iter()
            .any(|node| node["inputs"][0]["id"] == source["id"] && node["inputs"][0]["ship_strategy"] == "HASH")
    );

    let status = http.get(&format!("/v1/jobs/{job}/status")).json();
    has_shape(&status, "036-GET-jobs_jobid_status");
    assert_eq!(status["status"], "RUNNING");
    has_shape(&http.get("/jobs").json(), "025-GET-jobs");
    let listed = http.get("/jobs/overview").json();
    has_shape(&listed, "145-GET-jobs_overview");
    let tasks = &listed["jobs"][0]["tasks"];
    assert_eq!((&tasks["running"], &tasks["total"]), (&json!(2 * vertices.len()), &json!(2 * vertices.len())));

    // Each TaskManager has a slot of it, with a task of each vertex.
    let task_managers = http.get("/taskmanagers").json();
    has_shape(&task_managers, "029-GET-taskmanagers");
    for one in task_managers["taskmanagers"].as_array().unwrap() {
        assert_eq!((&one["freeSlots"], &one["assignedTasks"]), (&json!(1), &json!(vertices.len())), "{one}");
        let processors = std::thread::available_parallelism().unwrap().get();
        assert_eq!(one["hardware"]["cpuCores"], processors, "{one}");
        assert!(one["hardware"]["physicalMemory"].as_u64().unwrap() > 1 << 20, "{one}");
        let alone = http.get(&format!("/taskmanagers/{}", one["id"].as_str().unwrap())).json();
        has_shape(&alone, "095-GET-taskmanagers_taskmanagerid");
        assert_eq!(
            (&alone["allocatedSlots"][0]["jobId"], alone["allocatedSlots"].as_array().unwrap().len()),
            (&json!(job), 1)
        );
    }

    let cancelled = http.send("PATCH", &format!("/v1/jobs/{job}?mode=cancel"), &[], b"{}");
    assert_eq!(cancelled.status, 202);
    has_shape(&cancelled.json(), "130-PATCH-jobs_jobid_mode_cancel");
    wait_until("the job has ended", || http.get(&format!("/jobs/{job}/status")).json()["status"] == "CANCELED");
    let details = http.get(&format!("/jobs/{job}")).json();
    has_shape(&details, "131-GET-jobs_jobid");
    assert!(details["end-time"].as_i64().unwrap() >= details["timestamps"]["CANCELLING"].as_i64().unwrap());
    assert!(details["vertices"].as_array().unwrap().iter().all(|vertex| vertex["tasks"]["CANCELED"] == 2));
    assert_eq!(http.get("/overview").json()["jobs-cancelled"], 1);
    // Who asks again is told that it is done.
    assert_eq!(http.send("PATCH", &format!("/jobs/{job}"), &[], b"").status, 202);
    has_shape(&http.send("DELETE", &format!("/jars/{jar}"), &[], b"{}").json(), "146-DELETE-jars_jarid");
    assert_eq!(http.get("/jars").json()["files"], json!([]));
    assert_eq!(http.post(&format!("/jars/{jar}/run"), &asked).status, 404);
}

#[test]
fn a_job_that_has_finished_is_shown_as_it_was() {
    let cluster = StandaloneCluster::start(1, 2, &[]);
    let http = Http(cluster.address());
    let root = tempfile::tempdir().unwrap();
    let folder = JobFolder::new(root.path());
    let totals = add_text(&folder, 20_000);
    let words: u64 = totals.values().sum();
    let jar = upload(&http, WORD_COUNT, "/v1");
    let [input, output] = [folder.input(), folder.output()];
    let id = "0123456789abcdef0123456789abcdef";
    let configuration = json!({ "parallelism.default": "2" });
    let asked = json!({ "programArgsList": [input, output], "jobId": id, "flinkConfiguration": configuration });
    assert_eq!(run(&http, &jar, &asked), id);
    wait_until("the job has ended", || http.get(&format!("/jobs/{id}/status")).json()["status"] == "FINISHED");
    let details = http.get(&format!("/jobs/{id}")).json();
    has_shape(&details, "124-GET-jobs_jobid");
    // What the tasks reported last stays.
    let counts = &details["vertices"][1];
    assert_eq!(counts["metrics"]["read-records"].as_u64(), Some(words), "{details:#}");
    assert_eq!((&counts["status"], &counts["tasks"]["FINISHED"]), (&json!("FINISHED"), &json!(2)));
    let (start, end) = (details["start-time"].as_i64().unwrap(), details["end-time"].as_i64().unwrap());
    assert_eq!(details["duration"].as_i64(), Some(end - start));
    // It is over, in a way that is none of a cancellation.
    let late = http.send("PATCH", &format!("/jobs/{id}"), &[], b"");
    assert_eq!(late.status, 409);
    assert!(late.error().contains("FINISHED"), "{}", late.error());
    // Its id is taken.
    let again = http.post(&format!("/jars/{jar}/run"), &asked);
    assert_eq!(again.status, 400);
    assert!(again.error().contains(id), "{}", again.error());
}

#[test]
fn what_was_uploaded_is_there_for_the_next_jobmanager_if_there_is_a_folder_for_it() {
    let root = tempfile::tempdir().unwrap();
    let setting = format!("web.upload.dir: {}", root.path().join("uploads").display());
    let cluster = StandaloneCluster::start(1, 1, &[&setting]);
    let http = Http(cluster.address());
    let jar = upload(&http, WORD_COUNT, "");
    let removed = upload(&http, WORD_COUNT, "");
    assert_eq!(http.send("DELETE", &format!("/jars/{removed}"), &[], b"").status, 200);
    let jars = || http.get("/jars").json()["files"].clone();
    let before = jars();
    assert_eq!(before.as_array().unwrap().len(), 1, "{before:#}");
    // What somebody else puts there is theirs.
    let uploads = root.path().join("uploads/millstream-web-upload");
    fs::write(uploads.join("notes.txt"), "not an upload").unwrap();
    let jobmanager = *cluster.processes("jobmanager").last().unwrap();
    signal("KILL", jobmanager);
    wait_until("its end", || has_ended(jobmanager));

    cluster.run_script("jobmanager.sh", &["start"]);
    let after = jars();
    assert_eq!((&after[0]["id"], &after[0]["name"]), (&json!(jar), &before[0]["name"]), "{after:#}");
    assert_eq!(after.as_array().unwrap().len(), 1, "{after:#}");
    let folder = JobFolder::new(root.path());
    let totals = add_text(&folder, 1_000);
    let [input, output] = [folder.input(), folder.output()];
    let asked = json!({ "programArgsList": [input, output], "parallelism": 1 });
    let job = run(&http, &jar, &asked);
    wait_until("the job has ended", || http.get(&format!("/jobs/{job}/status")).json()["status"] == "FINISHED");
    assert_eq!(deviation(&visible(&folder.output()), &totals), None);
    assert_eq!(http.send("DELETE", &format!("/jars/{jar}"), &[], b"").status, 200);
    let left: Vec<_> = fs::read_dir(&uploads).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["notes.txt"]);
}
