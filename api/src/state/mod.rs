//! State of operators: what they keep between records, and how it gets into checkpoints and out of them.
//!
//! ```text
//!  function ──► ValueState / ListState / MapState / ReducingState ──► Table (per key group)
//!                                                                       │ Signal::Barrier
//!                                            Snapshot ◄── Section per (state, key group)
//! ```
//! State is reached by entry and borrowed key, and no reference outlives the record: a table may move its entries.
//!
//! | Look here for | module |
//! |---|---|
//! | what a task adds to a checkpoint | [`snapshot`] |
//! | the table of one keyed state | [`table`] |
//! | how much memory state takes, and how much it may | [`account`] |
//! | the states that functions hold | [`keyed`] |
//! | asking the processor for memory ahead of use | `prefetch` |
//! | timers | [`timer`] |

pub mod account;
pub mod keyed;
mod prefetch;
pub mod snapshot;
pub mod table;
pub mod timer;

pub use keyed::{KeyedStates, ListState, MapState, ReducingState, ValueState};
pub use snapshot::{Section, SectionKind, Snapshot};
