//! Who is let in at the ports of a cluster, and who is not.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use millstream_tests::{http::Http, job_process::JobFolder, standalone::StandaloneCluster, text::add_text};

const WORD_COUNT: &str = env!("CARGO_BIN_EXE_word_count_job");
const TOKEN: &str = "a-token-for-this-test-alone";

fn write_secret(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn said(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_cluster_with_a_token_serves_those_who_show_it_and_no_others() {
    let root = tempfile::tempdir().unwrap();
    let [token, other] = ["token", "other"].map(|name| root.path().join(name));
    write_secret(&token, TOKEN);
    write_secret(&other, "a-token-of-another-cluster");
    let setting = format!("security.token-file: {}", token.display());
    let cluster = StandaloneCluster::start(1, 2, &[&setting]);

    let folder = JobFolder::new(root.path());
    add_text(&folder, 100);
    let arguments = folder.arguments(&[]);
    let texts = arguments.iter().map(String::as_str);
    let output = cluster.ask(&["run", "-p", "2", WORD_COUNT].into_iter().chain(texts).collect::<Vec<_>>());
    assert!(output.status.success(), "{}", said(&output));
    assert!(cluster.ask(&["list"]).status.success());

    let wrong = format!("-Dsecurity.token-file={}", other.display());
    let refused = cluster.ask(&["list", &wrong]);
    assert!(!refused.status.success() && said(&refused).contains("not this cluster's"), "{}", said(&refused));
    let refused = cluster.ask(&["list", "-Dsecurity.token-file="]);
    assert!(!refused.status.success() && said(&refused).contains("security.token-file"), "{}", said(&refused));
    // By the environment, which is weaker than what the file says: so without that.
    let by_environment = cluster
        .client(&["list", "-m", &cluster.address()])
        .env("MILLSTREAM_CONF_DIR", root.path())
        .env("MILLSTREAM_SECURITY_TOKEN_FILE", &token)
        .output()
        .unwrap();
    assert!(by_environment.status.success(), "{}", said(&by_environment));
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).unwrap();
    let refused = cluster.ask(&["list"]);
    assert!(!refused.status.success() && said(&refused).contains("chmod 600"), "{}", said(&refused));

    let http = Http(cluster.address());
    for path in ["/overview", "/v1/jobs", "/jars", "/none"] {
        let refused = http.get(path);
        assert_eq!(refused.status, 401, "{path}");
        assert!(refused.error().contains("security.token-file"), "{path}: {}", refused.error());
    }
    let wrong = http.send("GET", "/overview", &[("Authorization", "Bearer a-token-of-another-cluster")], b"");
    assert_eq!(wrong.status, 401);
    let served = http.send("GET", "/overview", &[("Authorization", &format!("Bearer {TOKEN}"))], b"");
    assert_eq!(served.status, 200);
    assert!(cluster.log("jobmanager").contains("a request was refused"), "{}", cluster.log("jobmanager"));
    assert!(!cluster.log("jobmanager").contains(TOKEN), "the token is in the log");
}
