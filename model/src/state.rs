//! States of tasks and jobs, with Flink's names, and the one table of legal changes.

use serde::{Deserialize, Serialize};

/// Flink's `ExecutionState`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ExecutionState {
    Created,
    Scheduled,
    Deploying,
    Initializing,
    Running,
    Finished,
    Canceling,
    Canceled,
    Failed,
}

impl ExecutionState {
    /// All of them, in the order of their declaration.
    pub const ALL: [ExecutionState; 9] = {
        use ExecutionState::*;
        [Created, Scheduled, Deploying, Initializing, Running, Finished, Canceling, Canceled, Failed]
    };

    /// Whether a task in this state can still change.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Finished | Self::Canceled | Self::Failed)
    }

    /// Whether an attempt may go from this state to `next`.
    pub fn may_become(self, next: ExecutionState) -> bool {
        use ExecutionState::*;
        match self {
            Created => matches!(next, Scheduled | Canceled | Failed),
            Scheduled => matches!(next, Deploying | Canceled | Failed),
            Deploying => matches!(next, Initializing | Canceling | Canceled | Failed),
            Initializing => matches!(next, Running | Canceling | Failed),
            Running => matches!(next, Finished | Canceling | Failed),
            Canceling => matches!(next, Canceled | Failed),
            Finished | Canceled | Failed => false,
        }
    }
}

/// Flink's `JobStatus`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum JobStatus {
    Initializing,
    Created,
    Running,
    Restarting,
    Failing,
    Failed,
    Cancelling,
    Canceled,
    Finished,
}

impl JobStatus {
    /// All of them, in the order of their declaration.
    pub const ALL: [JobStatus; 9] = {
        use JobStatus::*;
        [Initializing, Created, Running, Restarting, Failing, Failed, Cancelling, Canceled, Finished]
    };

    /// Whether a job in this state never changes again, on any coordinator.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Failed | Self::Canceled | Self::Finished)
    }

    /// Whether a job may go from this state to `next`.
    pub fn may_become(self, next: JobStatus) -> bool {
        use JobStatus::*;
        match self {
            Initializing => matches!(next, Created | Failed | Canceled),
            Created => matches!(next, Running | Failing | Cancelling),
            Running => matches!(next, Finished | Restarting | Failing | Cancelling),
            Restarting => matches!(next, Created | Running | Failing | Cancelling),
            Failing => matches!(next, Failed | Cancelling),
            Cancelling => matches!(next, Canceled | Failing),
            Failed | Canceled | Finished => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_a_terminal_state() {
        let all = ExecutionState::ALL;
        for from in all.into_iter().filter(|state| state.is_terminal()) {
            assert!(all.into_iter().all(|next| !from.may_become(next)), "{from:?}");
        }
    }

    #[test]
    fn the_lists_have_each_state_at_its_place() {
        assert!(ExecutionState::ALL.into_iter().enumerate().all(|(place, state)| state as usize == place));
        assert!(JobStatus::ALL.into_iter().enumerate().all(|(place, status)| status as usize == place));
    }
}
