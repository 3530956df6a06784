//! The job of the tests of metrics and of `millstream why`: it never ends by itself, its functions tell numbers of
//! themselves, and one of them is too slow for the others. Arguments: how it is slow (`evenly`, `skewed` or `never`).

use std::{thread, time::Duration};

use millstream::{connectors::GeneratorSource, prelude::*};

/// Counts what it lets through, and says what it was last.
struct Telling {
    seen: Counter,
    last: Gauge,
}

impl ProcessFunction for Telling {
    type In = u64;
    type Out = u64;
    type Conf = ();

    fn open((): (), context: &mut RuntimeContext) -> Result<Self, Failure> {
        let metrics = context.metrics();
        Ok(Telling { seen: metrics.counter("numSeen"), last: metrics.gauge("last seen") })
    }

    fn process(&mut self, number: u64, _: &ProcessContext<'_>, out: &mut Out<'_, u64>) -> Result<(), Failure> {
        self.seen.add(1);
        self.last.set(number as f64);
        out.emit(number);
        Ok(())
    }
}

/// Takes its time. Of a skewed job one number is nine of ten, and only that is slow.
#[expect(clippy::disallowed_methods, reason = "a job that is slow on purpose")]
fn take(manner: &str, key: u64) -> u64 {
    match manner {
        "evenly" => thread::sleep(Duration::from_micros(500)),
        "skewed" if key == 0 => thread::sleep(Duration::from_micros(200)),
        _ => {}
    }
    key
}

#[millstream::main]
fn main() -> Result<(), JobError> {
    let manner = millstream::args().next().unwrap_or_default();
    let env = StreamExecutionEnvironment::get();
    let numbers = match &*manner {
        "skewed" => {
            env.from_source(GeneratorSource::new(None, |index| if index.is_multiple_of(10) { index } else { 0 }))
        }
        "evenly" => env.from_source(GeneratorSource::new(None, |index| index)),
        _ => env.from_source(GeneratorSource::new(None, |index| index).rate(1_000.0)),
    };
    let numbers = numbers.name("numbers").set_parallelism(1);
    let told = numbers.process::<Telling>(()).name("tell").set_parallelism(1);
    let taken = told.key_by::<u64, _>(|number| number % 1_000).count().name("take");
    let _ = taken.map_with(manner, |manner, (key, _)| take(manner, key)).name("slowly").discard();
    env.execute("telling")?;
    Ok(())
}
