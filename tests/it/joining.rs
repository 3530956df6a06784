//! TaskManagers of other hosts join with the join token, and nobody else does: at their port of the JobManager, and at the
//! ports of workers.

#![allow(clippy::disallowed_methods, reason = "tests wait for conditions, with a limit on the wall clock")]

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Output,
    time::{Duration, SystemTime},
};

use millstream::model::id::WorkerId;
use millstream_shuffle::transport::identity::{ClusterCa, Identity};
use millstream_tests::{
    counts::{deviation, visible},
    dial::{Over, dial},
    has_ended,
    hosts::Hosts,
    http::Http,
    job_process::{JOB_ID, JobFolder},
    signal,
    standalone::StandaloneCluster,
    text::{Author, add_text},
    tls::{Authority, Own, call},
    wait_until,
};
use rcgen::ExtendedKeyUsagePurpose;

const WORD_COUNT: &str = env!("CARGO_BIN_EXE_word_count_job");
/// It never ends by itself.
const ENDLESS: &str = env!("CARGO_BIN_EXE_growing_word_count_job");
/// Of certificates.
const LIFETIME: Duration = Duration::from_secs(1);

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn write_secret(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A cluster whose JobManager is on host 0.
struct Scene {
    root: tempfile::TempDir,
    hosts: Hosts,
    cluster: StandaloneCluster,
}

impl Scene {
    /// Starts a JobManager. The authority is kept, and certificates have to be renewed all the time.
    fn start(settings: &[&str]) -> Scene {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name).display().to_string();
        let of_cluster = [
            "high-availability.type: file".to_owned(),
            format!("high-availability.storageDir: {}", path("storage")),
            format!("security.join-token-file: {}", path("join-token")),
            format!("security.certificate-lifetime: {} s", LIFETIME.as_secs()),
        ];
        let settings: Vec<&str> = of_cluster.iter().map(String::as_str).chain(settings.iter().copied()).collect();
        let cluster = StandaloneCluster::prepare(1, 1, &settings);
        let scene = Scene { root, hosts: Hosts::new(2), cluster };
        scene.start_jobmanager();
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Where the JobManager is, for all processes.
    fn address(&self) -> String {
        format!("-Djobmanager.rpc.address={}", self.hosts.address(0))
    }

    fn start_jobmanager(&self) {
        self.hosts.on(0, || self.cluster.run_script("jobmanager.sh", &["start", &self.address()]));
    }

    /// Starts a TaskManager on a host, whose workers are reached by others.
    fn start_task_manager(&self, host: u8, settings: &[&str]) {
        let address = self.address();
        let arguments = [&["start", "-Dtaskmanager.bind-host=0.0.0.0", &address][..], settings].concat();
        self.hosts.on(host, || self.cluster.run_script("taskmanager.sh", &arguments));
    }

    /// How a TaskManager of the other host ends.
    fn ask_to_join(&self, settings: &[&str]) -> Output {
        let address = self.address();
        self.hosts.on(1, || self.cluster.ask(&[&["taskmanager", &address][..], settings].concat()))
    }

    fn run_job(&self, folder: &JobFolder) {
        let arguments = folder.arguments(&[]);
        let texts = arguments.iter().map(String::as_str);
        let arguments: Vec<&str> = ["run", "-p", "2", WORD_COUNT].into_iter().chain(texts).collect();
        let output = self.hosts.on(0, || self.cluster.ask(&arguments));
        assert!(output.status.success(), "{}", said(&output));
    }

    fn logged(&self, words: &str) -> usize {
        self.cluster.log("jobmanager").matches(words).count()
    }

    fn wait_for_slots(&self, count: usize) {
        wait_until("all slots", || {
            let http = Http(self.cluster.address());
            self.hosts.on(0, || http.get("/overview")).json()["slots-total"] == count
        });
    }

    fn stop(&self) {
        self.hosts.on(0, || self.cluster.stop());
    }
}

#[test]
fn task_managers_of_another_host_join_and_a_job_runs_on_both() {
    let scene = Scene::start(&[]);
    let token = scene.path("join-token");
    assert_eq!(fs::metadata(&token).unwrap().permissions().mode() & 0o777, 0o600);
    let authority = scene.path("storage/security/authority.pem");
    assert_eq!(fs::metadata(&authority).unwrap().permissions().mode() & 0o777, 0o600);
    // The other host has nothing but a copy of the join token.
    let copy = scene.path("copy");
    write_secret(&copy, &fs::read_to_string(&token).unwrap());
    scene.start_task_manager(0, &[]);
    scene.start_task_manager(1, &[&format!("-Dsecurity.join-token-file={}", copy.display())]);
    scene.wait_for_slots(2);
    let folder = JobFolder::new(scene.root.path());
    add_text(&folder, 100);
    // By then the certificates that they registered with have expired, and artifacts are downloaded all the same.
    let is_old =
        |path: &Path| fs::metadata(path).unwrap().modified().unwrap().elapsed().is_ok_and(|age| age > LIFETIME);
    wait_until("the end of the first certificates", || is_old(&copy));
    scene.run_job(&folder);
    assert_eq!(scene.cluster.workers().len(), 2, "{}", scene.cluster.log("taskmanager"));
    assert!(scene.logged("a TaskManager has joined") > 2, "{}", scene.cluster.log("jobmanager"));
    // The next JobManager is believed, and believes.
    let jobmanager = *scene.cluster.processes("jobmanager").last().unwrap();
    signal("KILL", jobmanager);
    wait_until("its end", || has_ended(jobmanager));
    scene.start_jobmanager();
    scene.wait_for_slots(2);
    let secret = fs::read_to_string(&token).unwrap();
    let secret = secret.lines().find_map(|line| line.strip_prefix("token: ")).unwrap();
    let logs = scene.cluster.log("jobmanager") + &scene.cluster.log("taskmanager");
    assert!(!logs.contains(secret), "the join token is in a log");
    scene.stop();
}

#[test]
fn who_has_no_join_token_or_a_wrong_one_is_told_so() {
    let scene = Scene::start(&[]);
    let good = fs::read_to_string(scene.path("join-token")).unwrap();
    let wrong = scene.path("wrong");
    let setting = format!("-Dsecurity.join-token-file={}", wrong.display());
    let key = "security.join-token-file";

    let without = scene.ask_to_join(&["-Dsecurity.join-token-file="]);
    assert!(!without.status.success() && said(&without).contains("TLS is spoken at this port"), "{}", said(&without));
    assert!(said(&without).contains(key), "{}", said(&without));
    assert_eq!(scene.logged("a client was not let in: TLS is spoken at this port"), 1);

    let secret = good.lines().find_map(|line| line.strip_prefix("token: ")).unwrap();
    let other: String = secret.chars().map(|digit| if digit == '0' { '1' } else { '0' }).collect();
    write_secret(&wrong, &good.replace(secret, &other));
    let refused = scene.ask_to_join(&[&setting]);
    assert!(!refused.status.success() && said(&refused).contains("not this cluster's"), "{}", said(&refused));
    assert!(said(&refused).contains(key) && said(&refused).contains(&*wrong.to_string_lossy()), "{}", said(&refused));
    assert_eq!(scene.logged("a TaskManager may not join"), 1);

    fs::set_permissions(&wrong, fs::Permissions::from_mode(0o640)).unwrap();
    let open = scene.ask_to_join(&[&setting]);
    assert!(!open.status.success() && said(&open).contains("chmod 600"), "{}", said(&open));
    assert!(said(&open).contains(key) && said(&open).contains(&*wrong.to_string_lossy()), "{}", said(&open));

    write_secret(&wrong, "something else");
    let nonsense = scene.ask_to_join(&[&setting]);
    assert!(!nonsense.status.success() && said(&nonsense).contains("it is no join token"), "{}", said(&nonsense));

    // To another JobManager nothing is shown. It may be that the right one is yet to come.
    write_secret(&wrong, &format!("token: {other}\n{}", Authority::new().pem()));
    let (words, address) = (scene.path("words"), scene.address());
    let file = fs::File::create(&words).unwrap();
    let mut waiting = scene.hosts.on(1, || {
        let mut command = scene.cluster.client(&["taskmanager", &address, &setting]);
        command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap()
    });
    wait_until("what it says", || {
        let words = fs::read_to_string(&words).unwrap();
        ["UnknownIssuer", "it is not the JobManager that has made", key, &*wrong.to_string_lossy()]
            .iter()
            .all(|part| words.contains(part))
    });
    waiting.kill().unwrap();
    waiting.wait().unwrap();
    wait_until("the log of the other side", || {
        scene.cluster.log("jobmanager").contains("received fatal alert: UnknownCA")
    });
    assert_eq!(scene.logged("registered"), 0, "{}", scene.cluster.log("jobmanager"));
    scene.stop();
}

#[test]
fn a_certificate_opens_the_port_of_task_managers_if_it_is_one_of_theirs_and_no_other_does() {
    let scene = Scene::start(&[]);
    let stored = fs::read_to_string(scene.path("storage/security/authority.pem")).unwrap();
    let (authority, user) = (Authority::of_cluster(&stored), Authority::new());
    let log = scene.cluster.log("jobmanager");
    let address = log.split("TaskManagers at ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    // From the other host.
    let ask = |own: Option<&Own>, path: &str| {
        let answer = scene.hosts.on(1, || call(&address, &stored, "jobmanager.millstream", own, path));
        answer.map(|answer| answer.headers)
    };
    let [attach, download] = ["Attach", "DownloadArtifact"].map(|name| format!("/millstream.v1.TaskManagers/{name}"));

    let (now, day) = (SystemTime::now(), Duration::from_secs(86_400));
    let name = "taskmanager-00000000000000000000000000000007.millstream";
    let client = ExtendedKeyUsagePurpose::ClientAuth;
    // Without a registration it gets as far as being asked for one.
    let good = authority.sign(name, client.clone(), now + day);
    let answered = ask(Some(&good), &attach).unwrap();
    assert!(answered.contains("grpc-status: 3") && answered.contains("registration"), "{answered}");

    let nobody = ask(None, &attach).unwrap();
    assert!(nobody.contains("grpc-status: 16") && nobody.contains("security.join-token-file"), "{nobody}");
    let nobody = ask(None, &download).unwrap();
    assert!(nobody.contains("grpc-status: 16"), "{nobody}");
    // Not even with a good one, what is others'.
    let other_method = ask(Some(&good), "/millstream.v1.JobSubmission/SubmitJob").unwrap();
    assert!(other_method.contains("grpc-status: 7"), "{other_method}");

    let worker = ClusterCa::generate(7, now, day).and_then(|job| job.issue(WorkerId(1), now, day)).unwrap();
    for (what, own, words) in [
        ("expired", authority.sign(name, client.clone(), now - Duration::from_secs(3600)), "certificate expired"),
        ("of another authority", user.sign(name, client.clone(), now + day), "UnknownIssuer"),
        ("of a client", user.sign("somebody.example.org", client.clone(), now + day), "UnknownIssuer"),
        ("of a worker", Own::of_worker(&worker), "UnknownIssuer"),
        ("for servers", authority.sign(name, ExtendedKeyUsagePurpose::ServerAuth, now + day), "does not allow"),
    ] {
        let before = scene.logged("a client was not let in");
        let refused = ask(Some(&own), &attach).expect_err(what);
        assert!(refused.contains("alert"), "{what}: {refused}");
        wait_until(what, || scene.logged("a client was not let in") > before);
        let log = scene.cluster.log("jobmanager");
        let line = log.lines().rfind(|line| line.contains("a client was not let in")).unwrap();
        assert!(line.contains(words) && line.contains("10.77.0.2"), "{what}: {line}");
    }
    // Signed by the right one, for nobody who may come here.
    for name in ["worker-1.millstream", "jobmanager.millstream"] {
        let refused = ask(Some(&authority.sign(name, client.clone(), now + day)), &attach).unwrap();
        assert!(refused.contains("grpc-status: 16") && refused.contains("no%20TaskManager"), "{name}: {refused}");
        assert!(scene.cluster.log("jobmanager").contains(&format!("is of '{name}'")));
    }
    scene.stop();
}

/// Where a worker listens, the only process of its host that does.
fn listening(worker: u32, protocol: &str) -> Option<u16> {
    let sockets = fs::read_to_string(format!("/proc/{worker}/net/{protocol}")).ok()?;
    sockets.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // Of TCP one that listens, of UDP one that is connected to nobody.
        let is_it = fields[2] == "00000000:0000" && (protocol == "udp" || fields[3] == "0A");
        is_it.then(|| u16::from_str_radix(fields[1].split_once(':')?.1, 16).ok()).flatten()
    })
}

fn strangers_are_refused_at_the_port_of_a_worker(over: Over) {
    let transport = if over == Over::Quic { "quic" } else { "tcp" };
    let scene = Scene::start(&[]);
    scene.start_task_manager(0, &[]);
    scene.start_task_manager(1, &[]);
    scene.wait_for_slots(2);
    let folder = JobFolder::new(scene.root.path());
    let mut author = Author::of(&folder);
    author.write(1_000);
    let transport = format!("shuffle.transport={transport}");
    let arguments = folder.arguments(&["execution.checkpointing.interval=50 ms", &transport]);
    let texts = arguments.iter().map(String::as_str);
    let arguments: Vec<&str> = ["run", "-d", "-p", "2", ENDLESS].into_iter().chain(texts).collect();
    let output = scene.hosts.on(0, || scene.cluster.ask(&arguments));
    assert!(output.status.success(), "{}", said(&output));
    wait_until("a checkpoint", || folder.newest_checkpoint() > 0);

    // The one on host 1, seen from host 0. Its job's authority is what its JobManager has stored.
    let log = scene.cluster.logs("taskmanager").pop().unwrap();
    let started = log.lines().find(|line| line.contains("a worker process has started")).unwrap();
    let number = |key: &str| -> u32 {
        let text = started.split(key).nth(1).unwrap().split_whitespace().next().unwrap();
        text.parse().unwrap()
    };
    let (worker, process) = (WorkerId(number("worker=")), number("process="));
    let port = listening(process, if over == Over::Quic { "udp" } else { "tcp" }).unwrap();
    let address = SocketAddr::new(scene.hosts.address(1), port);
    let from = SocketAddr::new(scene.hosts.address(0), 0);
    let accepted = fs::read(scene.path(&format!("storage/job-graphs/{JOB_ID}"))).unwrap();
    let accepted: serde_json::Value = serde_json::from_slice(&accepted).unwrap();
    let of_job: ClusterCa = serde_json::from_value(accepted["authority"].clone()).unwrap();
    let dial = |over, identity| scene.hosts.on(0, || dial(over, from, identity, worker, address));

    let (now, day) = (SystemTime::now(), Duration::from_secs(86_400));
    let stranger = WorkerId(99);
    let good = of_job.issue(stranger, now, day).unwrap();
    assert_eq!(dial(over, good.clone()), None);
    // They believe the worker, and it does not believe them.
    let as_shown = |certificates: Vec<Vec<u8>>, key: Vec<u8>| Identity { certificates, key, ..good.clone() };
    let expired = of_job.issue(stranger, now - 2 * day, day).unwrap();
    let of_other_job = ClusterCa::generate(7, now, day).and_then(|job| job.issue(stranger, now, day)).unwrap();
    let stored = fs::read_to_string(scene.path("storage/security/authority.pem")).unwrap();
    let name = "taskmanager-00000000000000000000000000000007.millstream";
    let task_manager = Authority::of_cluster(&stored).sign(name, ExtendedKeyUsagePurpose::ClientAuth, now + day);
    for (identity, words) in [
        (expired, "expired"),
        (as_shown(of_other_job.certificates, of_other_job.key), "authority of another cluster"),
        (as_shown(vec![task_manager.certificate.to_vec()], task_manager.key()), "authority of another cluster"),
    ] {
        let before = scene.cluster.log("taskmanager").matches("before it was of use").count();
        let refused = dial(over, identity).expect(words);
        assert!(refused.contains("by the peer: ") && refused.contains(words), "{refused}");
        wait_until("its log", || scene.cluster.log("taskmanager").matches("before it was of use").count() > before);
        let log = scene.cluster.log("taskmanager");
        let line = log.lines().rfind(|line| line.contains("before it was of use")).unwrap();
        assert!(line.contains("of the peer: ") && line.contains(words) && line.contains("10.77.0.1"), "{line}");
    }
    if over == Over::Tls {
        let before = scene.cluster.log("taskmanager").matches("before it was of use").count();
        dial(Over::PlainTcp, good).expect("nothing is spoken without TLS");
        wait_until("its log", || scene.cluster.log("taskmanager").matches("before it was of use").count() > before);
    }
    // The job has not noticed.
    author.write(1_000);
    wait_until("all counts", || deviation(&visible(&folder.output()), author.totals()).is_none());
    assert_eq!(scene.cluster.workers().len(), 2, "{}", scene.cluster.log("taskmanager"));
    scene.stop();
}

#[test]
fn strangers_are_refused_at_the_port_of_a_worker_over_quic() {
    strangers_are_refused_at_the_port_of_a_worker(Over::Quic);
}

#[test]
fn strangers_are_refused_at_the_port_of_a_worker_over_tcp() {
    strangers_are_refused_at_the_port_of_a_worker(Over::Tls);
}
