//! A cluster of real processes on this machine, started and stopped by the scripts in `bin/`.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::program::{built, succeed, workspace};

/// A JobManager and its TaskManagers. They are stopped when this is dropped.
pub struct StandaloneCluster {
    root: tempfile::TempDir,
    program: PathBuf,
    rest_port: u16,
    rpc_port: u16,
    /// Whether it is a folder with everything in it, and no variable says where something is.
    is_installed: bool,
}

impl StandaloneCluster {
    /// Starts a JobManager and TaskManagers, with more settings as `key: value`.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(task_managers: usize, slots: u32, settings: &[&str]) -> StandaloneCluster {
        let cluster = StandaloneCluster::prepare(task_managers, slots, settings);
        cluster.run_script("start-cluster.sh", &[]);
        cluster
    }

    /// Starts the JobManager of an application, whose artifact is put in place, and TaskManagers.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn application(
        task_managers: usize,
        slots: u32,
        settings: &[&str],
        artifact: &str,
        arguments: &[&str],
    ) -> StandaloneCluster {
        let cluster = StandaloneCluster::prepare(task_managers, slots, settings);
        let place = cluster.usrlib().join("application");
        fs::create_dir(cluster.usrlib()).expect("there is room for a folder");
        fs::copy(artifact, place).expect("there is room for the artifact");
        cluster.restart_application(arguments);
        (0..task_managers).for_each(|_| cluster.run_script("taskmanager.sh", &["start"]));
        cluster
    }

    /// Starts the JobManager of an application.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn restart_application(&self, arguments: &[&str]) {
        self.run_script("standalone-job.sh", &[&["start"], arguments].concat());
    }

    fn usrlib(&self) -> PathBuf {
        self.root.path().join("usrlib")
    }

    /// Has everything in place to start one, and does not.
    ///
    /// # Panics
    /// If there is no room for it.
    pub fn prepare(task_managers: usize, slots: u32, settings: &[&str]) -> StandaloneCluster {
        let root = tempfile::tempdir().expect("there is room for a folder");
        let [rest_port, rpc_port] = free_ports();
        let conf = root.path().join("conf");
        fs::create_dir(&conf).expect("there is room for a folder");
        fs::create_dir(root.path().join("tmp")).expect("there is room for a folder");
        let more: String = settings.iter().map(|setting| format!("{setting}\n")).collect();
        let text = format!(
            "jobmanager.rpc.address: localhost\njobmanager.rpc.port: {rpc_port}\nrest.address: localhost\n\
             rest.port: {rest_port}\ntaskmanager.numberOfTaskSlots: {slots}\nio.tmp.dirs: {}\n{more}",
            root.path().join("tmp").display()
        );
        fs::write(conf.join("config.yaml"), text).expect("there is room for a file");
        fs::write(conf.join("workers"), "localhost\n".repeat(task_managers)).expect("there is room for a file");
        StandaloneCluster { root, program: built("millstream"), rest_port, rpc_port, is_installed: false }
    }

    /// Puts scripts and program into its folder too, where other hosts find them, and names the hosts of its TaskManagers.
    ///
    /// # Panics
    /// If there is no room for them.
    pub fn install(mut self, hosts: &[&str]) -> StandaloneCluster {
        let room = "there is room for a file";
        let bin = self.root.path().join("bin");
        fs::create_dir(&bin).expect("there is room for a folder");
        for script in fs::read_dir(workspace().join("bin")).expect("the checkout has scripts") {
            let script = script.expect("the checkout has scripts");
            fs::copy(script.path(), bin.join(script.file_name())).expect(room);
        }
        std::os::unix::fs::symlink(&self.program, bin.join("millstream")).expect(room);
        let lines: String = hosts.iter().map(|host| format!("{host}\n")).collect();
        fs::write(self.conf_dir().join("workers"), lines).expect(room);
        let mut config = fs::read_to_string(self.conf_dir().join("config.yaml")).expect("it was written");
        config.push_str(&format!("env.pid.dir: {}\n", self.root.path().join("pid").display()));
        fs::write(self.conf_dir().join("config.yaml"), config).expect(room);
        self.is_installed = true;
        self
    }

    /// `host:port` for clients.
    pub fn address(&self) -> String {
        format!("localhost:{}", self.rest_port)
    }

    /// For TaskManagers.
    pub fn rpc_address(&self) -> String {
        format!("127.0.0.1:{}", self.rpc_port)
    }

    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Where its configuration is; all of its processes have it in their environment.
    pub fn conf_dir(&self) -> PathBuf {
        self.root.path().join("conf")
    }

    /// One of the scripts in `bin/`, for this cluster.
    pub fn script(&self, name: &str) -> Command {
        if self.is_installed {
            return Command::new(self.root.path().join("bin").join(name));
        }
        let mut command = Command::new(workspace().join("bin").join(name));
        command
            .env("MILLSTREAM_CONF_DIR", self.conf_dir())
            .env("MILLSTREAM_LOG_DIR", self.root.path().join("log"))
            .env("MILLSTREAM_PID_DIR", self.root.path().join("pid"))
            .env("MILLSTREAM_USRLIB_DIR", self.usrlib())
            .env("MILLSTREAM_BIN", &self.program);
        command
    }

    /// Runs one of the scripts.
    ///
    /// # Panics
    /// If it fails.
    pub fn run_script(&self, name: &str, arguments: &[&str]) {
        succeed(self.script(name).args(arguments));
    }

    /// The command `millstream`, which finds the cluster by its configuration.
    pub fn client(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).env("MILLSTREAM_CONF_DIR", self.conf_dir());
        command
    }

    /// What a client has to say.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn ask(&self, arguments: &[&str]) -> Output {
        self.client(arguments).output().expect("the program can be started")
    }

    /// Where its processes log, and keep what its jobs log.
    pub fn log_dir(&self) -> PathBuf {
        self.root.path().join("log")
    }

    /// What all processes of a kind have logged and printed, and what jobs have at TaskManagers; of those that were started again, since then.
    pub fn log(&self, kind: &str) -> String {
        self.logs(kind).concat()
    }

    /// The same of each process, in the order in which they were started.
    pub fn logs(&self, kind: &str) -> Vec<String> {
        let logs = fs::read_dir(self.root.path().join("log")).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = logs.map(|entry| entry.path()).collect();
        paths.sort();
        let of_kind = paths.iter().filter(|path| {
            path.to_string_lossy().contains(kind) && path.extension().is_some_and(|extension| extension == "log")
        });
        // And what it has printed.
        let text = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        of_kind.map(|path| text(path) + &text(&path.with_extension("out"))).collect()
    }

    /// The processes of a kind that were started, by the scripts' own record.
    pub fn processes(&self, kind: &str) -> Vec<u32> {
        let record = fs::read_to_string(self.root.path().join(format!("pid/{kind}.pid"))).unwrap_or_default();
        record.lines().filter_map(|line| line.split(' ').next()?.parse().ok()).collect()
    }

    /// The worker processes that TaskManagers have started, in the order of their logs.
    pub fn workers(&self) -> Vec<u32> {
        let log = self.log("taskmanager");
        let started = log.lines().filter(|line| line.contains("a worker process has started"));
        started.filter_map(|line| line.split("process=").nth(1)?.split_whitespace().next()?.parse().ok()).collect()
    }

    /// What its processes have left in their temporary folder.
    pub fn left_behind(&self) -> Vec<PathBuf> {
        let left = fs::read_dir(self.root.path().join("tmp")).into_iter().flatten().flatten();
        left.map(|entry| entry.path()).collect()
    }

    /// Stops it, as a user does.
    ///
    /// # Panics
    /// If that fails.
    pub fn stop(&self) {
        self.run_script("stop-cluster.sh", &[]);
    }
}

impl Drop for StandaloneCluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- JobManager\n{}\n--- TaskManagers\n{}", self.log("jobmanager"), self.log("taskmanager"));
        }
        let _ = self.script("stop-cluster.sh").output();
        let _ = self.script("standalone-job.sh").arg("stop-all").output();
    }
}

/// Ports that are free. They are none that the system gives to whoever asks for any, so nobody else is given one before the
/// cluster has it.
pub fn free_ports<const N: usize>() -> [u16; N] {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let of_this_process = std::process::id().wrapping_mul(67);
    [(); N].map(|()| {
        loop {
            let place = of_this_process.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
            let port = 20_000 + place as u16;
            if TcpListener::bind(("127.0.0.1", port)).is_ok() {
                return port;
            }
        }
    })
}
