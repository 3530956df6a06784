//! A source that makes its records: as fast as they are taken, or at a rate that nothing slows down.
//!
//! | Look here for | module |
//! |---|---|
//! | the source as programs name it, and its reader | this one |
//! | which subtask makes what, and when a record is due | [`schedule`] |
//! | the clock | [`clock`] |

use std::{marker::PhantomData, time::Duration};

use millstream_api::{
    conjure::conjure,
    context::RuntimeContext,
    record::Record,
    source::{Boundedness, Source, SourceOut, SourceReader, SourceSnapshot, SourceStatus},
};
use millstream_model::fault::Failure;
use serde::{Deserialize, Serialize};

mod clock;
mod schedule;

use self::schedule::{Schedule, Sequence};
use crate::{captures::refuse_captures, section};

/// Name of a sequence in checkpoints.
const SEQUENCE: &str = "sequence";

/// Makes records from the numbers 0, 1, 2, …, which the subtasks share: subtask s of p makes s, s + p, s + 2p, ….
///
/// After a restart each number is made once more or not, as the checkpoint says; subtasks that were added by a higher
/// parallelism have nothing to make.
#[derive(Debug, Serialize, Deserialize)]
pub struct GeneratorSource<T, G> {
    count: Option<u64>,
    per_second: Option<f64>,
    #[serde(skip)]
    of: PhantomData<fn(G) -> T>,
}

/// How a record is made.
pub trait Generate<T>: Copy + 'static {
    /// Whether the due time matters even without a rate.
    const WANTS_DUE: bool;
    /// Makes record `index`, which was due at `due_nanos`.
    fn make(&self, index: u64, due_nanos: u64) -> T;
}

/// From its number.
#[derive(Clone, Copy, Debug)]
pub struct FromIndex<F>(F);

/// From its number and the time when it was due.
#[derive(Clone, Copy, Debug)]
pub struct FromIndexAndDue<F>(F);

impl<T, F: Fn(u64) -> T + Copy + 'static> Generate<T> for FromIndex<F> {
    const WANTS_DUE: bool = false;
    #[inline]
    fn make(&self, index: u64, _: u64) -> T {
        (self.0)(index)
    }
}

impl<T, F: Fn(u64, u64) -> T + Copy + 'static> Generate<T> for FromIndexAndDue<F> {
    const WANTS_DUE: bool = true;
    #[inline]
    fn make(&self, index: u64, due_nanos: u64) -> T {
        (self.0)(index, due_nanos)
    }
}

impl<T: Record, F> GeneratorSource<T, FromIndex<F>> {
    /// Makes `count` records, or records without end, as `make` does from each number. The closure must not capture
    /// anything: only its code travels to the workers.
    pub fn new(count: Option<u64>, make: F) -> Self
    where
        F: Fn(u64) -> T + Copy + 'static,
    {
        refuse_captures!(F);
        let _ = make;
        GeneratorSource { count, per_second: None, of: PhantomData }
    }
}

impl<T: Record, F> GeneratorSource<T, FromIndexAndDue<F>> {
    /// As [`GeneratorSource::new`], but `make` also gets the time when the record is due, in nanoseconds of
    /// `CLOCK_MONOTONIC`, so that what receives it can tell how late it is. Without a rate that is now.
    pub fn paced(count: Option<u64>, make: F) -> Self
    where
        F: Fn(u64, u64) -> T + Copy + 'static,
    {
        refuse_captures!(F);
        let _ = make;
        GeneratorSource { count, per_second: None, of: PhantomData }
    }
}

impl<T, G> GeneratorSource<T, G> {
    /// Makes so many records a second, all subtasks together. A record that could not be made when it was due, because
    /// there was no room for it, is made as soon as possible and not left out ("open loop"). Time starts anew when the
    /// job restarts.
    ///
    /// # Panics
    /// If it is not a positive number.
    #[must_use]
    #[track_caller]
    pub fn rate(mut self, records_per_second: f64) -> Self {
        let is_possible = records_per_second.is_finite() && records_per_second > 0.0;
        assert!(
            is_possible,
            "a generator's rate must be a positive number of records a second, not {records_per_second}"
        );
        self.per_second = Some(records_per_second);
        self
    }
}

impl<T: Record, G: Generate<T>> Source for GeneratorSource<T, G> {
    type Out = T;
    type Reader = Generator<T, G>;

    fn boundedness(&self) -> Boundedness {
        if self.count.is_some() { Boundedness::Bounded } else { Boundedness::ContinuousUnbounded }
    }

    fn reader(self, context: &mut RuntimeContext) -> Result<Generator<T, G>, Failure> {
        let (subtask, parallelism) = (context.index_of_this_subtask(), context.number_of_parallel_subtasks());
        let sequences = if context.is_restored() {
            let sections = context.take_restored(SEQUENCE);
            sections.iter().map(|bytes| section::decode(bytes, "the generator's part of the checkpoint")).collect()
        } else {
            Ok(vec![Sequence { next: subtask.into(), stride: parallelism.into() }])
        };
        let schedule = Schedule::new(sequences?, self.count, parallelism, self.per_second);
        Ok(Generator { make: conjure(), schedule, start_nanos: None, last: None, of: PhantomData })
    }
}

/// Makes the records of one subtask.
pub struct Generator<T, G> {
    make: G,
    schedule: Schedule,
    /// When this reader was polled first.
    start_nanos: Option<u64>,
    last: Option<u64>,
    of: PhantomData<fn() -> T>,
}

impl<T: Record, G: Generate<T>> SourceReader for Generator<T, G> {
    type Out = T;

    fn poll(&mut self, out: &mut SourceOut<'_, T>) -> Result<SourceStatus, Failure> {
        let wants_now = G::WANTS_DUE || self.schedule.is_paced();
        let now = if wants_now { clock::monotonic_nanos() } else { 0 };
        let start = *self.start_nanos.get_or_insert(now);
        loop {
            let Some((index, due)) = self.schedule.peek() else { return Ok(SourceStatus::End) };
            let due_nanos = due.map_or(now, |after_start| start + after_start);
            if due_nanos > now {
                return Ok(SourceStatus::IdleFor(Duration::from_nanos(due_nanos - now)));
            }
            if out.should_pause() {
                return Ok(SourceStatus::More);
            }
            self.last = Some(index);
            self.schedule.advance();
            out.emit(self.make.make(index, due_nanos).handle());
        }
    }

    fn snapshot(&mut self, snapshot: &mut SourceSnapshot<'_>) {
        for sequence in self.schedule.sequences() {
            snapshot.split(SEQUENCE, section::encode(sequence));
        }
    }

    fn position(&self) -> String {
        self.last.map_or_else(|| "before the first record".to_owned(), |last| format!("generated record {last}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::SourceJob;

    fn sorted(mut numbers: Vec<u64>) -> Vec<u64> {
        numbers.sort_unstable();
        numbers
    }

    #[test]
    fn all_subtasks_together_make_each_number_once() {
        let source = GeneratorSource::new(Some(1000), |index| index);
        let mut job = SourceJob::start(source, 3, None).unwrap();
        job.run_to_end().unwrap();
        assert_eq!(sorted(job.emitted.take()), (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn after_a_restart_at_any_parallelism_each_number_is_made_once() {
        let source = || GeneratorSource::new(Some(1000), |index| index);
        for after in 1..6 {
            let mut first = SourceJob::start(source(), 3, None).unwrap();
            for step in 0..10 {
                first.step(step % 3, 7 + step as u32).unwrap();
            }
            let checkpoint = first.checkpoint();
            let mut numbers = first.emitted.borrow().clone();
            first.step(0, 100).unwrap();
            let mut second = SourceJob::start(source(), after, Some(&checkpoint)).unwrap();
            second.run_to_end().unwrap();
            numbers.extend(second.emitted.take());
            assert_eq!(sorted(numbers), (0..1000).collect::<Vec<_>>(), "at parallelism {after}");
        }
    }

    #[test]
    fn records_know_when_they_were_due_and_are_not_made_before() {
        let source = GeneratorSource::paced(Some(21), |index, due| (index, due)).rate(1000.0);
        let before = clock::monotonic_nanos();
        let mut job = SourceJob::start(source, 1, None).unwrap();
        let mut waited = 0;
        loop {
            match job.step(0, 100).unwrap() {
                SourceStatus::IdleFor(pause) => {
                    assert!(pause <= Duration::from_millis(1));
                    waited += 1;
                    job.pause(pause);
                }
                SourceStatus::End => break,
                _ => {}
            }
        }
        let emitted = job.emitted.take();
        assert!(waited > 0, "nothing was ever early");
        assert!(emitted[0].1 >= before);
        assert!(emitted.windows(2).all(|pair| pair[1].1 - pair[0].1 == 1_000_000), "{emitted:?}");
        assert!(clock::monotonic_nanos() >= emitted[20].1);
    }

    #[test]
    fn what_is_late_is_made_up_for_and_keeps_its_due_time() {
        let source = GeneratorSource::paced(Some(50), |_, due| due).rate(10_000.0);
        let mut job = SourceJob::start(source, 1, None).unwrap();
        job.step(0, 1).unwrap();
        job.flow(0).output_filled();
        job.pause(Duration::from_millis(20));
        assert_eq!(job.step(0, 1000), Ok(SourceStatus::More));
        assert_eq!(job.emitted.borrow().len(), 1);
        job.flow(0).output_freed();
        while job.step(0, 1000).unwrap() != SourceStatus::End {}
        let due = job.emitted.take();
        assert!(due.windows(2).all(|pair| pair[1] - pair[0] == 100_000), "{due:?}");
    }

    #[test]
    #[should_panic(expected = "must be a positive number of records a second, not 0")]
    fn a_rate_of_nothing_is_refused_when_the_job_is_planned() {
        let _ = GeneratorSource::new(None, |index| index).rate(0.0);
    }
}
