//! What an operator costs on records of 4 and of 40 fields, half of them texts, when it reads two of them.
//!
//! ```text
//!  source ──exchange──► repeat ─► filter ─► filter ─► filter ─► sink      one thread; each operator reads two fields
//! ```
//! Behind the exchange each record is repeated, in place, so that the cost of writing it into the exchange (which does
//! grow with its fields) is spread over many and what is left is that of the operators. With `variant=once` it is not
//! repeated: the cost of the exchange itself.

use anyhow::{Result, ensure};
use millstream::{
    context::RuntimeContext,
    metrics::Counter,
    model::message::TaskResult,
    prelude::*,
    sink::{Sink, SinkWriter},
    source::{Source, SourceOut, SourceReader, SourceSnapshot, SourceStatus},
};
use millstream_benches::{
    options::{self, Common, NoneOfItsOwn},
    report::Run,
    span,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

const BENCH: &str = "records";
const OPERATORS: u64 = 4;
/// How often each record passes the operators.
const REPEAT: u64 = 200;
/// Different records that the source emits in turn.
const DIFFERENT: u64 = 64;

#[millstream::main]
fn main() -> Result<()> {
    let (Common { repetitions, quick, .. }, NoneOfItsOwn {}) = options::parse();
    let records = if quick { 50_000 } else { 1_000_000 };
    for _ in 0..repetitions {
        Narrow::measure(records, 4)?;
        Wide::measure(records, 40)?;
    }
    Ok(())
}

/// Not so short that it lies inside the archived string.
fn text(number: u64) -> String {
    format!("text number {number}")
}

/// 2 numbers and 2 texts.
#[derive(Record)]
struct Narrow {
    number_0: u64,
    number_1: u64,
    text_0: String,
    text_1: String,
}

/// 20 numbers and 20 texts.
#[derive(Record)]
struct Wide {
    number_0: u64,
    number_1: u64,
    number_2: u64,
    number_3: u64,
    number_4: u64,
    number_5: u64,
    number_6: u64,
    number_7: u64,
    number_8: u64,
    number_9: u64,
    number_10: u64,
    number_11: u64,
    number_12: u64,
    number_13: u64,
    number_14: u64,
    number_15: u64,
    number_16: u64,
    number_17: u64,
    number_18: u64,
    number_19: u64,
    text_0: String,
    text_1: String,
    text_2: String,
    text_3: String,
    text_4: String,
    text_5: String,
    text_6: String,
    text_7: String,
    text_8: String,
    text_9: String,
    text_10: String,
    text_11: String,
    text_12: String,
    text_13: String,
    text_14: String,
    text_15: String,
    text_16: String,
    text_17: String,
    text_18: String,
    text_19: String,
}

macro_rules! bench {
    ($record:ident, $handle:ident, $source:ident, $reader:ident, $sink:ident, $writer:ident) => {
        impl $record {
            fn measure(records: u64, fields: u64) -> Result<()> {
                let conditions = || json!({ "fields": fields, "records": records, "operators": OPERATORS,
                                            "parallelism": 1, "transport": "memory" });
                let report = Run::start(BENCH, conditions());
                let mut env = StreamExecutionEnvironment::get();
                env.set_parallelism(1);
                env.from_source($source { records })
                    .rebalance()
                    .flat_map::<$record, _>(|record, out| (0..REPEAT).for_each(|_| out.emit(record)))
                    .filter(|record| record.number_0() != u64::MAX && record.text_0().len() > 3)
                    .filter(|record| record.number_1() != u64::MAX && record.text_1().len() > 3)
                    .filter(|record| record.number_0() != u64::MAX && record.text_1().len() > 3)
                    .sink_to($sink);
                span::start();
                let result = env.execute(BENCH)?;
                ensure!(result.accumulator("records") as u64 == records * REPEAT, "records were lost");
                let nanos = span::seconds() * 1e9 / (records * REPEAT * OPERATORS) as f64;
                report.report(&[("ns_per_record", nanos, "ns")]);

                let mut report = Run::start(BENCH, conditions());
                env.from_source($source { records: records * 4 })
                    .rebalance()
                    .filter(|record| record.number_0() != u64::MAX && record.text_0().len() > 3)
                    .filter(|record| record.number_1() != u64::MAX && record.text_1().len() > 3)
                    .filter(|record| record.number_0() != u64::MAX && record.text_1().len() > 3)
                    .sink_to($sink);
                span::start();
                env.execute(BENCH)?;
                report.add(json!({ "variant": "once", "records": records * 4, "operators": 1 }));
                report.report(&[("ns_per_record", span::seconds() * 1e9 / (records * 4) as f64, "ns")]);
                Ok(())
            }
        }

        #[derive(Serialize, Deserialize)]
        struct $source {
            records: u64,
        }

        impl Source for $source {
            type Out = $record;
            type Reader = $reader;

            fn reader(self, _: &mut RuntimeContext) -> Result<$reader, Failure> {
                Ok($reader { made: (0..DIFFERENT).map($record::nth).collect(), next: 0, end: self.records })
            }
        }

        struct $reader {
            made: Vec<$record>,
            next: u64,
            end: u64,
        }

        impl SourceReader for $reader {
            type Out = $record;

            fn poll(&mut self, out: &mut SourceOut<'_, $record>) -> Result<SourceStatus, Failure> {
                while !out.should_pause() {
                    if self.next == self.end {
                        return Ok(SourceStatus::End);
                    }
                    out.emit(&self.made[(self.next % DIFFERENT) as usize]);
                    self.next += 1;
                }
                Ok(SourceStatus::More)
            }

            fn snapshot(&mut self, _: &mut SourceSnapshot<'_>) {}

            fn position(&self) -> String {
                format!("record {}", self.next)
            }
        }

        #[derive(Serialize, Deserialize)]
        struct $sink;

        impl Sink for $sink {
            type In = $record;
            type Writer = $writer;

            fn writer(self, context: &mut RuntimeContext) -> Result<$writer, Failure> {
                Ok($writer { records: 0, sum: 0, total: context.accumulator("records") })
            }
        }

        struct $writer {
            records: u64,
            sum: u64,
            total: Counter,
        }

        impl SinkWriter for $writer {
            type In = $record;

            #[inline]
            fn write(&mut self, record: $handle<'_>, _: EventTime) -> Result<(), Failure> {
                self.sum = self.sum.wrapping_add(record.number_0() + record.text_0().len() as u64);
                self.records += 1;
                Ok(())
            }

            fn flush(&mut self) -> Result<(), Failure> {
                span::ended();
                Ok(())
            }

            fn finish(&mut self, _: &mut TaskResult) -> Result<(), Failure> {
                std::hint::black_box(self.sum);
                self.total.add(self.records as i64);
                Ok(())
            }
        }
    };
}
bench!(Narrow, NarrowRef, NarrowSource, NarrowReader, NarrowSink, NarrowWriter);
bench!(Wide, WideRef, WideSource, WideReader, WideSink, WideWriter);

impl Narrow {
    fn nth(index: u64) -> Narrow {
        Narrow { number_0: index, number_1: index + 1, text_0: text(index), text_1: text(index + 1) }
    }
}

impl Wide {
    fn nth(index: u64) -> Wide {
        Wide {
            number_0: index,
            number_1: index + 1,
            number_2: index + 2,
            number_3: index + 3,
            number_4: index + 4,
            number_5: index + 5,
            number_6: index + 6,
            number_7: index + 7,
            number_8: index + 8,
            number_9: index + 9,
            number_10: index + 10,
            number_11: index + 11,
            number_12: index + 12,
            number_13: index + 13,
            number_14: index + 14,
            number_15: index + 15,
            number_16: index + 16,
            number_17: index + 17,
            number_18: index + 18,
            number_19: index + 19,
            text_0: text(index),
            text_1: text(index + 1),
            text_2: text(index + 2),
            text_3: text(index + 3),
            text_4: text(index + 4),
            text_5: text(index + 5),
            text_6: text(index + 6),
            text_7: text(index + 7),
            text_8: text(index + 8),
            text_9: text(index + 9),
            text_10: text(index + 10),
            text_11: text(index + 11),
            text_12: text(index + 12),
            text_13: text(index + 13),
            text_14: text(index + 14),
            text_15: text(index + 15),
            text_16: text(index + 16),
            text_17: text(index + 17),
            text_18: text(index + 18),
            text_19: text(index + 19),
        }
    }
}
