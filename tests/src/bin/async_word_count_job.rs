//! The word count of the kill tests with an async function in front of it, which takes its time: at any moment, hundreds of
//! lines are neither in the input nor in the counts. Arguments: the directory of the input and that of the output.

use std::time::Duration;

use millstream::{
    connectors::file::{TextFileSink, TextFileSource},
    prelude::*,
};

#[millstream::main]
fn main() -> Result<(), JobError> {
    let arguments: Vec<String> = millstream::args().collect();
    let [input, output] = &arguments[..] else {
        eprintln!("usage: async_word_count_job INPUT OUTPUT");
        std::process::exit(2);
    };
    let env = StreamExecutionEnvironment::get();
    let lines = env.from_source(TextFileSource::new([input]).split_bytes(256 << 10)).uid("lines");
    let wait = AsyncWait::unordered(Duration::from_secs(60)).capacity(50);
    let slow = lines.async_map(wait, |line| async move {
        // From 1 to 3 ms, so that lines overtake each other.
        tokio::time::sleep(Duration::from_millis(1 + line.len() as u64 % 3)).await;
        Ok(line)
    });
    let words = slow.uid("slow").flat_map::<String, _>(|line, out| line.split(' ').for_each(|word| out.emit(word)));
    let counts = words.key_by::<String, _>(|word| *word).count().uid("counts");
    let _ = counts.sink_to(TextFileSink::tab_separated::<(String, u64)>(output)).uid("files");
    let result = env.execute("async word count")?;
    println!("finished after {} checkpoints and {} restarts", result.checkpoints(), result.restarts());
    Ok(())
}
