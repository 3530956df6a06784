//! `conf/config.yaml`, as in Flink 2: maps may be nested (their keys are joined with `.`), flat, or both.

use std::borrow::Cow;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, StrInput};

use super::{collection, settings::Configuration};

impl Configuration {
    /// Reads a YAML document. Scalars are taken as they are written: `1.20` stays `1.20`, and `off` is a word. A key
    /// without a value, or with `null`, is not set. `file_name` is for messages.
    ///
    /// # Errors
    /// If the text is not YAML, is no map of maps, lists and scalars, or sets a key twice to different values.
    pub fn from_yaml(text: &str, file_name: &str) -> Result<Configuration, MalformedFile> {
        let mut reader = Reader { events: Parser::new_from_str(text), file_name, configuration: Configuration::new() };
        reader.stream()?;
        Ok(reader.configuration)
    }
}

/// A configuration file that cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{file_name}, line {line}: {problem}")]
pub struct MalformedFile {
    pub file_name: String,
    /// 1-based.
    pub line: u32,
    pub problem: Problem,
}

/// What is wrong with a line of a configuration file.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Problem {
    #[error("not YAML: {0}")]
    NotYaml(String),
    #[error("expected a map of keys and values")]
    NoMap,
    #[error("expected a name as key")]
    NoName,
    #[error("expected a single value as element of a list")]
    NoElement,
    #[error("references to other values (*name) are not supported: write the value out")]
    Reference,
    #[error("expected the end: a configuration is one document")]
    SecondDocument,
    #[error("maps are nested more than {DEPTH_MAX} levels deep")]
    TooDeep,
    #[error("expected 'key: value'")]
    NoKeyAndValue,
    #[error("{key} was already set to another value in line {first_line}")]
    SetTwice { key: String, first_line: u32 },
}

/// No key has that many parts; it bounds the recursion.
const DEPTH_MAX: usize = 16;

struct Reader<'a> {
    events: Parser<'a, StrInput<'a>>,
    file_name: &'a str,
    configuration: Configuration,
}

impl<'a> Reader<'a> {
    fn stream(&mut self) -> Result<(), MalformedFile> {
        let mut documents = 0;
        loop {
            let (event, line) = self.next()?;
            match Token::of(event) {
                Token::Other(Event::StreamEnd) => return Ok(()),
                Token::Other(Event::DocumentStart(_)) if documents == 1 => {
                    return Err(self.malformed(line, Problem::SecondDocument));
                }
                Token::Other(Event::DocumentStart(_)) => documents += 1,
                Token::Other(Event::StreamStart | Event::DocumentEnd | Event::Nothing) | Token::Null => {}
                Token::Other(Event::MappingStart(..)) => self.map("", 1)?,
                Token::Text(_) | Token::Other(_) => {
                    return Err(self.malformed(line, Problem::NoMap));
                }
            }
        }
    }

    /// Reads the rest of a map whose keys all start with `prefix`, which is empty or ends with a dot.
    fn map(&mut self, prefix: &str, depth: usize) -> Result<(), MalformedFile> {
        loop {
            let (event, line) = self.next()?;
            match Token::of(event) {
                Token::Other(Event::MappingEnd) => return Ok(()),
                Token::Text(name) => self.value(format!("{prefix}{name}"), depth)?,
                _ => return Err(self.malformed(line, Problem::NoName)),
            }
        }
    }

    fn value(&mut self, key: String, depth: usize) -> Result<(), MalformedFile> {
        let (event, line) = self.next()?;
        let text = match Token::of(event) {
            Token::Null => return Ok(()),
            Token::Text(text) => text.into_owned(),
            Token::Other(Event::SequenceStart(..)) => self.list()?,
            Token::Other(Event::MappingStart(..)) if depth < DEPTH_MAX => {
                return self.map(&format!("{key}."), depth + 1);
            }
            Token::Other(Event::MappingStart(..)) => {
                return Err(self.malformed(line, Problem::TooDeep));
            }
            Token::Other(_) => return Err(self.malformed(line, Problem::Reference)),
        };
        let set = self.configuration.set_in_file(&key, &text, self.file_name, line);
        set.map_err(|problem| self.malformed(line, problem))
    }

    /// Reads the rest of a list into the form that values of type list are read from.
    fn list(&mut self) -> Result<String, MalformedFile> {
        let mut elements = Vec::new();
        loop {
            let (event, line) = self.next()?;
            match Token::of(event) {
                Token::Other(Event::SequenceEnd) => return Ok(collection::list_to_text(&elements)),
                Token::Text(text) => elements.push(text),
                Token::Other(Event::Alias(_)) => {
                    return Err(self.malformed(line, Problem::Reference));
                }
                Token::Null | Token::Other(_) => {
                    return Err(self.malformed(line, Problem::NoElement));
                }
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, u32), MalformedFile> {
        match self.events.next_event() {
            Some(Ok((event, span))) => Ok((event, line_of(&span.start))),
            Some(Err(error)) => Err(self.malformed(line_of(error.marker()), Problem::NotYaml(error.info().to_owned()))),
            None => Ok((Event::StreamEnd, 0)),
        }
    }

    fn malformed(&self, line: u32, problem: Problem) -> MalformedFile {
        MalformedFile { file_name: self.file_name.to_owned(), line, problem }
    }
}

/// An event, with scalars told apart as YAML's core schema does for null, and for nothing else.
enum Token<'a> {
    Null,
    Text(Cow<'a, str>),
    Other(Event<'a>),
}

impl<'a> Token<'a> {
    fn of(event: Event<'a>) -> Token<'a> {
        match event {
            Event::Scalar(text, ScalarStyle::Plain, ..) if matches!(&*text, "" | "~" | "null" | "Null" | "NULL") => {
                Token::Null
            }
            Event::Scalar(text, ..) => Token::Text(text),
            event => Token::Other(event),
        }
    }
}

fn line_of(marker: &Marker) -> u32 {
    u32::try_from(marker.line()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::{super::Origin, *};

    fn read(text: &str) -> Vec<(String, String)> {
        let configuration = Configuration::from_yaml(text, "config.yaml").unwrap();
        configuration.iter().map(|(name, text, _)| (name.to_owned(), text.to_owned())).collect()
    }

    fn problem(text: &str) -> String {
        Configuration::from_yaml(text, "config.yaml").unwrap_err().to_string()
    }

    fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> Vec<(String, String)> {
        pairs.map(|(name, text)| (name.to_owned(), text.to_owned())).to_vec()
    }

    #[test]
    fn nested_flat_and_mixed_keys_are_the_same() {
        let expected = pairs([("execution.checkpointing.interval", "10 s"), ("execution.checkpointing.mode", "X")]);
        for text in [
            "execution:\n  checkpointing:\n    interval: 10 s\n    mode: X\n",
            "execution.checkpointing.interval: 10 s\nexecution.checkpointing.mode: 'X'\n",
            "execution.checkpointing:\n  interval: \"10 s\"\nexecution:\n  checkpointing.mode: X # why\n",
            "{execution: {checkpointing: {interval: 10 s, mode: X}}}",
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn scalars_are_taken_as_they_are_written() {
        let text = "a: 1.20\nb: off\nc: 0x10\nd: 'null'\ne: ''\nf: http://host:8081/x#y\n";
        let expected =
            [("a", "1.20"), ("b", "off"), ("c", "0x10"), ("d", "null"), ("e", ""), ("f", "http://host:8081/x#y")];
        assert_eq!(read(text), pairs(expected));
    }

    #[test]
    fn null_and_nothing_set_no_key() {
        assert_eq!(read("a:\nb: null\nc: ~\nd: 1\n"), pairs([("d", "1")]));
        for text in ["", "\n# only a comment\n", "---\n", "---\nnull\n...\n"] {
            assert_eq!(read(text), [], "{text:?}");
        }
    }

    #[test]
    fn lists_become_the_text_form_of_lists() {
        assert_eq!(
            read("a: [x, 'y;z']\nb:\n  - 1\n  - 2\nc: []\n"),
            pairs([("a", "x;'y;z'"), ("b", "1;2"), ("c", "")])
        );
    }

    #[test]
    fn a_value_knows_its_line() {
        let text = "# comment\nrest:\n  address: here\n\n  port: none\n";
        let configuration = Configuration::from_yaml(text, "conf/config.yaml").unwrap();
        let origins: Vec<Origin> = configuration.iter().map(|(.., origin)| origin.clone()).collect();
        let file = |line| Origin::File { name: "conf/config.yaml".to_owned(), line };
        assert_eq!(origins, [file(3), file(5)]);
        let bad = configuration.validate().unwrap_err();
        assert!(bad.to_string().contains("conf/config.yaml, line 5: rest.port is 'none'"), "{bad}");
    }

    #[test]
    fn a_key_with_two_values_is_an_error_and_a_repeated_value_is_none() {
        assert_eq!(
            problem("a:\n  b: 1\na.b: 2\n"),
            "config.yaml, line 3: a.b was already set to another value in line 2"
        );
        assert_eq!(read("a:\n  b: 1\na.b: 1\n"), pairs([("a.b", "1")]));
    }

    #[test]
    fn what_is_no_configuration_is_an_error_with_its_line() {
        for (text, expected) in [
            ("just text", "config.yaml, line 1: expected a map of keys and values"),
            ("- a\n- b\n", "config.yaml, line 1: expected a map of keys and values"),
            ("a: 1\n[x]: 2\n", "config.yaml, line 2: expected a name as key"),
            ("a:\n  - b: 1\n", "config.yaml, line 2: expected a single value as element of a list"),
            (
                "a: &x 1\nb: [*x]\n",
                "config.yaml, line 2: references to other values (*name) are not supported: write the value out",
            ),
            (
                "a: &x 1\nb: *x\n",
                "config.yaml, line 2: references to other values (*name) are not supported: write the value out",
            ),
            ("a: 1\n---\nb: 2\n", "config.yaml, line 2: expected the end: a configuration is one document"),
        ] {
            assert_eq!(problem(text), expected, "{text}");
        }
        assert!(problem("a: 1\n b: 2\n").starts_with("config.yaml, line 2: not YAML: "));
        assert!(problem("a: [1\n").contains("not YAML"));
    }

    #[test]
    fn deep_nesting_is_an_error_and_not_a_stack_overflow() {
        let deep = "{a: ".repeat(100_000);
        assert!(Configuration::from_yaml(&deep, "config.yaml").is_err());
        let too_deep = format!("{}1{}", "{a: ".repeat(17), "}".repeat(17));
        assert_eq!(problem(&too_deep), "config.yaml, line 1: maps are nested more than 16 levels deep");
    }
}
