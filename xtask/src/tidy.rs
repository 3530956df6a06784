//! `cargo xtask tidy`: what must hold of the source tree beyond what the compiler checks.
//!
//! One check a file. A check reads the tree and returns what is wrong; none changes anything.

mod arrows;
mod configuration_page;
mod decisions;
mod facade_tree;
mod links;
mod machine_paths;
mod module_docs;
mod module_names;
mod test_targets;
mod where_is;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::checkout::{Checkout, output};

/// The tree as the checks see it.
struct Tree<'a> {
    checkout: &'a Checkout,
    /// Files that git knows or would add, relative to the root.
    files: Vec<PathBuf>,
    metadata: Value,
}

/// What came of a check.
enum Verdict {
    /// One sentence for each thing that is wrong; none if all is well.
    Findings(Vec<String>),
    /// It could not look, for this reason. Not a failure.
    Skipped(String),
}

type Check = fn(&Tree) -> Result<Verdict>;

/// Cheap ones first.
const CHECKS: [(&str, Check); 10] = [
    ("arrows between crates", arrows::check),
    ("module docs", module_docs::check),
    ("module names", module_names::check),
    ("README: Where is…?", where_is::check),
    ("decision records", decisions::check),
    ("links in documents", links::check),
    ("paths of this machine", machine_paths::check),
    ("test targets", test_targets::check),
    ("the facade's dependencies", facade_tree::check),
    ("configuration page", configuration_page::check),
];

/// Runs every check and prints what each found.
///
/// # Errors
/// If one found something or could not be run.
pub fn run(checkout: &Checkout) -> Result<()> {
    let tree = Tree { checkout, files: files(checkout)?, metadata: checkout.metadata()? };
    let mut wrong = 0;
    for (name, check) in CHECKS {
        match check(&tree) {
            Ok(Verdict::Findings(findings)) if findings.is_empty() => println!("ok       {name}"),
            Ok(Verdict::Skipped(reason)) => println!("skipped  {name}: {reason}"),
            Ok(Verdict::Findings(findings)) => {
                wrong += findings.len();
                println!("WRONG    {name}");
                for finding in findings {
                    println!("           {finding}");
                }
            }
            Err(error) => {
                wrong += 1;
                println!("FAILED   {name}: {error:#}");
            }
        }
    }
    ensure!(wrong == 0, "tidy found {wrong} things");
    Ok(())
}

/// Files that are committed and those that a commit would add: a check must not wait for `git add`.
fn files(checkout: &Checkout) -> Result<Vec<PathBuf>> {
    let mut git = std::process::Command::new("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let listed = output(git.current_dir(&checkout.root)).context("tidy asks git for the files")?;
    let mut files: Vec<PathBuf> = listed.split_terminator('\0').map(PathBuf::from).collect();
    // A file that was deleted, but not with git, is still listed.
    files.retain(|file| checkout.root.join(file).is_file());
    files.sort();
    files.dedup();
    Ok(files)
}

impl Tree<'_> {
    fn with_extension<'a>(&'a self, extension: &'a str) -> impl Iterator<Item = &'a Path> {
        let ends = move |file: &&PathBuf| file.extension().is_some_and(|found| found == extension);
        self.files.iter().filter(ends).map(PathBuf::as_path)
    }

    fn text(&self, file: &Path) -> Result<String> {
        let read = fs::read_to_string(self.checkout.root.join(file));
        read.with_context(|| format!("{} cannot be read", file.display()))
    }
}

impl From<Vec<String>> for Verdict {
    fn from(findings: Vec<String>) -> Verdict {
        Verdict::Findings(findings)
    }
}
