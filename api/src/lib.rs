//! What users write against: records, streams, functions, sources and sinks.
//!
//! ```text
//!  program ──► stream (methods) ──► graph (nodes) ──plan──► JobGraph (factories as offsets)
//!                                                              │
//!  worker:  head / source ──► Push ──► Push ──► EdgeWriter  ◄──┘ factory
//! ```
//!
//! | Look here for | module |
//! |---|---|
//! | `StreamExecutionEnvironment`, `DataStream`, `KeyedStream` | [`stream`] |
//! | functions as types, with state, timers and life cycle | [`function`], [`context`] |
//! | numbers that functions report of themselves | [`metrics`] |
//! | records, handles, keys | [`record`] |
//! | state and snapshots | [`state`] |
//! | sources, sinks and coordinators | [`source`], [`sink`], [`coordinator`], [`builtin`] |
//! | jobs and their results | [`job`] |
//! | how operators travel, and functions without captures | [`factory`], [`conjure`](mod@conjure) |
//! | how records and signals pass through a chain | [`push`], [`signal`], [`flow`] |
//! | what is held because one record became too much | [`overflow`] |
//! | what is known of a user function's panic | [`panics`] |
//! | how records lie in segments | [`frame`], [`output`], [`head`] |

// Lets the derive macro's paths work in this crate's own tests and modules.
extern crate self as millstream_api;

pub mod builtin;
pub mod conjure;
pub mod context;
pub mod coordinator;
mod edge;
pub mod factory;
pub mod flow;
pub mod frame;
pub mod function;
mod graph;
pub mod head;
pub mod job;
pub mod metrics;
mod operators;
pub mod output;
pub mod overflow;
pub mod panics;
pub mod push;
pub mod record;
pub mod signal;
pub mod sink;
pub mod source;
pub mod state;
pub mod stream;

#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;

pub use graph::InvalidGraph;
pub use millstream_derive::Record;
pub use operators::{
    async_wait::settings::{AsyncRetry, AsyncWait},
    watermarks::WatermarkStrategy,
};
pub use record::Record;
