//! The reference page of configuration keys is what the registry of keys prints.

use std::{path::Path, process::Stdio};

use anyhow::{Context, Result, bail};

use super::{Tree, Verdict};

const PAGE: &str = "docs/configuration.md";
const GENERATOR: [&str; 6] = ["run", "--quiet", "--package", "millstream-cli", "--", "config-docs"];
/// What a command line answers to a command that it does not have.
const NO_SUCH_COMMAND: i32 = 2;

pub fn check(tree: &Tree) -> Result<Verdict> {
    let command = GENERATOR.join(" ");
    let mut cargo = tree.checkout.workspace_cargo(GENERATOR);
    let printed = cargo.stderr(Stdio::piped()).output().context("cargo cannot start")?;
    if printed.status.code() == Some(NO_SUCH_COMMAND) {
        return Ok(Verdict::Skipped("the command line has no `config-docs` yet".to_owned()));
    }
    if !printed.status.success() {
        let complaint = String::from_utf8_lossy(&printed.stderr);
        bail!("`cargo {command}` failed: {}", complaint.trim());
    }
    let expected = String::from_utf8(printed.stdout).context("a page is text")?;
    let finding = difference(&tree.text(Path::new(PAGE)).unwrap_or_default(), &expected);
    let remedy = format!("write it again: cargo {command} > {PAGE}");
    Ok(finding.map(|line| format!("{PAGE}:{line}: not as generated; {remedy}")).into_iter().collect::<Vec<_>>().into())
}

/// The number of the first line that differs.
fn difference(page: &str, expected: &str) -> Option<usize> {
    if page == expected {
        return None;
    }
    let same = page.lines().zip(expected.lines()).take_while(|(a, b)| a == b).count();
    Some(same + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_differs_is_named() {
        assert_eq!(difference("a\nb\n", "a\nb\n"), None);
        assert_eq!(difference("a\nb\n", "a\nc\n"), Some(2));
        assert_eq!(difference("a\n", "a\nb\n"), Some(2));
        assert_eq!(difference("a\nb", "a\nb\n"), Some(3));
    }
}
