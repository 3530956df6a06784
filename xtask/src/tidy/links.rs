//! Relative links in documents lead to something that is in the tree.

use std::path::{Component, Path, PathBuf};

use anyhow::Result;

use super::{Tree, Verdict};

pub fn check(tree: &Tree) -> Result<Verdict> {
    let mut findings = Vec::new();
    for file in tree.with_extension("md") {
        for (line, target) in relative_links(&tree.text(file)?) {
            let folder = file.parent().unwrap_or(Path::new(""));
            let leads_somewhere = normalized(&folder.join(&target))
                .is_some_and(|path| tree.files.iter().any(|known| known.starts_with(&path)));
            if !leads_somewhere {
                let file = file.display();
                findings.push(format!("{file}:{line}: the link to {target} leads nowhere"));
            }
        }
    }
    Ok(findings.into())
}

/// Line numbers and targets, without fragments, of the links that stay inside the tree.
fn relative_links(document: &str) -> Vec<(usize, String)> {
    let mut links = Vec::new();
    let mut fence: Option<&str> = None;
    for (nth, line) in document.lines().enumerate() {
        let trimmed = line.trim_start();
        let marker = ["```", "~~~"].into_iter().find(|marker| trimmed.starts_with(marker));
        match (fence, marker) {
            (None, Some(marker)) => fence = Some(marker),
            (Some(open), Some(marker)) if open == marker => fence = None,
            (None, None) => {
                let line = without_code(line);
                let targets = targets(&line).into_iter().filter_map(|target| {
                    let path = target.split(['#', '?']).next().unwrap_or_default();
                    let is_relative = !path.is_empty() && !target.contains(':');
                    is_relative.then(|| path.to_owned())
                });
                links.extend(targets.map(|target| (nth + 1, target)));
            }
            _ => {}
        }
    }
    links
}

/// What stands in backticks is shown, not linked. Brackets around code stay.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect()
}

/// The targets of `[text](target "title")` and of `[name]: target`.
fn targets(line: &str) -> Vec<&str> {
    let mut targets = Vec::new();
    for (at, _) in line.match_indices("](") {
        let rest = &line[at + 2..];
        let end = rest.find(')').unwrap_or(rest.len());
        targets.extend(rest[..end].split_whitespace().next());
    }
    if line.starts_with('[')
        && let Some((name, target)) = line.split_once("]: ")
        && !name.contains(']')
        // A footnote is text.
        && !name.starts_with("[^")
    {
        targets.extend(target.split_whitespace().next());
    }
    targets.into_iter().map(|target| target.trim_matches(['<', '>'])).collect()
}

/// Resolves `.` and `..`; none if the path leaves the tree.
fn normalized(path: &Path) -> Option<PathBuf> {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => normal.push(name),
            Component::CurDir => {}
            Component::ParentDir => {
                if !normal.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(normal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_targets_are_found_and_others_left_alone() {
        let document = "\
See [the page](../a/b.md#part \"title\"), [`code`](c.rs) and [the web](https://example.org/x).
[here](#below) `[not](shown.md)`
```
[not](fenced.md)
```
[name]: d.md
[^note]: not a link
";
        let expected = [(1, "../a/b.md"), (1, "c.rs"), (6, "d.md")];
        let found = relative_links(document);
        let found: Vec<_> = found.iter().map(|(line, target)| (*line, &**target)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_link_out_of_the_tree_leads_nowhere() {
        assert_eq!(normalized(Path::new("docs/../README.md")), Some("README.md".into()));
        assert_eq!(normalized(Path::new("docs/../../README.md")), None);
        assert_eq!(normalized(Path::new("/etc/hosts")), None);
    }
}
