//! The protocol of clients is one that others can speak: a client in Python, of generated code, has a job run and looks
//! after it.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, SystemTime},
};

use millstream_tests::{
    job_process::JobFolder,
    program::{fail, succeed},
    python::PythonClient,
    standalone::StandaloneCluster,
    tls::Authority,
};
use rcgen::ExtendedKeyUsagePurpose;

/// It never ends by itself.
const GROWING_WORD_COUNT: &str = env!("CARGO_BIN_EXE_growing_word_count_job");

/// What the client says that does everything with a cluster's job; `trust` is an authority and a token, or empty.
fn said(cluster: &StandaloneCluster, folder: &JobFolder, trust: [&str; 2]) -> String {
    folder.add_input("text", &"to be or not to be\n".repeat(100));
    let checkpoints = format!("-Dexecution.checkpointing.dir={}", folder.checkpoints().display());
    let client = PythonClient::generate();
    let mut python = client.python();
    python
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("python/job_submission.py"))
        .arg(cluster.address())
        .args(trust)
        .args([GROWING_WORD_COUNT, &checkpoints])
        .args([folder.input(), folder.output()]);
    succeed(&mut python)
}

#[test]
fn a_generated_client_submits_watches_and_cancels_a_job_and_is_told_what_was_wrong() {
    let root = tempfile::tempdir().unwrap();
    let folder = JobFolder::new(root.path());
    let cluster = StandaloneCluster::start(1, 2, &[]);
    let said = said(&cluster, &folder, ["", ""]);
    assert!(said.ends_with("all was as it should be\n"), "{said}");
    for words in ["INVALID_ARGUMENT", "NOT_FOUND", "JOB_STATUS_RUNNING", "its result is kept"] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[test]
fn a_generated_client_shows_its_token_over_tls() {
    let root = tempfile::tempdir().unwrap();
    let folder = JobFolder::new(root.path());
    let authority = Authority::new();
    #[expect(clippy::disallowed_methods, reason = "certificates are good by the wall clock")]
    let tomorrow = SystemTime::now() + Duration::from_secs(86_400);
    let own = authority.sign("localhost", ExtendedKeyUsagePurpose::ServerAuth, tomorrow);
    let [ca, keystore, token] =
        [("ca", &*authority.pem()), ("own", &own.pem), ("token", "a-token-for-this-test-alone")].map(|(name, text)| {
            let path = root.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            path.display().to_string()
        });
    let cluster = StandaloneCluster::start(
        1,
        2,
        &[
            "security.ssl.rest.enabled: true",
            &format!("security.ssl.rest.keystore: {keystore}"),
            &format!("security.ssl.rest.truststore: {ca}"),
            &format!("security.token-file: {token}"),
        ],
    );
    let said = said(&cluster, &folder, [&ca, "a-token-for-this-test-alone"]);
    assert!(said.contains("UNAUTHENTICATED") && said.ends_with("all was as it should be\n"), "{said}");
}

#[test]
fn the_client_fails_where_nothing_is_as_it_should_be() {
    let root = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/job_submission.py");
    let client = PythonClient::generate();
    let mut python = client.python();
    let folder = root.path().to_str().unwrap();
    let (code, words) = fail(python.arg(script).args(["127.0.0.1:1", "", "", GROWING_WORD_COUNT, folder, folder]));
    assert!(code == 1 && words.contains("StatusCode.UNAVAILABLE"), "{code}: {words}");
}
