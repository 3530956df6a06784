//! Keys about coordinators, addresses and logs.

use std::time::Duration;

use super::{
    super::{key::Key, memory_size::MemorySize, words::*},
    Group,
};
use crate::log::LogLevels;

group! {
    CLUSTER: "Cluster", "Coordinators, addresses and logs.";

    /// The address of the JobManager, for TaskManagers and clients.
    JOBMANAGER_ADDRESS: Option<String> = Key::optional("jobmanager.rpc.address");

    /// The port of the JobManager for TaskManagers. `0` takes any free one.
    JOBMANAGER_PORT: u16 = Key::new("jobmanager.rpc.port", "6123");

    /// The address that the JobManager's port for TaskManagers binds to; without it, `jobmanager.rpc.address`, or
    /// `localhost`.
    JOBMANAGER_BIND_HOST: Option<String> = Key::optional("jobmanager.bind-host");

    /// How often a JobManager and its TaskManagers show each other that they live. Flink's default is 10 s.
    HEARTBEAT_INTERVAL: Duration = Key::new("heartbeat.interval", "1 s").at_least("10 ms");

    /// A JobManager or TaskManager that has been silent for so long is taken for gone. Flink's default is 50 s.
    HEARTBEAT_TIMEOUT: Duration = Key::new("heartbeat.timeout", "5 s").at_least("50 ms");

    /// How long a JobManager that takes up a job waits for the workers that an earlier one has left running. If all tasks
    /// run, they go on as they are; else the job starts again from its newest checkpoint.
    ADOPT_TIMEOUT: Duration = Key::new("recovery.adopt-timeout", "5 s").at_least("1 ms").ours();

    /// How long a TaskManager goes on without a JobManager that takes it, from its start or since it has lost one. Then it
    /// ends, and its workers with it.
    REGISTRATION_TIMEOUT: Duration = Key::new("taskmanager.registration.timeout", "5 min").at_least("1 ms");

    /// Whether a job's slots are spread over all TaskManagers, instead of over as few as possible.
    EVENLY_SPREAD_OUT_SLOTS: bool = Key::new("cluster.evenly-spread-out-slots", "false");

    /// The directory for files that do not outlive their process, artifacts above all; without it, the system's.
    TEMPORARY_DIRECTORY: Option<String> = Key::optional("io.tmp.dirs").aliases(&["taskmanager.tmp.dirs"]);

    /// The address of the REST interface: the server binds to it, clients connect to it. Any address that is not a
    /// loopback needs TLS and authentication. Flink has no default here.
    REST_ADDRESS: String = Key::new("rest.address", "localhost");

    /// The port of the REST interface. `0` takes any free one.
    REST_PORT: u16 = Key::new("rest.port", "8081").aliases(&["web.port"]);

    /// The largest body of a REST request, without the files in it. Flink's default is 100 MiB.
    REST_MAX_CONTENT_LENGTH: MemorySize = Key::new("rest.server.max-content-length", "16 mb");

    /// The largest file that `/jars/upload` takes.
    REST_MAX_UPLOAD_SIZE: MemorySize = Key::new("rest.server.max-upload-size", "1 gb").at_most("4 gb").ours();

    /// Whether artifacts can be uploaded and run by REST: the paths below `/jars`.
    WEB_SUBMIT_ENABLED: bool = Key::new("web.submit.enable", "true");

    /// The directory in which uploaded artifacts are kept when the JobManager ends; without it they are forgotten then.
    WEB_UPLOAD_DIRECTORY: Option<String> = Key::optional("web.upload.dir");

    /// Whether a dashboard is told that it may offer to cancel jobs.
    WEB_CANCEL_ENABLED: bool = Key::new("web.cancel.enable", "true");

    /// How often a dashboard is told to look.
    WEB_REFRESH_INTERVAL: Duration = Key::new("web.refresh-interval", "3 s");

    /// How long a program that was started by REST may take until it executes its job.
    WEB_TIMEOUT: Duration = Key::new("web.timeout", "10 min").at_least("10 ms");

    /// Where a coordinator keeps what must survive it: `NONE` keeps nothing, `file` uses `high-availability.storageDir`
    /// on one machine, `etcd` keeps pointers in etcd and the rest in `high-availability.storageDir`, `memory` is for
    /// tests.
    HIGH_AVAILABILITY: HighAvailability = Key::new("high-availability.type", "NONE")
        .aliases(&["high-availability", "recovery.mode"]);

    /// The directory or object store for job graphs, artifacts and results, as a path or a URI.
    HIGH_AVAILABILITY_STORAGE_DIR: Option<String> = Key::optional("high-availability.storageDir")
        .aliases(&["high-availability.zookeeper.storageDir", "recovery.zookeeper.storageDir"]);

    /// How long a job waits for slots, at its start and at a restart, before it fails.
    SLOT_REQUEST_TIMEOUT: Duration = Key::new("slot.request.timeout", "5 min");

    /// The directory for the logs of processes that the scripts in `bin/` start; without it, `log` beside `bin`. The
    /// variable `MILLSTREAM_LOG_DIR` counts more.
    LOG_DIRECTORY: Option<String> = Key::optional("env.log.dir");

    /// The directory in which those scripts note what they have started on a host; without it, one of the user's among
    /// the system's temporary ones. The variable `MILLSTREAM_PID_DIR` counts more.
    PID_DIRECTORY: Option<String> = Key::optional("env.pid.dir");

    /// Options of `ssh` for `start-cluster.sh` and `stop-cluster.sh`, separated by blanks. The variable
    /// `MILLSTREAM_SSH_OPTS` counts more.
    SSH_OPTIONS: Option<String> = Key::optional("env.ssh.opts");

    /// The least important messages that are logged.
    LOG_LEVEL: LogLevel = Key::new("env.log.level", "INFO").ours();

    /// Other levels for parts of the log, as in `millstream_shuffle=DEBUG,shop::orders=TRACE`: of a module, and all in it.
    LOG_LEVELS: Option<LogLevels> = Key::optional("log.levels").ours();

    /// How log lines are written: `text`, or `json`, an object per line.
    LOG_FORMAT: LogFormat = Key::new("log.format", "text").ours();

    /// How large the log file of a JobManager or TaskManager becomes before the next one is begun.
    LOG_FILE_MAX_SIZE: MemorySize = Key::new("log.file.max-size", "100 mb").at_least("4 kb").ours();

    /// How many older log files of a JobManager or TaskManager are kept.
    LOG_FILES_MAX: u32 = Key::new("env.log.max", "10").at_most("1000");

    /// How much of what the workers of a job log and print each TaskManager keeps: the newest.
    LOG_JOB_MAX_SIZE: MemorySize = Key::new("log.job.max-size", "64 mb").at_least("128 kb").ours();

    /// How much of that each TaskManager keeps of all jobs together. Beyond, what is left of jobs that have ended is
    /// deleted, the oldest first.
    LOG_JOBS_MAX_SIZE: MemorySize = Key::new("log.jobs.max-size", "1 gb").ours();
}
