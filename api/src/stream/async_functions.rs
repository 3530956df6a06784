//! Functions whose results come later: a stream's records ask a service or a database, many at a time.

use std::{future::Future, sync::Arc};

use millstream_model::fault::Failure;
use serde::{Serialize, de::DeserializeOwned};

use super::data_stream::DataStream;
use crate::{
    context::RuntimeContext,
    factory::encode_conf,
    function::AsyncFunction,
    operators::async_wait::{
        async_wait,
        closures::{Alone, By, Fails, Keep, Many, One, Says, Sharing},
        settings::AsyncWait,
    },
    record::Record,
};

impl<T: Record> DataStream<T> {
    /// Replaces each record by what a future brings, with many futures at a time. Flink's `AsyncDataStream`.
    ///
    /// The closure gets the record as a value, since the future outlives the handle. The future runs on the worker's I/O
    /// runtime, which is tokio's. If it fails or panics, if it takes longer than the timeout, the attempt of the task
    /// fails; see [`AsyncWait::retry`] and [`DataStream::async_map_or`]. Records that are being worked on are part of
    /// checkpoints, and are given to the closure again after a restart.
    ///
    /// ```
    /// # use millstream_api::{AsyncWait, stream::{environment::StreamExecutionEnvironment, data_stream::DataStream}};
    /// # use millstream_model::fault::Failure;
    /// # use std::time::Duration;
    /// # async fn look_up(word: &str) -> Result<u64, std::io::Error> { Ok(word.len() as u64) }
    /// # let env = StreamExecutionEnvironment::get();
    /// # let words: DataStream<String> = env.from_collection(["a".to_owned()]);
    /// let wait = AsyncWait::ordered(Duration::from_secs(5)).capacity(200);
    /// let counts = words.async_map(wait, |word| async move {
    ///     let count = look_up(&word).await.map_err(|cause| Failure::new(cause.to_string()))?;
    ///     Ok((word, count))
    /// });
    /// # let _: DataStream<(String, u64)> = counts;
    /// ```
    #[track_caller]
    pub fn async_map<U: Record, F, Fut>(&self, wait: AsyncWait, function: F) -> DataStream<U>
    where
        F: Fn(T) -> Fut + Copy + 'static,
        Fut: Future<Output = Result<U, Failure>> + Send + 'static,
    {
        refuse_captures!(F);
        let _ = function;
        self.then_async::<Alone<One, Fails, T, U, F, Fut>>("AsyncMap", wait, &())
    }

    /// [`DataStream::async_map`] with a value to stand for results that do not come in time.
    #[track_caller]
    pub fn async_map_or<U: Record, F, Fut, L>(&self, wait: AsyncWait, function: F, late: L) -> DataStream<U>
    where
        F: Fn(T) -> Fut + Copy + 'static,
        Fut: Future<Output = Result<U, Failure>> + Send + 'static,
        L: Fn(T) -> U + Copy + 'static,
    {
        refuse_captures!(F, L);
        let _ = (function, late);
        self.then_async::<Alone<One, Says<L>, T, U, F, Fut>>("AsyncMap", wait, &())
    }

    /// [`DataStream::async_map`] with configuration that travels to the workers.
    #[track_caller]
    pub fn async_map_with<C, U: Record, F, Fut>(&self, wait: AsyncWait, conf: C, function: F) -> DataStream<U>
    where
        C: Serialize + DeserializeOwned + Send + Sync + 'static,
        F: Fn(Arc<C>, T) -> Fut + Copy + 'static,
        Fut: Future<Output = Result<U, Failure>> + Send + 'static,
    {
        refuse_captures!(F);
        let _ = function;
        self.then_async::<Sharing<One, C, Keep, T, U, F, Fut>>("AsyncMap", wait, &conf)
    }

    /// [`DataStream::async_map`] with something that `open` makes on the worker, a client for example, once per subtask;
    /// all futures of the subtask share it.
    ///
    /// ```
    /// # use millstream_api::{AsyncRetry, AsyncWait, stream::{environment::StreamExecutionEnvironment, data_stream::DataStream}};
    /// # use millstream_model::fault::Failure;
    /// # use std::time::Duration;
    /// # struct Client;
    /// # impl Client {
    /// #     fn new(_: String) -> Result<Client, Failure> { Ok(Client) }
    /// #     async fn price(&self, product: &str) -> Result<u64, Failure> { Ok(product.len() as u64) }
    /// # }
    /// # let env = StreamExecutionEnvironment::get();
    /// # let products: DataStream<String> = env.from_collection(["a".to_owned()]);
    /// let wait = AsyncWait::unordered(Duration::from_secs(5)).retry(AsyncRetry::fixed_delay(3, Duration::from_millis(100)));
    /// let prices = products.rich_async_map(
    ///     wait,
    ///     "http://prices".to_owned(),
    ///     |address, _| Client::new(address),
    ///     |client, product| async move { client.price(&product).await },
    /// );
    /// # let _: DataStream<u64> = prices;
    /// ```
    #[track_caller]
    pub fn rich_async_map<C, S, U: Record, O, F, Fut>(
        &self,
        wait: AsyncWait,
        conf: C,
        open: O,
        function: F,
    ) -> DataStream<U>
    where
        C: Serialize + DeserializeOwned + 'static,
        S: Send + Sync + 'static,
        O: Fn(C, &mut RuntimeContext) -> Result<S, Failure> + Copy + 'static,
        F: Fn(Arc<S>, T) -> Fut + Copy + 'static,
        Fut: Future<Output = Result<U, Failure>> + Send + 'static,
    {
        refuse_captures!(O, F);
        let _ = (open, function);
        self.then_async::<Sharing<One, C, By<O, S>, T, U, F, Fut>>("AsyncMap", wait, &conf)
    }

    /// [`DataStream::async_map`] to any number of records. All of them must find room at once.
    #[track_caller]
    pub fn async_flat_map<U: Record, F, Fut>(&self, wait: AsyncWait, function: F) -> DataStream<U>
    where
        F: Fn(T) -> Fut + Copy + 'static,
        Fut: Future<Output = Result<Vec<U>, Failure>> + Send + 'static,
    {
        refuse_captures!(F);
        let _ = function;
        self.then_async::<Alone<Many, Fails, T, U, F, Fut>>("AsyncFlatMap", wait, &())
    }

    /// [`DataStream::async_flat_map`] with configuration that travels to the workers.
    #[track_caller]
    pub fn async_flat_map_with<C, U: Record, F, Fut>(&self, wait: AsyncWait, conf: C, function: F) -> DataStream<U>
    where
        C: Serialize + DeserializeOwned + Send + Sync + 'static,
        F: Fn(Arc<C>, T) -> Fut + Copy + 'static,
        Fut: Future<Output = Result<Vec<U>, Failure>> + Send + 'static,
    {
        refuse_captures!(F);
        let _ = function;
        self.then_async::<Sharing<Many, C, Keep, T, U, F, Fut>>("AsyncFlatMap", wait, &conf)
    }

    /// [`DataStream::async_flat_map`] with something that `open` makes on the worker, once per subtask; all futures of
    /// the subtask share it.
    #[track_caller]
    pub fn rich_async_flat_map<C, S, U: Record, O, F, Fut>(
        &self,
        wait: AsyncWait,
        conf: C,
        open: O,
        function: F,
    ) -> DataStream<U>
    where
        C: Serialize + DeserializeOwned + 'static,
        S: Send + Sync + 'static,
        O: Fn(C, &mut RuntimeContext) -> Result<S, Failure> + Copy + 'static,
        F: Fn(Arc<S>, T) -> Fut + Copy + 'static,
        Fut: Future<Output = Result<Vec<U>, Failure>> + Send + 'static,
    {
        refuse_captures!(O, F);
        let _ = (open, function);
        self.then_async::<Sharing<Many, C, By<O, S>, T, U, F, Fut>>("AsyncFlatMap", wait, &conf)
    }

    /// Runs an [`AsyncFunction`] on each record: a type, with a say in what happens to late and failed results.
    #[track_caller]
    pub fn async_process<P: AsyncFunction<In = T>>(&self, wait: AsyncWait, conf: P::Conf) -> DataStream<P::Out> {
        self.then_async::<P>("AsyncProcess", wait, &conf)
    }

    #[track_caller]
    fn then_async<P: AsyncFunction<In = T>>(
        &self,
        kind: &'static str,
        wait: AsyncWait,
        conf: &P::Conf,
    ) -> DataStream<P::Out> {
        self.then(kind, async_wait::<P>, encode_conf(&(wait, conf)))
    }
}
