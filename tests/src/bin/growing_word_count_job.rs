//! The job of the tests in which files appear while it runs: it never ends by itself. Every running count of every word
//! goes into files, so that a lost or doubled record shows. Arguments: the folder that is watched and that of the output.

use std::time::Duration;

use millstream::{
    connectors::{TextFileSink, TextFileSource},
    prelude::*,
};

#[millstream::main]
fn main() -> Result<(), JobError> {
    let arguments: Vec<String> = millstream::args().collect();
    let [input, output] = &arguments[..] else {
        eprintln!("usage: growing_word_count_job INPUT OUTPUT");
        std::process::exit(2);
    };
    let env = StreamExecutionEnvironment::get();
    let source = TextFileSource::new([input]).monitor_continuously(Duration::from_millis(20)).split_bytes(64 << 10);
    let lines = env.from_source(source).uid("lines");
    let words = lines.flat_map::<String, _>(|line, out| line.split(' ').for_each(|word| out.emit(word)));
    let counts = words.key_by::<String, _>(|word| *word).count().uid("counts");
    let _ = counts.sink_to(TextFileSink::tab_separated::<(String, u64)>(output)).uid("files");
    env.execute("growing word count")?;
    Ok(())
}
