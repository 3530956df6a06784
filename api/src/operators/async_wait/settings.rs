//! What a program says about an async operator besides its function.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Flink's, if the program says nothing.
const CAPACITY: u32 = 100;

/// How an async operator waits for results: in which order it emits them, how long it waits for one, for how many at a
/// time, and whether it tries again. Flink's `AsyncDataStream.orderedWait` and `unorderedWait`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AsyncWait {
    pub(crate) order: Order,
    pub(crate) timeout_millis: Option<i64>,
    pub(crate) capacity: u32,
    pub(crate) retry: Option<AsyncRetry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    Ordered,
    Unordered,
}

impl AsyncWait {
    /// Results leave in the order of their records. `timeout` is for one record, all attempts at it together; zero is
    /// no limit.
    pub fn ordered(timeout: Duration) -> Self {
        Self::new(Order::Ordered, timeout)
    }

    /// Results leave as they come, but none passes a watermark. `timeout` as for [`AsyncWait::ordered`].
    pub fn unordered(timeout: Duration) -> Self {
        Self::new(Order::Unordered, timeout)
    }

    fn new(order: Order, timeout: Duration) -> Self {
        let timeout_millis = (!timeout.is_zero()).then(|| millis(timeout));
        AsyncWait { order, timeout_millis, capacity: CAPACITY, retry: None }
    }

    /// How many records each subtask works on at a time; 100 if nothing is said. Records whose result is there but has
    /// not left yet count, too. When there are so many, the operator takes no more: that is backpressure.
    ///
    /// # Panics
    /// If it is 0.
    #[must_use]
    #[track_caller]
    pub fn capacity(mut self, records: u32) -> Self {
        assert!(records > 0, "an async operator needs a capacity of at least one record");
        self.capacity = records;
        self
    }

    /// Tries again when an attempt fails.
    #[must_use]
    pub fn retry(mut self, retry: AsyncRetry) -> Self {
        self.retry = Some(retry);
        self
    }
}

/// How often an async operator tries again, and after which pause; Flink's `AsyncRetryStrategies`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AsyncRetry {
    retries: u32,
    delay_millis: i64,
    delay_millis_max: i64,
    factor: u32,
}

impl AsyncRetry {
    /// Tries up to `retries` times again, each time after the same pause.
    pub fn fixed_delay(retries: u32, delay: Duration) -> Self {
        AsyncRetry { retries, delay_millis: millis(delay), delay_millis_max: i64::MAX, factor: 1 }
    }

    /// Tries up to `retries` times again, after pauses that double up to `longest`.
    pub fn exponential_backoff(retries: u32, first: Duration, longest: Duration) -> Self {
        AsyncRetry { retries, delay_millis: millis(first), delay_millis_max: millis(longest), factor: 2 }
    }

    /// The pause after attempt number `attempt`, from 1; `None` if it was the last one.
    pub(crate) fn delay_millis(&self, attempt: u32) -> Option<i64> {
        let factor = i64::from(self.factor).saturating_pow(attempt - 1);
        (attempt <= self.retries).then(|| self.delay_millis.saturating_mul(factor).min(self.delay_millis_max))
    }
}

/// Anything below a millisecond is one.
fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_between_attempts_follow_the_strategy_until_it_gives_up() {
        let pauses = |retry: AsyncRetry| (1..7).map_while(|attempt| retry.delay_millis(attempt)).collect::<Vec<i64>>();
        let (ten, fifty) = (Duration::from_millis(10), Duration::from_millis(50));
        assert_eq!(pauses(AsyncRetry::fixed_delay(3, ten)), [10, 10, 10]);
        assert_eq!(pauses(AsyncRetry::exponential_backoff(5, ten, fifty)), [10, 20, 40, 50, 50]);
        assert_eq!(pauses(AsyncRetry::fixed_delay(0, ten)), [] as [i64; 0]);
        let long = AsyncRetry::exponential_backoff(u32::MAX, ten, Duration::MAX);
        assert_eq!(long.delay_millis(u32::MAX), Some(i64::MAX));
    }
}
