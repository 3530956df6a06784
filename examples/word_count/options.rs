//! The command line of the word count, read by hand: it is small, and every crate costs its users time.

use std::path::PathBuf;

pub const USAGE: &str =
    "usage: word_count --input PATH [--input PATH]... [--output DIR] [--parallelism N] [-Dkey=value]...";

#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// Files, and folders with everything below them.
    pub inputs: Vec<PathBuf>,
    pub output: Option<PathBuf>,
    pub parallelism: u32,
}

impl Options {
    /// Reads `--name VALUE` and `--name=VALUE`.
    ///
    /// # Errors
    /// A text for the user.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Options, String> {
        let wrong = |what: String| format!("{what}\n{USAGE}");
        let mut options = Options { inputs: Vec::new(), output: None, parallelism: 2 };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let (name, value) = match argument.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (argument.as_str(), None),
            };
            if !matches!(name, "--input" | "--output" | "--parallelism") {
                return Err(wrong(format!("'{argument}' is not an option")));
            }
            let value = value.or_else(|| arguments.next()).filter(|value| !value.is_empty());
            let value = value.ok_or_else(|| wrong(format!("{name} needs a value")))?;
            match name {
                "--input" => options.inputs.push(value.into()),
                "--output" => options.output = Some(value.into()),
                _ => {
                    let not_a_number = || wrong(format!("--parallelism wants a number, not '{value}'"));
                    options.parallelism = value.parse().map_err(|_| not_a_number())?;
                }
            }
        }
        if options.inputs.is_empty() {
            return Err(wrong("--input is missing".to_owned()));
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn both_ways_to_write_an_option_mean_the_same() {
        let wanted = Options { inputs: vec!["a".into(), "b".into()], output: Some("c".into()), parallelism: 3 };
        assert_eq!(parse("--input a --input=b --output c --parallelism=3").as_ref(), Ok(&wanted));
        assert_eq!(parse("--parallelism 3 --output=c --input a --input b").as_ref(), Ok(&wanted));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, part) in [
            ("", "--input is missing"),
            ("--inptu a", "'--inptu'"),
            ("--input", "--input needs a value"),
            ("--input a --output=", "--output needs a value"),
            ("--input a --parallelism many", "'many'"),
            ("--input a --parallelism -1", "'-1'"),
        ] {
            let wrong = parse(line).expect_err(line);
            assert!(wrong.contains(part) && wrong.contains("usage:"), "{line}: {wrong}");
        }
    }
}
