//! Which events are logged: by how important they are, and by the module that has them.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::config::{LogLevel, value::Value};

impl LogLevel {
    /// The higher, the more is logged; 0 is nothing.
    pub fn verbosity(self) -> u8 {
        match self {
            LogLevel::Off => 0,
            LogLevel::Error => 1,
            LogLevel::Warn => 2,
            LogLevel::Info => 3,
            LogLevel::Debug => 4,
            LogLevel::Trace => 5,
        }
    }
}

/// The least important events that are logged, for each module that something was said about; that of a module is for
/// those in it, too, and the empty name is for all. In text: `INFO,millstream_shuffle=DEBUG`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LogLevels(BTreeMap<String, LogLevel>);

impl LogLevels {
    /// The same for all modules.
    pub fn all(level: LogLevel) -> LogLevels {
        LogLevels(BTreeMap::from([(String::new(), level)]))
    }

    /// Whether nothing is said about any module.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// These, with others that are stronger.
    #[must_use]
    pub fn with(&self, stronger: &LogLevels) -> LogLevels {
        let both = self.0.iter().chain(&stronger.0);
        LogLevels(both.map(|(target, level)| (target.clone(), *level)).collect())
    }

    /// For a module: what was said about it or the closest around it; `Off` if nothing was.
    pub fn of(&self, target: &str) -> LogLevel {
        let mut prefix = target;
        loop {
            if let Some(level) = self.0.get(prefix) {
                return *level;
            }
            prefix = match prefix.rfind("::") {
                Some(at) => &prefix[..at],
                None if prefix.is_empty() => return LogLevel::Off,
                None => "",
            };
        }
    }

    /// Of all modules, the most that is logged.
    pub fn most(&self) -> LogLevel {
        self.0.values().copied().max_by_key(|level| level.verbosity()).unwrap_or(LogLevel::Off)
    }

    /// What is said: modules, the empty name for all, and their levels.
    pub fn iter(&self) -> impl Iterator<Item = (&str, LogLevel)> {
        self.0.iter().map(|(target, level)| (target.as_str(), *level))
    }
}

/// A text that is no levels.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("'{0}' says no level: OFF, ERROR, WARN, INFO, DEBUG or TRACE is expected, after MODULE= for a part of the log")]
pub struct MalformedLevels(String);

impl FromStr for LogLevels {
    type Err = MalformedLevels;

    fn from_str(text: &str) -> Result<LogLevels, MalformedLevels> {
        let said = text.split(',').map(str::trim).filter(|said| !said.is_empty()).map(|said| {
            let malformed = || MalformedLevels(said.to_owned());
            let (target, level) = said.split_once('=').unwrap_or(("", said));
            let target = target.trim();
            let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '-' | '.');
            if said.contains('=') && target.is_empty() || !target.chars().all(is_name) {
                return Err(malformed());
            }
            Ok((target.to_owned(), LogLevel::parse(level).map_err(|_| malformed())?))
        });
        Ok(LogLevels(said.collect::<Result<_, _>>()?))
    }
}

impl fmt::Display for LogLevels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (target, level)) in self.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            let equals = if target.is_empty() { "" } else { "=" };
            write!(f, "{comma}{target}{equals}{}", level.to_text())?;
        }
        Ok(())
    }
}

impl Value for LogLevels {
    const TYPE_NAME: &'static str = "levels by module";

    fn parse(text: &str) -> Result<LogLevels, String> {
        text.parse().map_err(|_| "MODULE=LEVEL,…, where a level is OFF, ERROR, WARN, INFO, DEBUG or TRACE".to_owned())
    }

    fn to_text(&self) -> String {
        self.to_string()
    }
}

impl Serialize for LogLevels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LogLevels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_module_decides() {
        let levels: LogLevels = "warn, app::parts = DEBUG,app=off".parse().unwrap();
        assert_eq!(levels.to_string(), "WARN,app=OFF,app::parts=DEBUG");
        for (target, level) in [
            ("app", LogLevel::Off),
            ("app::other", LogLevel::Off),
            ("app::parts", LogLevel::Debug),
            ("app::parts::deep", LogLevel::Debug),
            ("app::partsmith", LogLevel::Off),
            ("apple", LogLevel::Warn),
            ("", LogLevel::Warn),
        ] {
            assert_eq!(levels.of(target), level, "{target}");
        }
        assert_eq!(levels.most(), LogLevel::Debug);
        let stronger = levels.with(&"app=INFO,ERROR".parse().unwrap());
        assert_eq!(stronger.to_string(), "ERROR,app=INFO,app::parts=DEBUG");
        assert_eq!(LogLevels::default().of("app"), LogLevel::Off);
    }

    #[test]
    fn what_is_no_level_is_refused_with_its_text() {
        for text in ["LOUD", "app=LOUD", "=INFO", "a b=INFO"] {
            let error = format!("INFO,{text}").parse::<LogLevels>().unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}
