//! The smallest sources and sinks: records that come with the program, and records that are shown, kept or dropped.

use std::{io::Write, marker::PhantomData};

use millstream_model::{fault::Failure, id::OperatorId, message::TaskResult, time::EventTime};
use serde::{Deserialize, Serialize};

use crate::{
    context::RuntimeContext,
    record::{
        Record,
        archive::{self, Aligned, Trust},
    },
    sink::{Sink, SinkSnapshot, SinkWriter},
    source::{Boundedness, Source, SourceOut, SourceReader, SourceSnapshot, SourceStatus},
};

/// Appends the archive of one record with its length.
fn append<T: Record>(records: &mut Vec<u8>, record: T::Ref<'_>) {
    let archive = archive::write_alone::<T>(record);
    records.extend_from_slice(&(archive.as_slice().len() as u64).to_le_bytes());
    records.extend_from_slice(archive.as_slice());
    records.resize(records.len().next_multiple_of(8), 0);
}

/// Records that travel in the job graph.
#[derive(Serialize, Deserialize)]
pub struct CollectionSource<T> {
    records: Vec<u8>,
    #[serde(skip)]
    of: PhantomData<fn() -> T>,
}

impl<T: Record> CollectionSource<T> {
    pub fn new(records: impl IntoIterator<Item = T>) -> Self {
        let mut bytes = Vec::new();
        records.into_iter().for_each(|record| append::<T>(&mut bytes, record.handle()));
        CollectionSource { records: bytes, of: PhantomData }
    }
}

impl<T: Record> Source for CollectionSource<T> {
    type Out = T;
    type Reader = CollectionReader<T>;

    fn boundedness(&self) -> Boundedness {
        Boundedness::Bounded
    }

    fn reader(self, context: &mut RuntimeContext) -> Result<CollectionReader<T>, Failure> {
        let records = Aligned::copy_of(&self.records);
        let mut reader = CollectionReader { records, at: 0, emitted: 0, of: PhantomData };
        // Only the first subtask has them, at whatever parallelism.
        if context.index_of_this_subtask() != 0 {
            reader.at = reader.records.as_slice().len();
        } else if let Some(position) = context.take_restored("position").first() {
            let position: (u64, u64) = postcard::from_bytes(position)
                .map_err(|cause| Failure::fatal(format!("the position in the checkpoint cannot be read: {cause}")))?;
            (reader.at, reader.emitted) = (position.0 as usize, position.1);
        }
        Ok(reader)
    }
}

/// Reads a [`CollectionSource`].
pub struct CollectionReader<T> {
    records: Aligned,
    at: usize,
    emitted: u64,
    of: PhantomData<fn() -> T>,
}

impl<T: Record> SourceReader for CollectionReader<T> {
    type Out = T;

    fn poll(&mut self, out: &mut SourceOut<'_, T>) -> Result<SourceStatus, Failure> {
        while let Some((length, rest)) = self.records.as_slice().get(self.at..).and_then(<[u8]>::split_first_chunk) {
            if out.should_pause() {
                return Ok(SourceStatus::More);
            }
            let length = u64::from_le_bytes(*length) as usize;
            let archive = rest.get(..length).ok_or_else(|| Failure::fatal("the collection is cut off"))?;
            let record = archive::read::<T>(archive, Trust::VALIDATE);
            out.emit(record.map_err(|cause| Failure::fatal(cause.to_string()))?);
            self.at += 8 + length.next_multiple_of(8);
            self.emitted += 1;
        }
        Ok(SourceStatus::End)
    }

    fn snapshot(&mut self, snapshot: &mut SourceSnapshot<'_>) {
        let position = postcard::to_allocvec(&(self.at as u64, self.emitted));
        snapshot.union("position", position.expect("numbers can be serialized"));
    }

    fn position(&self) -> String {
        format!("record {} of the collection", self.emitted + 1)
    }
}

macro_rules! stateless_sink {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Serialize, Deserialize)]
        pub struct $name<T> {
            #[serde(skip)]
            of: PhantomData<fn(T)>,
        }
        impl<T> $name<T> {
            #[expect(clippy::new_without_default, reason = "sinks are made to be used at once")]
            pub fn new() -> Self {
                $name { of: PhantomData }
            }
        }
    };
}

stateless_sink!(
    /// Drops every record.
    DiscardingSink
);
stateless_sink!(
    /// Writes every record to standard output.
    PrintSink
);
stateless_sink!(
    /// Keeps every record for the client.
    CollectSink
);

impl<T: Record> Sink for DiscardingSink<T> {
    type In = T;
    type Writer = DiscardingSink<T>;

    fn writer(self, _: &mut RuntimeContext) -> Result<Self, Failure> {
        Ok(self)
    }
}

impl<T: Record> SinkWriter for DiscardingSink<T> {
    type In = T;

    #[inline]
    fn write(&mut self, _: T::Ref<'_>, _: EventTime) -> Result<(), Failure> {
        Ok(())
    }
}

impl<T: Record> Sink for PrintSink<T>
where
    for<'a> T::Ref<'a>: std::fmt::Debug,
{
    type In = T;
    type Writer = PrintWriter<T>;

    fn writer(self, context: &mut RuntimeContext) -> Result<PrintWriter<T>, Failure> {
        // As Flink: with several subtasks each line says which one wrote it, counted from 1.
        let prefix = match context.number_of_parallel_subtasks() {
            1 => String::new(),
            _ => format!("{}> ", context.index_of_this_subtask() + 1),
        };
        Ok(PrintWriter { prefix, of: PhantomData })
    }
}

/// Writes lines for a [`PrintSink`].
pub struct PrintWriter<T> {
    prefix: String,
    of: PhantomData<fn(T)>,
}

impl<T: Record> SinkWriter for PrintWriter<T>
where
    for<'a> T::Ref<'a>: std::fmt::Debug,
{
    type In = T;

    fn write(&mut self, record: T::Ref<'_>, _: EventTime) -> Result<(), Failure> {
        let line = writeln!(std::io::stdout().lock(), "{}{record:?}", self.prefix);
        line.map_err(|cause| Failure::new(format!("standard output cannot be written: {cause}")))
    }
}

impl<T: Record> Sink for CollectSink<T> {
    type In = T;
    type Writer = CollectWriter<T>;

    fn writer(self, context: &mut RuntimeContext) -> Result<CollectWriter<T>, Failure> {
        let records = context.take_restored("records").concat();
        Ok(CollectWriter { operator: context.operator_id(), records, of: PhantomData })
    }
}

/// Gathers records for a [`CollectSink`]; what it has is part of each checkpoint.
pub struct CollectWriter<T> {
    operator: OperatorId,
    records: Vec<u8>,
    of: PhantomData<fn(T)>,
}

impl<T: Record> SinkWriter for CollectWriter<T> {
    type In = T;

    fn write(&mut self, record: T::Ref<'_>, _: EventTime) -> Result<(), Failure> {
        append::<T>(&mut self.records, record);
        Ok(())
    }

    fn prepare(&mut self, snapshot: &mut SinkSnapshot<'_>) -> Result<(), Failure> {
        snapshot.split("records", self.records.clone());
        Ok(())
    }

    fn finish(&mut self, result: &mut TaskResult) -> Result<(), Failure> {
        result.collected.push((self.operator, std::mem::take(&mut self.records)));
        Ok(())
    }
}
