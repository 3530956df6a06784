//! The configuration: typed keys, the texts they are read from, and where each value came from.
//!
//! ```text
//!  conf/config.yaml ─┐  lowest
//!  environment ──────┤
//!  -Dkey=value ──────┼──► Configuration ──get(&KEY)──► typed value, else the key's default
//!  program ──────────┘  highest   │
//!                                 └──► validate (bad values), warnings (unknown and contradicting keys)
//! ```
//! | Look here for | module |
//! |---|---|
//! | the keys themselves | [`keys`] |
//! | what a key is | [`key`] |
//! | what was set, and the typed look at it | [`Configuration`] (`settings`) |
//! | the types of values and their text forms | [`value`], [`words`], [`duration`], [`memory_size`], [`collection`], [`port_range`] |
//! | keys for each of several things that users name | `named` |
//! | where a value came from, and which of two wins | [`origin`] |
//! | reading files, arguments and the environment | `yaml`, `flink_conf`, `dynamic`, `environment` |
//! | unknown and contradicting keys | [`warning`], `nearest`, `contradiction` |
//! | the reference page in `docs/` | [`mod@reference`] |
//!
//! Nothing here opens a file or looks at the environment: callers do, and hand in the text.

pub mod affinity;
pub mod buffer_timeout;
pub mod collection;
mod contradiction;
pub mod duration;
mod dynamic;
mod environment;
mod flink_conf;
pub mod key;
pub mod keys;
pub mod memory_size;
mod named;
mod nearest;
pub mod origin;
pub mod port_range;
pub mod reference;
mod settings;
pub mod value;
pub mod warning;
pub mod words;
mod yaml;

pub use affinity::Affinity;
pub use buffer_timeout::BufferTimeout;
pub use dynamic::MalformedArgument;
pub use key::{Definition, Key};
pub use keys::*;
pub use memory_size::MemorySize;
pub use origin::Origin;
pub use port_range::PortRange;
pub use settings::{BadValue, BadValues, Configuration};
pub use value::Value;
pub use warning::Warning;
pub use words::*;
pub use yaml::{MalformedFile, Problem};
