//! The text file source as a program names it.

use std::{path::PathBuf, time::Duration};

use millstream_api::{
    context::RuntimeContext,
    coordinator::{CoordinatorActions, OperatorCoordinator},
    source::{Boundedness, Source},
};
use millstream_model::fault::Failure;
use serde::{Deserialize, Serialize};

use super::{
    enumerator::{Answer, Enumerator},
    lister,
    path::FilePath,
    reader::TextFileReader,
    split::ToEnumerator,
};
use crate::{InvalidUtf8, section};

/// Reads text files, one record per line, without the line's end (`\n` or `\r\n`).
///
/// Files are read up to the length they have when they are discovered, and each is read once: replace a file under a
/// new name, do not append to it. Large files are cut into splits, so that all subtasks share them; the order of lines
/// is kept within a split only.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TextFileSource {
    paths: Vec<FilePath>,
    invalid_utf8: InvalidUtf8,
    split_bytes: u64,
    /// `None`: list once.
    discover_every: Option<Duration>,
}

impl TextFileSource {
    /// Reads files, and all files below directories except those whose name, or whose directory's name, starts with
    /// `.` or `_`. A relative path is relative to the working directory of the program that plans the job.
    pub fn new(paths: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        TextFileSource {
            paths: paths.into_iter().map(|path| FilePath::absolute(path.into())).collect(),
            invalid_utf8: InvalidUtf8::Fail,
            split_bytes: 16 << 20,
            discover_every: None,
        }
    }

    /// Looks for new files again and again, so that the stream never ends. A file must be complete when it appears:
    /// write it under a name that starts with `.` or `_`, then rename it.
    #[must_use]
    pub fn monitor_continuously(mut self, every: Duration) -> Self {
        self.discover_every = Some(every);
        self
    }

    #[must_use]
    pub fn invalid_utf8(mut self, policy: InvalidUtf8) -> Self {
        self.invalid_utf8 = policy;
        self
    }

    /// How much of a file one subtask reads at a time; 16 MiB by default.
    #[must_use]
    pub fn split_bytes(mut self, bytes: u64) -> Self {
        self.split_bytes = bytes;
        self
    }
}

impl Source for TextFileSource {
    type Out = String;
    type Reader = TextFileReader;

    const COORDINATED: bool = true;

    fn boundedness(&self) -> Boundedness {
        if self.discover_every.is_none() { Boundedness::Bounded } else { Boundedness::ContinuousUnbounded }
    }

    fn reader(self, context: &mut RuntimeContext) -> Result<TextFileReader, Failure> {
        TextFileReader::new(self.invalid_utf8, context)
    }

    fn coordinator(self, restored: Option<&[u8]>) -> Result<Box<dyn OperatorCoordinator>, Failure> {
        let state = match restored {
            Some(bytes) => section::decode(bytes, "the text file source's part of the checkpoint")?,
            None => Default::default(),
        };
        let enumerator = Enumerator::new(self.split_bytes, self.discover_every.is_none(), state);
        Ok(Box::new(FileCoordinator { paths: self.paths, discover_every: self.discover_every, enumerator }))
    }
}

/// Lists files for an [`Enumerator`] and carries its answers.
struct FileCoordinator {
    paths: Vec<FilePath>,
    discover_every: Option<Duration>,
    enumerator: Enumerator,
}

impl FileCoordinator {
    fn list(&mut self, actions: &mut CoordinatorActions) -> Result<(), Failure> {
        if self.enumerator.wants_listing() {
            let found = lister::list(&self.paths)?;
            if found.is_empty() && self.discover_every.is_none() {
                let paths: Vec<String> = self.paths.iter().map(ToString::to_string).collect();
                tracing::warn!(paths = paths.join(", "), "there is no file to read; the stream is empty");
            }
            send(self.enumerator.discovered(found), actions);
        }
        if let Some(every) = self.discover_every {
            actions.wake_after(every);
        }
        Ok(())
    }
}

fn send(answers: impl IntoIterator<Item = Answer>, actions: &mut CoordinatorActions) {
    answers.into_iter().for_each(|(subtask, answer)| actions.send(subtask, section::encode(&answer)));
}

impl OperatorCoordinator for FileCoordinator {
    fn start(&mut self, _parallelism: u32, actions: &mut CoordinatorActions) -> Result<(), Failure> {
        self.list(actions)
    }

    fn on_event(&mut self, subtask: u32, event: &[u8], actions: &mut CoordinatorActions) -> Result<(), Failure> {
        match section::decode(event, "a reader's message")? {
            ToEnumerator::RequestSplit => send(self.enumerator.requested(subtask), actions),
        }
        Ok(())
    }

    fn on_wake(&mut self, actions: &mut CoordinatorActions) -> Result<(), Failure> {
        self.list(actions)
    }

    fn snapshot(&mut self) -> Result<Vec<u8>, Failure> {
        Ok(section::encode(self.enumerator.state()))
    }
}
