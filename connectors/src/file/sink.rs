//! The text file sink as a program names it.

use std::{marker::PhantomData, path::PathBuf};

use millstream_api::{conjure::conjure, context::RuntimeContext, record::Record, sink::Sink};
use millstream_model::fault::Failure;
use serde::{Deserialize, Serialize};

use super::{
    format::{AsIs, LineFormat, TabSeparated},
    parts::Rolling,
    path::FilePath,
    writer::TextFileWriter,
};
use crate::captures::refuse_captures;

/// Writes lines to part files in a directory, each line exactly once.
///
/// A file becomes visible, as `part-<subtask>-<number>`, when a checkpoint that covers it is complete, or when the job
/// is. Until then its name is hidden: `.part-<subtask>-<number>.inprogress`. The directory belongs to one sink of one
/// job; files that are there already are left alone, and so are visible ones for ever.
#[derive(Debug, Serialize, Deserialize)]
pub struct TextFileSink<T = String, F = AsIs> {
    directory: FilePath,
    rolling: Rolling,
    #[serde(skip)]
    of: PhantomData<fn(T, F)>,
}

impl TextFileSink {
    /// Writes strings, each as a line. A relative directory is relative to the working directory of the program that
    /// plans the job; it is made if it does not exist.
    pub fn new(directory: impl Into<PathBuf>) -> TextFileSink {
        TextFileSink::into_directory(directory.into())
    }

    /// Writes tuples, with tabs between their elements.
    pub fn tab_separated<T: Record>(directory: impl Into<PathBuf>) -> TextFileSink<T, TabSeparated>
    where
        TabSeparated: LineFormat<T>,
    {
        TextFileSink::into_directory(directory.into())
    }

    /// Writes records of any type, as `format` appends them to a line that is empty. The closure must not capture
    /// anything: only its code travels to the workers.
    pub fn with_format<T: Record, F>(directory: impl Into<PathBuf>, format: F) -> TextFileSink<T, F>
    where
        F: for<'a> Fn(T::Ref<'a>, &mut String) + Copy + 'static,
    {
        refuse_captures!(F);
        let _ = format;
        TextFileSink::into_directory(directory.into())
    }
}

impl<T, F> TextFileSink<T, F> {
    fn into_directory(directory: PathBuf) -> Self {
        TextFileSink {
            directory: FilePath::absolute(directory),
            rolling: Rolling { bytes: 128 << 20, on_checkpoint: true },
            of: PhantomData,
        }
    }

    /// How large a file becomes before another is begun; 128 MiB by default.
    #[must_use]
    pub fn rolling(mut self, bytes: u64) -> Self {
        self.rolling.bytes = bytes;
        self
    }

    /// Whether each checkpoint begins another file, which is the default: then all output is visible as soon as its
    /// checkpoint is complete. If not, files are larger and fewer, and become visible when they are full.
    #[must_use]
    pub fn roll_on_checkpoint(mut self, roll: bool) -> Self {
        self.rolling.on_checkpoint = roll;
        self
    }
}

impl<T: Record, F: LineFormat<T>> Sink for TextFileSink<T, F> {
    type In = T;
    type Writer = TextFileWriter<T, F>;

    fn writer(self, context: &mut RuntimeContext) -> Result<TextFileWriter<T, F>, Failure> {
        TextFileWriter::new(self.directory.as_path(), self.rolling, conjure(), context)
    }
}
