//! Decision records are numbered without gaps, titled alike, and listed in their index.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Tree, Verdict};

const FOLDER: &str = "docs/decisions";
const INDEX: &str = "docs/decisions/README.md";

struct Record {
    file: String,
    first_line: String,
}

pub fn check(tree: &Tree) -> Result<Verdict> {
    let mut records = Vec::new();
    let in_folder = |file: &&Path| file.parent() == Some(Path::new(FOLDER));
    for file in tree.with_extension("md").filter(in_folder) {
        if file != Path::new(INDEX) {
            let first_line = tree.text(file)?.lines().next().unwrap_or_default().to_owned();
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            records.push(Record { file: name, first_line });
        }
    }
    let index = tree.text(&PathBuf::from(INDEX)).unwrap_or_default();
    Ok(findings(&records, &index).into())
}

/// `records` in the order of their file names.
fn findings(records: &[Record], index: &str) -> Vec<String> {
    let mut findings = Vec::new();
    for (nth, Record { file, first_line }) in records.iter().enumerate() {
        let number = format!("{:04}", nth + 1);
        if file.split('-').next() != Some(&number) {
            findings.push(format!("{FOLDER}/{file}: the next number is {number}"));
            // Every later one would be off by as much.
            break;
        }
        if !first_line.starts_with(&format!("# {number}: ")) {
            findings.push(format!("{FOLDER}/{file}: the title must begin with `# {number}: `"));
        }
        if !index.contains(file) {
            findings.push(format!("{INDEX} does not list {file}"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(records: &[(&str, &str)], index: &str) -> Vec<String> {
        let records: Vec<_> =
            records.iter().map(|(file, first)| Record { file: (*file).into(), first_line: (*first).into() }).collect();
        findings(&records, index)
    }

    #[test]
    fn a_gap_is_found_and_a_duplicate_too() {
        let first = ("0001-layout.md", "# 0001: Layout");
        let index = "0001-layout.md 0002-b.md 0003-c.md 0001-again.md";
        assert!(of(&[first, ("0002-b.md", "# 0002: B")], index).is_empty());
        assert_eq!(
            of(&[first, ("0003-c.md", "# 0003: C")], index),
            ["docs/decisions/0003-c.md: the next number is 0002"]
        );
        assert_eq!(of(&[("0001-again.md", "# 0001: Again"), first], index).len(), 1);
    }

    #[test]
    fn the_title_repeats_the_number_and_the_index_lists_the_file() {
        assert_eq!(
            of(&[("0001-layout.md", "# Layout")], ""),
            [
                "docs/decisions/0001-layout.md: the title must begin with `# 0001: `",
                "docs/decisions/README.md does not list 0001-layout.md",
            ]
        );
    }
}
