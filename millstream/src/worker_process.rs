//! A worker in a process of its own. Its standard input is a socket to whoever started it: the setup and messages of the
//! JobMaster come in, reports go out, each as one line of JSON. The other end is `millstream_providers::process`.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Write},
    os::{fd::AsFd, unix::net::UnixStream},
    process::{self, ExitCode},
    thread,
    time::Duration,
};

use crossbeam_channel::{Sender, never, unbounded};
use millstream_dataplane::{Network, NetworkSetup, Worker, WorkerConfig};
use millstream_model::{
    config::PROCESS_MEMORY,
    id::{LeaderEpoch, WorkerId},
    memory::SlotMemory,
    message::{Command, FromWorker, ToWorker},
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use crate::{
    artifact, crash,
    hashed_file::HashedFile,
    logging::{self, WorkerLog},
    memory,
};

/// How long tasks may take to end when whoever started this process is gone.
const GRACE: Duration = Duration::from_secs(5);

/// What a worker process is told before anything else.
#[derive(Debug, Serialize, Deserialize)]
pub struct WorkerSetup {
    pub worker: WorkerId,
    /// How many it offers.
    pub slots: u32,
    /// How it takes part in the network between workers; without it, the jobs it runs cannot span several.
    pub network: Option<NetworkSetup>,
    /// For whoever starts the process to say.
    #[serde(default)]
    pub log: WorkerLog,
    /// For whoever starts the process to say.
    #[serde(default)]
    pub memory: WorkerMemory,
    /// The executable, if whoever starts the process knows its hash: then the worker need not read all of its own file.
    #[serde(default)]
    pub artifact: Option<HashedFile>,
}

/// What a worker may have of memory. Without anything here nothing is limited.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct WorkerMemory {
    /// What each of its slots has.
    pub of_each_slot: Option<SlotMemory>,
    /// How many bytes the process may allocate (`RLIMIT_DATA`), if nothing else keeps it to what its slots have.
    pub data_bytes_max: Option<u64>,
    /// Whether it may consist of huge pages.
    #[serde(default)]
    pub huge_pages: bool,
}

impl WorkerSetup {
    /// The first line on the worker's standard input.
    pub fn to_line(&self) -> String {
        serde_json::to_string(self).expect("a setup has a form in JSON")
    }
}

/// Runs this process as a worker until the JobMaster ends it, or whoever started it is gone. `init` is the program's.
pub(crate) fn run(init: impl FnOnce()) -> ExitCode {
    match try_run(init) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn try_run(init: impl FnOnce()) -> Result<(), String> {
    // Before anything of the user's runs, which may read standard input or start processes that inherit it.
    let line = take_standard_input().map_err(|cause| format!("standard input cannot be taken: {cause}"))?;
    let mut reports_out = line.try_clone().map_err(|cause| format!("no second handle to a socket: {cause}"))?;
    let mut messages = BufReader::new(line);
    let mut setup = String::new();
    messages
        .read_line(&mut setup)
        .map_err(|cause| format!("a worker is started by a cluster, with a socket as its standard input: {cause}"))?;
    let setup: WorkerSetup =
        serde_json::from_str(&setup).map_err(|cause| format!("the setup is malformed: {cause}"))?;
    memory::allow_huge_pages(setup.memory.huge_pages);
    // User code included, whatever it does first.
    setup.memory.data_bytes_max.map_or(Ok(()), limit_data)?;
    init();
    logging::start_worker(&setup.log);
    if setup.log.is_captured {
        crash::watch();
    }
    let missing = artifact::missing_features();
    if !missing.is_empty() {
        let missing = missing.join(", ");
        return Err(format!("this executable was compiled for CPU features that this machine lacks: {missing}"));
    }
    let own = artifact::own_file(setup.artifact).map_err(|cause| format!("this executable cannot be read: {cause}"))?;
    let (sender, reports) = unbounded::<FromWorker>();
    let WorkerSetup { worker, slots, network, memory, .. } = setup;
    let (artifact, network) = (Some(own.sha256().to_owned()), network.map(Network::from));
    let config = WorkerConfig { worker, slots, artifact, network, memory: memory.of_each_slot };
    let worker = Worker::start(config, sender).map_err(|failure| failure.to_string())?;
    let commands = worker.sender();
    thread::Builder::new()
        .name("messages".to_owned())
        .spawn(move || obey(messages, &commands))
        .map_err(|cause| format!("no thread for messages could be started: {cause}"))?;
    // Ends when the worker has ended, which holds the other end of the channel. If nobody takes reports, `obey` sees it
    // too.
    for report in reports {
        let text = serde_json::to_string(&report).expect("reports have a form in JSON");
        let _ = reports_out.write_all(format!("{text}\n").as_bytes());
    }
    // The socket stays open until the process has ended: its end tells how.
    std::mem::forget(reports_out);
    Ok(())
}

/// Has allocations fail beyond so many bytes of private memory, for good. What an executable brings with it, and what is shared
/// with others, does not count.
fn limit_data(bytes: u64) -> Result<(), String> {
    let taken = data_bytes().unwrap_or(0);
    if taken >= bytes {
        return Err(format!(
            "the process takes {taken} bytes before it does anything, and its slots have {bytes}: raise {}, or see what its \
             allocator reserves",
            PROCESS_MEMORY.name()
        ));
    }
    let limited = getrlimit(Resource::RLIMIT_DATA).and_then(|(_, hard)| {
        let bytes = bytes.min(hard);
        setrlimit(Resource::RLIMIT_DATA, bytes, bytes)
    });
    limited.map_err(|cause| format!("RLIMIT_DATA cannot be set: {cause}"))
}

/// What counts of this process by now.
fn data_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmData:")?.trim().strip_suffix(" kB")?.parse().ok());
    kib.map(|kib: u64| kib << 10)
}

/// Takes the socket away from standard input, which is empty from then on.
fn take_standard_input() -> io::Result<UnixStream> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
    Ok(UnixStream::from(socket))
}

/// Passes messages on until there are no more: then whoever started this process is gone, and it ends, if need be
/// without its tasks.
fn obey(messages: impl BufRead, worker: &Sender<ToWorker>) {
    for line in messages.lines() {
        let Ok(line) = line else { break };
        match serde_json::from_str(&line) {
            // The log is the process's, and not the worker's.
            Ok(ToWorker { command: Command::SetLogLevels { levels }, .. }) => {
                logging::replace_levels(levels);
            }
            // A worker that has ended is about to end this process.
            Ok(message) => drop(worker.send(message)),
            Err(cause) => {
                eprintln!("a message of the JobMaster cannot be read: {cause}");
                break;
            }
        }
    }
    let epoch = LeaderEpoch { incarnation: u64::MAX, revision: u64::MAX };
    let _ = worker.send(ToWorker { epoch, command: Command::Shutdown });
    let _ = never::<()>().recv_timeout(GRACE);
    process::exit(1);
}
