//! How fast a task goes now: from counters that only grow, over the last seconds.

use std::collections::VecDeque;

use crate::message::TaskMetrics;

/// Over how much time the rates of a [`RateWindow`] are taken. Flink's meters have a minute; what holds a job back *now*
/// would not show in them for long.
pub const RATE_WINDOW_NANOS: u64 = 10_000_000_000;

/// What a task does in a second, on average.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct TaskRates {
    pub records_in_per_second: f64,
    pub records_out_per_second: f64,
    pub bytes_in_per_second: f64,
    pub bytes_out_per_second: f64,
    /// These three are 1,000 together.
    pub busy_millis_per_second: f64,
    pub idle_millis_per_second: f64,
    pub backpressured_millis_per_second: f64,
    /// The longest step of the time that the rates are of.
    pub longest_step_nanos: u64,
}

/// The newest reports of one task.
#[derive(Clone, Debug, Default)]
pub struct RateWindow {
    /// The oldest first, each later than the one before by the task's own time.
    reports: VecDeque<TaskMetrics>,
}

/// How long a task has been there: all of its time is spent on one of these.
fn age(metrics: &TaskMetrics) -> u64 {
    metrics.busy_nanos.saturating_add(metrics.idle_nanos).saturating_add(metrics.backpressured_nanos)
}

impl RateWindow {
    /// Takes in a report. One that is of a younger task begins anew: the counters of another attempt are no continuation.
    pub fn push(&mut self, report: TaskMetrics) {
        let newest = self.reports.back().map_or(0, age);
        if age(&report) < newest {
            self.reports.clear();
        }
        if self.reports.back().is_some_and(|last| age(last) == age(&report)) {
            // A task that has ended: its last rates stay as they are.
            return;
        }
        self.reports.push_back(report);
        let outdated = age(&report).saturating_sub(RATE_WINDOW_NANOS);
        // The one at the edge stays, so that there is a whole window between it and the newest.
        while self.reports.get(1).is_some_and(|second| age(second) <= outdated) {
            self.reports.pop_front();
        }
    }

    /// `None` before there are two reports.
    pub fn rates(&self) -> Option<TaskRates> {
        let (first, last) = (self.reports.front()?, self.reports.back()?);
        let nanos = age(last).checked_sub(age(first)).filter(|nanos| *nanos > 0)? as f64;
        let growth = |of: fn(&TaskMetrics) -> u64| of(last).saturating_sub(of(first)) as f64;
        let per_second = |of| growth(of) * 1e9 / nanos;
        let millis_per_second = |of| growth(of) * 1e3 / nanos;
        Some(TaskRates {
            records_in_per_second: per_second(|task| task.records_in),
            records_out_per_second: per_second(|task| task.records_out),
            bytes_in_per_second: per_second(|task| task.bytes_in),
            bytes_out_per_second: per_second(|task| task.bytes_out),
            busy_millis_per_second: millis_per_second(|task| task.busy_nanos),
            idle_millis_per_second: millis_per_second(|task| task.idle_nanos),
            backpressured_millis_per_second: millis_per_second(|task| task.backpressured_nanos),
            longest_step_nanos: self.reports.iter().skip(1).map(|task| task.recent_step_nanos).max().unwrap_or(0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// A task that is busy for half of its time and reads 100 records a second, at this second of its life.
    fn at(second: u64) -> TaskMetrics {
        let half = second * SECOND / 2;
        TaskMetrics { records_in: second * 100, busy_nanos: half, idle_nanos: half, ..TaskMetrics::default() }
    }

    #[test]
    fn rates_are_those_of_the_window_and_of_nothing_before_it() {
        let mut window = RateWindow::default();
        window.push(at(0));
        assert_eq!(window.rates(), None);
        // Long ago it was fast, and had a long step.
        window.push(TaskMetrics { records_in: 50_000, recent_step_nanos: 9, ..at(1) });
        let fast = window.rates().unwrap();
        assert_eq!((fast.records_in_per_second, fast.longest_step_nanos), (50_000.0, 9));
        (2..=30).for_each(|second| window.push(TaskMetrics { records_in: 50_000 + second, ..at(second) }));
        let rates = window.rates().unwrap();
        assert_eq!((rates.records_in_per_second, rates.longest_step_nanos), (1.0, 0));
        assert_eq!((rates.busy_millis_per_second, rates.idle_millis_per_second), (500.0, 500.0));
        assert!(window.reports.len() <= 11, "{} are kept", window.reports.len());
    }

    #[test]
    fn another_attempt_begins_anew() {
        let mut window = RateWindow::default();
        window.push(at(20));
        window.push(at(21));
        window.push(at(1));
        assert_eq!(window.rates(), None);
        window.push(at(2));
        assert_eq!(window.rates().unwrap().records_in_per_second, 100.0);
    }
}
