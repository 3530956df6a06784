//! A whole cluster in one thread, with simulated time: the real deciders of the control plane and the real slots, while
//! connections, clocks, machines and user code are made up, and fail. One seed is one history.
//!
//! ```text
//!  seed ──► faults ──► world: one queue of events in the order of their time
//!                        │
//!    job_manager: ResourceManager, a SteppedJobMaster per job ◄──network──► task_manager: SlotTable
//!        │ leadership, store (real, watched)                                     │
//!        └ checkpoint files (real, in memory)                                worker ──► output (the judge)
//! ```
//! | Look here for | module |
//! |---|---|
//! | what happens when, and what must never | [`world`] |
//! | what goes wrong, and when | [`faults`] |
//! | connections | [`network`] |
//! | the JobManager around the deciders | [`job_manager`] |
//! | a TaskManager and its slots | [`task_manager`] |
//! | tasks: source, keyed state, two-phase commit | [`worker`] |
//! | the jobs | [`job`] |
//! | what was committed | [`output`] |
//! | what was stored | [`store`] |

pub mod faults;
pub mod job;
pub mod job_manager;
pub mod network;
pub mod output;
pub mod store;
pub mod task_manager;
pub mod worker;
pub mod world;

pub use faults::Faults;
pub use world::{Broken, Ran, simulate, simulate_with};
