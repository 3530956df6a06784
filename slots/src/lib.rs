//! Who may run where: pure deciders over slots. No I/O, no threads, no clock.
//!
//! ```text
//!  JobGraph ──► sharing: the slots a job needs, and who shares them ──► the scheduler puts them on workers
//!                   │
//!                   └──how many──► slot_manager (ResourceManager) ──SlotRequest──► slot_table (TaskManager) ──► worker
//! ```
//! | Look here for | module |
//! |---|---|
//! | how many slots a job needs, and which of them a subtask runs in | [`sharing`] |
//! | which TaskManagers' slots a job gets | [`slot_manager`] |
//! | which worker holds them, and what its end leads to | [`resource_manager`] |
//! | what a TaskManager has given to whom | [`slot_table`] |

pub mod resource_manager;
pub mod sharing;
pub mod slot_manager;
pub mod slot_table;

pub use resource_manager::{LostWorker, ReportRefused, ResourceManager, Worker, WorkerRequest};
pub use sharing::{SharedSlot, SlotSharing};
pub use slot_manager::{Allocation, SlotCount, SlotManager, SlotRequest, Spread};
pub use slot_table::{Accepted, RequestRefused, SlotTable};
