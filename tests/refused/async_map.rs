//! Must not build: the closure captures `factor`.

use millstream::prelude::*;

fn main() {
    let env = StreamExecutionEnvironment::get();
    let (factor, wait) = (std::env::args().count() as u64, AsyncWait::ordered(std::time::Duration::ZERO));
    let numbers = env.from_collection(0..3_u64);
    let _ = numbers.async_map(wait, move |number| async move { Ok(number * factor) }).discard(); // the line that the message must name
}
