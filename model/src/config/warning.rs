//! What is suspicious about a configuration, though each value is right by itself.

use std::fmt;

use super::{
    contradiction, environment::variable_of, key::Definition, keys, nearest::nearest, origin::Origin,
    settings::Configuration,
};

/// Something that is probably not meant as it is written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Warning {
    /// No key has this name.
    Unknown { name: String, origin: Origin, nearest: Option<String> },
    /// Two names of one key have different values in the same layer; the one of `used` counts.
    TwoNames { used: &'static str, ignored: &'static str, origin: Origin },
    /// Keys that do not go together; the text says which, and what holds.
    Contradiction(String),
}

impl Configuration {
    /// Unknown names, two names of a key with different values, and keys that do not go together. Keys with bad values
    /// are left to [`validate`](Self::validate).
    pub fn warnings(&self) -> Vec<Warning> {
        let mut warnings: Vec<Warning> = self.unknown_names().collect();
        warnings.extend(keys::all().flat_map(|key| self.names_at_odds(key)));
        warnings.extend(contradiction::all(self).into_iter().map(Warning::Contradiction));
        warnings
    }

    fn unknown_names(&self) -> impl Iterator<Item = Warning> {
        self.iter().filter(|(name, ..)| keys::find(name).is_none()).map(|(name, _, origin)| {
            // What stands in for a key here is the variable itself, if none is spelled by it.
            let nearest = match origin {
                Origin::Environment { variable } if variable == name => {
                    nearest(name, keys::all().flat_map(Definition::names).map(variable_of))
                }
                _ => nearest(name, keys::all().flat_map(Definition::names).map(str::to_owned)),
            };
            Warning::Unknown { name: name.to_owned(), origin: origin.clone(), nearest }
        })
    }

    fn names_at_odds(&self, key: &'static Definition) -> Vec<Warning> {
        let Some((used, counting)) = self.find(key) else { return Vec::new() };
        let others = key.names().filter_map(|name| Some((name, self.setting(name)?)));
        let at_odds = others.filter(|(_, other)| {
            other.text != counting.text && other.origin.precedence() == counting.origin.precedence()
        });
        at_odds.map(|(ignored, other)| Warning::TwoNames { used, ignored, origin: other.origin.clone() }).collect()
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::Unknown { name, origin, nearest } => {
                write!(f, "{origin}: there is no key {name}")?;
                nearest.iter().try_for_each(|nearest| write!(f, "; did you mean {nearest}?"))
            }
            Warning::TwoNames { used, ignored, origin } => {
                write!(f, "{origin}: {ignored} is ignored: it is another name of {used}, which has another value")
            }
            Warning::Contradiction(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings(yaml: &str) -> Vec<String> {
        let configuration = Configuration::from_yaml(yaml, "config.yaml").unwrap();
        configuration.warnings().iter().map(Warning::to_string).collect()
    }

    #[test]
    fn a_configuration_of_known_keys_that_agree_gives_no_warning() {
        assert_eq!(warnings("rest.port: 0\nexecution.checkpointing:\n  interval: 1 s\n"), [""; 0]);
    }

    #[test]
    fn an_unknown_key_is_reported_with_its_place_and_the_nearest_known_one() {
        let found = warnings("rest.port: 0\nexecution:\n  checkpointing:\n    intervall: 1 s\nfoo: bar\n");
        assert_eq!(
            found,
            [
                "config.yaml, line 4: there is no key execution.checkpointing.intervall; did you mean \
             execution.checkpointing.interval?",
                "config.yaml, line 5: there is no key foo",
            ]
        );
    }

    #[test]
    fn two_names_of_a_key_are_reported_only_if_their_values_differ() {
        let found = warnings("execution.checkpointing.dir: a\nstate.checkpoints.dir: b\n");
        assert_eq!(
            found,
            ["config.yaml, line 2: state.checkpoints.dir is ignored: it is another name of \
                            execution.checkpointing.dir, which has another value"]
        );
        assert_eq!(warnings("execution.checkpointing.dir: a\nstate.checkpoints.dir: a\n"), [""; 0]);
    }

    #[test]
    fn overriding_an_old_name_from_a_higher_layer_is_no_contradiction() {
        let mut configuration = Configuration::from_yaml("state.checkpoints.dir: a", "config.yaml").unwrap();
        configuration.apply_dynamic(["-Dexecution.checkpointing.dir=b"]).unwrap();
        assert_eq!(configuration.warnings(), []);
    }
}
