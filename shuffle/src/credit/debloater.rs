//! Debloating: how much may be under way into a gate, so that its task reads it within a time.
//!
//! The idea is Flink's (`BufferDebloater`): the throughput of the task, while there is something to read, times the target
//! time. It is measured where it is read, so whatever makes the task slow counts, a slow consumer of its own as well.

use std::time::{Duration, Instant};

/// How the amount follows the throughput.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Debloating {
    /// What is under way should be read within this time.
    pub target: Duration,
    /// How often the amount is looked at.
    pub period: Duration,
    /// Changes of less than this are not made.
    pub threshold_percent: u32,
}

/// Measures one gate's throughput and says how many bytes may be under way.
#[derive(Clone, Debug)]
pub struct Debloater {
    debloating: Debloating,
    /// The most that it may say.
    most: u64,
    said: u64,
    /// Bytes a second, smoothed; `None` before the first look.
    throughput: Option<f64>,
    /// Since the last look: what was read, and for how long there was something to read.
    read: u64,
    busy: Duration,
    busy_since: Option<Instant>,
    looked: Option<Instant>,
}

/// Less time with something to read says nothing about the throughput.
const BUSY_MIN: Duration = Duration::from_millis(1);

/// The weight of the last period in the smoothed throughput.
const WEIGHT: f64 = 0.5;

impl Debloater {
    /// For a gate that may have `most` bytes under way, and has at first.
    pub fn new(debloating: Debloating, most: u64) -> Debloater {
        Debloater {
            debloating,
            most,
            said: most,
            throughput: None,
            read: 0,
            busy: Duration::ZERO,
            busy_since: None,
            looked: None,
        }
    }

    /// There is something to read from `now` on, or was already.
    pub fn resume(&mut self, now: Instant) {
        self.busy_since.get_or_insert(now);
    }

    /// There is nothing to read from `now` on: waiting for it does not make the task slow.
    pub fn pause(&mut self, now: Instant) {
        if let Some(since) = self.busy_since.take() {
            self.busy += now.saturating_duration_since(since);
        }
    }

    /// Bytes were read.
    #[inline]
    pub fn read(&mut self, bytes: u64) {
        self.read += bytes;
    }

    /// How many bytes may be under way from now on, if that is to change.
    pub fn look(&mut self, now: Instant) -> Option<u64> {
        let looked = *self.looked.get_or_insert(now);
        if now.saturating_duration_since(looked) < self.debloating.period {
            return None;
        }
        if self.busy_since.is_some() {
            self.pause(now);
            self.resume(now);
        }
        if self.busy < BUSY_MIN {
            // What was read so far counts when there is more.
            return None;
        }
        let measured = self.read as f64 / self.busy.as_secs_f64();
        let before = self.throughput.unwrap_or(measured);
        let throughput = before + (measured - before) * WEIGHT;
        self.throughput = Some(throughput);
        (self.read, self.busy, self.looked) = (0, Duration::ZERO, Some(now));
        // Casting saturates.
        let bytes = ((throughput * self.debloating.target.as_secs_f64()) as u64).min(self.most);
        let change = bytes.abs_diff(self.said) as f64;
        let is_small = change < self.said as f64 * f64::from(self.debloating.threshold_percent) / 100.0;
        if bytes == self.said || (is_small && bytes < self.most) {
            return None;
        }
        self.said = bytes;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        channel::{GrantSignal, opened_channel},
        credit::Granter,
        gate::{GateSignal, InputGate},
        segment::SegmentPool,
    };

    const MIB: u64 = 1 << 20;

    fn debloater() -> Debloater {
        let (target, period) = (Duration::from_secs(1), Duration::from_millis(200));
        Debloater::new(Debloating { target, period, threshold_percent: 25 }, 8 * MIB)
    }

    #[expect(clippy::disallowed_methods, reason = "any time will do")]
    fn start() -> Instant {
        Instant::now()
    }

    /// Reads so many bytes a second for some seconds, always with more at hand; what was said last, and how often.
    fn read(debloater: &mut Debloater, now: &mut Instant, per_second: u64, seconds: u64) -> (Option<u64>, usize) {
        let (mut said, mut times) = (None, 0);
        for _ in 0..seconds * 100 {
            debloater.resume(*now);
            debloater.read(per_second / 100);
            *now += Duration::from_millis(10);
            if let Some(bytes) = debloater.look(*now) {
                (said, times) = (Some(bytes), times + 1);
            }
        }
        (said, times)
    }

    #[test]
    fn what_is_under_way_is_worth_the_target_and_follows_the_throughput_both_ways() {
        let (mut debloater, mut now) = (debloater(), start());
        let near = |said: Option<u64>, bytes: u64| said.is_some_and(|said| said.abs_diff(bytes) * 3 < bytes);
        assert!(near(read(&mut debloater, &mut now, 100_000, 4).0, 100_000));
        // Small changes are not worth it.
        assert_eq!(read(&mut debloater, &mut now, 110_000, 4), (None, 0));
        assert!(near(read(&mut debloater, &mut now, 1_000_000, 4).0, 1_000_000));
        // Never more than there is room for, and all of that even if it is a small change.
        assert_eq!(read(&mut debloater, &mut now, 7 * MIB, 4).0.map(|said| said / MIB), Some(6));
        assert_eq!(read(&mut debloater, &mut now, 100 * MIB, 4).0, Some(8 * MIB));
        // A task that reads nothing at all while there is something: what is left is up to the floors.
        assert_eq!(read(&mut debloater, &mut now, 0, 30).0.map(|said| said < 100), Some(true));
    }

    #[test]
    fn a_task_that_waits_for_records_is_not_taken_for_a_slow_one() {
        let (mut debloater, mut now) = (debloater(), start());
        for _ in 0..1_000 {
            // A record of 100 bytes every 10 ms, each read in 5 µs: that is 20 MB a second.
            debloater.resume(now);
            debloater.read(100);
            debloater.pause(now + Duration::from_micros(5));
            now += Duration::from_millis(10);
            assert_eq!(debloater.look(now), None);
        }
    }

    #[test]
    fn a_look_is_taken_once_a_period() {
        let (mut debloater, mut now) = (debloater(), start());
        let (_, times) = read(&mut debloater, &mut now, 1_000, 1);
        assert!((1..=5).contains(&times), "{times}");
        // However long a step was.
        debloater.resume(now);
        debloater.read(1_000_000);
        assert!(debloater.look(now + Duration::from_secs(3600)).is_some());
    }

    /// A task that takes segments from senders which send as many as they may.
    struct Task {
        senders: Vec<crate::channel::ChannelSender>,
        gate: InputGate,
        pool: SegmentPool,
        debloater: Debloater,
        now: Instant,
    }

    const SEGMENT: usize = 4 << 10;

    impl Task {
        fn new(channels: usize) -> Task {
            let pool = SegmentPool::new(SEGMENT, 64);
            let granter = Granter::new(SEGMENT as u64, 2 * MIB, &vec![MIB; channels]);
            let signal = Arc::new(GateSignal::new(channels, Arc::default()));
            let make = |index| {
                let wakes = GrantSignal::Thread(Arc::default());
                opened_channel(&pool, granter.opening(index), false, wakes, signal.clone(), index)
            };
            let (senders, receivers) = (0..channels).map(make).unzip();
            let debloater = Debloater { most: granter.pool(), said: granter.pool(), ..debloater() };
            Task { senders, gate: InputGate::with_granter(receivers, signal, granter), pool, debloater, now: start() }
        }

        /// Takes so many segments in each step of 10 ms, for some seconds.
        fn take(&mut self, segments: usize, seconds: usize) {
            for _ in 0..100 * seconds {
                for sender in &mut self.senders {
                    while sender.resume() {
                        sender.next_segment();
                        let (room, filled) = sender.room();
                        *filled += room.len();
                    }
                }
                self.debloater.resume(self.now);
                for _ in 0..segments {
                    let Some(channel) = self.gate.next_ready() else { break };
                    self.gate.consume(channel, SEGMENT);
                    self.debloater.read(SEGMENT as u64);
                    self.gate.rotate();
                }
                self.now += Duration::from_millis(10);
                if let Some(bytes) = self.debloater.look(self.now) {
                    self.gate.set_target(bytes);
                }
            }
        }

        /// What the gate and its channels hold, without what waits at each sender.
        fn under_way(&self) -> u64 {
            (self.pool.in_use() - self.senders.len()) as u64 * SEGMENT as u64
        }
    }

    #[test]
    fn what_is_under_way_to_a_slow_task_shrinks_to_the_target_and_grows_again_when_it_is_fast() {
        let mut task = Task::new(8);
        task.take(100, 2);
        // 40 MB a second: all the room there is, of which half are floors.
        let fast = task.gate.promised();
        assert!(fast.0 >= MIB && fast.1 == 2 * MIB, "{fast:?}");
        task.take(1, 10);
        // 400 KB a second, so 400 KB are worth one.
        let (slow, second) = (task.under_way(), 100 * SEGMENT as u64);
        assert!(slow <= second * 5 / 4 && slow > second / 2, "{slow} bytes under way");
        task.take(100, 2);
        assert_eq!(task.gate.promised().1, 2 * MIB);
        assert!(task.gate.promised().0 >= MIB, "{:?}", task.gate.promised());
    }

    #[test]
    fn the_slowest_of_tasks_still_gets_a_segment_of_each_channel() {
        let mut task = Task::new(8);
        task.take(1, 10);
        // Nothing for a long time.
        for _ in 0..100 {
            task.debloater.resume(task.now);
            task.now += Duration::from_secs(1);
            if let Some(bytes) = task.debloater.look(task.now) {
                task.gate.set_target(bytes);
            }
        }
        assert!(task.gate.promised().1 < SEGMENT as u64, "{:?}", task.gate.promised());
        // Everything is read, and what comes since has a segment each.
        let drained = task.pool.in_use();
        task.take(drained, 1);
        task.take(8, 1);
        assert!(task.gate.promised().0 >= 8 * SEGMENT as u64, "{:?}", task.gate.promised());
        // And all the room again, once it is fast.
        task.take(100, 5);
        assert!(task.gate.promised().0 >= MIB, "{:?}", task.gate.promised());
    }
}
