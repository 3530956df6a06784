//! A sink that keeps the ten most frequent words, and measures how long words took to come here.

use std::collections::BTreeMap;

use millstream::{
    model::message::TaskResult,
    prelude::*,
    sink::{Sink, SinkSnapshot, SinkWriter},
};
use serde::{Deserialize, Serialize};

use crate::latency::Latencies;

const SHOWN: usize = 10;
/// The accumulators that carry the words: `top/<subtask>/<word>`.
const PREFIX: &str = "top/";
const STATE: &str = "top";

/// The sink as the program names it. It travels to the workers, so it is serializable; there is nothing to say to it.
#[derive(Serialize, Deserialize)]
pub struct TopWords;

impl Sink for TopWords {
    type In = (String, u64);
    type Writer = TopWordsWriter;

    fn writer(self, context: &mut RuntimeContext) -> Result<TopWordsWriter, Failure> {
        let mut top = Top::default();
        // What the last checkpoint holds, if the job continues from one. At another parallelism this may be the list of
        // another subtask, or of several.
        for list in context.take_restored(STATE) {
            top.restore(&String::from_utf8_lossy(&list));
        }
        Ok(TopWordsWriter { subtask: context.index_of_this_subtask(), top, latencies: Latencies::open(context) })
    }
}

/// The half of the sink that takes records: one for each subtask.
pub struct TopWordsWriter {
    subtask: u32,
    top: Top,
    latencies: Latencies,
}

impl SinkWriter for TopWordsWriter {
    type In = (String, u64);

    fn write(&mut self, (word, count): (&str, u64), emitted: EventTime) -> Result<(), Failure> {
        self.latencies.arrived(emitted);
        self.top.offer(word, count);
        Ok(())
    }

    /// A checkpoint: what the sink has must be part of it.
    fn prepare(&mut self, snapshot: &mut SinkSnapshot<'_>) -> Result<(), Failure> {
        snapshot.split(STATE, self.top.to_string().into_bytes());
        Ok(())
    }

    /// The job is complete: the words go to the client with the job's result.
    fn finish(&mut self, result: &mut TaskResult) -> Result<(), Failure> {
        for (word, count) in &self.top.entries {
            let count = i64::try_from(*count).unwrap_or(i64::MAX);
            result.accumulators.insert(format!("{PREFIX}{}/{word}", self.subtask), count);
        }
        Ok(())
    }
}

/// The words with the highest counts, from the accumulators of a job that has ended.
pub fn of(accumulators: &BTreeMap<String, i64>) -> Vec<(String, u64)> {
    let mut top = Top::default();
    for (name, count) in accumulators {
        if let Some((_, word)) = name.strip_prefix(PREFIX).and_then(|name| name.split_once('/')) {
            top.offer(word, count.unsigned_abs());
        }
    }
    let mut entries = top.entries;
    entries.sort_by(|(a, a_count), (b, b_count)| b_count.cmp(a_count).then_with(|| a.cmp(b)));
    entries
}

/// The most frequent words so far. Since counts only rise, the last count of a frequent word is high enough to enter the
/// list, however it came about; of words with the same count, the first ones stay.
#[derive(Default)]
struct Top {
    entries: Vec<(String, u64)>,
    /// The lowest count in the list, once it is full.
    lowest: u64,
}

impl Top {
    /// Most words end at the first comparison; none allocates once the list is full.
    fn offer(&mut self, word: &str, count: u64) {
        if count <= self.lowest {
            return;
        }
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.0 == word) {
            entry.1 = entry.1.max(count);
        } else if self.entries.len() < SHOWN {
            self.entries.push((word.to_owned(), count));
        } else if let Some(entry) = self.entries.iter_mut().min_by_key(|entry| entry.1) {
            entry.0.clear();
            entry.0.push_str(word);
            entry.1 = count;
        }
        if self.entries.len() == SHOWN {
            self.lowest = self.entries.iter().map(|entry| entry.1).min().unwrap_or(0);
        }
    }

    fn restore(&mut self, list: &str) {
        for (count, word) in list.lines().filter_map(|line| line.split_once(' ')) {
            self.offer(word, count.parse().unwrap_or(0));
        }
    }
}

impl std::fmt::Display for Top {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.entries.iter().try_for_each(|(word, count)| writeln!(f, "{count} {word}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_the_highest_counts_in_whatever_order_words_come() {
        // Word i comes i times; all orders of steps that a simple generator makes.
        let mut state = 1_u64;
        let mut left: Vec<(u64, u64)> = (1..=40).map(|word| (word, 0)).collect();
        let mut top = Top::default();
        while !left.is_empty() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (state >> 33) as usize % left.len();
            let (word, count) = &mut left[at];
            *count += 1;
            top.offer(&word.to_string(), *count);
            if count == word {
                left.swap_remove(at);
            }
        }
        let mut found: Vec<u64> = top
            .entries
            .iter()
            .map(|(word, count)| {
                assert_eq!(word, &count.to_string());
                *count
            })
            .collect();
        found.sort_unstable();
        assert_eq!(found, (31..=40).collect::<Vec<u64>>());
    }

    #[test]
    fn a_word_that_comes_late_takes_the_place_of_the_rarest() {
        let mut top = Top::default();
        (1..=SHOWN as u64).for_each(|count| top.offer(&count.to_string(), count));
        top.offer("late", 7);
        top.offer("too rare", 2);
        let found: Vec<_> = top.entries.iter().filter(|(_, count)| *count <= 2 || *count == 7).collect();
        assert_eq!(found, [&("late".to_owned(), 7), &("2".to_owned(), 2), &("7".to_owned(), 7)]);
    }

    #[test]
    fn a_list_survives_a_checkpoint() {
        let mut top = Top::default();
        [("to", 2), ("be", 7), ("or", 1)].into_iter().for_each(|(word, count)| top.offer(word, count));
        let mut restored = Top::default();
        restored.restore(&top.to_string());
        assert_eq!(restored.entries, top.entries);
    }

    #[test]
    fn lists_of_several_subtasks_are_merged() {
        let names = [("top/0/to", 2), ("top/0/be", 7), ("top/1/or", 2), ("words", 11), ("top/1/be", 3)];
        let accumulators = names.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
        assert_eq!(of(&accumulators), [("be", 7), ("or", 2), ("to", 2)].map(|(word, count)| (word.to_owned(), count)));
    }
}
