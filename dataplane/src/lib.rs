//! Runs tasks on a worker: one thread per slot, each running the subtasks of its slot in turns.
//!
//! ```text
//!  ToWorker ──► worker (control thread) ──mail──► slot_thread ──step──► task ──► input ──► chain (api::push) ──► output
//!                  │        ▲                         │                  │
//!                  │        └── coordinator threads   └── parks          └─ snapshot ──► I/O runtime ──► storage
//!  FromWorker ◄────┴──────────────────────────────── reports of all of them
//! ```
//! Record code is synchronous and never waits: a task whose output has no room is simply not run.
//!
//! | Look here for | module |
//! |---|---|
//! | deployments, triggers, cancellation | [`worker`] |
//! | the channels of a deployment, and how much room each has | `wiring`, `room` |
//! | the channels of deployments that are still to come | `expected` |
//! | what its slots have of memory, and what is used of it | `memory` |
//! | who a worker is to others | `network` |
//! | the loop of a slot | `slot_thread` |
//! | which threads there are, and whose tasks share them | `slot_threads` |
//! | one subtask: its life, its steps | `task` |
//! | reading channels: watermarks, barriers, ends | `input`, [`barrier`], [`watermark`] |
//! | building a chain from the job graph | `chain` |
//! | writing channels: overdraft and overflow | `output` |
//! | storing and restoring state | `snapshot`, `restore` |
//! | coordinators of operators | `coordinator` |
//! | pinning and spinning | `processors` |

pub mod barrier;
mod chain;
mod clock;
mod coordinator;
mod expected;
mod input;
mod memory;
mod metrics;
mod network;
mod output;
mod processors;
mod report;
mod restore;
mod room;
mod slot_thread;
mod slot_threads;
mod snapshot;
mod task;
pub mod watermark;
mod wiring;
pub mod worker;

pub use millstream_shuffle::transport::identity::{ClusterCa, IdentityError};
pub use network::{Carrier, Network, NetworkSetup};
pub use worker::{SEGMENTS_LEAKED, Worker, WorkerConfig};
