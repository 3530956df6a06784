//! Factories of the producing ends of edges.

use millstream_model::{fault::Failure, job_graph::Partitioning};

use crate::{
    conjure::conjure,
    factory::{Build, KeyRef, Product},
    output::{ByFunction, ByKey, Channels, EdgeWriter, Keyless},
    push::AnyPush,
    record::{Key, Record},
};

/// A key selector as a plain function, so that its address can travel.
pub(crate) fn key_selector<'a, K: Record, T: Record, F>(record: &'a T::Ref<'a>) -> K::Ref<'a>
where
    F: for<'b> Fn(&'b T::Ref<'b>) -> K::Ref<'b> + Copy + 'static,
{
    conjure::<F>()(record)
}

/// A partitioner as a plain function.
fn partitioner<K: Record, P>(key: K::Ref<'_>, channels: u32) -> u32
where
    P: for<'a> Fn(K::Ref<'a>, u32) -> u32 + Copy + 'static,
{
    conjure::<P>()(key, channels)
}

fn channels(build: &mut Build<'_>) -> Result<Box<dyn Channels>, Failure> {
    build.channels.take().ok_or_else(|| Failure::fatal("a writer needs the channels of its edge"))
}

/// Writes by key group.
pub(crate) fn key_writer<K: Key, T: Record>(mut build: Build<'_>) -> Result<Product, Failure> {
    let key: KeyRef = build.conf()?;
    // SAFETY: the graph's hash is this executable's (see `factory::resolve`), and `KeyedStream` made the reference
    // for this key and record.
    let key = unsafe { key.resolve::<K, T>() }?;
    let channels = channels(&mut build)?;
    // The context is that of the consumers: their key groups decide.
    let selector = ByKey::<K, T>::new(key, build.context.max_parallelism, channels.count() as u32);
    Ok(Product::Push(AnyPush::new::<T>(EdgeWriter::new(channels, selector, build.context.flow.clone()))))
}

/// Writes as a function of the program says.
pub(crate) fn custom_writer<K: Record, T: Record, F, P>(mut build: Build<'_>) -> Result<Product, Failure>
where
    F: for<'a> Fn(&'a T::Ref<'a>) -> K::Ref<'a> + Copy + 'static,
    P: for<'a> Fn(K::Ref<'a>, u32) -> u32 + Copy + 'static,
{
    let channels = channels(&mut build)?;
    let (count, consumer) = (channels.count() as u32, build.context.name.clone());
    let selector = ByFunction::<K, T>::new(key_selector::<K, T, F>, partitioner::<K, P>, count, consumer);
    Ok(Product::Push(AnyPush::new::<T>(EdgeWriter::new(channels, selector, build.context.flow.clone()))))
}

/// Writes without a key.
pub(crate) fn keyless_writer<T: Record>(mut build: Build<'_>) -> Result<Product, Failure> {
    let partitioning: Partitioning = build.conf()?;
    let channels = channels(&mut build)?;
    let count = channels.count();
    let subtask = build.context.subtask;
    let selector = match partitioning {
        // A forward edge has one channel.
        Partitioning::Forward | Partitioning::Global => Keyless::First,
        // Producers start at different consumers, so that few records do not all go to the first.
        Partitioning::Rebalance | Partitioning::Rescale => {
            Keyless::RoundRobin { next: subtask as usize % count.max(1), count }
        }
        Partitioning::Shuffle => Keyless::Random { state: u64::from(subtask) + 0x9e37_79b9_7f4a_7c15, count },
        Partitioning::Broadcast => Keyless::All,
        Partitioning::Hash | Partitioning::Custom => {
            return Err(Failure::fatal(format!("a {partitioning:?} edge needs a key")));
        }
    };
    Ok(Product::Push(AnyPush::new::<T>(EdgeWriter::new(channels, selector, build.context.flow.clone()))))
}
