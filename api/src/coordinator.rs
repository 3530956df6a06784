//! Coordinators: the part of an operator that exists once and speaks with all of its subtasks.
//!
//! A coordinator is a state machine: events go in, actions come out. It runs on the worker that hosts subtask 0 and is
//! snapshotted *before* barriers enter the sources; what it sends after that is held back until they have.

use std::time::Duration;

use millstream_model::fault::Failure;

/// Such a state machine. It may read files or ask servers: it has a thread to itself.
pub trait OperatorCoordinator {
    /// All subtasks are about to start, with `parallelism` of them.
    ///
    /// # Errors
    /// A failure fails the job's attempt.
    fn start(&mut self, parallelism: u32, actions: &mut CoordinatorActions) -> Result<(), Failure>;

    /// A subtask has said something.
    ///
    /// # Errors
    /// A failure fails the job's attempt.
    fn on_event(&mut self, subtask: u32, event: &[u8], actions: &mut CoordinatorActions) -> Result<(), Failure>;

    /// The time that [`CoordinatorActions::wake_after`] asked for is over.
    ///
    /// # Errors
    /// A failure fails the job's attempt.
    fn on_wake(&mut self, _actions: &mut CoordinatorActions) -> Result<(), Failure> {
        Ok(())
    }

    /// What a later coordinator needs to go on from here.
    ///
    /// # Errors
    /// A failure declines the checkpoint.
    fn snapshot(&mut self) -> Result<Vec<u8>, Failure>;
}

/// What a coordinator wants done.
#[derive(Debug, Default)]
pub struct CoordinatorActions {
    pub events: Vec<(u32, Vec<u8>)>,
    pub wake_after: Option<Duration>,
}

impl CoordinatorActions {
    /// Sends an event to one subtask.
    pub fn send(&mut self, subtask: u32, event: Vec<u8>) {
        self.events.push((subtask, event));
    }

    /// Asks for `on_wake` once after `pause`; a later call replaces an earlier one.
    pub fn wake_after(&mut self, pause: Duration) {
        self.wake_after = Some(pause);
    }
}
