//! The job of the memory tests. Arguments: a name, and what grows: `state`, a kilobyte for each of ever more keys; `heap`, what
//! a function keeps besides state; `timers`; or `nothing`: a few thousand keys, again and again, until it is cancelled.

use std::{process, time::Duration};

use millstream::{connectors::GeneratorSource, prelude::*};

const FEW: u64 = 5_000;
const PIECE_BYTES: usize = 64 << 10;

/// Keeps a text per key, or a timer.
struct Hoard {
    texts: ValueState<u64, String>,
    sets_timers: bool,
}

impl KeyedProcessFunction for Hoard {
    type Key = u64;
    type In = u64;
    type Out = u64;
    type Conf = bool;

    fn open(sets_timers: bool, context: &mut RuntimeContext) -> Result<Self, Failure> {
        Ok(Hoard { texts: context.value_state("texts")?, sets_timers })
    }

    fn process(&mut self, number: u64, context: &KeyedContext<'_, u64>, _: &mut Out<'_, u64>) -> Result<(), Failure> {
        if self.sets_timers {
            let later = context.current_processing_time() + Duration::from_secs(3600).as_millis() as i64;
            context.register_processing_time_timer(later + (number % 1000) as i64);
        } else {
            self.texts.update(context, |text| {
                text.clear();
                text.extend((0..1024).map(|_| 'x'));
            });
        }
        Ok(())
    }
}

#[millstream::main]
fn main() -> Result<(), JobError> {
    let arguments: Vec<String> = millstream::args().collect();
    let [name, what] = &arguments[..] else {
        eprintln!("usage: hungry_job NAME state|heap|timers|nothing");
        process::exit(2);
    };
    let env = StreamExecutionEnvironment::get();
    let few = if what == "nothing" { FEW } else { u64::MAX };
    // Fast enough to be done soon, and slow enough to leave others a turn.
    let numbers = GeneratorSource::new(None, |index| index).rate(100_000.0);
    let numbers = env.from_source(numbers).name("numbers").set_parallelism(1);
    let numbers = numbers.map_with(few, |few, number| number % *few).name("few");
    match what.as_str() {
        "heap" => {
            let glutted = numbers.rich_map(
                (),
                |(), _| Ok(Vec::<Vec<u8>>::new()),
                |kept, number| {
                    // Written to, so that it is there and not only promised.
                    kept.push(vec![number as u8 | 1; PIECE_BYTES]);
                    number
                },
            );
            glutted.name("glutton").set_parallelism(1).discard();
        }
        _ => {
            let hoard = numbers.key_by::<u64, _>(|number| *number).process::<Hoard>(what == "timers");
            hoard.name("hoard").set_parallelism(1).discard();
        }
    }
    env.execute(name)?;
    Ok(())
}
