//! Feeds every decoder of bytes from outside with mutations of the corpus, for as long as it is told. This is a mutation
//! runner without coverage, not a coverage-guided fuzzer. Argument: seconds per decoder.
//!
//! An input that makes a decoder panic is written into the decoder's folder of the corpus, and the run fails: mend the
//! decoder, give the file a name that says what it is, and write down its outcome with `UPDATE_CORPUS=1`.

use std::{
    fs,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use millstream_tests::decoders::{DECODERS, mutation::Mutator};

#[allow(clippy::disallowed_methods, reason = "it runs for a time that it is told")]
fn main() -> ExitCode {
    let seconds = std::env::args().nth(1).map_or(Ok(10), |seconds| seconds.parse::<u64>());
    let Ok(seconds) = seconds else {
        eprintln!("usage: mutate_decoders [SECONDS PER DECODER]");
        return ExitCode::from(2);
    };
    let mut is_clean = true;
    for decoder in &DECODERS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(decoder.name);
        let files = fs::read_dir(&folder).into_iter().flatten().flatten();
        let corpus = files.filter_map(|entry| fs::read(entry.path()).ok()).collect();
        let seed = fastrand::u64(..);
        let mut mutator = Mutator::new(decoder, corpus, seed);
        let end = Instant::now() + Duration::from_secs(seconds);
        let mut inputs = 0_u64;
        while Instant::now() < end {
            inputs += 1;
            if let Err(crash) = mutator.step() {
                let file = folder.join(format!("panic-{seed:016x}-{inputs}"));
                eprintln!("{}: {} (seed {seed}); the input is in {}", decoder.name, crash.cause, file.display());
                if let Err(cause) = fs::write(&file, &crash.input) {
                    eprintln!("it cannot be written: {cause}; it is {:02x?}", crash.input);
                }
                is_clean = false;
                break;
            }
        }
        println!("{}: {inputs} inputs, {} of them worth mutating, seed {seed}", decoder.name, mutator.pool());
    }
    if is_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
