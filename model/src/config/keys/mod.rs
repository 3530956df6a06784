//! The registry: every key that the engine reads, in groups. A key that is declared is registered.

use super::key::Definition;

/// Declares the keys of a group as constants and lists them, so that none can be declared and forgotten. The doc
/// comments of the keys also become the text of the reference page.
macro_rules! group {
    (
        $group:ident: $title:literal, $intro:literal;
        $($(#[doc = $doc:literal])+ $name:ident: $type:ty = $key:expr;)+
    ) => {
        $($(#[doc = $doc])+ pub const $name: Key<$type> = $key.doc(concat!($($doc),+));)+

        pub(super) const $group: Group =
            Group { title: $title, intro: $intro, keys: &[$(&$name.definition),+] };
    };
}

mod checkpointing;
mod cluster;
mod execution;
mod metrics;
mod pipeline;
mod restart;
mod security;
mod shuffle;
mod taskmanager;

pub use checkpointing::*;
pub use cluster::*;
pub use execution::*;
pub use metrics::*;
pub use pipeline::*;
pub use restart::*;
pub use security::*;
pub use shuffle::*;
pub use taskmanager::*;

/// Keys that belong together on the reference page.
#[derive(Debug)]
pub struct Group {
    pub title: &'static str,
    /// Markdown, one sentence or more.
    pub intro: &'static str,
    pub keys: &'static [&'static Definition],
}

/// All groups, in the order of the reference page.
pub const GROUPS: &[Group] =
    &[PIPELINE, EXECUTION, CHECKPOINTING, RESTART, TASKMANAGER, SHUFFLE, CLUSTER, METRICS, SECURITY];

/// All keys, in the order of the reference page.
pub fn all() -> impl Iterator<Item = &'static Definition> {
    GROUPS.iter().flat_map(|group| group.keys.iter().copied())
}

/// The key that has this name or alias, or that has it for something that users name.
pub fn find(name: &str) -> Option<&'static Definition> {
    all().find(|key| key.names().any(|known| known == name) || key.name_in(name).is_some())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{super::environment::variable_of, *};

    #[test]
    fn every_default_is_accepted_by_its_key() {
        for key in all() {
            // The text "" stands for "no value", which only keys without a default allow.
            assert_eq!(key.check(key.default.unwrap_or("")), Ok(()), "{}", key.name);
        }
    }

    #[test]
    fn every_bound_is_accepted_by_its_key() {
        for key in all() {
            for bound in [key.bounds.lowest, key.bounds.highest].into_iter().flatten() {
                assert_eq!(key.check(bound), Ok(()), "{}: {bound}", key.name);
            }
        }
    }

    #[test]
    fn no_two_keys_share_a_name_or_a_variable() {
        let mut names = BTreeSet::new();
        let mut variables = BTreeSet::new();
        for key in all() {
            assert!(key.names().all(|name| names.insert(name)), "{}", key.name);
            // Two names of one key may share a variable: it sets that key either way.
            let of_key: BTreeSet<String> = key.names().map(variable_of).collect();
            assert!(of_key.into_iter().all(|variable| variables.insert(variable)), "{}", key.name);
        }
    }

    #[test]
    fn a_key_is_found_by_each_of_its_names() {
        assert_eq!(find("state.checkpoints.dir").unwrap().name, "execution.checkpointing.dir");
        assert_eq!(find("execution.checkpointing.dir").unwrap().name, "execution.checkpointing.dir");
        assert!(find("execution.checkpointing").is_none());
    }

    #[test]
    fn defaults_are_flinks_where_the_page_does_not_say_otherwise() {
        let default = |name| find(name).unwrap().default.unwrap();
        assert_eq!(default("execution.checkpointing.timeout"), "10 min");
        assert_eq!(default("restart-strategy.exponential-delay.max-backoff"), "1 min");
        assert_eq!(default("taskmanager.memory.segment-size"), "32 kb");
        assert_eq!(default("rest.port"), "8081");
    }
}
