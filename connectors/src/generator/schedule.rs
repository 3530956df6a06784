//! Which numbers a subtask makes, and when each is due: a decider; time is counted from its start.

use serde::{Deserialize, Serialize};

/// The numbers `next`, `next + stride`, `next + 2 stride`, ….
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Sequence {
    pub next: u64,
    pub stride: u64,
}

/// The numbers of one subtask. After a restart at another parallelism it may have several sequences, or none.
#[derive(Debug)]
pub struct Schedule {
    /// The smallest next number comes first.
    sequences: Vec<Sequence>,
    end: u64,
    /// The number that is due at the start.
    base: u64,
    nanos_each: Option<f64>,
}

impl Schedule {
    pub fn new(sequences: Vec<Sequence>, count: Option<u64>, parallelism: u32, per_second: Option<f64>) -> Schedule {
        let mut schedule = Schedule {
            sequences,
            end: count.unwrap_or(u64::MAX),
            base: 0,
            nanos_each: per_second.map(|per_second| 1e9 / per_second),
        };
        schedule.put_smallest_first();
        // So that subtasks which start together take turns.
        let first = schedule.sequences.first().map_or(0, |sequence| sequence.next);
        schedule.base = first - first % u64::from(parallelism.max(1));
        schedule
    }

    pub fn is_paced(&self) -> bool {
        self.nanos_each.is_some()
    }

    /// The next number and, if there is a rate, how many nanoseconds after the start it is due.
    #[inline]
    pub fn peek(&self) -> Option<(u64, Option<u64>)> {
        let index = self.sequences.first()?.next;
        let due = self.nanos_each.map(|nanos_each| ((index - self.base) as f64 * nanos_each) as u64);
        (index < self.end).then_some((index, due))
    }

    /// The next number was made.
    #[inline]
    pub fn advance(&mut self) {
        let first = &mut self.sequences[0];
        first.next = first.next.saturating_add(first.stride);
        if self.sequences.len() > 1 {
            self.put_smallest_first();
        }
    }

    pub fn sequences(&self) -> &[Sequence] {
        &self.sequences
    }

    fn put_smallest_first(&mut self) {
        if let Some(smallest) = (0..self.sequences.len()).min_by_key(|index| self.sequences[*index].next) {
            self.sequences.swap(0, smallest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(schedule: &mut Schedule) -> Vec<u64> {
        std::iter::from_fn(|| {
            let (index, _) = schedule.peek()?;
            schedule.advance();
            Some(index)
        })
        .collect()
    }

    #[test]
    fn several_sequences_are_made_in_the_order_of_their_numbers() {
        let sequences = vec![Sequence { next: 7, stride: 2 }, Sequence { next: 4, stride: 4 }];
        assert_eq!(numbers(&mut Schedule::new(sequences, Some(13), 1, None)), [4, 7, 8, 9, 11, 12]);
        assert_eq!(numbers(&mut Schedule::new(Vec::new(), None, 1, None)), [0; 0]);
    }

    #[test]
    fn due_times_are_counted_from_the_first_number_after_a_start() {
        let mut schedule = Schedule::new(vec![Sequence { next: 100 + 1, stride: 2 }], None, 2, Some(1000.0));
        assert_eq!(schedule.peek(), Some((101, Some(1_000_000))), "half a turn after subtask 0");
        schedule.advance();
        assert_eq!(schedule.peek(), Some((103, Some(3_000_000))));
    }

    #[test]
    fn rounding_of_due_times_does_not_add_up() {
        let schedule = Schedule::new(vec![Sequence { next: 0, stride: 1 }], None, 1, Some(3.0));
        let later = Schedule { sequences: vec![Sequence { next: 3_000_000, stride: 1 }], ..schedule };
        let (_, due) = later.peek().unwrap();
        assert!(due.unwrap().abs_diff(1_000_000 * 1_000_000_000) < 1000, "{due:?}");
    }
}
