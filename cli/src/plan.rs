//! Asks an artifact which job it describes: runs it in the role `plan`, in which `main` runs up to its first `execute`.

use std::{
    ffi::OsString,
    io::{self, Read},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use millstream::model::job_graph::JobGraph;
use millstream_cluster::program::{LastWords, NoJob};

/// How long output is waited for after the process has ended: someone else may hold the other end of the pipe.
const OUTPUT_PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked whether the process has ended.
const PAUSE: Duration = Duration::from_millis(5);

/// Why an artifact did not describe a job.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error("cannot start {path}{}", if source.kind() == io::ErrorKind::PermissionDenied { " (try `chmod +x`)" } else { "" })]
    Unstartable { path: PathBuf, source: io::Error },
    #[error("cannot wait for {path}")]
    Lost { path: PathBuf, source: io::Error },
    #[error(
        "main() has not called execute() within {} s and was ended; a longer time can be given with --timeout{last_words}",
        limit.as_secs_f64()
    )]
    Hangs { limit: Duration, last_words: LastWords },
    #[error(transparent)]
    NoJob(#[from] NoJob),
    #[error(
        "the job graph cannot be understood; the artifact is of millstream {theirs}, this is {}",
        millstream::artifact::ENGINE_VERSION
    )]
    Garbled { theirs: String, source: serde_json::Error },
}

/// Runs `path` with `arguments`, in this folder and environment, and returns the first job that it would execute.
///
/// # Errors
/// If it describes none within `limit`.
pub fn job_graph(path: &Path, arguments: &[OsString], engine: &str, limit: Duration) -> Result<JobGraph, PlanError> {
    let mut child = Command::new(program(path))
        .args(arguments)
        .env("MILLSTREAM_ROLE", "plan")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| PlanError::Unstartable { path: path.to_owned(), source })?;
    let stdout = drained(child.stdout.take().expect("it is piped"));
    let stderr = drained(child.stderr.take().expect("it is piped"));
    let ended = wait(&mut child, limit).map_err(|source| PlanError::Lost { path: path.to_owned(), source })?;
    let stdout = stdout.recv_timeout(OUTPUT_PATIENCE).unwrap_or_default();
    let last_words = || LastWords::of(&stderr.recv_timeout(OUTPUT_PATIENCE).unwrap_or_default());
    let Some(status) = ended else {
        return Err(PlanError::Hangs { limit, last_words: last_words() });
    };
    conclude(status, &stdout, engine, last_words)
}

/// How to name a file so that the system starts it: a bare file name would be searched in $PATH.
pub fn program(path: &Path) -> PathBuf {
    if path.components().count() == 1 { Path::new(".").join(path) } else { path.to_owned() }
}

/// Collects what comes out of a pipe, so that the program never waits for us.
fn drained(mut pipe: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before an error counts.
        let _ = pipe.read_to_end(&mut bytes);
        let _ = sender.send(bytes);
    });
    receiver
}

/// Waits for a process; ends it when the time is over, and returns `None` then.
#[expect(clippy::disallowed_methods, reason = "whoever waits for a process owns the clock")]
fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if started.elapsed() >= limit {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(PAUSE);
    }
}

/// Makes of an ended process what it tells.
fn conclude(
    status: ExitStatus,
    stdout: &[u8],
    engine: &str,
    last_words: impl FnOnce() -> LastWords,
) -> Result<JobGraph, PlanError> {
    if status.success()
        && let Some(graph) = graph_in(stdout)
    {
        return serde_json::from_slice(graph)
            .map_err(|source| PlanError::Garbled { theirs: engine.to_owned(), source });
    }
    Err(NoJob::of(status, last_words()).into())
}

/// The job graph ends the output. What the program itself has printed comes before, perhaps without a line break.
fn graph_in(stdout: &[u8]) -> Option<&[u8]> {
    const START: &[u8] = b"{\"job_id\":";
    let line = stdout.trim_ascii_end().rsplit(|byte| *byte == b'\n').next()?;
    let at = line.windows(START.len()).position(|window| window == START)?;
    Some(&line[at..])
}

#[cfg(test)]
mod tests {
    use std::fs;

    use millstream::prelude::*;

    use super::*;

    fn graph_line() -> String {
        let env = StreamExecutionEnvironment::local(Configuration::new());
        env.from_collection([1_u64]).discard();
        let graph = env.job_graph("numbers").expect("the job is well formed");
        serde_json::to_string(&graph).expect("graphs can be written")
    }

    /// Runs a shell script in place of an artifact; `$GRAPH` in it is a file with a job graph. The shell itself is what
    /// is started: a file that was written a moment ago may still be open in a child of another test.
    fn plan_of(script: &str, limit: Duration) -> Result<JobGraph, PlanError> {
        let file = tempfile::NamedTempFile::new().expect("there is room for a file");
        fs::write(file.path(), graph_line()).expect("there is room for a file");
        let script = script.replace("$GRAPH", &file.path().display().to_string());
        let arguments = ["-c", &script, "job", "one", "two"].map(OsString::from);
        job_graph(Path::new("/bin/sh"), &arguments, "0.1.0", limit)
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn what_a_program_prints_besides_does_not_hide_the_graph() {
        let graph = plan_of("echo '{\"job_id\": 1}'; printf 'no line break: '; cat $GRAPH; echo", LONG);
        assert_eq!(graph.expect("the graph is there").name, "numbers");
    }

    #[test]
    fn the_artifact_is_started_in_the_role_plan_with_its_arguments() {
        let script = r#"test "$MILLSTREAM_ROLE $1 $2 $#" = "plan one two 2" && cat $GRAPH"#;
        assert!(plan_of(script, LONG).is_ok());
    }

    #[test]
    fn each_way_to_end_without_a_job_is_told_apart() {
        assert!(matches!(plan_of("exit 0", LONG), Err(PlanError::NoJob(NoJob::Silent { .. }))));
        assert!(matches!(plan_of("echo hello", LONG), Err(PlanError::NoJob(NoJob::Silent { .. }))));
        assert!(matches!(plan_of("exit 3", LONG), Err(PlanError::NoJob(NoJob::Exited { code: 3, .. }))));
        assert!(matches!(plan_of("kill -9 $$", LONG), Err(PlanError::NoJob(NoJob::Killed { signal: 9, .. }))));
        assert!(matches!(plan_of("echo '{\"job_id\":}'", LONG), Err(PlanError::Garbled { .. })));
        let panicked = plan_of("echo \"thread 'main' panicked\" >&2; exit 101", LONG).expect_err("it has no job");
        assert!(matches!(panicked, PlanError::NoJob(NoJob::Panicked { .. })));
        assert!(panicked.to_string().ends_with("\n  | thread 'main' panicked"), "{panicked}");
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        let hangs = plan_of("echo waiting >&2; exec sleep 60", Duration::from_millis(300));
        assert!(matches!(hangs, Err(PlanError::Hangs { .. })), "{hangs:?}");
    }

    #[test]
    fn more_output_than_a_pipe_holds_does_not_block() {
        let graph = plan_of("head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2; echo; cat $GRAPH", LONG);
        assert!(graph.is_ok(), "{graph:?}");
    }

    #[test]
    fn a_file_that_may_not_be_executed_is_an_error() {
        let file = tempfile::NamedTempFile::new().expect("there is room for a file");
        let refused = job_graph(file.path(), &[], "0.1.0", LONG);
        assert!(matches!(refused, Err(PlanError::Unstartable { .. })), "{refused:?}");
    }
}
