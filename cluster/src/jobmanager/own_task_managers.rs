//! TaskManagers that a JobManager has started itself, as its children: as many as it was told, and others for those that
//! end too early. They end when their standard input does, so with this process, whatever becomes of it.

use std::{
    io,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use millstream_model::fault::Failure;
use tokio::{
    process::{Child, ChildStdin, Command},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

/// Before another one is started for one that has ended: what keeps one from running may keep the next one, too.
const PAUSE: Duration = Duration::from_secs(1);
/// How long one may take to end that is told to.
const PATIENCE: Duration = Duration::from_secs(30);

/// How the process of a TaskManager is started; each has a number, no two the same.
pub type TaskManagerCommand = Box<dyn Fn(u32) -> Result<Command, Failure> + Send + Sync>;

/// The TaskManagers. Those that run are killed when this is dropped.
pub(super) struct OwnTaskManagers {
    command: TaskManagerCommand,
    started: u32,
    running: JoinSet<ExitStatus>,
    /// Becomes true when they are to end.
    end: watch::Sender<bool>,
}

impl OwnTaskManagers {
    /// Starts none yet.
    pub(super) fn new(command: TaskManagerCommand) -> OwnTaskManagers {
        OwnTaskManagers { command, started: 0, running: JoinSet::new(), end: watch::Sender::new(false) }
    }

    /// Starts so many, and others for those that end, and tells of each end. Comes back only if one cannot be started.
    pub(super) async fn keep(&mut self, count: u32, mut on_end: impl FnMut(String)) -> Failure {
        loop {
            while (self.running.len() as u32) < count {
                if let Err(failure) = self.start() {
                    return failure;
                }
            }
            let Some(Ok(status)) = self.running.join_next().await else { continue };
            tracing::warn!(%status, "a TaskManager has ended, and another one is started");
            on_end(format!("a TaskManager has ended with {status}"));
            sleep(PAUSE).await;
        }
    }

    fn start(&mut self) -> Result<(), Failure> {
        let mut command = (self.command)(self.started)?;
        self.started += 1;
        command.stdin(Stdio::piped()).kill_on_drop(true);
        let child = command.spawn();
        let child = child.map_err(|cause| Failure::fatal(format!("a TaskManager cannot be started: {cause}")))?;
        tracing::info!(process = child.id(), "a TaskManager is started");
        self.running.spawn(wait(child, self.end.subscribe()));
        Ok(())
    }

    /// Ends all, and waits until they have ended.
    pub(super) async fn end(&mut self) {
        self.end.send_replace(true);
        while self.running.join_next().await.is_some() {}
    }
}

/// Waits for the end of a TaskManager, which it is told when it is to come.
async fn wait(mut child: Child, mut end: watch::Receiver<bool>) -> ExitStatus {
    // Held until then: to wait for a child lets go of its input.
    let input = child.stdin.take();
    let by_itself = tokio::select! {
        ended = child.wait() => Some(ended),
        // Its sender is there for as long as this is waited for.
        _ = end.changed() => None,
    };
    let ended = match by_itself {
        Some(ended) => ended,
        None => end_with_input(&mut child, input).await,
    };
    ended.unwrap_or_else(|cause| {
        tracing::warn!(%cause, "a TaskManager cannot be waited for");
        ExitStatus::default()
    })
}

async fn end_with_input(child: &mut Child, input: Option<ChildStdin>) -> io::Result<ExitStatus> {
    drop(input);
    if let Ok(ended) = timeout(PATIENCE, child.wait()).await {
        return ended;
    }
    tracing::warn!(process = child.id(), "a TaskManager does not end; it is killed");
    child.start_kill()?;
    child.wait().await
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::mpsc, time::Duration};

    use super::*;

    /// TaskManagers that are shell scripts; `$1` is the number.
    fn own(script: &str) -> OwnTaskManagers {
        let script = script.to_owned();
        OwnTaskManagers::new(Box::new(move |number| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", &script, "sh", &number.to_string()]);
            Ok(command)
        }))
    }

    async fn until(condition: impl Fn() -> bool) {
        let seen = async {
            while !condition() {
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(Duration::from_secs(60), seen).await.expect("it comes true");
    }

    fn all_exist(root: &Path, names: &[&str]) -> bool {
        names.iter().all(|name| root.join(name).exists())
    }

    #[tokio::test]
    async fn one_that_ends_is_replaced_and_all_end_with_their_input() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().display();
        // The first ends at once, and the others when they are to.
        let mut own =
            own(&format!("touch {folder}/begun-$1; [ $1 = 0 ] && exit 7; cat; sleep 0.05; touch {folder}/ended-$1"));
        let (ends, told) = mpsc::channel();
        tokio::select! {
            failure = own.keep(2, |end| ends.send(end).unwrap()) => panic!("{failure}"),
            () = until(|| all_exist(root.path(), &["begun-0", "begun-1", "begun-2"])) => {}
        }
        assert_eq!(told.try_iter().collect::<Vec<_>>(), ["a TaskManager has ended with exit status: 7"]);
        assert!(!root.path().join("ended-1").exists());
        own.end().await;
        assert!(all_exist(root.path(), &["ended-1", "ended-2"]));
    }

    #[tokio::test]
    async fn one_that_cannot_be_started_is_told_of() {
        let mut own = OwnTaskManagers::new(Box::new(|_| Ok(Command::new("/no/such/program"))));
        let failure = own.keep(1, |_| ()).await;
        assert!(failure.message.contains("cannot be started"), "{failure}");
    }
}
