//! What the engine's benchmark programs share. The programs are in `src/bin/`, one for each name that `cargo xtask bench`
//! knows; `benches/` holds criterion's, for parts.
//!
//! ```text
//!  options ──► a job of the public crate ──► report: one JSON object a line
//!                  │         ▲
//!       sources ───┘         └── machine: clock, processor time, who else was busy
//! ```
//!
//! | Look here for | module |
//! |---|---|
//! | the options that `cargo xtask bench` passes | [`options`] |
//! | figures as JSON lines | [`report`] |
//! | clock, processor time, load of others | [`machine`] |
//! | from a job's start to its last record | [`span`] |
//! | the same, of jobs whose subtasks are in other processes | [`stamp`] |
//! | jobs of two worker processes | [`workers`] |
//! | what is between them: loopback, an Ethernet, one that loses | [`path`] |
//! | hosts, their workers and their weather, which are those of the tests | [`hosts`], [`hosted_worker`], [`weather`] |
//! | a standalone cluster, and what it costs | [`cluster`] |
//! | the same of Flink | [`flink`] |
//! | the 100-byte record and its answers | [`keyed_sum`] |
//! | records that are due, and how late they were | [`paced`] |
//! | how many allocations there were | [`allocations`] |
#![allow(clippy::disallowed_methods, reason = "benchmarks look at the clock")]

pub mod allocations;
pub mod cluster;
pub mod flink;
#[path = "../../tests/src/hosted_worker.rs"]
pub mod hosted_worker;
#[path = "../../tests/src/hosts.rs"]
pub mod hosts;
pub mod keyed_sum;
pub mod machine;
pub mod options;
pub mod paced;
pub mod path;
pub mod report;
pub mod span;
pub mod stamp;
#[path = "../../tests/src/weather.rs"]
pub mod weather;
pub mod workers;
