//! Who may run where: pure deciders over slots. No I/O, no threads, no clock.
//!
//! ```text
//!  JobGraph ──► sharing: the slots a job needs, and who shares them ──► the scheduler puts them on workers
//! ```
//! | Look here for | module |
//! |---|---|
//! | how many slots a job needs, and which of them a subtask runs in | [`sharing`] |
//!
//! The job's slot pool, the cluster's slot manager and the TaskManager's slot table come with the first cluster.

pub mod sharing;

pub use sharing::{SharedSlot, SlotSharing};
