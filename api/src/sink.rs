//! Sinks. A writer per subtask takes records on the slot's thread and never blocks; what must wait for a disk or a
//! network is done on the worker's I/O runtime.

use std::{cell::Cell, marker::PhantomData, rc::Rc};

use millstream_model::{fault::Failure, id::CheckpointId, id::OperatorId, message::TaskResult, time::EventTime};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    context::RuntimeContext,
    factory::{Build, Product},
    flow::{self, Flow},
    push::{AnyPush, Forward, Node, Operator, Out},
    record::Record,
    signal::Signal,
    state::{Section, SectionKind, Snapshot, snapshot::BeforeAck},
};

/// A sink as a program names it; it travels in the job graph.
pub trait Sink: Serialize + DeserializeOwned + 'static {
    type In: Record;
    type Writer: SinkWriter<In = Self::In>;

    /// Makes the writer of one subtask.
    ///
    /// # Errors
    /// If the target cannot be written, or the checkpoint's part of it does not fit.
    fn writer(self, context: &mut RuntimeContext) -> Result<Self::Writer, Failure>;
}

/// The half of a sink that takes records.
pub trait SinkWriter: 'static {
    type In: Record;

    /// # Errors
    /// A failure fails the attempt of the task.
    fn write(&mut self, record: <Self::In as Record>::Ref<'_>, time: EventTime) -> Result<(), Failure>;

    /// Whether another record may come; if not, the task waits, and its waker must be called when there is room.
    fn has_room(&self) -> bool {
        true
    }

    /// Nothing more is at hand: show what there is, if it is to be shown early.
    ///
    /// # Errors
    /// A failure fails the attempt of the task.
    fn flush(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    /// Prepares a commit: everything written so far must survive a crash once the snapshot is acknowledged.
    ///
    /// # Errors
    /// A failure fails the attempt of the task.
    fn prepare(&mut self, _snapshot: &mut SinkSnapshot<'_>) -> Result<(), Failure> {
        Ok(())
    }

    /// Commits what was prepared for `checkpoint` and for earlier ones. Must be idempotent: it may be called again
    /// after a restart.
    ///
    /// # Errors
    /// A failure fails the attempt of the task.
    fn commit(&mut self, _checkpoint: CheckpointId) -> Result<(), Failure> {
        Ok(())
    }

    /// The job is complete: commit everything, hand over what is for the client.
    ///
    /// # Errors
    /// A failure fails the attempt of the task.
    fn finish(&mut self, _result: &mut TaskResult) -> Result<(), Failure> {
        Ok(())
    }

    /// The task ends, finished or not.
    fn close(&mut self) {}
}

/// Where a writer puts what it needs to commit or to continue after a restart.
pub struct SinkSnapshot<'s> {
    operator: OperatorId,
    snapshot: &'s mut Snapshot,
}

impl SinkSnapshot<'_> {
    pub fn checkpoint(&self) -> CheckpointId {
        self.snapshot.barrier.checkpoint
    }

    /// Adds a part that goes to one subtask after a restart, as [`RuntimeContext::take_restored`] of the same name.
    pub fn split(&mut self, name: &str, bytes: Vec<u8>) {
        let (operator, name) = (self.operator, name.to_owned());
        self.snapshot.sections.push(Section { operator, kind: SectionKind::Split, name, fingerprint: 0, bytes });
    }

    /// Runs `work` off the slot's thread; the checkpoint is acknowledged only if it succeeds.
    pub fn before_ack(&mut self, work: BeforeAck) {
        self.snapshot.before_ack.push(work);
    }
}

struct SinkOperator<W: SinkWriter> {
    writer: W,
    flow: Rc<Flow>,
    operator: OperatorId,
    full: Cell<bool>,
    of: PhantomData<fn(W::In)>,
}

impl<W: SinkWriter> SinkOperator<W> {
    fn note_room(&self) {
        let full = !self.writer.has_room();
        match (self.full.replace(full), full) {
            (false, true) => self.flow.output_filled(),
            (true, false) => self.flow.output_freed(),
            _ => {}
        }
    }
}

impl<W: SinkWriter> Operator<W::In, ()> for SinkOperator<W> {
    #[inline]
    fn process(&mut self, record: <W::In as Record>::Ref<'_>, _: &mut Out<'_, ()>) {
        self.writer.write(record, self.flow.timestamp()).unwrap_or_else(|failure| flow::fail(failure));
        self.note_room();
    }

    fn signal(&mut self, signal: &mut Signal<'_>, _: &mut Out<'_, ()>) -> Forward {
        let done = match signal {
            Signal::Flush => self.writer.flush(),
            Signal::Barrier(snapshot) => self.writer.prepare(&mut SinkSnapshot { operator: self.operator, snapshot }),
            Signal::Complete(checkpoint) => self.writer.commit(*checkpoint),
            Signal::Finish(result) => self.writer.finish(result),
            Signal::Close => {
                self.writer.close();
                Ok(())
            }
            _ => Ok(()),
        };
        done.unwrap_or_else(|failure| flow::fail(failure));
        self.note_room();
        Forward::Now
    }
}

pub(crate) fn sink<S: Sink>(build: Build<'_>) -> Result<Product, Failure> {
    let sink: S = build.conf()?;
    let Build { mut context, outputs, .. } = build;
    let writer = sink.writer(&mut context)?;
    let operator = SinkOperator {
        writer,
        flow: context.flow.clone(),
        operator: context.operator,
        full: Cell::new(false),
        of: PhantomData,
    };
    let node = Node::new(operator, outputs, context.name.clone(), &context.metrics())?;
    Ok(Product::Push(AnyPush::new(node)))
}
