//! Keys of which there is one for each of some things that users name themselves, such as
//! `metrics.reporter.<name>.port`.

use std::collections::BTreeSet;

use super::{
    environment::variable_of,
    key::{Definition, Key},
    settings::{BadValue, Configuration},
    value::Value,
};

/// What stands for the name in the names of such keys.
const PLACEHOLDER: &str = "<name>";

impl Definition {
    /// The name that `setting` has where this key has its placeholder; `None` if it is another key.
    pub(super) fn name_in<'a>(&self, setting: &'a str) -> Option<&'a str> {
        let (before, after) = self.name.split_once(PLACEHOLDER)?;
        let name = setting.strip_prefix(before)?.strip_suffix(after)?;
        (!name.is_empty() && !name.contains('.')).then_some(name)
    }

    /// This key, for the thing whose name the variable has in its middle.
    pub(super) fn named_by_variable(&self, variable: &str) -> Option<String> {
        let (before, after) = self.name.split_once(PLACEHOLDER)?;
        // Of the end, which begins with a dot, there is no variable.
        let after = variable_of(after).strip_prefix(&variable_of(""))?.to_owned();
        let name = variable.strip_prefix(&variable_of(before))?.strip_suffix(&after)?;
        (!name.is_empty()).then(|| self.named(&name.to_ascii_lowercase()))
    }

    /// This key for the thing of that name.
    pub(super) fn named(&self, name: &str) -> String {
        self.name.replacen(PLACEHOLDER, name, 1)
    }
}

impl Configuration {
    /// The value of a key for the thing of that name.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn get_named<T: Value>(&self, key: &Key<T>, name: &str) -> Result<T, BadValue> {
        let own = key.definition.named(name);
        self.get_as(key, &own)
    }

    /// The names that are used in keys of these, in order.
    pub fn names_in(&self, keys: &[&Definition]) -> BTreeSet<String> {
        let used = self.iter().flat_map(|(setting, ..)| keys.iter().filter_map(move |key| key.name_in(setting)));
        used.map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{METRIC_REPORTER_INTERVAL, METRIC_REPORTER_PORT, Origin},
        *,
    };

    #[test]
    fn each_name_has_a_value_of_its_own() {
        let yaml = "metrics.reporter.prom.port: 9249\nmetrics:\n  reporter:\n    other:\n      port: 9300-9310\n";
        let configuration = Configuration::from_yaml(yaml, "config.yaml").unwrap();
        let port = |name| configuration.get_named(&METRIC_REPORTER_PORT, name).unwrap();
        assert_eq!((port("prom").to_text(), port("other").to_text()), ("9249".to_owned(), "9300-9310".to_owned()));
        assert_eq!(port("third").to_text(), "9249", "the default");
        let keys = [&METRIC_REPORTER_PORT.definition, &METRIC_REPORTER_INTERVAL.definition];
        assert_eq!(Vec::from_iter(configuration.names_in(&keys)), ["other", "prom"]);
        assert_eq!(configuration.warnings(), []);
    }

    #[test]
    fn what_is_wrong_with_one_is_found() {
        let mut configuration = Configuration::new();
        configuration.set_text("metrics.reporter.prom.port", "many", Origin::Argument);
        configuration.set_text("metrics.reporter.prom.prot", "9249", Origin::Argument);
        let bad = configuration.validate().unwrap_err().to_string();
        assert!(bad.contains("metrics.reporter.prom.port is 'many'"), "{bad}");
        let warnings = configuration.warnings();
        assert!(warnings[0].to_string().contains("no key metrics.reporter.prom.prot"), "{warnings:?}");
    }

    #[test]
    fn the_environment_has_them_too() {
        let mut configuration = Configuration::new();
        configuration.apply_environment([("MILLSTREAM_METRICS_REPORTER_PROM_PORT", "9300")]);
        assert_eq!(configuration.get_named(&METRIC_REPORTER_PORT, "prom").unwrap().to_text(), "9300");
    }
}
