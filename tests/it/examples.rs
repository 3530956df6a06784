//! The programs in `examples/` do what their docs say. They are run as a user runs them: as processes.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use millstream_tests::{
    counts::{deviation, visible},
    program::{built, fail, succeed, workspace},
};

/// How often each word is in the files below `paths`. A word is a maximal run of ASCII letters and digits, in lower case:
/// counted from the bytes, without the engine.
fn words_of(paths: &[PathBuf]) -> BTreeMap<String, u64> {
    let mut totals = BTreeMap::new();
    for path in paths {
        if path.is_dir() {
            let mut below: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
            below.retain(|path| !path.file_name().unwrap().to_string_lossy().starts_with(['.', '_']));
            words_of(&below).into_iter().for_each(|(word, count)| *totals.entry(word).or_default() += count);
            continue;
        }
        let mut word = String::new();
        for byte in fs::read(path).unwrap().into_iter().chain([b'\n']) {
            if byte.is_ascii_alphanumeric() {
                word.push(char::from(byte.to_ascii_lowercase()));
            } else if !word.is_empty() {
                *totals.entry(std::mem::take(&mut word)).or_default() += 1;
            }
        }
    }
    totals
}

/// A file large enough to be cut into splits, whose borders lie anywhere in its lines; some lines end with CR LF, one is
/// empty, one is not UTF-8, and the last one has no end.
fn write_large_file(path: &Path) {
    let mut text = b"Na\xefve na\xc3\xafve \xff\xfeEnd\r\n\nMixedCASE mixedcase\n".to_vec();
    let long = "0123456789abcdefghijklmnopqrstuvwxyz".repeat(4);
    let mut draw = 1_u64;
    while text.len() < 26 << 20 {
        for _ in 0..7 {
            draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let length = 1 + (draw >> 40) as usize % long.len();
            text.extend_from_slice(&long.as_bytes()[..length]);
            text.push(b" -\t'"[(draw >> 33) as usize % 4]);
        }
        text.extend_from_slice(if draw >> 60 == 0 { b"\r\n" } else { b"\n" });
    }
    text.extend_from_slice(b"the last line");
    fs::write(path, text).unwrap();
}

#[test]
fn the_word_count_agrees_with_an_independent_count_at_any_parallelism() {
    let folder = tempfile::tempdir().unwrap();
    let large = folder.path().join("large.txt");
    write_large_file(&large);
    let inputs = ["README.md", "docs", "examples"].map(|name| workspace().join(name));
    let inputs: Vec<PathBuf> = inputs.into_iter().chain([large]).collect();
    let totals = words_of(&inputs);
    let words: u64 = totals.values().sum();
    let mut top: Vec<(&String, u64)> = totals.iter().map(|(word, count)| (word, *count)).collect();
    top.sort_by(|(a, a_count), (b, b_count)| b_count.cmp(a_count).then_with(|| a.cmp(b)));

    let program = built("word_count");
    for parallelism in [1, 2, 3] {
        let output = folder.path().join(format!("output-{parallelism}"));
        let mut command = Command::new(&program);
        inputs.iter().for_each(|input| _ = command.arg("--input").arg(input));
        command.arg("--output").arg(&output).args(["--parallelism", &parallelism.to_string()]);
        let shown = succeed(&mut command);

        let counts = visible(&output);
        for (word, total) in &totals {
            let highest = counts.get(word).and_then(|counts| counts.last());
            assert_eq!(highest, Some(total), "'{word}' at parallelism {parallelism}");
        }
        assert_eq!(deviation(&counts, &totals), None, "at parallelism {parallelism}");

        // Words that come equally often may take each other's place at the end of the list: counts are compared.
        let shown_top: Vec<(u64, &str)> = shown.lines().take(10).map(top_line).collect();
        for ((count, word), (_, expected)) in shown_top.iter().zip(&top) {
            assert_eq!((count, totals.get(*word)), (expected, Some(count)), "at parallelism {parallelism}:\n{shown}");
        }
        let last_lines: Vec<&str> = shown.lines().skip(10).collect();
        let [summary, latency] = last_lines[..] else { panic!("ten words, a summary and the latency:\n{shown}") };
        let said = summary.split_once(" words in ").map(|(words, _)| number(words));
        assert_eq!(said, Some(words), "{summary}");
        assert!(summary.ends_with(&format!("at parallelism {parallelism}")), "{summary}");
        assert!(latency.starts_with("latency at full load") && latency.contains("p50"), "{latency}");
    }
}

/// `        1,234  word`.
fn top_line(line: &str) -> (u64, &str) {
    let (count, word) = line.trim_start().split_once("  ").unwrap_or_else(|| panic!("no count and word: {line:?}"));
    (number(count), word)
}

fn number(text: &str) -> u64 {
    text.replace(',', "").parse().unwrap_or_else(|_| panic!("no number: {text:?}"))
}

#[test]
fn the_word_count_without_input_says_how_it_is_used() {
    let (code, said) = fail(&mut Command::new(built("word_count")));
    assert_eq!(code, 2);
    assert!(said.contains("--input is missing") && said.contains("usage: word_count"), "{said}");
}

#[test]
fn the_word_count_of_a_file_that_is_not_there_fails_and_names_it() {
    let (code, said) = fail(Command::new(built("word_count")).args(["--input", "no/such/file"]).current_dir("/"));
    assert_eq!(code, 1);
    assert!(said.contains("/no/such/file") && said.contains("does not exist"), "{said}");
}

#[test]
fn sessions_are_those_that_the_gap_makes() {
    let sessions = built("sessions");
    let by_half_a_minute = "\
ann:   0 s to  31 s: home, login, search, cart
bob:   4 s to  20 s: home, help
bob:  66 s to  70 s: home, search
ann:  73 s to 101 s: home, order
cid:  80 s to  80 s: home
";
    let by_a_minute = "\
ann:   0 s to 101 s: home, login, search, cart, home, order
bob:   4 s to  70 s: home, help, home, search
cid:  80 s to  80 s: home
";
    assert_eq!(succeed(&mut Command::new(&sessions)), by_half_a_minute);
    assert_eq!(succeed(Command::new(&sessions).args(["--gap-seconds", "30"])), by_half_a_minute);
    assert_eq!(succeed(Command::new(&sessions).args(["--gap-seconds", "60"])), by_a_minute);
    // Configuration is no argument of the program, and how it runs changes no result.
    let apart = ["-Dpipeline.operator-chaining.enabled=false", "-Dexecution.buffer-timeout.interval=0 ms"];
    assert_eq!(succeed(Command::new(&sessions).args(apart)), by_half_a_minute);
    let (code, said) = fail(Command::new(&sessions).args(["--gap-seconds", "never"]));
    assert_eq!(code, 2);
    assert!(said.contains("usage: sessions"), "{said}");
}

#[test]
fn the_join_pairs_orders_with_payments_and_names_the_unpaid_one() {
    let join = built("join");
    let expected = "\
order 1 of ann: 12.50 by transfer
order 3 of cid: 200.00 by card
order 4 of ann: 49.00 by card
order 2 of bob was not paid within 60 s
";
    assert_eq!(succeed(&mut Command::new(&join)), expected);
    assert_eq!(succeed(Command::new(&join).arg("-Dtask.threading=task")), expected);
}
