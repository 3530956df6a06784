//! Streams without keys.

use std::{marker::PhantomData, panic::Location};

use millstream_model::{
    fault::Failure,
    job_graph::{FactoryRef, OperatorRole, Partitioning},
};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    connected::ConnectedStreams,
    environment::{SharedGraph, line},
    keyed_stream::KeyedStream,
};
use crate::{
    builtin::{CollectSink, DiscardingSink, PrintSink},
    context::RuntimeContext,
    edge,
    factory::{self, Factory, encode_conf},
    function::ProcessFunction,
    graph::node::{Chaining, Edge, NodeInput, StreamNode},
    head,
    job::Collected,
    operators::{
        flat_map_iter, process,
        stateless::{self, Opened, Plain, With},
        watermarks::{self, WatermarkStrategy},
    },
    push::{Out, OutputTag},
    record::{Key, Record},
    sink::{self, Sink},
};

/// A stream of records, as Flink's `DataStream`. Cheap to clone; several operators may read it.
pub struct DataStream<T> {
    pub(crate) graph: SharedGraph,
    /// The operators whose records it carries; several after a union.
    pub(crate) upstreams: Vec<Upstream>,
    pub(crate) of: PhantomData<fn() -> T>,
}

/// One operator that a stream comes from.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    pub(crate) node: usize,
    pub(crate) tag: Option<String>,
    pub(crate) exchange: Option<Exchange>,
}

/// How a stream's records are to find their subtask.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    partitioning: Partitioning,
    /// What writes them, if the partitioning alone does not say.
    writer: Option<FactoryRef>,
}

impl<T> Clone for DataStream<T> {
    fn clone(&self) -> Self {
        DataStream { graph: self.graph.clone(), upstreams: self.upstreams.clone(), of: PhantomData }
    }
}

/// What the methods of streams know of the operator they add.
pub(crate) struct NewOperator {
    pub(crate) kind: &'static str,
    pub(crate) role: OperatorRole,
    pub(crate) factory: Factory,
    pub(crate) conf: Vec<u8>,
    pub(crate) reader: Option<FactoryRef>,
    pub(crate) inputs: Vec<NodeInput>,
}

impl<T: Record> DataStream<T> {
    pub(crate) fn of_node(graph: &SharedGraph, node: StreamNode) -> DataStream<T> {
        let mut nodes = graph.borrow_mut();
        nodes.nodes.push(node);
        let upstream = Upstream { node: nodes.nodes.len() - 1, tag: None, exchange: None };
        DataStream { graph: graph.clone(), upstreams: vec![upstream], of: PhantomData }
    }

    pub(crate) fn of_operator(graph: &SharedGraph, place: &Location<'_>, new: NewOperator) -> DataStream<T> {
        let chaining = if new.role == OperatorRole::OneInput { Chaining::Always } else { Chaining::Head };
        let node = StreamNode {
            kind: new.kind,
            line: line(place),
            name: None,
            uid: None,
            parallelism: None,
            max_parallelism: None,
            slot_sharing_group: None,
            chaining,
            on_own_thread: false,
            role: new.role,
            boundedness: None,
            factory: factory::reference(new.factory),
            conf: new.conf,
            coordinator: None,
            reader: new.reader,
            inputs: new.inputs,
        };
        DataStream::of_node(graph, node)
    }

    /// This stream as an input of an operator.
    pub(crate) fn inputs(&self, input: u8) -> Vec<NodeInput> {
        let of_upstream = |upstream: &Upstream| {
            let exchange = upstream.exchange.as_ref();
            let custom = exchange.and_then(|exchange| exchange.writer.clone());
            let edge = Edge {
                partitioning: exchange.map(|exchange| exchange.partitioning),
                writer: custom.unwrap_or_else(|| factory::reference(edge::keyless_writer::<T>)),
                writer_conf: None,
            };
            NodeInput { from: upstream.node, tag: upstream.tag.clone(), input, edge }
        };
        self.upstreams.iter().map(of_upstream).collect()
    }

    #[track_caller]
    pub(crate) fn then<U: Record>(&self, kind: &'static str, factory: Factory, conf: Vec<u8>) -> DataStream<U> {
        let reader = Some(factory::reference(head::reader::<T>));
        let inputs = self.inputs(0);
        let new = NewOperator { kind, role: OperatorRole::OneInput, factory, conf, reader, inputs };
        DataStream::of_operator(&self.graph, Location::caller(), new)
    }

    /// Replaces each record by another.
    #[track_caller]
    pub fn map<U: Record, F>(&self, function: F) -> DataStream<U>
    where
        F: for<'a> Fn(T::Ref<'a>) -> U + Copy + 'static,
    {
        refuse_captures!(F);
        let _ = function;
        self.then("Map", stateless::map::<T, U, Plain<F>>, Vec::new())
    }

    /// Replaces each record by another, with configuration that travels to the workers.
    #[track_caller]
    pub fn map_with<C, U: Record, F>(&self, conf: C, function: F) -> DataStream<U>
    where
        C: Serialize + DeserializeOwned + 'static,
        F: for<'a> Fn(&C, T::Ref<'a>) -> U + Copy + 'static,
    {
        refuse_captures!(F);
        let _ = function;
        self.then("Map", stateless::map::<T, U, With<C, F>>, encode_conf(&conf))
    }

    /// Replaces each record by another, with something that `open` makes on the worker.
    #[track_caller]
    pub fn rich_map<C, S, U: Record, O, F>(&self, conf: C, open: O, function: F) -> DataStream<U>
    where
        C: Serialize + DeserializeOwned + 'static,
        S: 'static,
        O: Fn(C, &mut RuntimeContext) -> Result<S, Failure> + Copy + 'static,
        F: for<'a> Fn(&mut S, T::Ref<'a>) -> U + Copy + 'static,
    {
        refuse_captures!(O, F);
        let _ = (open, function);
        self.then("Map", stateless::map::<T, U, Opened<C, O, S, F>>, encode_conf(&conf))
    }

    /// Keeps the records for which the function holds.
    #[track_caller]
    pub fn filter<F>(&self, function: F) -> DataStream<T>
    where
        F: for<'a> Fn(T::Ref<'a>) -> bool + Copy + 'static,
    {
        refuse_captures!(F);
        let _ = function;
        self.then("Filter", stateless::filter::<T, Plain<F>>, Vec::new())
    }

    /// Keeps the records for which the function holds, with configuration that travels to the workers.
    #[track_caller]
    pub fn filter_with<C, F>(&self, conf: C, function: F) -> DataStream<T>
    where
        C: Serialize + DeserializeOwned + 'static,
        F: for<'a> Fn(&C, T::Ref<'a>) -> bool + Copy + 'static,
    {
        refuse_captures!(F);
        let _ = function;
        self.then("Filter", stateless::filter::<T, With<C, F>>, encode_conf(&conf))
    }

    /// Keeps the records for which the function holds, with something that `open` makes on the worker.
    #[track_caller]
    pub fn rich_filter<C, S, O, F>(&self, conf: C, open: O, function: F) -> DataStream<T>
    where
        C: Serialize + DeserializeOwned + 'static,
        S: 'static,
        O: Fn(C, &mut RuntimeContext) -> Result<S, Failure> + Copy + 'static,
        F: for<'a> Fn(&mut S, T::Ref<'a>) -> bool + Copy + 'static,
    {
        refuse_captures!(O, F);
        let _ = (open, function);
        self.then("Filter", stateless::filter::<T, Opened<C, O, S, F>>, encode_conf(&conf))
    }

    /// Replaces each record by any number of others. All of them must find room at once; for very many, see
    /// [`DataStream::flat_map_iter`].
    #[track_caller]
    pub fn flat_map<U: Record, F>(&self, function: F) -> DataStream<U>
    where
        F: for<'a, 'o> Fn(T::Ref<'a>, &mut Out<'o, U>) + Copy + 'static,
    {
        refuse_captures!(F);
        let _ = function;
        self.then("FlatMap", stateless::flat_map::<T, U, Plain<F>>, Vec::new())
    }

    /// [`DataStream::flat_map`] with configuration that travels to the workers.
    #[track_caller]
    pub fn flat_map_with<C, U: Record, F>(&self, conf: C, function: F) -> DataStream<U>
    where
        C: Serialize + DeserializeOwned + 'static,
        F: for<'a, 'o> Fn(&C, T::Ref<'a>, &mut Out<'o, U>) + Copy + 'static,
    {
        refuse_captures!(F);
        let _ = function;
        self.then("FlatMap", stateless::flat_map::<T, U, With<C, F>>, encode_conf(&conf))
    }

    /// [`DataStream::flat_map`] with something that `open` makes on the worker.
    #[track_caller]
    pub fn rich_flat_map<C, S, U: Record, O, F>(&self, conf: C, open: O, function: F) -> DataStream<U>
    where
        C: Serialize + DeserializeOwned + 'static,
        S: 'static,
        O: Fn(C, &mut RuntimeContext) -> Result<S, Failure> + Copy + 'static,
        F: for<'a, 'o> Fn(&mut S, T::Ref<'a>, &mut Out<'o, U>) + Copy + 'static,
    {
        refuse_captures!(O, F);
        let _ = (open, function);
        self.then("FlatMap", stateless::flat_map::<T, U, Opened<C, O, S, F>>, encode_conf(&conf))
    }

    /// Replaces each record by the items of an iterator, which is asked for the next one only when there is room: any
    /// number of them in constant memory.
    #[track_caller]
    pub fn flat_map_iter<U: Record, I, F>(&self, function: F) -> DataStream<U>
    where
        I: Iterator<Item = U> + 'static,
        F: for<'a> Fn(T::Ref<'a>) -> I + Copy + 'static,
    {
        refuse_captures!(F);
        let _ = function;
        self.then("FlatMapIter", flat_map_iter::flat_map_iter::<T, U, I, Plain<F>>, Vec::new())
    }

    /// [`DataStream::flat_map_iter`] with configuration that travels to the workers.
    #[track_caller]
    pub fn flat_map_iter_with<C, U: Record, I, F>(&self, conf: C, function: F) -> DataStream<U>
    where
        C: Serialize + DeserializeOwned + 'static,
        I: Iterator<Item = U> + 'static,
        F: for<'a> Fn(&C, T::Ref<'a>) -> I + Copy + 'static,
    {
        refuse_captures!(F);
        let _ = function;
        self.then("FlatMapIter", flat_map_iter::flat_map_iter::<T, U, I, With<C, F>>, encode_conf(&conf))
    }

    /// [`DataStream::flat_map_iter`] with something that `open` makes on the worker. What an iterator needs of it, it takes along.
    #[track_caller]
    pub fn rich_flat_map_iter<C, S, U: Record, I, O, F>(&self, conf: C, open: O, function: F) -> DataStream<U>
    where
        C: Serialize + DeserializeOwned + 'static,
        S: 'static,
        I: Iterator<Item = U> + 'static,
        O: Fn(C, &mut RuntimeContext) -> Result<S, Failure> + Copy + 'static,
        F: for<'a> Fn(&mut S, T::Ref<'a>) -> I + Copy + 'static,
    {
        refuse_captures!(O, F);
        let _ = (open, function);
        self.then("FlatMapIter", flat_map_iter::flat_map_iter::<T, U, I, Opened<C, O, S, F>>, encode_conf(&conf))
    }

    /// Runs a [`ProcessFunction`] on each record.
    #[track_caller]
    pub fn process<P: ProcessFunction<In = T>>(&self, conf: P::Conf) -> DataStream<P::Out> {
        self.then("Process", process::process::<P>, encode_conf(&conf))
    }

    /// Gives records their event time, in milliseconds since 1970, and emits watermarks.
    #[track_caller]
    pub fn assign_timestamps_and_watermarks<F>(&self, strategy: WatermarkStrategy, time_of: F) -> DataStream<T>
    where
        F: for<'a> Fn(T::Ref<'a>) -> i64 + Copy + 'static,
    {
        refuse_captures!(F);
        let _ = time_of;
        self.then("Timestamps/Watermarks", watermarks::assigner::<T, F>, encode_conf(&strategy))
    }

    /// Partitions the stream by a key: equal keys go to the same subtask.
    pub fn key_by<K: Key, F>(&self, key: F) -> KeyedStream<K, T>
    where
        F: for<'a> Fn(&'a T::Ref<'a>) -> K::Ref<'a> + Copy + 'static,
    {
        refuse_captures!(F);
        let _ = key;
        KeyedStream::new(self.clone(), edge::key_selector::<K, T, F>)
    }

    /// Runs two streams of different types into one operator.
    pub fn connect<U: Record>(&self, other: &DataStream<U>) -> ConnectedStreams<T, U> {
        ConnectedStreams { first: self.clone(), second: other.clone() }
    }

    /// Merges streams of one type.
    #[must_use]
    pub fn union(&self, others: &[&DataStream<T>]) -> DataStream<T> {
        let mut union = self.clone();
        union.upstreams.extend(others.iter().flat_map(|other| other.upstreams.iter().cloned()));
        union
    }

    /// The records that an operator emitted to a side output.
    pub fn side_output<S: Record>(&self, tag: &OutputTag<S>) -> DataStream<S> {
        let tagged = |upstream: &Upstream| Upstream { tag: Some(tag.name().to_owned()), ..upstream.clone() };
        let upstreams = self.upstreams.iter().map(tagged).collect();
        DataStream { graph: self.graph.clone(), upstreams, of: PhantomData }
    }

    fn partitioned(&self, partitioning: Partitioning) -> DataStream<T> {
        self.exchanged(Exchange { partitioning, writer: None })
    }

    fn exchanged(&self, exchange: Exchange) -> DataStream<T> {
        let mut stream = self.clone();
        stream.upstreams.iter_mut().for_each(|upstream| upstream.exchange = Some(exchange.clone()));
        stream
    }

    /// Subtask i sends to subtask i.
    #[must_use]
    pub fn forward(&self) -> DataStream<T> {
        self.partitioned(Partitioning::Forward)
    }

    /// Deals records out to all subtasks in turn.
    #[must_use]
    pub fn rebalance(&self) -> DataStream<T> {
        self.partitioned(Partitioning::Rebalance)
    }

    /// Deals records out to a share of the subtasks in turn, so that fewer connections are needed.
    #[must_use]
    pub fn rescale(&self) -> DataStream<T> {
        self.partitioned(Partitioning::Rescale)
    }

    /// Deals records out at random.
    #[must_use]
    pub fn shuffle(&self) -> DataStream<T> {
        self.partitioned(Partitioning::Shuffle)
    }

    /// Sends every record to every subtask.
    #[must_use]
    pub fn broadcast(&self) -> DataStream<T> {
        self.partitioned(Partitioning::Broadcast)
    }

    /// Sends every record to the first subtask.
    #[must_use]
    pub fn global(&self) -> DataStream<T> {
        self.partitioned(Partitioning::Global)
    }

    /// Sends each record to the subtask that `partition` chooses by the record's key: a number below the second one it is
    /// given, which is how many there are. The stream has no keys for that: see [`DataStream::key_by`].
    ///
    /// ```
    /// # use millstream_api::stream::environment::StreamExecutionEnvironment;
    /// # let env = StreamExecutionEnvironment::get();
    /// let orders = env.from_collection([(7_u64, "book".to_owned())]);
    /// // What belongs to the most important customers has the first subtask to itself.
    /// let sent = orders.partition_custom::<u64, _, _>(
    ///     |order| order.0,
    ///     |customer, channels| match channels {
    ///         1 => 0,
    ///         _ if customer < 10 => 0,
    ///         _ => 1 + (customer % u64::from(channels - 1)) as u32,
    ///     },
    /// );
    /// # let _ = sent.map(|order| order.0);
    /// ```
    #[must_use]
    pub fn partition_custom<K: Record, F, P>(&self, key: F, partition: P) -> DataStream<T>
    where
        F: for<'a> Fn(&'a T::Ref<'a>) -> K::Ref<'a> + Copy + 'static,
        P: for<'a> Fn(K::Ref<'a>, u32) -> u32 + Copy + 'static,
    {
        refuse_captures!(F, P);
        let _ = (key, partition);
        let writer = Some(factory::reference(edge::custom_writer::<K, T, F, P>));
        self.exchanged(Exchange { partitioning: Partitioning::Custom, writer })
    }

    /// Ends the stream in a sink.
    #[track_caller]
    pub fn sink_to<S: Sink<In = T>>(&self, target: S) -> DataStreamSink {
        DataStreamSink(self.then("Sink", sink::sink::<S>, encode_conf(&target)))
    }

    /// Writes every record to standard output, one per line.
    #[track_caller]
    pub fn print(&self) -> DataStreamSink
    where
        for<'a> T::Ref<'a>: std::fmt::Debug,
    {
        self.sink_to(PrintSink::<T>::new()).name("Print to Std. Out")
    }

    /// Drops every record, for measurements.
    #[track_caller]
    pub fn discard(&self) -> DataStreamSink {
        self.sink_to(DiscardingSink::<T>::new())
    }

    /// Keeps every record for the client: the stream must be bounded and small. The records of a subtask stay in
    /// order, those of several follow one another.
    #[track_caller]
    pub fn collect(&self) -> Collected<T> {
        let uid = format!("collect-{}", self.graph.borrow().nodes.len());
        let _ = self.sink_to(CollectSink::<T>::new()).uid(&uid);
        Collected { operator: crate::graph::plan::id_of_uid(&uid), of: PhantomData }
    }

    fn change(self, change: impl FnOnce(&mut StreamNode)) -> Self {
        if let [upstream] = &self.upstreams[..] {
            change(&mut self.graph.borrow_mut().nodes[upstream.node]);
        }
        self
    }

    /// Names the operator for people.
    #[must_use]
    pub fn name(self, name: &str) -> Self {
        self.change(|node| node.name = Some(name.to_owned()))
    }

    /// Names the operator's state: what a checkpoint holds under this uid goes to the operator with the same uid, in
    /// later versions of the program too.
    #[must_use]
    pub fn uid(self, uid: &str) -> Self {
        self.change(|node| node.uid = Some(uid.to_owned()))
    }

    #[must_use]
    pub fn set_parallelism(self, parallelism: u32) -> Self {
        self.change(|node| node.parallelism = Some(parallelism))
    }

    /// The highest parallelism that the operator can ever be rescaled to, and the number of its key groups.
    #[must_use]
    pub fn set_max_parallelism(self, max: u32) -> Self {
        self.change(|node| node.max_parallelism = Some(max))
    }

    /// Operators of different groups never share a slot.
    #[must_use]
    pub fn slot_sharing_group(self, group: &str) -> Self {
        self.change(|node| node.slot_sharing_group = Some(group.to_owned()))
    }

    /// Chains the operator to nothing.
    #[must_use]
    pub fn disable_chaining(self) -> Self {
        self.change(|node| node.chaining = Chaining::Never)
    }

    /// Begins a chain with the operator.
    #[must_use]
    pub fn start_new_chain(self) -> Self {
        self.change(|node| node.chaining = Chaining::Head)
    }

    /// Gives each subtask of the operator a thread to itself, for functions that block.
    #[must_use]
    pub fn on_own_thread(self) -> Self {
        self.change(|node| {
            node.on_own_thread = true;
            if node.chaining == Chaining::Always {
                node.chaining = Chaining::Head;
            }
        })
    }
}

/// The end of a stream.
pub struct DataStreamSink(DataStream<()>);

impl DataStreamSink {
    /// Names the sink for people.
    pub fn name(self, name: &str) -> Self {
        DataStreamSink(self.0.name(name))
    }

    /// As [`DataStream::uid`].
    pub fn uid(self, uid: &str) -> Self {
        DataStreamSink(self.0.uid(uid))
    }

    pub fn set_parallelism(self, parallelism: u32) -> Self {
        DataStreamSink(self.0.set_parallelism(parallelism))
    }

    /// As [`DataStream::slot_sharing_group`].
    pub fn slot_sharing_group(self, group: &str) -> Self {
        DataStreamSink(self.0.slot_sharing_group(group))
    }

    /// As [`DataStream::disable_chaining`].
    pub fn disable_chaining(self) -> Self {
        DataStreamSink(self.0.disable_chaining())
    }

    /// As [`DataStream::on_own_thread`].
    pub fn on_own_thread(self) -> Self {
        DataStreamSink(self.0.on_own_thread())
    }
}
