//! Running aggregates of a keyed stream: every record yields the key's new value, as in Flink; in batch mode only the
//! final value of each key comes out, at the end of the input.

use std::marker::PhantomData;

use millstream_model::{
    config::{RUNTIME_MODE, RuntimeMode},
    fault::Failure,
    time::EventTime,
};

use crate::{
    conjure::conjure,
    context::RuntimeContext,
    function::{KeyedContext, KeyedProcessFunction, Timer},
    push::Out,
    record::{Key, Record},
    state::ValueState,
};

/// A value that is its own handle.
pub trait Number: for<'a> Record<Ref<'a> = Self> + Copy {}
impl<N: for<'a> Record<Ref<'a> = N> + Copy> Number for N {}

/// A number that can be summed, or a value that can be compared.
pub trait Aggregate<N>: 'static {
    fn fold(value: &mut N, next: N);
}

/// Adds numbers up; integers wrap.
pub struct Sum;
/// Keeps the least.
pub struct Min;
/// Keeps the greatest.
pub struct Max;

macro_rules! wrapping_sum {
    ($($type:ty),*) => { $(impl Aggregate<$type> for Sum {
        #[inline]
        fn fold(value: &mut $type, next: $type) {
            *value = value.wrapping_add(next);
        }
    })* };
}
wrapping_sum!(u32, u64, u128, i32, i64, i128);

macro_rules! float_sum {
    ($($type:ty),*) => { $(impl Aggregate<$type> for Sum {
        #[inline]
        fn fold(value: &mut $type, next: $type) {
            *value += next;
        }
    })* };
}
float_sum!(f32, f64);

impl<N: PartialOrd> Aggregate<N> for Min {
    #[inline]
    fn fold(value: &mut N, next: N) {
        if next < *value {
            *value = next;
        }
    }
}

impl<N: PartialOrd> Aggregate<N> for Max {
    #[inline]
    fn fold(value: &mut N, next: N) {
        if next > *value {
            *value = next;
        }
    }
}

/// Folds a number of each record into one value per key.
pub(crate) struct Running<A, K, T, N, F> {
    of_record: F,
    value: ValueState<K, N>,
    only_final: bool,
    of: PhantomData<fn(A, T)>,
}

impl<A, K, T, N, F> KeyedProcessFunction for Running<A, K, T, N, F>
where
    A: Aggregate<N>,
    K: Key,
    T: Record,
    N: Number,
    F: for<'a> Fn(T::Ref<'a>) -> N + Copy + 'static,
{
    type Key = K;
    type In = T;
    type Out = (K, N);
    type Conf = ();

    fn open((): (), context: &mut RuntimeContext) -> Result<Self, Failure> {
        let only_final = emits_only_final(context)?;
        Ok(Running { of_record: conjure(), value: context.value_state("value")?, only_final, of: PhantomData })
    }

    #[inline]
    fn process(
        &mut self,
        record: T::Ref<'_>,
        context: &KeyedContext<'_, K>,
        out: &mut Out<'_, (K, N)>,
    ) -> Result<(), Failure> {
        let next = (self.of_record)(record);
        let fresh = std::cell::Cell::new(false);
        let value = self.value.0.borrow_mut().upsert(
            context.hash(),
            context.key(),
            || {
                fresh.set(true);
                next
            },
            |value| {
                if !fresh.get() {
                    A::fold(value, next);
                }
                *value
            },
        );
        if self.only_final {
            if fresh.get() {
                context.register_event_time_timer(EventTime::MAX);
            }
        } else {
            out.0.push((context.key(), value));
        }
        Ok(())
    }

    fn on_timer(&mut self, _: Timer, context: &KeyedContext<'_, K>, out: &mut Out<'_, (K, N)>) -> Result<(), Failure> {
        if let Some(value) = self.value.with(context, |value| value.copied()) {
            out.0.push((context.key(), value));
        }
        Ok(())
    }
}

/// Whether the job is a batch: then a value is worth emitting only when no record can change it any more.
fn emits_only_final(context: &RuntimeContext) -> Result<bool, Failure> {
    Ok(context.configuration().get(&RUNTIME_MODE)? == RuntimeMode::Batch)
}

/// Folds each record into the first one of its key.
pub(crate) struct Reduce<K, T: Record, F> {
    function: F,
    value: ValueState<K, T>,
    only_final: bool,
}

impl<K, T, F> KeyedProcessFunction for Reduce<K, T, F>
where
    K: Key,
    T: Record,
    F: for<'a> Fn(&mut T, T::Ref<'a>) + Copy + 'static,
{
    type Key = K;
    type In = T;
    type Out = T;
    type Conf = ();

    fn open((): (), context: &mut RuntimeContext) -> Result<Self, Failure> {
        let only_final = emits_only_final(context)?;
        Ok(Reduce { function: conjure(), value: context.value_state("value")?, only_final })
    }

    fn process(
        &mut self,
        record: T::Ref<'_>,
        context: &KeyedContext<'_, K>,
        out: &mut Out<'_, T>,
    ) -> Result<(), Failure> {
        let fresh = std::cell::Cell::new(false);
        self.value.0.borrow_mut().upsert(
            context.hash(),
            context.key(),
            || {
                fresh.set(true);
                T::own(record)
            },
            |value| {
                if !fresh.get() {
                    (self.function)(value, record);
                }
                if !self.only_final {
                    out.0.push(value.handle());
                }
            },
        );
        if self.only_final && fresh.get() {
            context.register_event_time_timer(EventTime::MAX);
        }
        Ok(())
    }

    fn on_timer(&mut self, _: Timer, context: &KeyedContext<'_, K>, out: &mut Out<'_, T>) -> Result<(), Failure> {
        self.value.with(context, |value| value.into_iter().for_each(|value| out.0.push(value.handle())));
        Ok(())
    }
}
