//! Every source file says in its first line what it is for.

use std::path::{Component, Path};

use anyhow::Result;

use super::{Tree, Verdict};

pub fn check(tree: &Tree) -> Result<Verdict> {
    let mut findings = Vec::new();
    for file in tree.with_extension("rs").filter(|file| is_covered(file)) {
        if !begins_with_doc(&tree.text(file)?) {
            findings.push(format!("{} does not begin with a `//!` doc", file.display()));
        }
    }
    Ok(findings.into())
}

/// Sources, whole-program tests and examples: what a reader may open first.
fn is_covered(file: &Path) -> bool {
    let below_src = file.components().any(|part| part == Component::Normal("src".as_ref()));
    below_src || file.starts_with("tests/it") || file.starts_with("examples")
}

fn begins_with_doc(source: &str) -> bool {
    let first = source.lines().next().unwrap_or_default();
    first.strip_prefix("//!").is_some_and(|doc| !doc.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doc_below_the_imports_is_too_late() {
        assert!(begins_with_doc("//! Counts words.\nuse std::io;\n"));
        assert!(!begins_with_doc("use std::io;\n//! Counts words.\n"));
        assert!(!begins_with_doc("//!\n"));
        assert!(!begins_with_doc(""));
    }

    #[test]
    fn fixtures_that_are_not_ours_to_document_are_left_alone() {
        assert!(is_covered(Path::new("model/src/config/mod.rs")));
        assert!(is_covered(Path::new("tests/it/word_count.rs")));
        assert!(!is_covered(Path::new("millstream/tests/refused/capture.rs")));
    }
}
