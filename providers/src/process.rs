//! Workers as processes of this machine: the artifact, started in the role `worker`.
//!
//! ```text
//!  here ──setup, then messages──► ┐ one socket, which is the ┌ ──► worker
//!  here ◄──────────────reports─── ┘ worker's standard input  └ ◄── worker
//! ```
//! Each is one line of JSON. A socket goes both ways, so that standard output and error stay with the user's functions,
//! which may print whatever they like, and no other descriptor has to be inherited: what this process and the worker
//! start besides never holds an end of it. When either side is gone, the other one sees the end of the socket.
//! What they print goes where that of this process goes, or to whoever wants to have it.
//!
//! A worker leads a process group of its own, which ends with it, and neither it nor what it starts can gain privileges
//! (`no_new_privs`): programs such as `sudo` do not work there.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::Shutdown,
    os::{
        fd::OwnedFd,
        unix::{
            net::UnixStream,
            process::{CommandExt, ExitStatusExt},
        },
    },
    path::Path,
    process::{Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::Duration,
};

use millstream_model::{
    fault::Failure,
    id::WorkerId,
    message::{FromWorker, Report, ToWorker},
};
use nix::{
    sys::{
        prctl,
        signal::{Signal, killpg},
    },
    unistd::Pid,
};

/// A process that takes nothing in for so long is given up: whoever speaks to it has others to speak to.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// How long output is waited for after a process has ended.
const OUTPUT_PATIENCE: Duration = Duration::from_secs(2);
/// Of what a worker writes, at once.
const OUTPUT_PIECE_BYTES: usize = 16 << 10;

/// A worker process. It is killed when this is dropped, and its process group with it.
#[derive(Debug)]
pub struct WorkerProcess {
    worker: WorkerId,
    line: Mutex<UnixStream>,
    child: Arc<Mutex<Child>>,
}

/// The leader of a process group.
#[derive(Debug)]
struct Child {
    process: std::process::Child,
    /// Until then nobody else can have the number of its group.
    is_waited_for: bool,
}

/// What becomes of what a worker writes to standard output and standard error.
pub enum Output {
    /// It goes where that of this process goes.
    Inherited,
    /// Each piece is handed over as it comes, on a thread of its stream: whoever takes it lets the worker wait meanwhile.
    /// An empty piece is the last of its stream; both come before the
    /// report that the process has ended.
    Captured(TakeOutput),
}

/// In what is reported of a process that was killed: by whom, nobody says.
pub const KILLED: &str = "SIGKILL";

/// Takes pieces of what a worker writes.
pub type TakeOutput = Arc<dyn Fn(OutputStream, &[u8]) + Send + Sync>;

/// Which one a piece was written to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OutputStream {
    Stdout,
    Stderr,
}

/// A worker process could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start {artifact} as a worker")]
pub struct StartError {
    artifact: String,
    source: io::Error,
}

impl WorkerProcess {
    /// Starts `artifact` as a worker, and hands it `setup_line` before any message. Its reports go to `report`, on a
    /// thread of their own; the last one says that the process has ended, and how.
    ///
    /// # Errors
    /// If the process cannot be started.
    ///
    /// # Panics
    /// If the setup is more than one line.
    pub fn start(
        artifact: &Path,
        worker: WorkerId,
        setup_line: &str,
        output: Output,
        report: impl Fn(FromWorker) + Send + 'static,
    ) -> Result<WorkerProcess, StartError> {
        WorkerProcess::start_placed(artifact, worker, setup_line, output, report, &[], |_| ())
    }

    /// The same with more in its environment; `place` is told the process's id before the process is told anything, and so runs
    /// anything of the user's.
    ///
    /// # Errors
    /// If the process cannot be started.
    ///
    /// # Panics
    /// If the setup is more than one line.
    pub fn start_placed(
        artifact: &Path,
        worker: WorkerId,
        setup_line: &str,
        output: Output,
        report: impl Fn(FromWorker) + Send + 'static,
        environment: &[(&str, &str)],
        place: impl FnOnce(u32),
    ) -> Result<WorkerProcess, StartError> {
        assert!(!setup_line.contains('\n'), "the setup of worker {} is more than one line", worker.0);
        WorkerProcess::try_start(artifact, worker, setup_line, output, report, environment, place)
            .map_err(|source| StartError { artifact: artifact.display().to_string(), source })
    }

    fn try_start(
        artifact: &Path,
        worker: WorkerId,
        setup_line: &str,
        output: Output,
        report: impl Fn(FromWorker) + Send + 'static,
        environment: &[(&str, &str)],
        place: impl FnOnce(u32),
    ) -> io::Result<WorkerProcess> {
        let (line, theirs) = UnixStream::pair()?;
        line.set_write_timeout(Some(SEND_TIMEOUT))?;
        let reports = line.try_clone()?;
        let mut command = Command::new(artifact);
        command.envs(environment.iter().copied());
        command.env("MILLSTREAM_ROLE", "worker").stdin(Stdio::from(OwnedFd::from(theirs))).process_group(0);
        if let Output::Captured(_) = &output {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        let mut child = spawn_unprivileged(command)?;
        place(child.id());
        let reading = match output {
            Output::Inherited => Reading::none(),
            Output::Captured(take) => Reading::start(worker, &mut child, take)?,
        };
        let child = Arc::new(Mutex::new(Child { process: child, is_waited_for: false }));
        let process = WorkerProcess { worker, line: Mutex::new(line), child: child.clone() };
        process.send_line(setup_line);
        thread::Builder::new().name(format!("worker-{}-reports", worker.0)).spawn(move || {
            let garbled = read_reports(BufReader::new(reports), &report);
            let how = end(&mut locked(&child));
            reading.finish();
            let failure = Failure::new(match garbled {
                Some(cause) => format!("worker process {} was ended, since {cause}", worker.0),
                None => format!("worker process {} has ended: {how}", worker.0),
            });
            report(FromWorker { worker, report: Report::WorkerFailed { failure } });
        })?;
        Ok(process)
    }

    pub fn worker(&self) -> WorkerId {
        self.worker
    }

    /// The process's id.
    pub fn id(&self) -> u32 {
        locked(&self.child).process.id()
    }

    /// Hands over a message, without waiting for what it does. A process that has ended has said so by its reports.
    pub fn send(&self, message: &ToWorker) {
        self.send_line(&serde_json::to_string(message).expect("messages have a form in JSON"));
    }

    /// Hands over a message as the line of JSON that it is. Waits until the process has read enough of those before, for
    /// 10 s at most; then it is given up.
    ///
    /// # Panics
    /// If the text is more than one line.
    pub fn send_line(&self, text: &str) {
        assert!(!text.contains('\n'), "a message is one line");
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        // With one call, so that nobody reads half a line for long.
        if let Err(cause) = line.write_all(format!("{text}\n").as_bytes()) {
            tracing::warn!(worker = self.worker.0, %cause, "a worker process cannot be spoken to");
            // Part of a line may be on its way. To who reads its reports this is its end.
            let _ = line.shutdown(Shutdown::Both);
        }
    }
}

/// Passes reports on until there are no more; returns what is wrong with the first that is none.
fn read_reports(reports: impl BufRead, report: &impl Fn(FromWorker)) -> Option<String> {
    for line in reports.lines() {
        // Its end is an error if it has not read all that was sent to it.
        let line = line.ok()?;
        match serde_json::from_str(&line) {
            Ok(message) => report(message),
            Err(cause) => return Some(format!("a report of it cannot be read: {cause}")),
        }
    }
    None
}

/// The threads that read what a worker writes.
struct Reading(mpsc::Receiver<()>);

impl Reading {
    fn none() -> Reading {
        Reading(mpsc::channel().1)
    }

    /// If a thread cannot be had, the process ends: it could not write anything.
    fn start(worker: WorkerId, child: &mut std::process::Child, take: TakeOutput) -> io::Result<Reading> {
        let (reads, reading) = mpsc::channel::<()>();
        let stdout = child.stdout.take().map(|pipe| (OutputStream::Stdout, Box::new(pipe) as Box<dyn Read + Send>));
        let stderr = child.stderr.take().map(|pipe| (OutputStream::Stderr, Box::new(pipe) as Box<dyn Read + Send>));
        for (stream, mut pipe) in stdout.into_iter().chain(stderr) {
            let (take, reads) = (take.clone(), reads.clone());
            let read = move || {
                let _until_the_end = reads;
                let mut piece = vec![0; OUTPUT_PIECE_BYTES];
                loop {
                    match pipe.read(&mut piece) {
                        Ok(0) => break,
                        Ok(length) => take(stream, &piece[..length]),
                        Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                        Err(_) => break,
                    }
                }
                take(stream, &[]);
            };
            if let Err(cause) = thread::Builder::new().name(format!("worker-{}-output", worker.0)).spawn(read) {
                let _ = child.kill();
                let _ = child.wait();
                return Err(cause);
            }
        }
        Ok(Reading(reading))
    }

    /// Waits until all was read that the process has written. What has left its process group may hold the other ends:
    /// that is not waited for.
    fn finish(self) {
        let _ = self.0.recv_timeout(OUTPUT_PATIENCE);
    }
}

/// Starts a process that can gain no privileges. That is an attribute of threads which processes inherit, and which no
/// thread ever loses: so one is started that has it and nothing else to do, which needs no code between fork and exec.
fn spawn_unprivileged(mut command: Command) -> io::Result<std::process::Child> {
    let start = move || {
        prctl::set_no_new_privs()?;
        command.spawn()
    };
    let thread = thread::Builder::new().name("worker-start".to_owned()).spawn(start)?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that starts it has panicked")))
}

/// Waits for a process that has let go of its line, and says how it ended. A worker keeps its line until the system
/// takes it at the end; so the signal only meets what is no worker.
fn end(child: &mut Child) -> String {
    if !child.is_waited_for {
        // Whatever it has started is of no use without it.
        let _ = killpg(Pid::from_raw(child.process.id() as i32), Signal::SIGKILL);
    }
    let ended = child.process.wait();
    child.is_waited_for = true;
    match ended {
        Ok(status) => describe(status),
        Err(cause) => format!("its exit status cannot be had: {cause}"),
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(number)) => match Signal::try_from(number) {
            Ok(signal) => format!("killed by signal {number} ({signal})"),
            Err(_) => format!("killed by signal {number}"),
        },
        (None, None) => status.to_string(),
    }
}

fn locked(child: &Mutex<Child>) -> MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        // It may have ended already; either way it is waited for, so that no zombie is left.
        end(&mut locked(&self.child));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Receiver};

    use millstream_model::{id::LeaderEpoch, message::Command as Order};

    use super::*;

    /// Starts a worker whose setup is a script.
    fn start(script: &str) -> (WorkerProcess, Receiver<FromWorker>) {
        let artifact = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/process/obedient.sh");
        start_artifact(&artifact, script).unwrap()
    }

    fn start_artifact(artifact: &Path, setup: &str) -> Result<(WorkerProcess, Receiver<FromWorker>), StartError> {
        let (sender, reports) = mpsc::channel();
        let report = move |message| {
            let _ = sender.send(message);
        };
        Ok((WorkerProcess::start(artifact, WorkerId(3), setup, Output::Inherited, report)?, reports))
    }

    fn how_it_ended(reports: &Receiver<FromWorker>) -> String {
        match reports.recv().unwrap() {
            FromWorker { worker: WorkerId(3), report: Report::WorkerFailed { failure } } => failure.message,
            other => panic!("{other:?}"),
        }
    }

    const REGISTERED: &str = r#"{"worker":3,"report":{"Registered":{"slots":2,"shuffle_address":null}}}"#;

    #[test]
    fn what_a_worker_prints_is_no_report_and_spoils_none() {
        let (_process, reports) = start(&format!("printf 'no newline'; echo '{REGISTERED}' >&0; exit 3"));
        assert!(matches!(reports.recv().unwrap().report, Report::Registered { slots: 2, .. }));
        assert_eq!(how_it_ended(&reports), "worker process 3 has ended: exit code 3");
        assert!(reports.recv().is_err(), "nothing follows the end");
    }

    #[test]
    fn all_that_a_worker_has_printed_is_there_before_its_end() {
        let script = "seq 1 20000; seq 20001 40000 >&2; printf end; (setsid sleep 1000 >/dev/null 2>&1 </dev/null &)";
        let artifact = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/process/obedient.sh");
        let printed = Arc::new(Mutex::new([String::new(), String::new()]));
        let (sender, reports) = mpsc::channel();
        let kept = printed.clone();
        let take = move |stream: OutputStream, piece: &[u8]| {
            kept.lock().unwrap()[stream as usize].push_str(std::str::from_utf8(piece).unwrap());
        };
        let report = move |_| sender.send(kept_now(&printed)).unwrap();
        let output = Output::Captured(Arc::new(take));
        let _process = WorkerProcess::start(&artifact, WorkerId(3), script, output, report).unwrap();
        let numbers = |from, to| (from..=to).map(|number| format!("{number}\n")).collect::<String>();
        let [stdout, stderr] = reports.recv().unwrap();
        assert!(stdout == numbers(1, 20_000) + "end" && stderr == numbers(20_001, 40_000), "{stdout}{stderr}");
    }

    fn kept_now(printed: &Mutex<[String; 2]>) -> [String; 2] {
        printed.lock().unwrap().clone()
    }

    #[test]
    fn a_killed_worker_is_reported_with_the_signal() {
        let (process, reports) = start("read -r message");
        nix::sys::signal::kill(Pid::from_raw(process.id() as i32), Signal::SIGKILL).unwrap();
        assert_eq!(how_it_ended(&reports), "worker process 3 has ended: killed by signal 9 (SIGKILL)");
        // Nobody is there to hear it, which is no error.
        process.send(&ToWorker { epoch: LeaderEpoch::default(), command: Order::Shutdown });
    }

    #[test]
    fn messages_come_after_the_setup() {
        let (process, reports) = start(r#"read -r message; case "$message" in *Shutdown*) exit 7;; esac"#);
        process.send(&ToWorker { epoch: LeaderEpoch::default(), command: Order::Shutdown });
        assert_eq!(how_it_ended(&reports), "worker process 3 has ended: exit code 7");
    }

    #[test]
    fn a_worker_sees_the_end_of_whoever_started_it() {
        let (process, reports) = start("while read -r message; do :; done; exit 8");
        process.line.lock().unwrap().shutdown(Shutdown::Write).unwrap();
        assert_eq!(how_it_ended(&reports), "worker process 3 has ended: exit code 8");
    }

    #[test]
    fn a_worker_can_gain_no_privileges_and_leads_a_group_of_its_own() {
        let script = r#"grep -q '^NoNewPrivs:.*1$' /proc/self/status || exit 1
            read -r pid name state parent group rest </proc/self/stat
            [ "$group" = "$$" ] && exit 7"#;
        let (_process, reports) = start(&script.replace('\n', ";"));
        assert_eq!(how_it_ended(&reports), "worker process 3 has ended: exit code 7");
        let own = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        assert!(own.contains("NoNewPrivs:\t0"), "whoever starts a worker is left as it was: {own}");
    }

    #[test]
    fn what_a_worker_has_started_ends_with_it() {
        let (process, reports) = start(&format!("sleep 1000 </dev/null & echo '{REGISTERED}' >&0; read -r message"));
        assert!(matches!(reports.recv().unwrap().report, Report::Registered { .. }));
        let group = process.id();
        let members = || {
            let all = std::fs::read_dir("/proc").unwrap().flatten();
            let stats = all.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
            let of_group = stats.filter(|stat| {
                let rest: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
                rest.get(2).is_some_and(|number| *number == group.to_string()) && rest[0] != "Z"
            });
            of_group.count()
        };
        assert!(members() >= 2, "the worker and what it has started");
        drop(process);
        while members() > 0 {
            thread::yield_now();
        }
    }

    #[test]
    fn what_is_no_report_ends_the_process() {
        let (_process, reports) = start("echo nonsense >&0; read -r message");
        let message = how_it_ended(&reports);
        assert!(message.contains("cannot be read"), "{message}");
    }

    #[test]
    fn a_program_that_is_no_worker_is_reported_as_ended() {
        let (_process, reports) = start_artifact(Path::new("/bin/true"), "{}").unwrap();
        assert_eq!(how_it_ended(&reports), "worker process 3 has ended: exit code 0");
    }

    #[test]
    fn a_missing_artifact_is_an_error_that_names_it() {
        let error = start_artifact(Path::new("/no/such/artifact"), "{}").unwrap_err();
        assert!(error.to_string().contains("/no/such/artifact"));
    }
}
