//! The README's table "Where is…?": each row names a file and a symbol that is defined in it.

use std::path::Path;

use anyhow::Result;

use super::{Tree, Verdict};

const README: &str = "README.md";
const HEADING: &str = "Where is…?";

/// Words that come before the name of what they define.
const DEFINING: [&str; 11] =
    ["fn", "struct", "enum", "trait", "type", "const", "static", "mod", "union", "macro", "macro_rules!"];

#[derive(Debug, PartialEq, Eq)]
struct Row<'a> {
    line: usize,
    file: &'a str,
    symbol: &'a str,
}

pub fn check(tree: &Tree) -> Result<Verdict> {
    if !tree.files.iter().any(|file| file == Path::new(README)) {
        let finding = format!("{README} is missing: write it, with a table under \"## {HEADING}\"");
        return Ok(vec![finding].into());
    }
    let readme = tree.text(Path::new(README))?;
    let rows = rows(&readme);
    if rows.is_empty() {
        let finding = format!("{README} has no rows `| question | file | symbol |` under \"## {HEADING}\"");
        return Ok(vec![finding].into());
    }
    let mut findings = Vec::new();
    for Row { line, file, symbol } in rows {
        match tree.text(Path::new(file)) {
            Err(_) => findings.push(format!("{README}:{line}: there is no file {file}")),
            Ok(text) if file.ends_with(".rs") && !defines(&text, symbol) => {
                findings.push(format!("{README}:{line}: {file} does not define {symbol}"));
            }
            Ok(text) if !text.contains(symbol) => {
                findings.push(format!("{README}:{line}: {file} does not contain {symbol}"));
            }
            Ok(_) => {}
        }
    }
    Ok(findings.into())
}

/// The rows below the heading, up to the next heading.
fn rows(readme: &str) -> Vec<Row<'_>> {
    let is_heading = |line: &str| line.starts_with('#');
    let lines = readme.lines().enumerate();
    let table = lines
        .skip_while(|(_, line)| !(is_heading(line) && line.contains(HEADING)))
        .skip(1)
        .take_while(|(_, line)| !is_heading(line));
    let mut rows = Vec::new();
    for (nth, line) in table {
        let cells: Vec<_> = line.trim().trim_matches('|').split('|').map(code).collect();
        if let [_, Some(file), Some(symbol)] = cells[..] {
            rows.push(Row { line: nth + 1, file, symbol });
        }
    }
    rows
}

/// What stands between the first pair of backticks, also inside a link.
fn code(cell: &str) -> Option<&str> {
    cell.split('`').nth(1).filter(|code| !code.is_empty())
}

/// Whether Rust source defines the last part of `symbol` and names the parts before it. A variant
/// of an enum is defined where it is named.
fn defines(source: &str, symbol: &str) -> bool {
    let mut parts: Vec<&str> = symbol.trim_end_matches("()").split("::").collect();
    let last = parts.pop().unwrap_or_default();
    let is_variant = !parts.is_empty() && last.starts_with(char::is_uppercase);
    parts.iter().all(|part| names(source, part)) && (is_defined(source, last) || is_variant && names(source, last))
}

fn names(source: &str, wanted: &str) -> bool {
    identifiers(source).any(|word| word == wanted)
}

fn is_defined(source: &str, wanted: &str) -> bool {
    source.lines().any(|line| {
        // A comment that mentions `fn grant` defines nothing.
        let code = line.split("//").next().unwrap_or_default();
        let words: Vec<&str> = code.split_whitespace().collect();
        words.windows(2).any(|pair| DEFINING.contains(&pair[0]) && identifiers(pair[1]).next() == Some(wanted))
    })
}

fn identifiers(source: &str) -> impl Iterator<Item = &str> {
    source.split(|letter: char| !letter.is_alphanumeric() && letter != '_').filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const README_TEXT: &str = "\
# Millstream

| a | `table.rs` | `elsewhere` |

## Where is…?

| Question | File | Symbol |
|---|---|---|
| Where does a credit get granted? | `shuffle/src/credit.rs` | `Granter::grant` |
| Where does SQL become a job? | [`sql/src/plan.rs`](sql/src/plan.rs) | `plan` |

## Next

| x | `y.rs` | `z` |
";

    #[test]
    fn only_the_table_under_the_heading_is_read() {
        let expected = [
            Row { line: 9, file: "shuffle/src/credit.rs", symbol: "Granter::grant" },
            Row { line: 10, file: "sql/src/plan.rs", symbol: "plan" },
        ];
        assert_eq!(rows(README_TEXT), expected);
    }

    #[test]
    fn a_symbol_must_be_defined_and_not_just_called() {
        let source = "impl Granter {\n    pub fn grant(&mut self) {}\n}\nenum Action { Deploy(u8) }";
        assert!(defines(source, "Granter::grant"));
        assert!(defines(source, "Granter::grant()"));
        assert!(defines(source, "Action::Deploy"));
        assert!(!defines(source, "Spender::grant"));
        assert!(!defines("self.granter.grant(1); // see fn grant in Granter", "Granter::grant"));
        assert!(!defines("fn granted() {}", "grant"));
    }
}
