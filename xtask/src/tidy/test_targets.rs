//! Every file in `tests/it/` is a test that runs, and no two tests of the workspace share a name.
//!
//! `tests/` is a package of its own, so cargo finds its tests only where `tests/Cargo.toml` lists
//! them; and the phases of `cargo xtask test` select tests by name alone.

use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use super::{Tree, Verdict};
use crate::phase;

const FOLDER: &str = "tests/it";

pub fn check(tree: &Tree) -> Result<Verdict> {
    let in_folder = |file: &&Path| file.parent() == Some(Path::new(FOLDER));
    let files = tree.with_extension("rs").filter(in_folder).map(|file| file.to_string_lossy());
    let files: Vec<String> = files.map(|file| file.into_owned()).collect();
    Ok(findings(&files, &tree.metadata).into())
}

fn findings(files: &[String], metadata: &Value) -> Vec<String> {
    let sources = sources(metadata);
    let mut findings = Vec::new();
    for file in files {
        if !sources.iter().any(|source| Path::new(source).ends_with(file)) {
            let name = Path::new(file).file_stem().unwrap_or_default().to_string_lossy();
            findings.push(format!(
                "{file} never runs: tests/Cargo.toml lacks `[[test]] name = \"{name}\" path = \"it/{name}.rs\"`"
            ));
        }
    }
    let mut targets = phase::test_targets(metadata);
    targets.sort_by(|a, b| a.name.cmp(&b.name));
    for pair in targets.windows(2).filter(|pair| pair[0].name == pair[1].name) {
        let [a, b] = pair else { continue };
        findings.push(format!("{} and {} both have a test {}", a.package, b.package, a.name));
    }
    findings
}

/// The files of all test targets.
fn sources(metadata: &Value) -> Vec<&str> {
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let targets = packages.flat_map(|package| package["targets"].as_array().into_iter().flatten());
    let tests = targets.filter(|target| target["kind"][0] == "test");
    tests.filter_map(|target| target["src_path"].as_str()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn package(name: &str, test: &str) -> Value {
        let target = json!({ "kind": ["test"], "name": test, "src_path": format!("/x/tests/it/{test}.rs") });
        json!({ "name": name, "targets": [target] })
    }

    #[test]
    fn a_file_without_an_entry_is_a_test_that_never_runs() {
        let metadata = json!({ "packages": [package("millstream-tests", "kill")] });
        assert!(findings(&["tests/it/kill.rs".into()], &metadata).is_empty());
        let found = findings(&["tests/it/cut.rs".into()], &metadata);
        assert!(found.len() == 1 && found[0].contains("name = \"cut\""), "{found:?}");
    }

    #[test]
    fn two_tests_of_one_name_would_run_in_each_others_phase() {
        let packages = [package("millstream-tests", "kill"), package("millstream-cli", "kill")];
        assert_eq!(
            findings(&[], &json!({ "packages": packages })),
            ["millstream-cli and millstream-tests both have a test kill"]
        );
    }
}
