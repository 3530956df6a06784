//! The process of a program that runs beside this one: what it says on standard error is shown here, and the end of it
//! kept.

use std::{
    io,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStderr, Command},
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::LastWords;

/// How long output is waited for after a process has ended: someone else may hold the other end of the pipe.
const OUTPUT_PATIENCE: Duration = Duration::from_secs(2);
/// A file that was just written may be open in a child that another thread is about to start.
const BUSY_PAUSE: Duration = Duration::from_millis(20);
const BUSY_ATTEMPTS: u32 = 50;

/// A program that runs. It is killed when this is dropped, if its command says so.
#[derive(Debug)]
pub(crate) struct ProgramProcess {
    child: Child,
    reading: Option<JoinHandle<()>>,
    last_words: Arc<Mutex<LastWords>>,
}

impl ProgramProcess {
    /// # Errors
    /// If it cannot be started.
    pub(crate) async fn start(mut command: Command) -> io::Result<ProgramProcess> {
        // A signal of a terminal is for this process, and ends the program by ending that.
        command.stdin(Stdio::null()).stderr(Stdio::piped()).process_group(0);
        let mut attempts = 0;
        let mut child = loop {
            match command.spawn() {
                Err(cause) if cause.kind() == io::ErrorKind::ExecutableFileBusy && attempts < BUSY_ATTEMPTS => {
                    attempts += 1;
                    sleep(BUSY_PAUSE).await;
                }
                started => break started?,
            }
        };
        let last_words = Arc::<Mutex<LastWords>>::default();
        let reading = child.stderr.take().map(|stderr| tokio::spawn(pass_on(stderr, last_words.clone())));
        Ok(ProgramProcess { child, reading, last_words })
    }

    /// The process's id, while it has not ended.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits for its end. Cancellation-safe.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Ends it.
    pub(crate) async fn kill(&mut self) -> io::Result<()> {
        self.child.kill().await
    }

    /// What it has said last, once it has ended.
    pub(crate) async fn last_words(&mut self) -> LastWords {
        if let Some(reading) = self.reading.take() {
            let _ = timeout(OUTPUT_PATIENCE, reading).await;
        }
        locked(&self.last_words).clone()
    }
}

async fn pass_on(mut stderr: ChildStderr, last_words: Arc<Mutex<LastWords>>) {
    let (mut own, mut piece) = (tokio::io::stderr(), vec![0; 8 << 10]);
    while let Ok(length @ 1..) = stderr.read(&mut piece).await {
        locked(&last_words).add(&piece[..length]);
        // If nobody reads ours, theirs is read all the same.
        let _ = own.write_all(&piece[..length]).await;
        let _ = own.flush().await;
    }
}

fn locked(words: &Mutex<LastWords>) -> MutexGuard<'_, LastWords> {
    words.lock().unwrap_or_else(PoisonError::into_inner)
}
