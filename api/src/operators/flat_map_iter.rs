//! `flat_map_iter`: the runtime pulls the next item only when there is room for it, so that one record may become any
//! number of others in constant memory.

use std::{collections::VecDeque, marker::PhantomData, rc::Rc};

use millstream_model::{
    fault::Failure,
    time::{EventTime, Watermark},
};

use crate::{
    factory::{Build, Product},
    flow::{self, Flow},
    operators::stateless::{Call, Form, node},
    overflow::Overflow,
    push::{Forward, Operator, Out},
    record::Record,
    signal::Signal,
};

struct FlatMapIter<T, I: Iterator, M> {
    function: M,
    /// Iterators that have more to give, oldest first, with the time stamp of their record. More than one only if the
    /// operator before emitted several records without looking.
    unfinished: VecDeque<(I, EventTime)>,
    /// The watermark that came meanwhile: the last of all, or one from an operator that looks at the clock.
    held: Option<Watermark>,
    flow: Rc<Flow>,
    overflow: Overflow,
    name: Rc<str>,
    of: PhantomData<fn(T)>,
}

impl<T, U, I, M> FlatMapIter<T, I, M>
where
    U: Record,
    I: Iterator<Item = U>,
{
    /// All iterators but the one whose items are being pulled, as far as this operator sees what they take.
    fn count_overflow(&mut self) {
        let waiting = self.unfinished.len().saturating_sub(1);
        self.overflow.set((waiting * size_of::<(I, EventTime)>()) as u64);
    }

    /// Pulls items while there is room; whether all iterators are done.
    fn drain(&mut self, out: &mut Out<'_, U>) -> bool {
        while let Some((items, time)) = self.unfinished.front_mut() {
            self.flow.set_timestamp(*time);
            loop {
                if out.is_blocked(&self.flow) {
                    return false;
                }
                match items.next() {
                    Some(item) => out.0.push(item.handle()),
                    None => break,
                }
            }
            self.unfinished.pop_front();
            self.count_overflow();
        }
        if let Some(watermark) = self.held.take() {
            out.signal(&mut Signal::Watermark(watermark));
        }
        true
    }
}

impl<T, U, I, M> Operator<T, U> for FlatMapIter<T, I, M>
where
    T: Record,
    U: Record,
    I: Iterator<Item = U> + 'static,
    M: Call<T, I>,
{
    fn process(&mut self, record: T::Ref<'_>, out: &mut Out<'_, U>) {
        let was_paused = !self.unfinished.is_empty();
        self.unfinished.push_back((self.function.call(record), self.flow.timestamp()));
        if was_paused {
            self.count_overflow();
            let checked = self.overflow.check(format_args!("in front of '{}'", self.name));
            checked.unwrap_or_else(|failure| flow::fail_caller(failure));
        }
        if !was_paused && !self.drain(out) {
            self.flow.operator_paused();
        }
    }

    fn signal(&mut self, signal: &mut Signal<'_>, out: &mut Out<'_, U>) -> Forward {
        if self.unfinished.is_empty() {
            return Forward::Now;
        }
        match signal {
            Signal::Watermark(watermark) => {
                self.held = Some(*watermark);
                Forward::Hold
            }
            Signal::Resume => {
                if self.drain(out) {
                    self.flow.operator_resumed();
                }
                Forward::Now
            }
            _ => Forward::Now,
        }
    }
}

pub(crate) fn flat_map_iter<T, U, I, M>(mut build: Build<'_>) -> Result<Product, Failure>
where
    T: Record,
    U: Record,
    I: Iterator<Item = U> + 'static,
    M: Form + Call<T, I>,
{
    let (flow, name) = (build.context.flow.clone(), build.context.name.clone());
    let overflow = Overflow::configured(flow.clone(), build.context.configuration())?;
    let operator = FlatMapIter {
        function: M::make(&mut build)?,
        unfinished: VecDeque::new(),
        held: None,
        flow,
        overflow,
        name,
        of: PhantomData::<fn(T)>,
    };
    node::<T, U>(operator, build)
}
