//! `map`, `filter` and `flat_map`: as a plain closure, with configuration (`_with`), or with something opened on the
//! worker (`rich_`).

use std::marker::PhantomData;

use millstream_model::fault::Failure;
use serde::de::DeserializeOwned;

use crate::{
    conjure::conjure,
    context::RuntimeContext,
    factory::{Build, Product},
    push::{AnyPush, Node, Operator, Out},
    record::Record,
};

/// A function of one record to a value.
pub(crate) trait Call<T: Record, R>: 'static {
    fn call(&mut self, record: T::Ref<'_>) -> R;
}

/// A function of one record to any number of others.
pub(crate) trait Expand<T: Record, U: Record>: 'static {
    fn expand(&mut self, record: T::Ref<'_>, out: &mut Out<'_, U>);
}

/// A closure alone.
pub(crate) struct Plain<F>(F);
/// A closure and what it is given besides the record, to read.
pub(crate) struct With<C, F>(C, F);
/// A closure and what was opened for it, to change.
pub(crate) struct Rich<S, F>(S, F);

impl<T: Record, R, F: for<'a> Fn(T::Ref<'a>) -> R + 'static> Call<T, R> for Plain<F> {
    #[inline]
    fn call(&mut self, record: T::Ref<'_>) -> R {
        (self.0)(record)
    }
}
impl<T: Record, R, C: 'static, F: for<'a> Fn(&C, T::Ref<'a>) -> R + 'static> Call<T, R> for With<C, F> {
    #[inline]
    fn call(&mut self, record: T::Ref<'_>) -> R {
        (self.1)(&self.0, record)
    }
}
impl<T: Record, R, S: 'static, F: for<'a> Fn(&mut S, T::Ref<'a>) -> R + 'static> Call<T, R> for Rich<S, F> {
    #[inline]
    fn call(&mut self, record: T::Ref<'_>) -> R {
        (self.1)(&mut self.0, record)
    }
}

impl<T: Record, U: Record, F: for<'a, 'o> Fn(T::Ref<'a>, &mut Out<'o, U>) + 'static> Expand<T, U> for Plain<F> {
    #[inline]
    fn expand(&mut self, record: T::Ref<'_>, out: &mut Out<'_, U>) {
        (self.0)(record, out);
    }
}
impl<T: Record, U: Record, C: 'static, F: for<'a, 'o> Fn(&C, T::Ref<'a>, &mut Out<'o, U>) + 'static> Expand<T, U>
    for With<C, F>
{
    #[inline]
    fn expand(&mut self, record: T::Ref<'_>, out: &mut Out<'_, U>) {
        (self.1)(&self.0, record, out);
    }
}
impl<T: Record, U: Record, S: 'static, F: for<'a, 'o> Fn(&mut S, T::Ref<'a>, &mut Out<'o, U>) + 'static> Expand<T, U>
    for Rich<S, F>
{
    #[inline]
    fn expand(&mut self, record: T::Ref<'_>, out: &mut Out<'_, U>) {
        (self.1)(&mut self.0, record, out);
    }
}

/// How the three forms are made on the worker.
pub(crate) trait Form: Sized {
    fn make(build: &mut Build<'_>) -> Result<Self, Failure>;
}

impl<F: Copy + 'static> Form for Plain<F> {
    fn make(_: &mut Build<'_>) -> Result<Self, Failure> {
        Ok(Plain(conjure()))
    }
}
impl<C: DeserializeOwned, F: Copy + 'static> Form for With<C, F> {
    fn make(build: &mut Build<'_>) -> Result<Self, Failure> {
        Ok(With(build.conf()?, conjure()))
    }
}

/// `Rich` needs to know what opens it.
pub(crate) struct Opened<C, O, S, F>(Rich<S, F>, PhantomData<fn(C, O)>);

impl<C, O, S, F> Form for Opened<C, O, S, F>
where
    C: DeserializeOwned,
    O: Fn(C, &mut RuntimeContext) -> Result<S, Failure> + Copy + 'static,
    F: Copy + 'static,
{
    fn make(build: &mut Build<'_>) -> Result<Self, Failure> {
        let conf = build.conf()?;
        Ok(Opened(Rich(conjure::<O>()(conf, &mut build.context)?, conjure()), PhantomData))
    }
}
impl<T: Record, R, C: 'static, O: 'static, S: 'static, F: for<'a> Fn(&mut S, T::Ref<'a>) -> R + 'static> Call<T, R>
    for Opened<C, O, S, F>
{
    #[inline]
    fn call(&mut self, record: T::Ref<'_>) -> R {
        <Rich<S, F> as Call<T, R>>::call(&mut self.0, record)
    }
}
impl<T, U, C, O, S, F> Expand<T, U> for Opened<C, O, S, F>
where
    T: Record,
    U: Record,
    C: 'static,
    O: 'static,
    S: 'static,
    F: for<'a, 'o> Fn(&mut S, T::Ref<'a>, &mut Out<'o, U>) + 'static,
{
    #[inline]
    fn expand(&mut self, record: T::Ref<'_>, out: &mut Out<'_, U>) {
        <Rich<S, F> as Expand<T, U>>::expand(&mut self.0, record, out);
    }
}

struct Map<M>(M);

impl<T: Record, U: Record, M: Call<T, U>> Operator<T, U> for Map<M> {
    #[inline]
    fn process(&mut self, record: T::Ref<'_>, out: &mut Out<'_, U>) {
        out.0.push(self.0.call(record).handle());
    }
}

struct Filter<M>(M);

impl<T: Record, M: Call<T, bool>> Operator<T, T> for Filter<M> {
    #[inline]
    fn process(&mut self, record: T::Ref<'_>, out: &mut Out<'_, T>) {
        if self.0.call(record) {
            out.0.push(record);
        }
    }
}

struct FlatMap<M>(M);

impl<T: Record, U: Record, M: Expand<T, U>> Operator<T, U> for FlatMap<M> {
    #[inline]
    fn process(&mut self, record: T::Ref<'_>, out: &mut Out<'_, U>) {
        self.0.expand(record, out);
    }
}

/// Puts an operator into its place in the chain.
pub(crate) fn node<T: Record, U: Record>(operator: impl Operator<T, U>, build: Build<'_>) -> Result<Product, Failure> {
    let context = build.context;
    let node = Node::new(operator, build.outputs, context.name.clone(), &context.metrics())?;
    Ok(Product::Push(AnyPush::new(node)))
}

pub(crate) fn map<T: Record, U: Record, M: Call<T, U> + Form>(mut build: Build<'_>) -> Result<Product, Failure> {
    node::<T, U>(Map(M::make(&mut build)?), build)
}

pub(crate) fn filter<T: Record, M: Call<T, bool> + Form>(mut build: Build<'_>) -> Result<Product, Failure> {
    node::<T, T>(Filter(M::make(&mut build)?), build)
}

pub(crate) fn flat_map<T: Record, U: Record, M: Expand<T, U> + Form>(mut build: Build<'_>) -> Result<Product, Failure> {
    node::<T, U>(FlatMap(M::make(&mut build)?), build)
}
