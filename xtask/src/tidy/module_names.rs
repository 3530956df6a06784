//! A module is named with the noun it owns: no drawers for what has no place.

use std::path::Path;

use anyhow::Result;

use super::{Tree, Verdict};

const DRAWERS: [&str; 8] = ["util", "utils", "utility", "utilities", "common", "misc", "helper", "helpers"];

pub fn check(tree: &Tree) -> Result<Verdict> {
    let mut findings = Vec::new();
    for file in tree.with_extension("rs") {
        if let Some(name) = drawer_in_path(file) {
            findings.push(format!("{}: `{name}` does not say what it owns", file.display()));
        }
        for (number, name) in inline_drawers(&tree.text(file)?) {
            let file = file.display();
            findings.push(format!("{file}:{number}: `mod {name}` does not say what it owns"));
        }
    }
    Ok(findings.into())
}

fn drawer_in_path(file: &Path) -> Option<&str> {
    let without_extension = file.iter().map(Path::new).filter_map(|part| part.file_stem()?.to_str());
    without_extension.into_iter().find(|name| DRAWERS.contains(name))
}

/// Line numbers and names of modules with a body in the file itself.
fn inline_drawers(source: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (nth, line) in source.lines().enumerate() {
        let mut words = line.split_whitespace().skip_while(|word| word.starts_with("pub"));
        if let (Some("mod"), Some(name), Some("{")) = (words.next(), words.next(), words.next())
            && DRAWERS.contains(&name)
        {
            found.push((nth + 1, name));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawers_are_found_as_files_folders_and_inline() {
        assert_eq!(drawer_in_path(Path::new("api/src/utils.rs")), Some("utils"));
        assert_eq!(drawer_in_path(Path::new("tests/it/common/mod.rs")), Some("common"));
        assert_eq!(drawer_in_path(Path::new("api/src/commons_fund.rs")), None);
        assert_eq!(inline_drawers("\npub(crate) mod misc {\n"), [(2, "misc")]);
        assert!(inline_drawers("mod misc_fortune {\n// mod utils {").is_empty());
    }
}
