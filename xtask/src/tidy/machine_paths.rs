//! No file names a folder of the machine it was written on.

use std::{env, fs, path::Path};

use anyhow::Result;

use super::{Tree, Verdict};

pub fn check(tree: &Tree) -> Result<Verdict> {
    let home = env::var("HOME").unwrap_or_default();
    let root = tree.checkout.root.to_string_lossy().into_owned();
    let folders: Vec<String> = [home, root].into_iter().filter(|folder| is_telling(folder)).collect();
    let mut findings = Vec::new();
    for file in &tree.files {
        let bytes = fs::read(tree.checkout.root.join(file))?;
        for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            for folder in folders.iter().filter(|folder| names_folder(line, folder)) {
                let (file, number) = (file.display(), number + 1);
                findings.push(format!("{file}:{number}: names {folder}, a folder of this machine"));
            }
        }
    }
    Ok(findings.into())
}

/// `/` is a folder of every machine.
fn is_telling(folder: &str) -> bool {
    Path::new(folder).is_absolute() && folder.trim_end_matches('/').len() > 1
}

/// Whether `line` has `folder` as the beginning of a path: `/home/a` is in `/home/a/b`, but not in
/// `x/home/a/b` or `/home/ab`.
fn names_folder(line: &[u8], folder: &str) -> bool {
    let folder = folder.trim_end_matches('/').as_bytes();
    let goes_on = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.".contains(byte);
    line.windows(folder.len()).enumerate().any(|(at, window)| {
        window == folder
            && !at.checked_sub(1).is_some_and(|before| goes_on(&line[before]))
            && !line.get(at + folder.len()).is_some_and(goes_on)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_the_machine_is_found_and_a_longer_name_is_not() {
        assert!(names_folder(b"see \"/home/a/b.rs\"", "/home/a"));
        assert!(names_folder(b"HOME=/home/a", "/home/a/"));
        assert!(!names_folder(b"/home/ab/c", "/home/a"));
        assert!(!names_folder(b"$prefix/x/home/a/b", "/home/a"));
        assert!(!names_folder(b"/home", "/home/a"));
    }

    #[test]
    fn the_root_folder_tells_nothing() {
        assert!(!is_telling("/") && !is_telling("") && !is_telling("relative"));
        assert!(is_telling("/home/a"));
    }
}
