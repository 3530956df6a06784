//! Settings in the environment: `MILLSTREAM_` and the key, upper-cased, with `_` for each `.` and `-`.

use super::{keys, origin::Origin, settings::Configuration};

impl Configuration {
    /// Applies variables such as `MILLSTREAM_TASKMANAGER_NUMBEROFTASKSLOTS=4`; variables without the prefix are left
    /// alone. One that has the prefix but names no key is kept, to be reported as unknown: callers leave out the
    /// variables with this prefix that are not settings.
    pub fn apply_environment<N: AsRef<str>, V: AsRef<str>>(&mut self, variables: impl IntoIterator<Item = (N, V)>) {
        for (variable, value) in variables {
            let variable = variable.as_ref();
            if variable.starts_with(PREFIX) {
                let key = key_of(variable).unwrap_or_else(|| variable.to_owned());
                self.set_text(&key, value.as_ref(), Origin::Environment { variable: variable.to_owned() });
            }
        }
    }
}

const PREFIX: &str = "MILLSTREAM_";

/// The variable that sets the key of this name.
pub(super) fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.replace(['.', '-'], "_").to_ascii_uppercase())
}

/// The name that a variable sets: that of a key, or an alias, or that of a key with a name of the user's in it, in lower
/// case.
fn key_of(variable: &str) -> Option<String> {
    let known = keys::all().flat_map(|key| key.names()).find(|name| variable_of(name) == variable);
    known.map(str::to_owned).or_else(|| keys::all().find_map(|key| key.named_by_variable(variable)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        super::{CHECKPOINTING_DIR, TASK_SLOTS, TASK_STEP_WARNING, Warning},
        *,
    };

    #[test]
    fn a_variable_sets_the_key_that_it_spells() {
        let mut configuration = Configuration::new();
        configuration.apply_environment([
            ("MILLSTREAM_TASKMANAGER_NUMBEROFTASKSLOTS", "4"),
            ("MILLSTREAM_STATE_CHECKPOINTS_DIR", "there"),
            ("MILLSTREAM_TASK_STEP_WARNING", "2 ms"),
            ("HOME", "elsewhere"),
        ]);
        assert_eq!(configuration.get(&TASK_SLOTS), Ok(4));
        assert_eq!(configuration.get(&CHECKPOINTING_DIR), Ok(Some("there".to_owned())));
        assert_eq!(configuration.get(&TASK_STEP_WARNING), Ok(Duration::from_millis(2)));
        assert_eq!(configuration.iter().count(), 3);
        let origin = configuration.origin(&TASK_SLOTS).unwrap().to_string();
        assert_eq!(origin, "environment variable MILLSTREAM_TASKMANAGER_NUMBEROFTASKSLOTS");
    }

    #[test]
    fn every_key_can_be_set_by_its_variable() {
        for key in keys::all() {
            let mut configuration = Configuration::new();
            configuration.apply_environment([(variable_of(key.name), "text")]);
            assert!(configuration.find(key).is_some(), "{}", key.name);
        }
    }

    #[test]
    fn a_variable_that_spells_no_key_is_reported_with_the_one_that_does() {
        let mut configuration = Configuration::new();
        configuration.apply_environment([("MILLSTREAM_REST_PORTS", "1")]);
        let [Warning::Unknown { name, nearest, .. }] = &configuration.warnings()[..] else { panic!() };
        assert_eq!(name, "MILLSTREAM_REST_PORTS");
        assert_eq!(nearest.as_deref(), Some("MILLSTREAM_REST_PORT"));
    }
}
