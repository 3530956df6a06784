//! Sources. A source is two things: a reader per subtask, on the slot's thread, which never blocks; and, if its input
//! comes in pieces, one coordinator that hands them out.

use std::{rc::Rc, time::Duration};

use millstream_model::{fault::Failure, id::OperatorId, time::EventTime};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    context::RuntimeContext,
    coordinator::OperatorCoordinator,
    factory::{Build, Product},
    flow::{Blame, Flow},
    push::Outputs,
    record::Record,
    signal::Signal,
    state::{Section, SectionKind},
};

/// A source as a program names it; it travels in the job graph.
pub trait Source: Serialize + DeserializeOwned + 'static {
    type Out: Record;
    type Reader: SourceReader<Out = Self::Out>;

    /// Whether [`Source::coordinator`] makes one.
    const COORDINATED: bool = false;

    /// Whether the input has an end. `execution.runtime-mode` asks: `BATCH` refuses a source without one, `AUTOMATIC` is
    /// `BATCH` if all sources have one. An input may end though its source says nothing of it.
    fn boundedness(&self) -> Boundedness {
        Boundedness::ContinuousUnbounded
    }

    /// Makes the reader of one subtask.
    ///
    /// # Errors
    /// If the input cannot be read, or the checkpoint's part of it does not fit.
    fn reader(self, context: &mut RuntimeContext) -> Result<Self::Reader, Failure>;

    /// Makes the coordinator, from what an earlier one has left in the checkpoint.
    ///
    /// # Errors
    /// If the input cannot be read, or the checkpoint's part of it does not fit.
    fn coordinator(self, _restored: Option<&[u8]>) -> Result<Box<dyn OperatorCoordinator>, Failure> {
        Err(Failure::fatal("this source has no coordinator"))
    }
}

/// Whether an input has an end; Flink's `Boundedness`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Boundedness {
    /// It is over some time.
    Bounded,
    /// It may go on for ever.
    ContinuousUnbounded,
}

/// The half of a source that turns input into records.
pub trait SourceReader: 'static {
    type Out: Record;

    /// Emits records until there are none at hand or [`SourceOut::should_pause`] says so. Must not block.
    ///
    /// # Errors
    /// A failure fails the attempt of the task.
    fn poll(&mut self, out: &mut SourceOut<'_, Self::Out>) -> Result<SourceStatus, Failure>;

    /// Says where reading goes on after a restart.
    fn snapshot(&mut self, snapshot: &mut SourceSnapshot<'_>);

    /// The coordinator has said something.
    ///
    /// # Errors
    /// A failure fails the attempt of the task.
    fn on_event(&mut self, _event: &[u8]) -> Result<(), Failure> {
        Ok(())
    }

    /// Where in the input the last emitted record was, for messages.
    fn position(&self) -> String;
}

/// What a reader has to say after a poll.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SourceStatus {
    /// There may be more at once.
    More,
    /// Nothing until the task's waker is called.
    Idle,
    /// Nothing for this long, or until the task's waker is called.
    IdleFor(Duration),
    /// Nothing ever again.
    End,
}

/// Where a reader puts its records.
pub struct SourceOut<'o, O: Record> {
    outputs: &'o mut Outputs<O>,
    flow: &'o Flow,
    emitted: u32,
    budget: u32,
}

impl<O: Record> SourceOut<'_, O> {
    /// Emits a record that has no time stamp.
    #[inline]
    pub fn emit<'a>(&mut self, record: impl Into<O::Ref<'a>>) {
        self.flow.set_timestamp(EventTime::MIN);
        self.outputs.push(record.into());
        self.emitted += 1;
    }

    /// Emits a record that happened at `time`.
    #[inline]
    pub fn emit_at<'a>(&mut self, record: impl Into<O::Ref<'a>>, time: EventTime) {
        self.flow.set_timestamp(time);
        self.outputs.push(record.into());
        self.emitted += 1;
    }

    /// Whether the reader should return now: others want to run, or there is no room for records.
    #[inline]
    pub fn should_pause(&self) -> bool {
        self.emitted >= self.budget || self.flow.halted()
    }
}

/// Where a reader puts its positions.
pub struct SourceSnapshot<'s> {
    operator: OperatorId,
    sections: &'s mut Vec<Section>,
}

impl SourceSnapshot<'_> {
    /// Adds a part that goes to one subtask after a restart, as [`RuntimeContext::take_restored`] of the same name.
    pub fn split(&mut self, name: &str, bytes: Vec<u8>) {
        self.add(SectionKind::Split, name, bytes);
    }

    /// Adds a part that goes to every subtask after a restart.
    pub fn union(&mut self, name: &str, bytes: Vec<u8>) {
        self.add(SectionKind::Union, name, bytes);
    }

    fn add(&mut self, kind: SectionKind, name: &str, bytes: Vec<u8>) {
        let (operator, name) = (self.operator, name.to_owned());
        self.sections.push(Section { operator, kind, name, fingerprint: 0, bytes });
    }
}

/// A source as the runtime sees it.
pub trait SourceTask {
    /// Emits up to `budget` records, more or less; returns how many.
    ///
    /// # Errors
    /// If the input fails.
    fn poll(&mut self, budget: u32) -> Result<(SourceStatus, u32), Failure>;

    fn signal(&mut self, signal: &mut Signal<'_>);

    /// # Errors
    /// If the event cannot be obeyed.
    fn on_event(&mut self, event: &[u8]) -> Result<(), Failure>;

    fn position(&self) -> String;
}

struct SourceNode<R: SourceReader> {
    reader: R,
    outputs: Outputs<R::Out>,
    flow: Rc<Flow>,
    operator: OperatorId,
    name: Rc<str>,
}

impl<R: SourceReader> SourceTask for SourceNode<R> {
    fn poll(&mut self, budget: u32) -> Result<(SourceStatus, u32), Failure> {
        let blame = Blame::on(&self.name);
        let mut out = SourceOut { outputs: &mut self.outputs, flow: &self.flow, emitted: 0, budget };
        let status = self.reader.poll(&mut out);
        blame.lift();
        let emitted = out.emitted;
        status.map(|status| (status, emitted)).map_err(|failure| failure.in_operator(&self.name))
    }

    fn signal(&mut self, signal: &mut Signal<'_>) {
        if let Signal::Barrier(snapshot) = signal {
            let mut sections = SourceSnapshot { operator: self.operator, sections: &mut snapshot.sections };
            self.reader.snapshot(&mut sections);
        }
        self.outputs.signal(signal);
    }

    fn on_event(&mut self, event: &[u8]) -> Result<(), Failure> {
        self.reader.on_event(event).map_err(|failure| failure.in_operator(&self.name))
    }

    fn position(&self) -> String {
        self.reader.position()
    }
}

pub(crate) fn source<S: Source>(build: Build<'_>) -> Result<Product, Failure> {
    let source: S = build.conf()?;
    let Build { mut context, outputs, .. } = build;
    let reader = source.reader(&mut context)?;
    Ok(Product::Source(Box::new(SourceNode {
        reader,
        outputs: Outputs::new(outputs, &context.metrics())?,
        flow: context.flow.clone(),
        operator: context.operator,
        name: context.name.clone(),
    })))
}

pub(crate) fn source_coordinator<S: Source>(build: Build<'_>) -> Result<Product, Failure> {
    let source: S = build.conf()?;
    Ok(Product::Coordinator(source.coordinator(build.restored_coordinator.as_deref())?))
}
