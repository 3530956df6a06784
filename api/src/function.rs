//! The functions that users write as types: those with state, timers, two inputs or something to open and close.
//!
//! Each has a `Conf`, which travels in the job graph, and is made from it by `open` on the worker, once per subtask.
//! What needs no more than a closure is given as one: see [`DataStream`](crate::stream::DataStream).

use std::{cell::RefCell, future::Future, sync::Arc};

use millstream_model::{
    fault::{Failure, Remedy},
    key_group::KeyHash,
    time::{EventTime, Watermark},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    context::RuntimeContext,
    flow::Flow,
    push::Out,
    record::{Key, Record},
    state::timer::Timers,
};

/// A function on the records of a stream, one by one; Flink's `ProcessFunction`.
pub trait ProcessFunction: Sized + 'static {
    type In: Record;
    type Out: Record;
    type Conf: Serialize + DeserializeOwned + 'static;

    /// # Errors
    /// A failure fails the attempt of the task; `Failure::fatal` fails the job.
    fn open(conf: Self::Conf, context: &mut RuntimeContext) -> Result<Self, Failure>;

    /// # Errors
    /// As [`ProcessFunction::open`].
    fn process(
        &mut self,
        record: <Self::In as Record>::Ref<'_>,
        context: &ProcessContext<'_>,
        out: &mut Out<'_, Self::Out>,
    ) -> Result<(), Failure>;

    /// The task ends, finished or not.
    fn close(&mut self) {}
}

/// A function with state and timers per key; Flink's `KeyedProcessFunction`.
pub trait KeyedProcessFunction: Sized + 'static {
    type Key: Key;
    type In: Record;
    type Out: Record;
    type Conf: Serialize + DeserializeOwned + 'static;

    /// Makes the function and its states.
    ///
    /// # Errors
    /// A failure fails the attempt of the task; `Failure::fatal` fails the job.
    fn open(conf: Self::Conf, context: &mut RuntimeContext) -> Result<Self, Failure>;

    /// # Errors
    /// As [`KeyedProcessFunction::open`].
    fn process(
        &mut self,
        record: <Self::In as Record>::Ref<'_>,
        context: &KeyedContext<'_, Self::Key>,
        out: &mut Out<'_, Self::Out>,
    ) -> Result<(), Failure>;

    /// A timer of the context's key is due.
    ///
    /// # Errors
    /// As [`KeyedProcessFunction::open`].
    fn on_timer(
        &mut self,
        _timer: Timer,
        _context: &KeyedContext<'_, Self::Key>,
        _out: &mut Out<'_, Self::Out>,
    ) -> Result<(), Failure> {
        Ok(())
    }

    /// The task ends, finished or not.
    fn close(&mut self) {}
}

/// A function on two keyed streams that shares state between them; Flink's `KeyedCoProcessFunction`.
pub trait KeyedCoProcessFunction: Sized + 'static {
    type Key: Key;
    type In1: Record;
    type In2: Record;
    type Out: Record;
    type Conf: Serialize + DeserializeOwned + 'static;

    /// # Errors
    /// A failure fails the attempt of the task; `Failure::fatal` fails the job.
    fn open(conf: Self::Conf, context: &mut RuntimeContext) -> Result<Self, Failure>;

    /// A record of the first stream.
    ///
    /// # Errors
    /// As [`KeyedCoProcessFunction::open`].
    fn process1(
        &mut self,
        record: <Self::In1 as Record>::Ref<'_>,
        context: &KeyedContext<'_, Self::Key>,
        out: &mut Out<'_, Self::Out>,
    ) -> Result<(), Failure>;

    /// A record of the second stream.
    ///
    /// # Errors
    /// As [`KeyedCoProcessFunction::open`].
    fn process2(
        &mut self,
        record: <Self::In2 as Record>::Ref<'_>,
        context: &KeyedContext<'_, Self::Key>,
        out: &mut Out<'_, Self::Out>,
    ) -> Result<(), Failure>;

    /// A timer of the context's key is due.
    ///
    /// # Errors
    /// As [`KeyedCoProcessFunction::open`].
    fn on_timer(
        &mut self,
        _timer: Timer,
        _context: &KeyedContext<'_, Self::Key>,
        _out: &mut Out<'_, Self::Out>,
    ) -> Result<(), Failure> {
        Ok(())
    }

    /// The task ends, finished or not.
    fn close(&mut self) {}
}

/// A function on two streams; Flink's `CoProcessFunction`. With a broadcast second stream, each subtask sees all of it.
pub trait CoProcessFunction: Sized + 'static {
    type In1: Record;
    type In2: Record;
    type Out: Record;
    type Conf: Serialize + DeserializeOwned + 'static;

    /// # Errors
    /// A failure fails the attempt of the task; `Failure::fatal` fails the job.
    fn open(conf: Self::Conf, context: &mut RuntimeContext) -> Result<Self, Failure>;

    /// # Errors
    /// As [`CoProcessFunction::open`].
    fn process1(
        &mut self,
        record: <Self::In1 as Record>::Ref<'_>,
        context: &ProcessContext<'_>,
        out: &mut Out<'_, Self::Out>,
    ) -> Result<(), Failure>;

    /// # Errors
    /// As [`CoProcessFunction::open`].
    fn process2(
        &mut self,
        record: <Self::In2 as Record>::Ref<'_>,
        context: &ProcessContext<'_>,
        out: &mut Out<'_, Self::Out>,
    ) -> Result<(), Failure>;

    /// The task ends, finished or not.
    fn close(&mut self) {}
}

/// A function whose results come later, from a service or a database for example; Flink's `RichAsyncFunction`.
///
/// It is shared by the futures of all records that a subtask works on at a time. They run on the worker's I/O runtime,
/// which is tokio's; `open`, `timeout`, `is_worth_retrying` and `close` run on the thread of the slot and must not block.
/// See [`DataStream::async_process`](crate::stream::data_stream::DataStream::async_process).
pub trait AsyncFunction: Sized + Send + Sync + 'static {
    type In: Record;
    type Out: Record;
    type Conf: Serialize + DeserializeOwned + 'static;

    /// # Errors
    /// A failure fails the attempt of the task; `Failure::fatal` fails the job.
    fn open(conf: Self::Conf, context: &mut RuntimeContext) -> Result<Self, Failure>;

    /// What a record becomes: any number of others, which must all find room at once. Write it as an `async fn`.
    ///
    /// It may be called again with the same record: by a retry, and after a restart, as long as the results have not
    /// left the operator. If the result is not wanted any more, the future is dropped.
    fn invoke(
        self: Arc<Self>,
        record: Self::In,
    ) -> impl Future<Output = Result<Vec<Self::Out>, Failure>> + Send + 'static;

    /// What stands for the results of a record that they did not come for in time. Without a definition, the attempt of
    /// the task fails.
    ///
    /// # Errors
    /// As [`AsyncFunction::open`].
    fn timeout(&self, _record: Self::In) -> Result<Vec<Self::Out>, Failure> {
        Err(Failure::new(
            "an async function had no result in time; raise the timeout, or say what is to stand for such a result:              async_map_or, or AsyncFunction::timeout",
        ))
    }

    /// Whether another attempt may mend this failure of one. Asked only if the operator retries, and has not done so
    /// often enough.
    fn is_worth_retrying(&self, failure: &Failure) -> bool {
        failure.remedy != Remedy::FailJob
    }

    /// The task ends, finished or not.
    fn close(&self) {}
}

pub(crate) fn no_result_in_time() -> Failure {
    Failure::new(
        "an async function had no result in time; raise the timeout, or say what is to stand for such a result: \
         async_map_or, or AsyncFunction::timeout",
    )
}

/// What a function without keys knows of the current record.
pub struct ProcessContext<'a> {
    pub(crate) flow: &'a Flow,
    pub(crate) watermark: Watermark,
}

impl ProcessContext<'_> {
    /// The record's time stamp, if it has one.
    pub fn timestamp(&self) -> Option<EventTime> {
        Some(self.flow.timestamp()).filter(|time| *time != EventTime::MIN)
    }

    pub fn current_watermark(&self) -> Watermark {
        self.watermark
    }

    /// Milliseconds since 1970, by the worker's clock; as coarse as the task's steps.
    pub fn current_processing_time(&self) -> i64 {
        self.flow.now_millis()
    }
}

/// A timer that is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timer {
    EventTime(EventTime),
    /// Milliseconds since 1970.
    ProcessingTime(i64),
}

/// The timers of one keyed operator.
pub(crate) struct TimerService<K> {
    pub(crate) event: Timers<K>,
    pub(crate) processing: Timers<K>,
}

/// What a keyed function knows of the current record, and its way to the state of the record's key.
pub struct KeyedContext<'a, K: Key> {
    pub(crate) key: K::Ref<'a>,
    pub(crate) hash: KeyHash,
    pub(crate) flow: &'a Flow,
    pub(crate) watermark: Watermark,
    pub(crate) timers: &'a RefCell<TimerService<K>>,
}

impl<'a, K: Key> KeyedContext<'a, K> {
    #[inline]
    pub fn key(&self) -> K::Ref<'a> {
        self.key
    }

    #[inline]
    pub(crate) fn hash(&self) -> KeyHash {
        self.hash
    }

    /// The record's time stamp, or the timer's; `None` if it has none.
    pub fn timestamp(&self) -> Option<EventTime> {
        Some(self.flow.timestamp()).filter(|time| *time != EventTime::MIN)
    }

    pub fn current_watermark(&self) -> Watermark {
        self.watermark
    }

    /// Milliseconds since 1970, by the worker's clock; as coarse as the task's steps.
    pub fn current_processing_time(&self) -> i64 {
        self.flow.now_millis()
    }

    /// Calls `on_timer` with this key when the watermark reaches `time`; at once with the next one if it has passed.
    pub fn register_event_time_timer(&self, time: EventTime) {
        self.timers.borrow_mut().event.register(time.0, self.hash, self.key);
    }

    pub fn delete_event_time_timer(&self, time: EventTime) {
        self.timers.borrow_mut().event.delete(time.0, self.hash, self.key);
    }

    /// Calls `on_timer` with this key at `millis` since 1970, or soon after.
    pub fn register_processing_time_timer(&self, millis: i64) {
        self.timers.borrow_mut().processing.register(millis, self.hash, self.key);
        self.flow.wake_at(millis);
    }

    pub fn delete_processing_time_timer(&self, millis: i64) {
        self.timers.borrow_mut().processing.delete(millis, self.hash, self.key);
    }
}
