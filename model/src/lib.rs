//! The words that both planes share: ids, time, key groups, the job graph and the messages between coordinator and
//! workers. No I/O, no threads, no clock, no async.
//!
//! ```text
//!  user code ──► JobGraph ──► control plane ──ToWorker──► data plane
//!                                   ▲                         │
//!                                   └───────FromWorker────────┘
//! ```
//!
//! | Look here for | module |
//! |---|---|
//! | names of jobs, vertices, operators, attempts, checkpoints; fencing | [`id`] |
//! | event time and watermarks | [`time`] |
//! | which subtask owns a key | [`key_group`] |
//! | what a client submits | [`job_graph`] |
//! | which subtasks start and restart together | [`region`] |
//! | what a worker needs to start tasks | [`deployment`] |
//! | what the planes tell each other | [`message`] |
//! | whose a TaskManager's memory is | [`memory`] |
//! | how fast a task goes | [`rates`] |
//! | states of tasks and jobs, and the legal changes between them | [`state`] |
//! | why something failed, and what may be done about it | [`fault`] |
//! | lines of logs, and which are wanted | [`log`] |
//! | configuration keys | [`config`] |

pub mod config;
pub mod deployment;
pub mod fault;
pub mod id;
pub mod job_graph;
pub mod key_group;
pub mod log;
pub mod memory;
pub mod message;
pub mod rates;
pub mod region;
pub mod state;
pub mod time;
