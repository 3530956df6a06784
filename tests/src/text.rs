//! Text whose words are known.

use std::collections::BTreeMap;

use crate::job_process::JobFolder;

/// Adds two files of so many lines to the input, of eight words each whose frequencies differ. How often each word comes.
pub fn add_text(folder: &JobFolder, lines: u64) -> BTreeMap<String, u64> {
    let mut totals = BTreeMap::new();
    for file in 0..2 {
        let mut text = String::new();
        for line in 0..lines {
            for nth in 0..8 {
                let draw = (line * 8 + nth + file).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
                let word = format!("word{}", draw % (1 + draw % 997));
                if nth > 0 {
                    text.push(' ');
                }
                text += &word;
                *totals.entry(word).or_default() += 1;
            }
            text.push('\n');
        }
        folder.add_input(&format!("text-{file}"), &text);
    }
    totals
}

/// Puts files into the input, one after the other, and knows how often each word is in them.
pub struct Author<'f> {
    folder: &'f JobFolder,
    files: u64,
    totals: BTreeMap<String, u64>,
}

impl<'f> Author<'f> {
    /// One that has written nothing yet.
    pub fn of(folder: &'f JobFolder) -> Author<'f> {
        Author { folder, files: 0, totals: BTreeMap::new() }
    }

    pub fn folder(&self) -> &'f JobFolder {
        self.folder
    }

    /// How often each word is in what was written so far.
    pub fn totals(&self) -> &BTreeMap<String, u64> {
        &self.totals
    }

    /// Another file, of so many lines. Every other one lies in a folder of its own.
    pub fn write(&mut self, lines: u64) {
        self.files += 1;
        let mut text = String::new();
        for line in 0..lines {
            for nth in 0..8 {
                let draw = (line * 8 + nth + 1_000_003 * self.files).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
                let word = format!("word{}", draw % (1 + draw % 499));
                text.push_str(if nth > 0 { " " } else { "" });
                text.push_str(&word);
                *self.totals.entry(word).or_default() += 1;
            }
            text.push('\n');
        }
        // A word that only this file has: a file that is never read shows, whatever the others have.
        let own = format!("file-{}", self.files);
        text.push_str(&own);
        self.totals.insert(own, 1);
        let folder = if self.files.is_multiple_of(2) { format!("day-{}/", self.files) } else { String::new() };
        self.folder.add_input(&format!("{folder}part-{}", self.files), &text);
    }
}
