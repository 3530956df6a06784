//! The known name that a mistyped one is closest to.

/// The one of `known` that takes the fewest edits to reach; `None` if even that is another word.
pub(super) fn nearest(name: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let (edits, best) = known.map(|known| (distance(name, &known), known)).min_by_key(|(edits, _)| *edits)?;
    // Beyond a third of the letters, a guess is noise.
    (edits <= name.chars().count() / 3).then_some(best)
}

/// The Levenshtein distance, without regard to case.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.to_lowercase().chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, r) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(l != *r);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::{
        super::{key::Definition, keys},
        *,
    };

    #[test]
    fn the_distance_counts_insertions_deletions_and_substitutions() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("ABC", "abc"), 0);
    }

    #[test]
    fn a_typing_error_leads_to_the_key_and_another_word_to_none() {
        let names = || keys::all().flat_map(Definition::names).map(str::to_owned);
        let nearest = |name| nearest(name, names());
        assert_eq!(nearest("taskmanager.numberOfTaskSlot").unwrap(), "taskmanager.numberOfTaskSlots");
        assert_eq!(nearest("execution.checkpoint.intervall").unwrap(), "execution.checkpointing.interval");
        assert_eq!(nearest("state.checkpoint.dir").unwrap(), "state.checkpoints.dir");
        assert_eq!(nearest("com.example.my-own-key"), None);
        assert_eq!(nearest("x"), None);
    }
}
