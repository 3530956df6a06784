//! Text files: one record per line.
//!
//! | Look here for | module |
//! |---|---|
//! | the source as programs name it | [`source`] |
//! | which subtask reads what: splits and how they are asked for; the decider; directories | [`split`], [`enumerator`], [`lister`] |
//! | reading: the slot's half, text checked by the block, lines found in it, the I/O half | [`reader`], [`text_block`], [`lines`], [`blocks`] |
//! | the sink as programs name it, and how a record becomes a line | [`sink`], [`format`] |
//! | writing: the slot's half, which file a line goes to and when it is committed, the I/O half | [`writer`], [`parts`], [`part_io`] |
//! | what is done with files of earlier attempts; the disk as the sink sees it | [`recovery`], [`disk`] |

mod blocks;
mod disk;
mod enumerator;
pub mod format;
mod lines;
mod lister;
mod part_io;
mod parts;
mod path;
pub mod reader;
mod recovery;
#[cfg(test)]
mod recovery_test;
#[cfg(test)]
mod simulated_disk;
pub mod sink;
#[cfg(test)]
mod sink_test;
pub mod source;
#[cfg(test)]
mod source_test;
mod split;
mod text_block;
pub mod writer;

pub use format::{AsIs, LineFormat, TabSeparated};
pub use sink::TextFileSink;
pub use source::TextFileSource;

use millstream_model::fault::{Failure, Remedy};
use millstream_storage::durable::FileError;

/// The failure that a refusal of the operating system becomes, with the cause and a further remedy in the text.
fn failure_of(error: &FileError, remedy: &str) -> Failure {
    let message = format!("{error}: {}{}{remedy}", error.source, if remedy.is_empty() { "" } else { "; " });
    match error.remedy() {
        Remedy::FailJob => Failure::fatal(message),
        Remedy::Failover | Remedy::Retry => Failure::new(message),
    }
}
