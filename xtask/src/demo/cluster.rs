//! A session cluster for the length of the demo: real processes, started by the scripts that users have.

use std::{
    fs, io,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{self, Command},
};

use anyhow::{Context, Result, ensure};

use crate::checkout::Checkout;

const TASK_MANAGERS: usize = 2;

/// A JobManager and TaskManagers. They are stopped when this is dropped.
pub(super) struct Cluster {
    scripts: PathBuf,
    program: PathBuf,
    /// Configuration, logs, records of processes.
    folder: PathBuf,
}

impl Cluster {
    /// Starts one with at least so many slots.
    ///
    /// # Errors
    /// If it cannot be started; the scripts have said why.
    pub(super) fn start(checkout: &Checkout, program: PathBuf, slots: usize) -> Result<Cluster> {
        let folder = std::env::temp_dir().join(format!("millstream-demo-{}", process::id()));
        let cluster = Cluster { scripts: checkout.root.join("bin"), program, folder };
        cluster.configure(slots).with_context(|| format!("cannot write to {}", cluster.folder.display()))?;
        ensure!(cluster.script("start-cluster.sh").status()?.success(), "the cluster cannot be started");
        Ok(cluster)
    }

    fn configure(&self, slots: usize) -> io::Result<()> {
        fs::create_dir_all(self.folder.join("conf"))?;
        // Both are held until both are known.
        let ports = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
        let [rest, rpc] = [ports[0].local_addr()?.port(), ports[1].local_addr()?.port()];
        let text = format!(
            "jobmanager.rpc.port: {rpc}\nrest.address: localhost\nrest.port: {rest}\n\
             taskmanager.numberOfTaskSlots: {}\nenv.log.level: WARN\nio.tmp.dirs: {}\n",
            slots.div_ceil(TASK_MANAGERS),
            self.folder.display()
        );
        fs::write(self.folder.join("conf/config.yaml"), text)?;
        fs::write(self.folder.join("conf/workers"), "localhost\n".repeat(TASK_MANAGERS))
    }

    fn script(&self, name: &str) -> Command {
        let mut script = Command::new(self.scripts.join(name));
        script
            .env("MILLSTREAM_CONF_DIR", self.folder.join("conf"))
            .env("MILLSTREAM_LOG_DIR", self.folder.join("log"))
            .env("MILLSTREAM_PID_DIR", self.folder.join("pid"))
            .env("MILLSTREAM_BIN", &self.program);
        script
    }

    /// `millstream run ARTIFACT`, to which the program's arguments are to be added.
    pub(super) fn run(&self, artifact: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.env("MILLSTREAM_CONF_DIR", self.folder.join("conf")).arg("run").arg(artifact);
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The demo is over either way; the script says what it could not stop.
        let _ = self.script("stop-cluster.sh").status();
        let _ = fs::remove_dir_all(&self.folder);
    }
}
