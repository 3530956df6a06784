//! The texts that were set, each with its origin, and the typed look at them.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::{
    key::{Definition, Key},
    keys,
    origin::Origin,
    value::Value,
};
use crate::fault::Failure;

/// What was set, by whatever name and wherever. What was not set has the default of its key.
///
/// Two of them are equal if the same texts were set under the same names in the same places.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Configuration {
    /// By the name that was used, which may be an alias, or no key at all.
    settings: BTreeMap<String, Setting>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Setting {
    pub(super) text: String,
    pub(super) origin: Origin,
}

impl Configuration {
    /// Nothing set: every key has its default.
    pub fn new() -> Configuration {
        Configuration::default()
    }

    /// The value of a key: what was set in the layer that counts most, else the key's default.
    ///
    /// # Errors
    /// If the text that counts is no value of this key. Whoever called [`validate`](Self::validate) before does not
    /// meet this for any key of [`keys::all`].
    pub fn get<T: Value>(&self, key: &Key<T>) -> Result<T, BadValue> {
        let Some((name, setting)) = self.find(&key.definition) else {
            return Ok(default_of(key));
        };
        key.parse(&setting.text).map_err(|expected| BadValue::new(name, setting, expected))
    }

    /// The value of a key that was set under this name, else the key's default.
    pub(super) fn get_as<T: Value>(&self, key: &Key<T>, name: &str) -> Result<T, BadValue> {
        let Some(setting) = self.settings.get(name) else { return Ok(default_of(key)) };
        key.parse(&setting.text).map_err(|expected| BadValue::new(name, setting, expected))
    }

    /// Sets a key in the program: no other layer counts more.
    pub fn set<T: Value>(&mut self, key: &Key<T>, value: T) -> &mut Configuration {
        self.set_text(key.name(), &value.to_text(), Origin::Program);
        self
    }

    /// Sets a text under a name, which need not be that of a key. A value that is there already stays if it belongs to
    /// a layer that counts more.
    pub fn set_text(&mut self, name: &str, text: &str, origin: Origin) {
        let outranked = self.settings.get(name).is_some_and(|old| old.origin.precedence() > origin.precedence());
        if !outranked {
            self.settings.insert(name.to_owned(), Setting { text: text.to_owned(), origin });
        }
    }

    /// Adds what was set in `other`. Where both set the same, the layer that counts more wins, then `other`.
    pub fn merge(&mut self, other: &Configuration) {
        for (name, text, origin) in other.iter() {
            self.set_text(name, text, origin.clone());
        }
    }

    /// The text that counts for a key of the registry, or its default; `None` if it has neither.
    pub fn text(&self, key: &Definition) -> Option<&str> {
        self.find(key).map(|(_, setting)| setting.text.as_str()).or(key.default)
    }

    /// Where the value of a key came from; `None` if it is the default.
    pub fn origin<T: Value>(&self, key: &Key<T>) -> Option<&Origin> {
        self.find(&key.definition).map(|(_, setting)| &setting.origin)
    }

    /// What was set, in the order of names: name, text, origin.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, &Origin)> {
        self.settings.iter().map(|(name, setting)| (name.as_str(), setting.text.as_str(), &setting.origin))
    }

    /// Checks every text that was set for a registered key, also those that do not count because another layer does.
    ///
    /// # Errors
    /// All bad values at once.
    pub fn validate(&self) -> Result<(), BadValues> {
        let check = |(name, setting): (&String, &Setting)| {
            let expected = keys::find(name)?.check(&setting.text).err()?;
            Some(BadValue::new(name, setting, expected))
        };
        let bad: Vec<BadValue> = self.settings.iter().filter_map(check).collect();
        if bad.is_empty() { Ok(()) } else { Err(BadValues(bad)) }
    }

    /// The setting that counts for a key: that of the highest layer, and within a layer that under the newest name.
    pub(super) fn find(&self, key: &Definition) -> Option<(&'static str, &Setting)> {
        let set = key.names().filter_map(|name| Some((name, self.settings.get(name)?)));
        // `max_by_key` takes the last of equals, and the newest name comes first.
        set.collect::<Vec<_>>().into_iter().rev().max_by_key(|(_, setting)| setting.origin.precedence())
    }

    pub(super) fn setting(&self, name: &str) -> Option<&Setting> {
        self.settings.get(name)
    }
}

fn default_of<T: Value>(key: &Key<T>) -> T {
    let default = match key.definition.default {
        Some(text) => key.parse(text).ok(),
        None => T::absent(),
    };
    default.unwrap_or_else(|| panic!("the default of {} is not a value of its type", key.name()))
}

/// A text that is no value of its key.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{origin}: {key} is '{text}', expected {expected}")]
pub struct BadValue {
    /// The name that was used, which may be an alias.
    pub key: String,
    pub text: String,
    /// What would be accepted.
    pub expected: String,
    pub origin: Origin,
}

impl BadValue {
    fn new(name: &str, setting: &Setting, expected: String) -> BadValue {
        let Setting { text, origin } = setting.clone();
        BadValue { key: name.to_owned(), text, expected, origin }
    }
}

impl From<BadValue> for Failure {
    /// No restart mends a configuration.
    fn from(bad: BadValue) -> Failure {
        Failure::fatal(bad.to_string())
    }
}

/// All bad values of a configuration; never empty.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub struct BadValues(pub Vec<BadValue>);

impl fmt::Display for BadValues {
    /// One line each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bad configuration:")?;
        self.0.iter().try_for_each(|bad| write!(f, "\n  {bad}"))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        super::{MemorySize, RestartStrategy, RuntimeMode},
        *,
    };
    use crate::{fault::Remedy, key_group::MaxParallelism};

    fn in_file(line: u32) -> Origin {
        Origin::File { name: "conf/config.yaml".to_owned(), line }
    }

    #[test]
    fn what_is_not_set_has_its_default() {
        let configuration = Configuration::new();
        assert_eq!(configuration.get(&keys::CHECKPOINTING_INTERVAL), Ok(None));
        assert_eq!(configuration.get(&keys::CHECKPOINTING_TIMEOUT), Ok(Duration::from_secs(600)));
        assert_eq!(configuration.get(&keys::SEGMENT_SIZE), Ok(MemorySize::from_bytes(32 * 1024)));
        assert_eq!(configuration.get(&keys::RUNTIME_MODE), Ok(RuntimeMode::Streaming));
        assert_eq!(configuration.get(&keys::PIPELINE_MAX_PARALLELISM), Ok(None));
        assert_eq!(configuration.origin(&keys::RUNTIME_MODE), None);
    }

    #[test]
    fn what_the_program_sets_is_read_back() {
        let mut configuration = Configuration::new();
        configuration
            .set(&keys::CHECKPOINTING_INTERVAL, Some(Duration::from_millis(1500)))
            .set(&keys::RESTART_STRATEGY, Some(RestartStrategy::FixedDelay))
            .set(&keys::PIPELINE_MAX_PARALLELISM, Some(MaxParallelism(256)))
            .set(&keys::NETWORK_MEMORY_FRACTION, 0.25);
        assert_eq!(configuration.get(&keys::CHECKPOINTING_INTERVAL), Ok(Some(Duration::from_millis(1500))));
        assert_eq!(configuration.get(&keys::RESTART_STRATEGY), Ok(Some(RestartStrategy::FixedDelay)));
        assert_eq!(configuration.get(&keys::PIPELINE_MAX_PARALLELISM), Ok(Some(MaxParallelism(256))));
        assert_eq!(configuration.get(&keys::NETWORK_MEMORY_FRACTION), Ok(0.25));
        assert_eq!(configuration.origin(&keys::CHECKPOINTING_INTERVAL), Some(&Origin::Program));
    }

    #[test]
    fn a_program_can_take_back_what_a_file_set() {
        let mut configuration = Configuration::new();
        configuration.set_text("execution.checkpointing.interval", "1 s", in_file(1));
        configuration.set(&keys::CHECKPOINTING_INTERVAL, None);
        assert_eq!(configuration.get(&keys::CHECKPOINTING_INTERVAL), Ok(None));
    }

    #[test]
    fn the_higher_layer_wins_whatever_the_order_and_the_name() {
        let variable = "MILLSTREAM_EXECUTION_CHECKPOINTING_DIR".to_owned();
        let mut layers = [
            ("execution.checkpointing.dir", "file", in_file(7)),
            ("execution.checkpointing.dir", "environment", Origin::Environment { variable }),
            ("state.checkpoints.dir", "argument", Origin::Argument),
            ("execution.checkpointing.dir", "program", Origin::Program),
        ];
        for layers_set in 1..=layers.len() {
            let expected = layers[layers_set - 1].1;
            for _ in 0..layers_set {
                layers[..layers_set].rotate_left(1);
                let mut configuration = Configuration::new();
                for (name, text, origin) in &layers[..layers_set] {
                    configuration.set_text(name, text, origin.clone());
                }
                assert_eq!(configuration.get(&keys::CHECKPOINTING_DIR).unwrap().unwrap(), expected);
            }
        }
    }

    #[test]
    fn within_a_layer_the_newer_name_wins() {
        let mut configuration = Configuration::new();
        configuration.set_text("execution.checkpointing.dir", "new", in_file(1));
        configuration.set_text("state.checkpoints.dir", "old", in_file(2));
        assert_eq!(configuration.get(&keys::CHECKPOINTING_DIR), Ok(Some("new".to_owned())));
    }

    #[test]
    fn merging_keeps_the_higher_layer_and_prefers_the_added_one_within_a_layer() {
        let mut cluster = Configuration::new();
        cluster.set_text("parallelism.default", "2", Origin::Argument);
        cluster.set_text("pipeline.name", "from cluster", in_file(1));
        let mut job = Configuration::new();
        job.set_text("parallelism.default", "3", in_file(1));
        job.set_text("pipeline.name", "from job", in_file(1));
        cluster.merge(&job);
        assert_eq!(cluster.get(&keys::PARALLELISM), Ok(2));
        assert_eq!(cluster.get(&keys::PIPELINE_NAME), Ok(Some("from job".to_owned())));
    }

    #[test]
    fn a_bad_value_says_the_key_the_text_the_place_and_what_is_accepted() {
        let mut configuration = Configuration::new();
        configuration.set_text("taskmanager.memory.segment-size", "many", in_file(3));
        let bad = configuration.get(&keys::SEGMENT_SIZE).unwrap_err();
        assert_eq!(
            bad.to_string(),
            "conf/config.yaml, line 3: taskmanager.memory.segment-size is 'many', expected a memory size such as \
             '64 mb': a whole number and one of b, kb, mb, gb, tb (steps of 1024), or a bare number of bytes"
        );
        assert_eq!(Failure::from(bad).remedy, Remedy::FailJob);
    }

    #[test]
    fn values_beyond_their_bounds_are_bad() {
        let mut configuration = Configuration::new();
        configuration.set(&keys::PARALLELISM, 0);
        let bad = configuration.get(&keys::PARALLELISM).unwrap_err().to_string();
        assert_eq!(bad, "set in the program: parallelism.default is '0', expected 1 to 32768");
        configuration.set(&keys::CHECKPOINTING_INTERVAL, Some(Duration::from_millis(9)));
        let bad = configuration.get(&keys::CHECKPOINTING_INTERVAL).unwrap_err();
        assert_eq!(bad.expected, "at least 10 ms");
        configuration.set(&keys::MANAGED_MEMORY_FRACTION, 1.5);
        assert!(configuration.get(&keys::MANAGED_MEMORY_FRACTION).is_err());
    }

    #[test]
    fn validation_finds_all_bad_values_at_once_also_under_old_names_and_in_lower_layers() {
        let mut configuration = Configuration::new();
        configuration.set_text("state.checkpoints.num-retained", "none", in_file(1));
        configuration.set_text("execution.checkpointing.num-retained", "3", Origin::Argument);
        configuration.set_text("rest.port", "99999", Origin::Argument);
        configuration.set_text("not.a.key", "anything", Origin::Argument);
        let BadValues(bad) = configuration.validate().unwrap_err();
        let names: Vec<&str> = bad.iter().map(|bad| bad.key.as_str()).collect();
        assert_eq!(names, ["rest.port", "state.checkpoints.num-retained"]);
        assert_eq!(BadValues(bad).to_string().lines().count(), 3);
        assert_eq!(Configuration::new().validate(), Ok(()));
    }

    #[test]
    fn a_configuration_survives_serialization_with_its_origins() {
        let mut configuration = Configuration::new();
        configuration.set(&keys::PARALLELISM, 4);
        configuration.set_text("rest.port", "0", in_file(2));
        let text = serde_json::to_string(&configuration).unwrap();
        assert_eq!(serde_json::from_str::<Configuration>(&text).unwrap(), configuration);
    }
}
