//! Speaks with a JobManager over gRPC: what `millstream run` and its neighbours are made with, and what programs may use.
//!
//! ```text
//!  proto/millstream/v1/*.proto ──generated, checked in──► proto ──► Client
//! ```
//! | Look here for | module |
//! |---|---|
//! | a connection to a JobManager | [`client`] |
//! | what it takes to be let in | [`access`], [`tls`] |
//! | messages and services, as they are on the wire | [`proto`] |
//! | why it cannot be reached | [`cause`] |
//! | lines of logs as they come | [`log_stream`] |
//! | from the engine's words to theirs and back | [`convert`] |

pub mod access;
pub mod cause;
pub mod client;
pub mod convert;
pub mod log_stream;
pub mod proto;
pub mod tls;

pub use access::{Access, AccessError};
pub use client::{Client, ClientError, Watch};
pub use log_stream::LogStream;
