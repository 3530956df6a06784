//! Where a value came from: an error about it says so, and it decides which of two values counts.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a value was set. Later variants win over earlier ones.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Origin {
    /// A line of a configuration file, 1-based.
    File { name: String, line: u32 },
    /// A variable of the environment.
    Environment { variable: String },
    /// A `-Dkey=value` argument.
    Argument,
    /// The user's program.
    Program,
}

impl Origin {
    /// The rank of the layer it belongs to: a value of a higher one wins.
    pub(super) fn precedence(&self) -> u8 {
        match self {
            Origin::File { .. } => 0,
            Origin::Environment { .. } => 1,
            Origin::Argument => 2,
            Origin::Program => 3,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File { name, line } => write!(f, "{name}, line {line}"),
            Origin::Environment { variable } => write!(f, "environment variable {variable}"),
            Origin::Argument => f.write_str("-D argument"),
            Origin::Program => f.write_str("set in the program"),
        }
    }
}
