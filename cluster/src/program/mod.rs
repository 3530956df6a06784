//! A program that describes jobs: the artifact, started in the role `plan`, and the calls that its `execute()`s make.
//!
//! ```text
//!   ProgramLine::command ──starts──► the artifact's main(), once
//!        ▲                               │ each call of an execution, over a Unix socket
//!        └── serve ◄─────────────────────┘
//!               └──► ProgramCalls: `millstream run` by gRPC, a JobManager by itself
//! ```
//! | Look here for | module |
//! |---|---|
//! | the socket and what goes over it | [`line`] |
//! | how a program ended that has executed nothing | [`no_job`] |
//! | its process, where this one cares for it | `process` |
//! | the end of what it wrote to standard error | [`last_words`] |

pub mod last_words;
pub mod line;
pub mod no_job;
pub(crate) mod process;

pub use last_words::LastWords;
pub use line::{ProgramCalls, ProgramLine};
pub use no_job::NoJob;
