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
