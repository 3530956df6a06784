//! Combines the watermarks of a task's channels: the least of those that are not idle. A pure decider; Flink's
//! `StatusWatermarkValve`.

use millstream_model::time::Watermark;

/// The watermarks of all channels, and what they say together.
#[derive(Debug)]
pub struct WatermarkValve {
    channels: Vec<Channel>,
    output: Watermark,
    idle: bool,
}

#[derive(Debug, Clone, Copy)]
struct Channel {
    watermark: Watermark,
    idle: bool,
}

/// What has changed for the task as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Change {
    pub idle: Option<bool>,
    pub watermark: Option<Watermark>,
}

impl WatermarkValve {
    pub fn new(channels: usize) -> Self {
        let channel = Channel { watermark: Watermark::MIN, idle: false };
        WatermarkValve { channels: vec![channel; channels], output: Watermark::MIN, idle: false }
    }

    /// The watermark of the task.
    pub fn current(&self) -> Watermark {
        self.output
    }

    /// A channel's watermark has advanced. Watermarks that go back are ignored.
    pub fn on_watermark(&mut self, channel: usize, watermark: Watermark) -> Change {
        let channel = &mut self.channels[channel];
        channel.watermark = channel.watermark.max(watermark);
        self.combine()
    }

    /// A channel has become idle or active.
    pub fn on_idle(&mut self, channel: usize, idle: bool) -> Change {
        self.channels[channel].idle = idle;
        self.combine()
    }

    fn combine(&mut self) -> Change {
        let mut change = Change::default();
        let active = self.channels.iter().filter(|channel| !channel.idle);
        let least = active.map(|channel| channel.watermark).min();
        let idle = least.is_none();
        if idle != self.idle {
            self.idle = idle;
            change.idle = Some(idle);
        }
        if let Some(least) = least.filter(|least| *least > self.output) {
            self.output = least;
            change.watermark = Some(least);
        }
        change
    }
}

#[cfg(test)]
mod tests {
    use millstream_model::time::EventTime;

    use super::*;

    fn at(millis: i64) -> Watermark {
        Watermark(EventTime(millis))
    }

    #[test]
    fn the_slowest_active_channel_decides() {
        let mut valve = WatermarkValve::new(2);
        assert_eq!(valve.on_watermark(0, at(10)).watermark, None);
        assert_eq!(valve.on_watermark(1, at(5)).watermark, Some(at(5)));
        assert_eq!(valve.on_watermark(1, at(4)).watermark, None);
        assert_eq!(valve.on_idle(1, true), Change { idle: None, watermark: Some(at(10)) });
    }

    #[test]
    fn a_channel_that_wakes_up_behind_must_not_turn_time_back() {
        let mut valve = WatermarkValve::new(2);
        valve.on_watermark(0, at(10));
        valve.on_idle(1, true);
        assert_eq!(valve.on_idle(1, false), Change::default());
        assert_eq!(valve.on_watermark(1, at(3)), Change::default());
        assert_eq!(valve.current(), at(10));
    }

    #[test]
    fn the_task_is_idle_when_all_channels_are() {
        let mut valve = WatermarkValve::new(2);
        assert_eq!(valve.on_idle(0, true).idle, None);
        assert_eq!(valve.on_idle(1, true).idle, Some(true));
        assert_eq!(valve.on_idle(0, false).idle, Some(false));
    }
}
