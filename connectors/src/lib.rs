//! Sources and sinks that talk to the outside: text files, sockets, and a generator of records.
//!
//! ```text
//!            slot's thread                 I/O runtime
//!  source:   reader  ◄──── full blocks ──── reads files, sockets     coordinator: lists files, hands out splits
//!                    ───── empty blocks ──►
//!  sink:     writer  ───── full buffers ──► writes, syncs, renames
//!                    ◄──── empty buffers ──
//! ```
//! | Look here for | module |
//! |---|---|
//! | text files as source and sink | [`file`] |
//! | records that are made, at a rate | [`generator`] |
//! | lines from a TCP socket | [`socket`] |
//! | what is done with text that is not UTF-8 | [`invalid_utf8`] |
//! | which functions can reach the workers; state and messages of connectors as bytes | `captures`, `section` |

mod captures;
#[cfg(test)]
mod fake;
pub mod file;
pub mod generator;
pub mod invalid_utf8;
mod section;
pub mod socket;

pub use file::{TextFileSink, TextFileSource};
pub use generator::GeneratorSource;
pub use invalid_utf8::InvalidUtf8;
pub use socket::SocketTextSource;
