//! The keyed-sum workload, as in `benches/baselines/harness/src/records.rs`: the same records, keys and answers.

use anyhow::ensure;
use millstream::{
    context::RuntimeContext,
    metrics::Counter,
    model::message::TaskResult,
    prelude::*,
    sink::{Sink, SinkWriter},
    source::{Source, SourceOut, SourceReader, SourceSnapshot, SourceStatus},
};
use serde::{Deserialize, Serialize};

use crate::stamp::Stamp;

/// 100 bytes.
#[derive(Record)]
pub struct Event {
    pub key: u64,
    pub value: u64,
    pub payload: [u8; 84],
}

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
static PAYLOAD: [u8; 84] = [7; 84];

/// The `index`th output of SplitMix64 seeded with 0 (Steele, Lea, Flood 2014).
#[inline]
pub fn splitmix(index: u64) -> u64 {
    let mut z = (index + 1).wrapping_mul(GOLDEN);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Records `0..records`; of two subtasks, each makes every other one.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct KeyedSum {
    pub records: u64,
    pub keys: u64,
}

impl KeyedSum {
    #[inline]
    fn key(&self, index: u64) -> u64 {
        splitmix(index) % self.keys
    }

    /// Not 0, so that no sum is.
    #[inline]
    fn value(index: u64) -> u64 {
        index + 1
    }

    /// Whether a job of a [`CheckSum`] with this stride has come to the right sums.
    ///
    /// # Errors
    /// If it has not, or was restarted.
    pub fn check(&self, stride: u64, result: &JobExecutionResult) -> Result<(), anyhow::Error> {
        let (distinct, sum) = self.expected(stride);
        ensure!(result.restarts() == 0, "the job was restarted");
        ensure!(result.accumulator("updates") == self.records as i64, "{} updates", result.accumulator("updates"));
        ensure!(result.accumulator("distinct") == distinct as i64, "{} distinct keys", result.accumulator("distinct"));
        ensure!(result.accumulator("sum") == sum as i64, "the sums add up to {}", result.accumulator("sum"));
        Ok(())
    }

    /// How many of the keys that are multiples of `stride` occur, and the sum of their last running sums.
    fn expected(&self, stride: u64) -> (u64, u64) {
        let mut seen = vec![false; self.keys as usize];
        let (mut distinct, mut sum) = (0, 0_u64);
        for index in 0..self.records {
            let key = self.key(index);
            if key.is_multiple_of(stride) {
                distinct += u64::from(!std::mem::replace(&mut seen[key as usize], true));
                sum = sum.wrapping_add(Self::value(index));
            }
        }
        (distinct, sum)
    }
}

impl Source for KeyedSum {
    type Out = Event;
    type Reader = KeyedSumReader;

    fn reader(self, context: &mut RuntimeContext) -> Result<KeyedSumReader, Failure> {
        let step = context.number_of_parallel_subtasks().into();
        let mut index = context.index_of_this_subtask().into();
        if let Some(position) = context.take_restored("index").first() {
            let position = position.as_slice().try_into().map_err(|_| Failure::fatal("the position is no number"))?;
            index = u64::from_le_bytes(position);
        }
        Ok(KeyedSumReader { work: self, index, step, began: Some(Stamp::new("began", context)) })
    }
}

/// Makes every `step`th record, the first one with the stamp `began`.
pub struct KeyedSumReader {
    work: KeyedSum,
    index: u64,
    step: u64,
    began: Option<Stamp>,
}

impl SourceReader for KeyedSumReader {
    type Out = Event;

    fn poll(&mut self, out: &mut SourceOut<'_, Event>) -> Result<SourceStatus, Failure> {
        if let Some(began) = self.began.take() {
            began.now();
        }
        while !out.should_pause() {
            if self.index >= self.work.records {
                return Ok(SourceStatus::End);
            }
            let (key, value) = (self.work.key(self.index), KeyedSum::value(self.index));
            out.emit(&EventParts { key, value, payload: &PAYLOAD });
            self.index += self.step;
        }
        Ok(SourceStatus::More)
    }

    fn snapshot(&mut self, snapshot: &mut SourceSnapshot<'_>) {
        snapshot.split("index", self.index.to_le_bytes().to_vec());
    }

    fn position(&self) -> String {
        format!("record {}", self.index)
    }
}

/// Adds all updates up, and remembers the last one of each key that is a multiple of `stride`.
#[derive(Serialize, Deserialize)]
pub struct CheckSum {
    pub keys: u64,
    pub stride: u64,
}

impl Sink for CheckSum {
    type In = (u64, u64);
    type Writer = CheckSumWriter;

    fn writer(self, context: &mut RuntimeContext) -> Result<CheckSumWriter, Failure> {
        let last = vec![0; self.keys.div_ceil(self.stride) as usize].into();
        let totals = ["emitted", "updates", "distinct", "sum"].map(|name| context.accumulator(name));
        Ok(CheckSumWriter {
            stride: self.stride,
            last,
            emitted: 0,
            updates: 0,
            totals,
            ended: Stamp::new("ended", context),
        })
    }
}

/// Leaves `updates` and what they come to; and, whenever it is flushed, the stamp `ended`.
pub struct CheckSumWriter {
    stride: u64,
    last: Box<[u64]>,
    emitted: u64,
    updates: u64,
    totals: [Counter; 4],
    ended: Stamp,
}

impl SinkWriter for CheckSumWriter {
    type In = (u64, u64);

    #[inline]
    fn write(&mut self, (key, sum): (u64, u64), _: EventTime) -> Result<(), Failure> {
        self.emitted = self.emitted.wrapping_add(sum);
        self.updates += 1;
        if key & (self.stride - 1) == 0 {
            self.last[(key / self.stride) as usize] = sum;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.ended.now();
        Ok(())
    }

    fn finish(&mut self, _: &mut TaskResult) -> Result<(), Failure> {
        let distinct = self.last.iter().filter(|sum| **sum != 0).count() as u64;
        let sum = self.last.iter().copied().fold(0, u64::wrapping_add);
        for (total, value) in self.totals.iter().zip([self.emitted, self.updates, distinct, sum]) {
            total.add(value as i64);
        }
        Ok(())
    }
}
