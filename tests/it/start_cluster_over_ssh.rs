//! `bin/start-cluster.sh` starts the TaskManagers of other hosts over SSH, and `bin/stop-cluster.sh` stops them. The hosts
//! are addresses of this one, where a real SSH server listens.

use std::fs;

use millstream_tests::{
    counts::{deviation, visible},
    has_ended,
    job_process::JobFolder,
    program::{fail, succeed},
    ssh::SshServer,
    standalone::StandaloneCluster,
    text::add_text,
    wait_until,
};

const WORD_COUNT: &str = env!("CARGO_BIN_EXE_word_count_job");
/// Nobody listens there.
const UNREACHABLE: &str = "127.0.0.10";

/// A cluster that is not started, with TaskManagers on these hosts.
fn cluster(server: &SshServer, hosts: &[&str]) -> StandaloneCluster {
    StandaloneCluster::prepare(0, 1, &[&format!("env.ssh.opts: \"{}\"", server.options())]).install(hosts)
}

/// The address that SSH has reached when it started a process, if it was SSH.
fn started_at(process: u32) -> Option<String> {
    let environment = fs::read(format!("/proc/{process}/environ")).unwrap();
    let mut variables = environment.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let connection = variables.find_map(|variable| Some(variable.strip_prefix("SSH_CONNECTION=")?.to_owned()))?;
    connection.split(' ').nth(2).map(str::to_owned)
}

fn processes(cluster: &StandaloneCluster) -> Vec<u32> {
    [cluster.processes("jobmanager"), cluster.processes("taskmanager")].concat()
}

#[test]
fn a_cluster_of_several_hosts_is_started_runs_a_job_and_is_stopped() {
    let server = SshServer::start(&["127.0.0.2", "127.0.0.3"]);
    let cluster = cluster(&server, &["127.0.0.2", "localhost", "127.0.0.3 # and a remark"]);
    let said = succeed(&mut cluster.script("start-cluster.sh"));
    assert_eq!(said.matches("Started taskmanager").count(), 3, "{said}");
    let started = processes(&cluster);
    let mut at: Vec<_> = started.iter().filter_map(|process| started_at(*process)).collect();
    at.sort();
    assert_eq!((started.len(), at), (4, vec!["127.0.0.2".to_owned(), "127.0.0.3".to_owned()]));

    let root = tempfile::tempdir().unwrap();
    let folder = JobFolder::new(root.path());
    let totals = add_text(&folder, 1_000);
    let arguments = folder.arguments(&[]);
    let texts = arguments.iter().map(String::as_str);
    // The slots of all three.
    let output = cluster.ask(&["run", "-p", "3", WORD_COUNT].into_iter().chain(texts).collect::<Vec<_>>());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(deviation(&visible(&folder.output()), &totals), None);
    let workers = cluster.workers();
    assert_eq!(workers.len(), 3);

    succeed(&mut cluster.script("stop-cluster.sh"));
    wait_until("its end", || started.iter().chain(&workers).all(|process| has_ended(*process)));
    assert_eq!(cluster.left_behind(), [] as [std::path::PathBuf; 0]);
    // Each script came over a connection of its own, with the key, and none is left open.
    let log = server.log();
    assert_eq!(log.matches("Accepted publickey").count(), 4, "{log}");
    wait_until("the connections are closed", || server.log().matches("Disconnected from user").count() == 4);
}

#[test]
fn a_host_that_cannot_be_reached_is_named_and_keeps_nobody_waiting() {
    let server = SshServer::start(&["127.0.0.2"]);
    let cluster = cluster(&server, &[UNREACHABLE, "127.0.0.2"]);
    let (_, said) = fail(&mut cluster.script("start-cluster.sh"));
    assert!(said.contains(&format!("taskmanager.sh start has failed on {UNREACHABLE}")), "{said}");
    let started = processes(&cluster);
    assert_eq!(started.len(), 2, "{said}");
    let (_, said) = fail(&mut cluster.script("stop-cluster.sh"));
    assert!(said.contains(&format!("taskmanager.sh stop-all has failed on {UNREACHABLE}")), "{said}");
    wait_until("its end", || started.iter().all(|process| has_ended(*process)));
}
