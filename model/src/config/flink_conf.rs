//! The older form of Flink's configuration, `flink-conf.yaml`: a line is `key: value`, and nothing else is YAML.

use super::{
    origin::Origin,
    settings::Configuration,
    yaml::{MalformedFile, Problem},
};

impl Configuration {
    /// Reads lines of the form `key: value`. What follows a `#` is ignored, as in Flink, even within a value.
    /// `file_name` is for messages.
    ///
    /// # Errors
    /// If a line has another form, or a key is set twice to different values.
    pub fn from_flink_conf(text: &str, file_name: &str) -> Result<Configuration, MalformedFile> {
        let mut configuration = Configuration::new();
        for (line, number) in text.lines().zip(1..) {
            let line = line.split_once('#').map_or(line, |(setting, _)| setting).trim();
            if line.is_empty() || line == "---" {
                continue;
            }
            let malformed = |problem| MalformedFile { file_name: file_name.to_owned(), line: number, problem };
            // Flink splits at ": ", so that a value may hold a colon; a key without a value ends with one.
            let (key, value) = line
                .split_once(": ")
                .or_else(|| Some((line.strip_suffix(':')?, "")))
                .ok_or_else(|| malformed(Problem::NoKeyAndValue))?;
            let (key, value) = (key.trim(), value.trim());
            configuration.set_in_file(key, value, file_name, number).map_err(malformed)?;
        }
        Ok(configuration)
    }

    /// Sets what a file says, unless it says something else elsewhere.
    pub(super) fn set_in_file(&mut self, key: &str, text: &str, file_name: &str, line: u32) -> Result<(), Problem> {
        if let Some(earlier) = self.setting(key)
            && earlier.text != text
            && let Origin::File { line: first_line, .. } = earlier.origin
        {
            return Err(Problem::SetTwice { key: key.to_owned(), first_line });
        }
        self.set_text(key, text, Origin::File { name: file_name.to_owned(), line });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_keys_and_values_and_comments_end_them() {
        let text = "# comment\n\nrest.port: 8082 # why\n  pipeline.name:  a: b\nenv.log.level:\n";
        let configuration = Configuration::from_flink_conf(text, "flink-conf.yaml").unwrap();
        let read: Vec<(&str, &str)> = configuration.iter().map(|(name, text, _)| (name, text)).collect();
        assert_eq!(read, [("env.log.level", ""), ("pipeline.name", "a: b"), ("rest.port", "8082")]);
        let origin = configuration.iter().last().unwrap().2;
        assert_eq!(origin.to_string(), "flink-conf.yaml, line 3");
    }

    #[test]
    fn other_lines_and_second_values_are_errors_with_their_line() {
        let problem = |text| Configuration::from_flink_conf(text, "flink-conf.yaml").unwrap_err().to_string();
        assert_eq!(problem("\nrest.port 8082\n"), "flink-conf.yaml, line 2: expected 'key: value'");
        assert_eq!(problem("a: 1\na: 2\n"), "flink-conf.yaml, line 2: a was already set to another value in line 1");
    }
}
