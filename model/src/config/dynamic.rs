//! `-Dkey=value` arguments.

use super::{origin::Origin, settings::Configuration};

/// An argument that sets nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("'{0}' sets no key: expected -Dkey=value")]
pub struct MalformedArgument(pub String);

impl Configuration {
    /// Applies arguments of the form `-Dkey=value`, also without the `-D`. A later one wins over an earlier one, and a
    /// key alone stands for `key=true`, as in Flink.
    ///
    /// # Errors
    /// If an argument names no key.
    pub fn apply_dynamic<S: AsRef<str>>(
        &mut self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<(), MalformedArgument> {
        for argument in arguments {
            let argument = argument.as_ref();
            let setting = argument.strip_prefix("-D").unwrap_or(argument);
            let (key, value) = setting.split_once('=').unwrap_or((setting, "true"));
            if key.trim().is_empty() {
                return Err(MalformedArgument(argument.to_owned()));
            }
            self.set_text(key.trim(), value.trim(), Origin::Argument);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_argument_wins_and_a_value_may_hold_an_equals_sign() {
        let mut configuration = Configuration::new();
        configuration.apply_dynamic(["-Dpipeline.name=a", "-Dpipeline.name=b=c", "rest.port = 0"]).unwrap();
        let read: Vec<(&str, &str)> = configuration.iter().map(|(name, text, _)| (name, text)).collect();
        assert_eq!(read, [("pipeline.name", "b=c"), ("rest.port", "0")]);
        assert!(configuration.iter().all(|(.., origin)| *origin == Origin::Argument));
    }

    #[test]
    fn a_key_alone_is_switched_on_and_no_key_is_an_error() {
        let mut configuration = Configuration::new();
        configuration.apply_dynamic(["-Dsecurity.insecure"]).unwrap();
        assert_eq!(configuration.get(&super::super::SECURITY_INSECURE), Ok(true));
        for argument in ["-D", "-D=5", ""] {
            assert_eq!(configuration.apply_dynamic([argument]), Err(MalformedArgument(argument.to_owned())));
        }
    }
}
