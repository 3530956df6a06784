//! Must not build: the closure captures `factor`.

use millstream::prelude::*;

fn main() {
    let env = StreamExecutionEnvironment::get();
    let factor = std::env::args().count() as u64;
    let numbers = env.from_collection(0..3_u64);
    let _ = numbers.filter(move |number| number % factor == 0).discard(); // the line that the message must name
}
