//! Two streams at once.

use std::panic::Location;

use millstream_model::job_graph::OperatorRole;

use super::{
    data_stream::{DataStream, NewOperator},
    keyed_stream::KeyedStream,
};
use crate::{
    factory::encode_conf,
    function::{CoProcessFunction, KeyedCoProcessFunction},
    operators::two_inputs::{self, KeyedCoConf},
    record::{Key, Record},
};

/// Two streams that one operator reads, as Flink's `ConnectedStreams`.
pub struct ConnectedStreams<T, U> {
    pub(crate) first: DataStream<T>,
    pub(crate) second: DataStream<U>,
}

impl<T: Record, U: Record> ConnectedStreams<T, U> {
    /// Runs a function on the records of both.
    #[track_caller]
    pub fn process<P: CoProcessFunction<In1 = T, In2 = U>>(&self, conf: P::Conf) -> DataStream<P::Out> {
        let mut inputs = self.first.inputs(0);
        inputs.extend(self.second.inputs(1));
        let new = NewOperator {
            kind: "Co-Process",
            role: OperatorRole::TwoInput,
            factory: two_inputs::co_process::<P>,
            conf: encode_conf(&conf),
            reader: None,
            inputs,
        };
        DataStream::of_operator(&self.first.graph, Location::caller(), new)
    }
}

/// Two streams with the same keys that one operator reads.
pub struct ConnectedKeyedStreams<K, T, U> {
    pub(crate) first: KeyedStream<K, T>,
    pub(crate) second: KeyedStream<K, U>,
}

impl<K: Key, T: Record, U: Record> ConnectedKeyedStreams<K, T, U> {
    /// Runs a function on the records of both, which share the state of their key.
    #[track_caller]
    pub fn process<P: KeyedCoProcessFunction<Key = K, In1 = T, In2 = U>>(&self, conf: P::Conf) -> DataStream<P::Out> {
        let mut inputs = self.first.inputs(0);
        inputs.extend(self.second.inputs(1));
        let new = NewOperator {
            kind: "Co-Keyed-Process",
            role: OperatorRole::TwoInput,
            factory: two_inputs::keyed_co_process::<P>,
            conf: encode_conf(&KeyedCoConf { keys: (self.first.key, self.second.key), conf }),
            reader: None,
            inputs,
        };
        DataStream::of_operator(&self.first.stream().graph, Location::caller(), new)
    }
}
