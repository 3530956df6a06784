//! Decides what of a job runs where, when a checkpoint counts, and what happens after a failure.
//!
//! ```text
//!                        ┌────────────── job_master: the driver, one loop over one enum of events ─────────────┐
//!  JobGraph ──submit──►  │ execution_graph · scheduler · checkpoint · failover: deciders, told and asked by it │
//!  cancel, checkpoint ─► │ storage: metadata of checkpoints         store: pointers, guarded by the LeaderEpoch │
//!                        └───────▲──────────────────────────────────────────────────────────┬─────────────────┘
//!                           FromWorker                                                   ToWorker
//!                                └───────────────────── workers ◄───────────────────────────┘
//! ```
//! | Look here for | module |
//! |---|---|
//! | the loop that runs a job, and the handle to it | [`job_master`] |
//! | the states of all subtasks | [`execution_graph`] |
//! | what is deployed, fails over and is adopted as one | [`regions`] |
//! | which subtask runs in which slot of which worker | [`scheduler`] |
//! | when a checkpoint starts, counts, fails and goes | [`checkpoint`] |
//! | whether, when and what to restart | [`failover`] |
//! | what must survive the coordinator | [`store`] |
//! | who may write it | [`leadership`] |
//! | what holds a job back, in words | [`mod@why`] |
//! | the way to workers that are processes of this machine | [`process_link`] |
//! | time | [`clock`] |
//!
//! One JobMaster per job, each on a thread of its own. There is no async code here yet: what a JobMaster waits for are
//! channels and files.

mod cause;
pub mod checkpoint;
pub mod clock;
pub mod execution_graph;
pub mod failover;
pub mod job_master;
pub mod leadership;
pub mod process_link;
pub mod regions;
pub mod scheduler;
pub mod store;
pub mod why;

pub use job_master::{
    AdoptionConfig, Busy, CheckpointRefused, CheckpointStats, ExecutionSnapshot, JobHandle, JobMaster, JobMasterConfig,
    JobMetrics, JobOutcome, JobTimings, OnDecided, SteppedJobMaster, TaskCounts, TaskSnapshot, WorkerLink,
};
pub use process_link::ProcessLink;
pub use store::{JobRecord, Store, StoreError};
