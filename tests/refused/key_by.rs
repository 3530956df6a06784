//! Must not build: the closure captures `factor`.

use millstream::prelude::*;

fn main() {
    let env = StreamExecutionEnvironment::get();
    let factor = std::env::args().count() as u64;
    let numbers = env.from_collection(0..3_u64);
    let _ = numbers.key_by::<u64, _>(move |number| *number % factor).count().discard(); // the line that the message must name
}
