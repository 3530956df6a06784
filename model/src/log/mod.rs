//! What logs are made of: lines that know when, how important, by whom, and what for.
//!
//! ```text
//!  tracing event ──► LogLine ──to_text──► file ──Parser──► LogLine ──► LogFilter ──► client
//!        ▲               ▲
//!     LogLevels       context: the task that this thread is working for
//! ```
//! | Look here for | module |
//! |---|---|
//! | one line | [`line`](mod@line) |
//! | its forms in files, text and JSON, and the way back | [`form`] |
//! | which lines somebody wants to see | [`filter`] |
//! | which events are logged at all | [`levels`] |
//! | which task a thread works for | [`context`] |

pub mod context;
pub mod filter;
pub mod form;
pub mod levels;
pub mod line;
mod time;

pub use filter::LogFilter;
pub use form::{LogForm, Parser};
pub use levels::LogLevels;
pub use line::{LogLine, LogTask, Origin};
pub use time::parse_time;
