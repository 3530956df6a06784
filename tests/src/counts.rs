//! Lines `word<TAB>count` that jobs have made visible in their output folder.

use std::{collections::BTreeMap, fs, path::Path};

/// Of each word, all its counts, ascending. A word that comes n times has the counts 1 to n, each once, if each record
/// counted exactly once.
pub type Counts = BTreeMap<String, Vec<u64>>;

/// What is visible in `folder`; hidden files are not. A folder that is not there yet is empty.
///
/// # Panics
/// If a line is something else.
pub fn visible(folder: &Path) -> Counts {
    let mut counts = Counts::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        for line in fs::read_to_string(entry.path()).expect("visible files are whole, and text").lines() {
            let (word, count) = line.split_once('\t').unwrap_or_else(|| panic!("no count in {line:?}"));
            let count = count.parse().unwrap_or_else(|_| panic!("no number in {line:?}"));
            counts.entry(word.to_owned()).or_default().push(count);
        }
    }
    counts.values_mut().for_each(|counts| counts.sort_unstable());
    counts
}

/// What is wrong with `counts`, if words came as often as `totals` says and each counted exactly once.
pub fn deviation(counts: &Counts, totals: &BTreeMap<String, u64>) -> Option<String> {
    for (word, total) in totals {
        let found = counts.get(word).map_or(&[][..], Vec::as_slice);
        if !found.iter().copied().eq(1..=*total) {
            let (lines, highest) = (found.len(), found.last().copied().unwrap_or(0));
            return Some(format!("'{word}' comes {total} times; it has {lines} counts, and {highest} is the highest"));
        }
    }
    let strange = counts.keys().find(|word| !totals.contains_key(*word))?;
    Some(format!("'{strange}' never came"))
}
