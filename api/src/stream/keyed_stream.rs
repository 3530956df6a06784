//! Streams with keys: functions with state and timers, and running aggregates.

use std::{marker::PhantomData, panic::Location};

use millstream_model::job_graph::{OperatorRole, Partitioning};

use super::{
    connected::ConnectedKeyedStreams,
    data_stream::{DataStream, NewOperator},
};
use crate::{
    edge,
    factory::{self, KeyRef, encode_conf},
    function::KeyedProcessFunction,
    graph::node::{Edge, NodeInput},
    head,
    operators::{
        aggregate::{Aggregate, Max, Min, Number, Reduce, Running, Sum},
        keyed::{self, KeyedConf},
    },
    record::{Key, Record, key::KeyOf},
};

/// A stream that is partitioned by key, as Flink's `KeyedStream`.
pub struct KeyedStream<K, T> {
    stream: DataStream<T>,
    pub(crate) key: KeyRef,
    of: PhantomData<fn() -> K>,
}

impl<K: Key, T: Record> KeyedStream<K, T> {
    pub(crate) fn new(stream: DataStream<T>, key: KeyOf<K, T>) -> Self {
        KeyedStream { stream, key: KeyRef::of::<K, T>(key), of: PhantomData }
    }

    /// This stream as an input of an operator.
    pub(crate) fn inputs(&self, input: u8) -> Vec<NodeInput> {
        let edge = Edge {
            partitioning: Some(Partitioning::Hash),
            writer: factory::reference(edge::key_writer::<K, T>),
            writer_conf: Some(encode_conf(&self.key)),
        };
        let plain = self.stream.inputs(input).into_iter();
        plain.map(|input| NodeInput { edge: edge.clone(), ..input }).collect()
    }

    /// Runs a function with state and timers per key.
    #[track_caller]
    pub fn process<P: KeyedProcessFunction<Key = K, In = T>>(&self, conf: P::Conf) -> DataStream<P::Out> {
        self.then::<P>("KeyedProcess", Location::caller(), conf)
    }

    fn then<P: KeyedProcessFunction<Key = K, In = T>>(
        &self,
        kind: &'static str,
        place: &Location<'_>,
        conf: P::Conf,
    ) -> DataStream<P::Out> {
        let new = NewOperator {
            kind,
            role: OperatorRole::OneInput,
            factory: keyed::keyed_process::<P>,
            conf: encode_conf(&KeyedConf { key: self.key, conf }),
            reader: Some(factory::reference(head::reader::<T>)),
            inputs: self.inputs(0),
        };
        DataStream::of_operator(&self.stream.graph, place, new)
    }

    /// The running sum of a number of each record, per key. Integers wrap.
    #[track_caller]
    pub fn sum<N: Number, F>(&self, number: F) -> DataStream<(K, N)>
    where
        F: for<'a> Fn(T::Ref<'a>) -> N + Copy + 'static,
        Sum: Aggregate<N>,
    {
        refuse_captures!(F);
        let _ = number;
        self.then::<Running<Sum, K, T, N, F>>("Sum", Location::caller(), ())
    }

    /// The least value so far, per key.
    #[track_caller]
    pub fn min<N: Number, F>(&self, value: F) -> DataStream<(K, N)>
    where
        F: for<'a> Fn(T::Ref<'a>) -> N + Copy + 'static,
        Min: Aggregate<N>,
    {
        refuse_captures!(F);
        let _ = value;
        self.then::<Running<Min, K, T, N, F>>("Min", Location::caller(), ())
    }

    /// The greatest value so far, per key.
    #[track_caller]
    pub fn max<N: Number, F>(&self, value: F) -> DataStream<(K, N)>
    where
        F: for<'a> Fn(T::Ref<'a>) -> N + Copy + 'static,
        Max: Aggregate<N>,
    {
        refuse_captures!(F);
        let _ = value;
        self.then::<Running<Max, K, T, N, F>>("Max", Location::caller(), ())
    }

    /// The running number of records, per key.
    #[track_caller]
    pub fn count(&self) -> DataStream<(K, u64)> {
        self.count_by(|_| 1_u64, Location::caller())
    }

    fn count_by<F>(&self, _: F, place: &Location<'_>) -> DataStream<(K, u64)>
    where
        F: for<'a> Fn(T::Ref<'a>) -> u64 + Copy + 'static,
    {
        self.then::<Running<Sum, K, T, u64, F>>("Count", place, ())
    }

    /// Folds each record into the first one of its key; emits the result each time.
    #[track_caller]
    pub fn reduce<F>(&self, fold: F) -> DataStream<T>
    where
        F: for<'a> Fn(&mut T, T::Ref<'a>) + Copy + 'static,
    {
        refuse_captures!(F);
        let _ = fold;
        self.then::<Reduce<K, T, F>>("Reduce", Location::caller(), ())
    }

    /// Runs two streams with the same keys into one operator.
    pub fn connect<U: Record>(&self, other: &KeyedStream<K, U>) -> ConnectedKeyedStreams<K, T, U> {
        ConnectedKeyedStreams {
            first: KeyedStream { stream: self.stream.clone(), key: self.key, of: PhantomData },
            second: KeyedStream { stream: other.stream.clone(), key: other.key, of: PhantomData },
        }
    }

    pub(crate) fn stream(&self) -> &DataStream<T> {
        &self.stream
    }
}
