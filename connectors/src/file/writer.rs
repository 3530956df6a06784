//! The half of the text file sink on the slot's thread: turns records into lines in buffers, and hands full buffers to
//! the I/O half.
//!
//! ```text
//!  writer ──── commands, among them full buffers ───► PartIo (I/O runtime)
//!         ◄─── empty buffers ───
//! ```
//! Not more than [`BUFFERS`] buffers are under way, unless one record becomes more lines than they hold; so the queue
//! of commands, which has no limit of its own, is bounded by them and by the checkpoints under way.

use std::{
    cell::{Cell, RefCell},
    marker::PhantomData,
    path::Path,
    sync::{
        Arc, OnceLock,
        mpsc::{self as blocking, RecvTimeoutError},
    },
    time::Duration,
};

use millstream_api::{
    context::{RuntimeContext, TaskWaker},
    record::Record,
    sink::{SinkSnapshot, SinkWriter},
};
use millstream_model::{fault::Failure, id::CheckpointId, message::TaskResult, time::EventTime};
use tokio::sync::mpsc;

use super::{
    disk::LocalDisk,
    format::LineFormat,
    part_io::PartIo,
    parts::{BUFFER_BYTES, Command, Parts, Rolling},
    recovery::Recovery,
};
use crate::section::{decode, encode};

/// How many buffers may be under way to the disk.
const BUFFERS: usize = 4;
/// A line that was longer than this gives its memory back.
const LINE_BYTES_KEPT: usize = 1 << 20;
/// Name of a writer's files in checkpoints.
const PARTS: &str = "parts";

/// Writes lines for a [`TextFileSink`](super::TextFileSink).
pub struct TextFileWriter<T, F> {
    format: F,
    line: String,
    parts: Parts,
    /// `None` once the task has ended.
    queue: Option<mpsc::UnboundedSender<Queued>>,
    ring: Ring,
    fate: Arc<Fate>,
    of: PhantomData<fn(T)>,
}

/// What each half must know about the other.
#[derive(Default)]
struct Fate {
    /// Why the I/O half cannot go on.
    broken: OnceLock<Failure>,
    /// The task has ended: nobody will ask for what was not committed yet.
    ended: OnceLock<()>,
}

/// How long a task that ends waits for its I/O half to let go of the files.
const PATIENCE: Duration = Duration::from_secs(3);

/// What the I/O half gets.
enum Queued {
    Command(Command),
    /// Say when all that came before is done, or why it could not be.
    Answer(blocking::SyncSender<Result<(), Failure>>),
}

/// The buffers that are not being filled.
struct Ring {
    under_way: Cell<usize>,
    spare: RefCell<Vec<Vec<u8>>>,
    returned: blocking::Receiver<Vec<u8>>,
}

impl Ring {
    fn has_room(&self) -> bool {
        if self.under_way.get() >= BUFFERS {
            self.take_returned();
        }
        self.under_way.get() < BUFFERS
    }

    fn take_returned(&self) {
        for buffer in self.returned.try_iter() {
            self.under_way.set(self.under_way.get() - 1);
            self.spare.borrow_mut().push(buffer);
        }
    }

    fn empty_buffer(&self) -> Vec<u8> {
        self.take_returned();
        self.spare.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES + BUFFER_BYTES / 8))
    }
}

impl<T: Record, F: LineFormat<T>> TextFileWriter<T, F> {
    pub(super) fn new(
        directory: &Path,
        rolling: Rolling,
        format: F,
        context: &mut RuntimeContext,
    ) -> Result<Self, Failure> {
        let sections = context.take_restored(PARTS);
        let states = sections.iter().map(|bytes| decode(bytes, "the text file sink's part of the checkpoint"));
        let states = states.collect::<Result<Vec<_>, _>>()?;
        let subtask = context.index_of_this_subtask();
        let recovery = Recovery {
            subtask,
            parallelism: context.number_of_parallel_subtasks(),
            restored: context.is_restored().then_some(states),
        };
        let next = recovery.run(&LocalDisk, directory)?;

        let (queue, queue_receiver) = mpsc::unbounded_channel();
        let (returned_sender, returned) = blocking::channel();
        let fate = Arc::<Fate>::default();
        context.spawn_io(run(
            PartIo::new(LocalDisk, directory.to_owned()),
            queue_receiver,
            Back { returned: returned_sender, fate: fate.clone(), waker: context.waker() },
        ));
        Ok(TextFileWriter {
            format,
            line: String::new(),
            parts: Parts::new(subtask, next, rolling),
            queue: Some(queue),
            ring: Ring { under_way: Cell::new(0), spare: RefCell::default(), returned },
            fate,
            of: PhantomData,
        })
    }

    fn check(&self) -> Result<(), Failure> {
        self.fate.broken.get().map_or(Ok(()), |failure| Err(failure.clone()))
    }

    fn queue(&self, queued: Queued) -> Result<(), Failure> {
        self.check()?;
        let sent = self.queue.as_ref().is_some_and(|queue| queue.send(queued).is_ok());
        if sent { Ok(()) } else { Err(ended_early()) }
    }

    /// Passes on the commands that have come up.
    #[cold]
    fn pass_on(&mut self) -> Result<(), Failure> {
        let commands: Vec<Command> = self.parts.commands().collect();
        for command in commands {
            if matches!(command, Command::Append(..)) {
                self.ring.under_way.set(self.ring.under_way.get() + 1);
            }
            self.queue(Queued::Command(command))?;
        }
        self.parts.supply(|| self.ring.empty_buffer());
        self.line.shrink_to(LINE_BYTES_KEPT);
        Ok(())
    }

    /// Returns what waits until all that was passed on is done.
    fn answer(&self) -> Result<impl FnOnce() -> Result<(), Failure> + Send + 'static, Failure> {
        let (done, answer) = blocking::sync_channel(1);
        self.queue(Queued::Answer(done))?;
        Ok(move || answer.recv().unwrap_or_else(|_| Err(ended_early())))
    }
}

impl<T: Record, F: LineFormat<T>> SinkWriter for TextFileWriter<T, F> {
    type In = T;

    #[inline]
    fn write(&mut self, record: T::Ref<'_>, _: EventTime) -> Result<(), Failure> {
        self.format.write(record, &mut self.line);
        self.line.push('\n');
        let has_commands = self.parts.add(self.line.as_bytes());
        self.line.clear();
        if has_commands { self.pass_on() } else { Ok(()) }
    }

    #[inline]
    fn has_room(&self) -> bool {
        self.ring.has_room()
    }

    fn flush(&mut self) -> Result<(), Failure> {
        // Nothing is visible before its checkpoint is complete, so there is nothing to hurry. But this is called when
        // the task is idle, and then nothing else would tell that the disk is full.
        self.check()
    }

    fn prepare(&mut self, snapshot: &mut SinkSnapshot<'_>) -> Result<(), Failure> {
        let state = self.parts.prepare(snapshot.checkpoint());
        self.pass_on()?;
        snapshot.split(PARTS, encode(&state));
        snapshot.before_ack(Box::new(self.answer()?));
        Ok(())
    }

    fn commit(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        self.parts.commit(checkpoint);
        self.pass_on()?;
        self.check()
    }

    fn finish(&mut self, _: &mut TaskResult) -> Result<(), Failure> {
        self.parts.finish();
        self.pass_on()?;
        // Blocks: there is nothing left to do for this task, and its end must mean that the output is there.
        self.answer()?()
    }

    fn close(&mut self) {
        self.end();
    }
}

impl<T, F> Drop for TextFileWriter<T, F> {
    fn drop(&mut self) {
        self.end();
    }
}

impl<T, F> TextFileWriter<T, F> {
    /// Makes the I/O half let go of the files, so that the next attempt finds them at rest.
    fn end(&mut self) {
        let Some(queue) = self.queue.take() else { return };
        let _ = self.fate.ended.set(());
        let (done, answer) = blocking::sync_channel(1);
        if queue.send(Queued::Answer(done)).is_ok() && answer.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the disk under a text file sink does not answer; its task ends nevertheless");
        }
    }
}

fn ended_early() -> Failure {
    Failure::new("the I/O half of the text file sink has ended early: the worker is shutting down")
}

/// What goes back from the I/O half.
struct Back {
    returned: blocking::Sender<Vec<u8>>,
    fate: Arc<Fate>,
    waker: TaskWaker,
}

/// Carries out commands until there are no more; after a failure only answers.
async fn run(io: PartIo<LocalDisk>, mut queue: mpsc::UnboundedReceiver<Queued>, back: Back) {
    let mut batch = Vec::new();
    let mut turn = (io, back);
    while queue.recv_many(&mut batch, 2 * BUFFERS).await > 0 {
        let work = std::mem::take(&mut batch);
        let done = tokio::task::spawn_blocking(move || {
            work.into_iter().for_each(|queued| turn.1.take(&mut turn.0, queued));
            turn
        });
        match done.await {
            Ok(again) => turn = again,
            // Shutting down. The writer finds its channels closed.
            Err(_) => return,
        }
    }
}

impl Back {
    fn take(&self, io: &mut PartIo<LocalDisk>, queued: Queued) {
        match queued {
            Queued::Command(command) => {
                // What a complete checkpoint has prepared is committed even if the task has ended meanwhile.
                let wanted = self.fate.ended.get().is_none() || matches!(command, Command::Commit(_));
                if wanted
                    && self.fate.broken.get().is_none()
                    && let Err(failure) = io.obey(&command)
                {
                    let _ = self.fate.broken.set(failure);
                }
                if let Command::Append(_, mut buffer) = command {
                    buffer.clear();
                    buffer.shrink_to(2 * BUFFER_BYTES);
                    // If the writer is gone, so is its ring.
                    let _ = self.returned.send(buffer);
                }
            }
            Queued::Answer(answer) => {
                let _ = answer.send(self.fate.broken.get().map_or(Ok(()), |failure| Err(failure.clone())));
            }
        }
        self.waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_no_room_while_all_buffers_are_under_way() {
        let (give_back, returned) = blocking::channel();
        let ring = Ring { under_way: Cell::new(BUFFERS), spare: RefCell::default(), returned };
        assert!(!ring.has_room());
        give_back.send(Vec::with_capacity(10)).unwrap();
        assert!(ring.has_room());
        assert_eq!(ring.empty_buffer().capacity(), 10, "a buffer that came back is used again");
    }
}
