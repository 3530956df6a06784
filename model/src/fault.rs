//! Why something failed, and what may be done about it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The remedy an error asks for. Schedulers match on this, never on text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Remedy {
    /// Ask the user: their program, configuration or data is wrong. Retrying cannot help.
    FailJob,
    /// Restart the affected region from the last completed checkpoint.
    Failover,
    /// Try the same call again after a pause; nothing was done.
    Retry,
}

/// What a task, an operator or a connector reports when it cannot go on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// What went wrong, and what to do, for a person.
    pub message: String,
    /// The operator it happened in, if it is known.
    pub operator: Option<String>,
    /// Where in the input the record was, for a person: a file and an offset, or a channel and a count.
    pub position: Option<String>,
    /// The stack where it happened, if one was taken.
    pub backtrace: Option<String>,
    pub remedy: Remedy,
}

impl Failure {
    /// A failure that a restart may mend.
    pub fn new(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), operator: None, position: None, backtrace: None, remedy: Remedy::Failover }
    }

    /// A failure that no restart can mend.
    pub fn fatal(message: impl Into<String>) -> Failure {
        Failure { remedy: Remedy::FailJob, ..Failure::new(message) }
    }

    /// Names the operator, unless one closer to the cause is already named.
    #[must_use]
    pub fn in_operator(mut self, name: &str) -> Failure {
        self.operator.get_or_insert_with(|| name.to_owned());
        self
    }

    /// Says where in the input the record was, unless that is already said.
    #[must_use]
    pub fn at(mut self, position: impl Into<String>) -> Failure {
        self.position.get_or_insert_with(|| position.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(operator) = &self.operator {
            write!(f, "operator '{operator}': ")?;
        }
        f.write_str(&self.message)?;
        if let Some(position) = &self.position {
            write!(f, " (at {position})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}
