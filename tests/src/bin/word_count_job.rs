//! The job of the kill tests: every running count of every word goes into files, so that a lost or doubled record
//! shows. Arguments: the directory of the input and that of the output.

use millstream::{
    connectors::file::{TextFileSink, TextFileSource},
    prelude::*,
};

#[millstream::main]
fn main() -> Result<(), JobError> {
    let arguments: Vec<String> = millstream::args().collect();
    let [input, output] = &arguments[..] else {
        eprintln!("usage: word_count_job INPUT OUTPUT");
        std::process::exit(2);
    };
    let env = StreamExecutionEnvironment::get();
    let lines = env.from_source(TextFileSource::new([input]).split_bytes(256 << 10)).uid("lines");
    let words = lines.flat_map::<String, _>(|line, out| line.split(' ').for_each(|word| out.emit(word)));
    let counts = words.key_by::<String, _>(|word| *word).count().uid("counts");
    let _ = counts.sink_to(TextFileSink::tab_separated::<(String, u64)>(output)).uid("files");
    let result = env.execute("word count")?;
    println!("finished after {} checkpoints and {} restarts", result.checkpoints(), result.restarts());
    Ok(())
}
