//! `millstream new`: what it makes builds with plain cargo, runs, and prints what its comments and its README say.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use millstream_tests::program::{self, built, fail, succeed, workspace};

/// A new crate, in a folder that is the same on every run: so cargo finds again what it has built of it.
fn new_crate(name: &str) -> PathBuf {
    let around = Path::new(env!("CARGO_TARGET_TMPDIR")).join("scaffold");
    fs::create_dir_all(&around).unwrap();
    let folder = around.join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder).unwrap();
    }
    let said = succeed(Command::new(built("millstream")).args(["new", name]).current_dir(&around));
    assert!(said.contains(&format!("cd {name}\n  cargo run\n")), "{said}");
    // The versions that everything else is tested with; and nothing is asked of the network.
    fs::copy(workspace().join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();
    folder
}

fn cargo(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = program::cargo();
    command.args(arguments).current_dir(folder);
    command
}

/// The words of the program's text, counted here.
fn counts() -> BTreeMap<(String, u64), u64> {
    let mut totals = BTreeMap::<&str, u64>::new();
    let mut counts = BTreeMap::new();
    let text = "to be or not to be that is the question whether it is nobler to count";
    for word in text.split(' ') {
        let total = totals.entry(word).or_default();
        *total += 1;
        *counts.entry((word.to_owned(), *total)).or_default() += 1;
    }
    counts
}

/// Lines as `print()` writes them: the subtask, if there are several, and the record.
fn printed(output: &str) -> BTreeMap<(String, u64), u64> {
    let mut counts = BTreeMap::new();
    for line in output.lines() {
        let record = line.split_once("> ").map_or(line, |(_, record)| record);
        let record = record.trim_start_matches('(').trim_end_matches(')');
        let (word, count) = record.split_once(", ").unwrap_or_else(|| panic!("no record: {line:?}"));
        *counts.entry((word.trim_matches('"').to_owned(), count.parse().unwrap())).or_default() += 1;
    }
    counts
}

#[test]
fn a_new_crate_builds_and_counts_its_words() {
    let folder = new_crate("word-counter");
    let readme = fs::read_to_string(folder.join("README.md")).unwrap();

    // As its README says, apart from --quiet.
    assert!(
        readme.contains("| `cargo run` |") && readme.contains("`cargo run -- -Dparallelism.default=4`"),
        "{readme}"
    );
    let output = succeed(&mut cargo(&folder, &["run", "--quiet"]));
    assert_eq!(printed(&output), counts(), "{output}");
    let output = succeed(&mut cargo(&folder, &["run", "--quiet", "--", "-Dparallelism.default=4"]));
    assert_eq!(printed(&output), counts(), "{output}");

    // `target/release/NAME` there; the profile makes no difference to what is shown.
    assert!(readme.contains("`millstream info target/release/word-counter`"), "{readme}");
    let target = PathBuf::from(succeed_json(&folder, "target_directory"));
    let artifact = target.join("debug/word-counter");
    let shown = succeed(Command::new(built("millstream")).arg("info").arg(&artifact));
    assert!(shown.contains("Job           'word-counter', "), "{shown}");
    assert!(shown.contains("2 slots"), "{shown}");
    // A name that is taken is left alone.
    let (code, said) =
        fail(Command::new(built("millstream")).args(["new", "word-counter"]).current_dir(folder.parent().unwrap()));
    assert_eq!(code, 1);
    assert!(said.contains("not empty"), "{said}");
}

/// A text of `cargo metadata`.
fn succeed_json(folder: &Path, key: &str) -> String {
    let metadata = succeed(&mut cargo(folder, &["metadata", "--format-version=1", "--no-deps", "--offline"]));
    let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    metadata[key].as_str().unwrap().to_owned()
}
