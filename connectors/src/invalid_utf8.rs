//! What sources of text do with what is not text.

use serde::{Deserialize, Serialize};

/// Name of the accumulator that [`InvalidUtf8::Skip`] counts in.
pub const SKIPPED: &str = "invalid-utf8-lines";

/// What to do with a line that is not UTF-8.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum InvalidUtf8 {
    /// Fail the job, saying where.
    #[default]
    Fail,
    /// Leave the line out and count it in the accumulator `invalid-utf8-lines`.
    Skip,
    /// Put U+FFFD in the place of each invalid part.
    Replace,
}
