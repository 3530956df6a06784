//! Every decoder of bytes from outside, over the corpus in `tests/corpus`: what comes of each file is known exactly.
//!
//! `UPDATE_CORPUS=1` writes the corpus anew. Look at what has changed before you commit it: a file of a well-formed input
//! that changed means that the format has. Files that are not among the samples, such as those that once made a decoder
//! panic, stay.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

use millstream_tests::decoders::{DECODERS, Decoder, mutation::Mutator, samples::samples};

/// The file of a folder that says what comes of the others.
const OUTCOMES: &str = "OUTCOMES.txt";

fn folder(decoder: &Decoder) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(decoder.name)
}

/// The files of a folder by name.
fn files(decoder: &Decoder) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder(decoder)).expect("each decoder has a folder");
    let file = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().expect("names are ASCII");
        (name, fs::read(entry.path()).expect("the files can be read"))
    };
    let all = entries.map(|entry| file(entry.expect("the folder can be listed")));
    all.filter(|(name, _)| name != OUTCOMES).collect()
}

fn outcomes(decoder: &Decoder) -> String {
    let files = files(decoder);
    files.iter().map(|(name, bytes)| format!("{name}: {}\n", (decoder.outcome)(bytes))).collect()
}

fn update() {
    for sample in samples() {
        let decoder = DECODERS.iter().find(|decoder| decoder.name == sample.decoder).expect("it is one of them");
        fs::create_dir_all(folder(decoder)).expect("the corpus can be written");
        fs::write(folder(decoder).join(sample.name), &sample.bytes).expect("the corpus can be written");
    }
    for decoder in &DECODERS {
        fs::write(folder(decoder).join(OUTCOMES), outcomes(decoder)).expect("the corpus can be written");
    }
}

#[test]
fn every_file_of_the_corpus_has_exactly_the_outcome_that_is_written_down() {
    if env::var_os("UPDATE_CORPUS").is_some() {
        update();
    }
    let mut files_seen = 0;
    for decoder in &DECODERS {
        let expected = fs::read_to_string(folder(decoder).join(OUTCOMES)).expect("the outcomes are written down");
        let actual = outcomes(decoder);
        for (expected, actual) in expected.lines().zip(actual.lines()) {
            assert_eq!(actual, expected, "{}; UPDATE_CORPUS=1 if this is meant", decoder.name);
        }
        assert_eq!(actual.lines().count(), expected.lines().count(), "files without an outcome for {}", decoder.name);
        files_seen += actual.lines().count();
    }
    assert!(files_seen >= samples().len(), "{files_seen} files");
}

#[test]
fn what_the_encoders_write_today_is_what_the_corpus_has() {
    for sample in samples() {
        let decoder = DECODERS.iter().find(|decoder| decoder.name == sample.decoder).expect("it is one of them");
        let file = fs::read(folder(decoder).join(sample.name));
        let file = file.unwrap_or_else(|_| panic!("{}/{} is missing; UPDATE_CORPUS=1", sample.decoder, sample.name));
        assert_eq!(file, sample.bytes, "{}/{} is another one; UPDATE_CORPUS=1", sample.decoder, sample.name);
    }
}

#[test]
fn inputs_like_those_of_the_corpus_make_no_decoder_panic() {
    for decoder in &DECODERS {
        let seed = fastrand::u64(..);
        let mut mutator = Mutator::new(decoder, files(decoder).into_values().collect(), seed);
        for _ in 0..3_000 {
            if let Err(crash) = mutator.step() {
                panic!("{} with seed {seed}: {} on {:02x?}", decoder.name, crash.cause, crash.input);
            }
        }
    }
}
