//! An error with its causes as one text, for failures that go to a person.

use std::error::Error;

/// The error and everything behind it, from the outermost to the root.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
