//! Who is let in at the ports of a cluster, and who is not.

#![allow(clippy::disallowed_methods, reason = "certificates are good by the wall clock")]

use std::{
    fs,
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, SystemTime},
};

use millstream_tests::{
    hosts::Hosts, http::Http, job_process::JobFolder, standalone::StandaloneCluster, text::add_text, tls::Authority,
    wait_until,
};
use rcgen::ExtendedKeyUsagePurpose;

const WORD_COUNT: &str = env!("CARGO_BIN_EXE_word_count_job");
const DAY: Duration = Duration::from_secs(86_400);
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

#[test]
fn a_port_that_others_could_reach_is_refused_and_the_refusal_says_what_to_do() {
    let cluster = StandaloneCluster::prepare(1, 1, &[]);
    for (kind, settings, keys) in [
        ("jobmanager", &["-Drest.address=0.0.0.0"][..], &["rest.address", "security.ssl.rest.enabled"][..]),
        ("jobmanager", &["-Djobmanager.bind-host=0.0.0.0"], &["jobmanager.bind-host"]),
        (
            "taskmanager",
            &["-Dtaskmanager.bind-host=0.0.0.0", "-Dsecurity.ssl.internal.enabled=false"],
            &["taskmanager.bind-host", "security.ssl.internal.enabled"],
        ),
    ] {
        let refused = cluster.ask(&[&[kind], settings].concat());
        assert_eq!(refused.status.code(), Some(1), "{settings:?}");
        for key in [keys, &["security.insecure"]].concat() {
            assert!(said(&refused).contains(key), "{key}: {}", said(&refused));
        }
    }
}

#[test]
fn clients_of_another_host_are_served_over_tls_with_the_token_and_else_not() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name).display().to_string();
    let (hosts, folder) = (Hosts::new(2), JobFolder::new(root.path()));
    let host = hosts.address(0).to_string();
    let (authority, other) = (Authority::new(), Authority::new());
    let own = authority.sign(&host, ExtendedKeyUsagePurpose::ServerAuth, SystemTime::now() + DAY);
    for (name, text) in [
        ("ca", &*authority.pem()),
        ("own", &own.pem),
        ("other-ca", &other.pem()),
        ("token", TOKEN),
        ("wrong", "a-token-of-another-cluster"),
    ] {
        write_secret(&root.path().join(name), text);
    }
    add_text(&folder, 100);
    let cluster = StandaloneCluster::prepare(
        1,
        2,
        &[
            "security.ssl.rest.enabled: true",
            &format!("security.ssl.rest.keystore: {}", path("own")),
            &format!("security.ssl.rest.truststore: {}", path("ca")),
            &format!("security.token-file: {}", path("token")),
        ],
    );
    hosts.on(0, || cluster.run_script("start-cluster.sh", &[&format!("-Drest.address={host}")]));
    let address = cluster.address().replace("localhost", &host);
    // From the other host.
    let ask = |arguments: &[&str]| hosts.on(1, || cluster.ask(arguments));
    let list = |settings: &[&str]| ask(&[&["list", "-m", &address], settings].concat());

    let arguments = folder.arguments(&[]);
    let texts = arguments.iter().map(String::as_str);
    let ran = ask(&["run", "-m", &address, "-p", "2", WORD_COUNT].into_iter().chain(texts).collect::<Vec<_>>());
    assert!(ran.status.success(), "{}", said(&ran));
    for (settings, words) in [
        (vec![format!("-Dsecurity.token-file={}", path("wrong"))], "not this cluster's"),
        (vec!["-Dsecurity.token-file=".to_owned()], "security.token-file"),
        (vec![format!("-Dsecurity.ssl.rest.truststore={}", path("other-ca"))], "invalid peer certificate"),
        (vec!["-Dsecurity.ssl.rest.enabled=false".to_owned()], "TLS is spoken at this port: security.ssl.rest.enabled"),
    ] {
        let refused = list(&settings.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(!refused.status.success() && said(&refused).contains(words), "{settings:?}: {}", said(&refused));
    }
    let log = cluster.log("jobmanager");
    assert!(log.contains("a request was refused") && log.contains("a client was not let in"), "{log}");
    // The port of TaskManagers is on loopback, and closed to the other host.
    let port = log.split("TaskManagers at 127.0.0.1:").nth(1).and_then(|rest| rest.split_whitespace().next());
    let port: u16 = port.unwrap().parse().unwrap();
    hosts.on(0, || TcpStream::connect(("127.0.0.1", port)).unwrap());
    hosts.on(1, || TcpStream::connect((&*host, port)).unwrap_err());
    hosts.on(0, || cluster.stop());
}

#[test]
fn clients_of_another_host_are_served_that_show_a_certificate_and_else_not() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name).display().to_string();
    let (hosts, folder) = (Hosts::new(2), JobFolder::new(root.path()));
    let host = hosts.address(0).to_string();
    let [servers, clients, cluster_of_others] = [(); 3].map(|()| Authority::new());
    let (end, past) = (SystemTime::now() + DAY, SystemTime::now() - Duration::from_secs(3600));
    let client = ExtendedKeyUsagePurpose::ClientAuth;
    for (name, text) in [
        ("ca", servers.pem()),
        ("own", servers.sign(&host, ExtendedKeyUsagePurpose::ServerAuth, end).pem),
        ("clients-ca", clients.pem()),
        ("client", clients.sign("me.example.org", client.clone(), end).pem),
        ("expired", clients.sign("me.example.org", client.clone(), past).pem),
        ("for-servers", clients.sign(&host, ExtendedKeyUsagePurpose::ServerAuth, end).pem),
        ("stranger", cluster_of_others.sign("worker-1.millstream", client, end).pem),
    ] {
        write_secret(&root.path().join(name), &text);
    }
    add_text(&folder, 100);
    let cluster = StandaloneCluster::prepare(
        1,
        2,
        &["security.ssl.rest.enabled: true", "security.ssl.rest.authentication-enabled: true"],
    );
    let of_jobmanager = [
        format!("-Drest.address={host}"),
        format!("-Dsecurity.ssl.rest.keystore={}", path("own")),
        format!("-Dsecurity.ssl.rest.truststore={}", path("clients-ca")),
    ];
    hosts.on(0, || cluster.run_script("start-cluster.sh", &of_jobmanager.each_ref().map(String::as_str)));
    let address = cluster.address().replace("localhost", &host);
    let trust = format!("-Dsecurity.ssl.rest.truststore={}", path("ca"));
    // From the other host.
    let ask = |certificate: &str, arguments: &[&str]| {
        let shown = format!("-Dsecurity.ssl.rest.keystore={}", path(certificate));
        let (verb, rest) = arguments.split_first().unwrap();
        hosts.on(1, || cluster.ask(&[&[verb, "-m", &address, &trust, &shown][..], rest].concat()))
    };
    let arguments = folder.arguments(&[]);
    let texts = arguments.iter().map(String::as_str);
    let ran = ask("client", &["run", "-p", "2", WORD_COUNT].into_iter().chain(texts).collect::<Vec<_>>());
    assert!(ran.status.success(), "{}", said(&ran));
    for (certificate, settings, told, logged) in [
        (
            "client",
            &["-Dsecurity.ssl.rest.authentication-enabled=false"][..],
            "it has no certificate",
            "it has no certificate",
        ),
        ("stranger", &[], "UnknownCA", "UnknownIssuer"),
        ("expired", &[], "CertificateExpired", "certificate expired"),
        ("for-servers", &[], "alert", "does not allow"),
    ] {
        let refused = ask(certificate, &[&["list"], settings].concat());
        assert!(!refused.status.success() && said(&refused).contains(told), "{certificate}: {}", said(&refused));
        wait_until("its log", || cluster.log("jobmanager").lines().any(|line| line.contains(logged)));
    }
    hosts.on(0, || cluster.stop());
}
