//! The job of the tests of failover by region: two word counts with nothing between them, in slots of their own. It never
//! ends by itself. Every running count of every word goes into files, so that a lost or doubled record shows.
//!
//! Arguments: for each of `left` and `right` the folder that is watched and that of the output. Beside the folder of the
//! output each leaves a file `pid` that says which process counts. A line `panic once` makes the function panic, unless
//! there is a file `panicked` beside the folder of the output, which it makes first.

use std::{fs, path::Path, process, sync::atomic::AtomicBool, sync::atomic::Ordering, time::Duration};

use millstream::{
    connectors::{TextFileSink, TextFileSource},
    prelude::*,
};

static TOLD: [AtomicBool; 2] = [AtomicBool::new(false), AtomicBool::new(false)];

fn beside(output: &str, name: &str) -> std::path::PathBuf {
    Path::new(output).parent().expect("the output is in a folder").join(name)
}

fn watch(side: usize, output: &str, line: &str) {
    if !TOLD[side].swap(true, Ordering::Relaxed) {
        fs::write(beside(output, "pid.new"), process::id().to_string()).expect("the test's folder can be written to");
        fs::rename(beside(output, "pid.new"), beside(output, "pid")).expect("the test's folder can be written to");
    }
    if line == "panic once" && !beside(output, "panicked").exists() {
        fs::write(beside(output, "panicked"), "").expect("the test's folder can be written to");
        panic!("as it was told to");
    }
}

#[millstream::main]
fn main() -> Result<(), JobError> {
    let arguments: Vec<String> = millstream::args().collect();
    let [left_in, left_out, right_in, right_out] = &arguments[..] else {
        eprintln!("usage: two_counts_job INPUT OUTPUT INPUT OUTPUT");
        process::exit(2);
    };
    let env = StreamExecutionEnvironment::get();
    for (side, name, input, output) in [(0, "left", left_in, left_out), (1, "right", right_in, right_out)] {
        let source = TextFileSource::new([input]).monitor_continuously(Duration::from_millis(20)).split_bytes(64 << 10);
        let lines = env.from_source(source).uid(&format!("lines {name}")).name(&format!("lines {name}"));
        let lines = lines.slot_sharing_group(name);
        let words =
            lines.flat_map_with::<(usize, String), String, _>((side, output.clone()), |(side, output), line, out| {
                watch(*side, output, line);
                line.split(' ').for_each(|word| out.emit(word));
            });
        let counts = words.key_by::<String, _>(|word| *word).count().uid(&format!("counts {name}"));
        let counts = counts.name(&format!("counts {name}"));
        let _ = counts.sink_to(TextFileSink::tab_separated::<(String, u64)>(output)).uid(&format!("files {name}"));
    }
    env.execute("two counts")?;
    Ok(())
}
