//! Where in its life a job is, and what it waits for there.

use std::time::Duration;

use millstream_model::{deployment::CompletedCheckpoint, fault::Failure};

use super::adoption::Adoption;
use crate::{clock::Moment, scheduler::NotEnoughSlots};

/// How tasks that do not end are dealt with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cancellation {
    /// Between two messages that tell them to.
    pub(super) interval: Duration,
    /// Until the job is given up.
    pub(super) timeout: Option<Duration>,
}

/// Where in its life the job is. The execution graph knows its status, which is what others see of this.
#[derive(Debug)]
pub(super) enum Phase {
    /// Nothing was deployed yet.
    Prepared,
    /// An earlier leader's workers are waited for, which may run the job still.
    Adopting(Adoption),
    Running {
        /// Whether all tasks run, so that checkpoints are taken.
        is_ready: bool,
        /// Whether all data was read and the tasks were led to their end.
        is_ending: bool,
    },
    /// Tasks were told to end, and are waited for.
    Stopping {
        then: AfterStop,
        resend_at: Moment,
        give_up_at: Option<Moment>,
    },
    /// There are too few slots; more workers may come.
    WaitingForSlots(Waiting),
    /// Nothing runs until this time.
    BackingOff {
        until: Moment,
    },
    Ended,
}

#[derive(Clone, Debug)]
pub(super) enum AfterStop {
    Restart { after: Duration },
    Fail(Failure),
    Cancel,
}

/// What a job goes on with when there are slots.
#[derive(Debug)]
pub(super) struct Waiting {
    /// What its tasks will start from. No checkpoint comes while nothing runs.
    pub(super) restore: Option<CompletedCheckpoint>,
    pub(super) shortage: NotEnoughSlots,
    pub(super) give_up_at: Moment,
}
