//! Text that every machine with the toolchain has: its documentation, else the sources of crates.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};

use crate::checkout::{Checkout, output};

/// Enough for some seconds of work, and for a command line.
const BYTES_MAX: u64 = 128 << 20;
const FILES_MAX: usize = 2000;

/// Files to read, and the sentence that says which they are.
pub struct Text {
    pub files: Vec<PathBuf>,
    what: &'static str,
    folder: PathBuf,
    bytes: u64,
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Text { files, what, folder, bytes } = self;
        let mebibytes = bytes >> 20;
        write!(f, "{mebibytes} MiB of {what} ({} files below {})", files.len(), folder.display())
    }
}

/// The largest files of the first place that has text.
///
/// # Errors
/// If no place has any.
pub fn of_the_toolchain(checkout: &Checkout) -> Result<Text> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let question = ["--print", "sysroot"];
    let sysroot = output(Command::new(rustc).args(question).current_dir(&checkout.root))?;
    let sysroot = Path::new(sysroot.trim());
    let mut places = vec![
        ("the toolchain's documentation", sysroot.join("share/doc"), &["html", "md", "txt"][..]),
        ("the standard library's source", sysroot.join("lib/rustlib/src"), &["rs", "md"][..]),
    ];
    if let Some(home) = cargo_home() {
        let sources = home.join("registry/src");
        places.push(("the sources of downloaded crates", sources, &["rs", "md", "txt"][..]));
    }
    for (what, folder, extensions) in places {
        let files = largest(text_files(&folder, extensions));
        if !files.is_empty() {
            let bytes = files.iter().map(|(bytes, _)| bytes).sum();
            let files = files.into_iter().map(|(_, path)| path).collect();
            return Ok(Text { files, what, folder, bytes });
        }
    }
    bail!("neither the toolchain nor cargo's downloads have text here: name some with --input PATH")
}

fn cargo_home() -> Option<PathBuf> {
    let home = || env::var_os("HOME").map(|home| Path::new(&home).join(".cargo"));
    env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home)
}

/// Sizes and paths of the files below `folder` that end in one of `extensions`. What cannot be
/// read is left out: any text will do.
fn text_files(folder: &Path, extensions: &[&str]) -> Vec<(u64, PathBuf)> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            // Not the target of a symbolic link: it might lead in a circle.
            let Ok(metadata) = entry.metadata() else { continue };
            let path = entry.path();
            if metadata.is_dir() {
                folders.push(path);
            } else if metadata.is_file() && path.extension().is_some_and(|found| extensions.iter().any(|e| found == *e))
            {
                files.push((metadata.len(), path));
            }
        }
    }
    files
}

/// The books, then the largest files that stay below the limits, in the same order on every run.
fn largest(mut files: Vec<(u64, PathBuf)>) -> Vec<(u64, PathBuf)> {
    // Each book of the documentation is also on one page, which is prose; much else is tables.
    let is_book = |path: &PathBuf| path.ends_with("print.html");
    files.sort_by(|(a_bytes, a), (b_bytes, b)| {
        let by_kind = is_book(b).cmp(&is_book(a));
        by_kind.then(b_bytes.cmp(a_bytes)).then_with(|| a.cmp(b))
    });
    let mut bytes = 0;
    files.retain(|(size, _)| {
        let fits = bytes + size <= BYTES_MAX;
        bytes += if fits { *size } else { 0 };
        fits && *size > 0
    });
    files.truncate(FILES_MAX);
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_choice_stays_below_both_limits() {
        let many = (0..FILES_MAX as u64 + 9).map(|nth| (1, PathBuf::from(nth.to_string())));
        assert_eq!(largest(many.collect()).len(), FILES_MAX);
        let files = [(BYTES_MAX + 1, "too-much"), (BYTES_MAX, "all"), (1, "more"), (0, "empty")];
        let chosen = largest(files.map(|(bytes, name)| (bytes, name.into())).into());
        assert_eq!(chosen, [(BYTES_MAX, "all".into())]);
    }

    #[test]
    fn the_choice_among_equals_is_the_same_each_time() {
        let files = [(BYTES_MAX, "b".into()), (BYTES_MAX, "a".into())];
        assert_eq!(largest(files.into()), [(BYTES_MAX, "a".into())]);
    }

    #[test]
    fn a_small_book_comes_before_a_large_table() {
        let files = [(BYTES_MAX, "all.html".into()), (9, "book/print.html".into())];
        assert_eq!(largest(files.into()), [(9, "book/print.html".into())]);
    }

    #[test]
    fn only_text_is_found_at_any_depth() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let found = text_files(&source, &["rs"]);
        assert!(found.iter().any(|(_, path)| path.ends_with("demo/text.rs")));
        assert!(text_files(&source, &["html"]).is_empty());
    }
}
