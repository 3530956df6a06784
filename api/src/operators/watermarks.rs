//! `assign_timestamps_and_watermarks`: gives records their event time and tells how far it has come.

use std::rc::Rc;

use millstream_model::{
    config::AUTO_WATERMARK_INTERVAL,
    fault::Failure,
    time::{EventTime, Watermark},
};
use serde::{Deserialize, Serialize};

use super::stateless::node;
use crate::{
    conjure::conjure,
    factory::{Build, Product},
    flow::Flow,
    push::{Forward, Operator, Out},
    record::Record,
    signal::Signal,
};

/// How far behind the latest time stamp a record may come; Flink's `WatermarkStrategy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatermarkStrategy {
    out_of_orderness_millis: i64,
    idleness_millis: Option<i64>,
}

impl WatermarkStrategy {
    /// Time stamps never go back within a subtask.
    pub fn for_monotonous_timestamps() -> Self {
        Self::for_bounded_out_of_orderness(std::time::Duration::ZERO)
    }

    /// A record comes at most `bound` of event time after a later one.
    pub fn for_bounded_out_of_orderness(bound: std::time::Duration) -> Self {
        let millis = i64::try_from(bound.as_millis()).unwrap_or(i64::MAX);
        WatermarkStrategy { out_of_orderness_millis: millis, idleness_millis: None }
    }

    /// A subtask without records for `pause` holds nobody's watermark back.
    #[must_use]
    pub fn with_idleness(mut self, pause: std::time::Duration) -> Self {
        self.idleness_millis = Some(i64::try_from(pause.as_millis()).unwrap_or(i64::MAX));
        self
    }
}

struct Assigner<F> {
    strategy: WatermarkStrategy,
    time_of: F,
    flow: Rc<Flow>,
    interval_millis: i64,
    latest: i64,
    emitted: i64,
    idle: bool,
    /// When the last record was seen, in processing time.
    last_record_millis: i64,
}

impl<F> Assigner<F> {
    fn watermark(&self) -> i64 {
        // A watermark t promises that nothing at t or before follows, so it stays one millisecond behind.
        self.latest.saturating_sub(self.strategy.out_of_orderness_millis).saturating_sub(1)
    }

    fn emit<T: Record>(&mut self, out: &mut Out<'_, T>) {
        let watermark = self.watermark();
        if watermark > self.emitted && self.latest != i64::MIN {
            self.emitted = watermark;
            out.signal(&mut Signal::Watermark(Watermark(EventTime(watermark))));
        }
    }
}

impl<T: Record, F: for<'a> Fn(T::Ref<'a>) -> i64 + 'static> Operator<T, T> for Assigner<F> {
    #[inline]
    fn process(&mut self, record: T::Ref<'_>, out: &mut Out<'_, T>) {
        let time = (self.time_of)(record);
        self.latest = self.latest.max(time);
        self.last_record_millis = self.flow.now_millis();
        if self.idle {
            self.idle = false;
            out.signal(&mut Signal::Idle(false));
        }
        self.flow.set_timestamp(EventTime(time));
        out.0.push(record);
    }

    fn signal(&mut self, signal: &mut Signal<'_>, out: &mut Out<'_, T>) -> Forward {
        match signal {
            // Those of upstream say nothing about the new time stamps, except that the stream has ended.
            Signal::Watermark(watermark) if *watermark != Watermark::MAX => Forward::Hold,
            Signal::Watermark(_) => {
                // The clock may still strike, while operators behind have work left. Watermarks never go back.
                self.emitted = i64::MAX;
                Forward::Now
            }
            Signal::Clock => {
                self.emit(out);
                let now = self.flow.now_millis();
                let quiet = now - self.last_record_millis;
                if !self.idle && self.strategy.idleness_millis.is_some_and(|pause| quiet >= pause) {
                    self.idle = true;
                    out.signal(&mut Signal::Idle(true));
                }
                self.flow.wake_at(now + self.interval_millis);
                Forward::Now
            }
            _ => Forward::Now,
        }
    }
}

pub(crate) fn assigner<T: Record, F>(build: Build<'_>) -> Result<Product, Failure>
where
    F: for<'a> Fn(T::Ref<'a>) -> i64 + Copy + 'static,
{
    let interval = build.context.configuration.get(&AUTO_WATERMARK_INTERVAL)?;
    let flow = build.context.flow.clone();
    let assigner = Assigner {
        strategy: build.conf()?,
        time_of: conjure::<F>(),
        interval_millis: i64::try_from(interval.as_millis()).unwrap_or(i64::MAX).max(1),
        latest: i64::MIN,
        emitted: i64::MIN,
        idle: false,
        last_record_millis: flow.now_millis(),
        flow: flow.clone(),
    };
    flow.wake_at(flow.now_millis() + assigner.interval_millis);
    node::<T, T>(assigner, build)
}
