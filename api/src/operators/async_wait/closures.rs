//! Closures as async functions: alone, with configuration (`_with`) or with something opened on the worker (`rich_`); for
//! one result or for any number of them.

use std::{future::Future, marker::PhantomData, sync::Arc};

use millstream_model::fault::Failure;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    conjure::conjure,
    context::RuntimeContext,
    function::{AsyncFunction, no_result_in_time},
    record::Record,
};

/// How the results of one record come out of a future.
pub(crate) trait Shape<U>: 'static {
    type Given;
    fn list(given: Self::Given) -> Vec<U>;
}

/// As one.
pub(crate) struct One;
/// As a list.
pub(crate) struct Many;

impl<U> Shape<U> for One {
    type Given = U;
    fn list(given: U) -> Vec<U> {
        vec![given]
    }
}
impl<U> Shape<U> for Many {
    type Given = Vec<U>;
    fn list(given: Vec<U>) -> Vec<U> {
        given
    }
}

/// How what the futures share is made.
pub(crate) trait Open<C>: 'static {
    type State: Send + Sync + 'static;
    fn open(conf: C, context: &mut RuntimeContext) -> Result<Self::State, Failure>;
}

/// It is the configuration itself.
pub(crate) struct Keep;
/// A closure makes it.
pub(crate) struct By<O, S>(PhantomData<fn(O, S)>);

impl<C: Send + Sync + 'static> Open<C> for Keep {
    type State = C;
    fn open(conf: C, _: &mut RuntimeContext) -> Result<C, Failure> {
        Ok(conf)
    }
}
impl<C, O, S> Open<C> for By<O, S>
where
    S: Send + Sync + 'static,
    O: Fn(C, &mut RuntimeContext) -> Result<S, Failure> + Copy + 'static,
{
    type State = S;
    fn open(conf: C, context: &mut RuntimeContext) -> Result<S, Failure> {
        conjure::<O>()(conf, context)
    }
}

/// A closure and what its futures share.
pub(crate) struct Sharing<M, C, O: Open<C>, T, U, F, Fut>(Arc<O::State>, Types<(M, C, T, U, F, Fut)>);
/// Parameters that only say what something is for.
type Types<P> = PhantomData<fn(P)>;

impl<M, C, O, T, U, F, Fut> AsyncFunction for Sharing<M, C, O, T, U, F, Fut>
where
    M: Shape<U>,
    C: Serialize + DeserializeOwned + 'static,
    O: Open<C>,
    T: Record,
    U: Record,
    F: Fn(Arc<O::State>, T) -> Fut + Copy + 'static,
    Fut: Future<Output = Result<M::Given, Failure>> + Send + 'static,
{
    type In = T;
    type Out = U;
    type Conf = C;

    fn open(conf: C, context: &mut RuntimeContext) -> Result<Self, Failure> {
        Ok(Sharing(Arc::new(O::open(conf, context)?), PhantomData))
    }

    fn invoke(self: Arc<Self>, record: T) -> impl Future<Output = Result<Vec<U>, Failure>> + Send + 'static {
        let given = conjure::<F>()(self.0.clone(), record);
        async { given.await.map(M::list) }
    }
}

/// What stands for a result that does not come in time.
pub(crate) trait Late<T, U>: 'static {
    fn late(record: T) -> Result<Vec<U>, Failure>;
}

/// Nothing.
pub(crate) struct Fails;
/// What a closure says.
pub(crate) struct Says<G>(PhantomData<fn(G)>);

impl<T, U> Late<T, U> for Fails {
    fn late(_: T) -> Result<Vec<U>, Failure> {
        Err(no_result_in_time())
    }
}
impl<T, U, G: Fn(T) -> U + Copy + 'static> Late<T, U> for Says<G> {
    fn late(record: T) -> Result<Vec<U>, Failure> {
        Ok(vec![conjure::<G>()(record)])
    }
}

/// A closure that needs nothing but the record.
pub(crate) struct Alone<M, L, T, U, F, Fut>(Types<(M, L, T, U, F, Fut)>);

impl<M, L, T, U, F, Fut> AsyncFunction for Alone<M, L, T, U, F, Fut>
where
    M: Shape<U>,
    L: Late<T, U>,
    T: Record,
    U: Record,
    F: Fn(T) -> Fut + Copy + 'static,
    Fut: Future<Output = Result<M::Given, Failure>> + Send + 'static,
{
    type In = T;
    type Out = U;
    type Conf = ();

    fn open((): (), _: &mut RuntimeContext) -> Result<Self, Failure> {
        Ok(Alone(PhantomData))
    }

    fn invoke(self: Arc<Self>, record: T) -> impl Future<Output = Result<Vec<U>, Failure>> + Send + 'static {
        let given = conjure::<F>()(record);
        async { given.await.map(M::list) }
    }

    fn timeout(&self, record: T) -> Result<Vec<U>, Failure> {
        L::late(record)
    }
}
