//! Where in its life a job is, and what it waits for there.

use std::time::Duration;

use millstream_model::fault::Failure;

use super::adoption::Adoption;
use crate::clock::Moment;

/// How tasks that do not end are dealt with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cancellation {
    /// Between two messages that tell them to.
    pub(super) interval: Duration,
    /// Until the job is given up.
    pub(super) timeout: Option<Duration>,
}

impl Cancellation {
    /// Tasks are told to end now.
    pub(super) fn begin(&self, now: Moment) -> Ending {
        Ending { resend_at: now + self.interval, give_up_at: self.timeout.map(|timeout| now + timeout) }
    }
}

/// Tasks were told to end, and are waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    pub(super) resend_at: Moment,
    pub(super) give_up_at: Option<Moment>,
}

impl Ending {
    pub(super) fn next_deadline(&self) -> Moment {
        self.give_up_at.map_or(self.resend_at, |give_up_at| give_up_at.min(self.resend_at))
    }

    pub(super) fn is_given_up(&self, now: Moment) -> bool {
        self.give_up_at.is_some_and(|give_up_at| give_up_at <= now)
    }
}

/// Where in its life the job is. The execution graph knows its status, which is what others see of this.
#[derive(Debug)]
pub(super) enum Phase {
    /// Nothing was decided yet.
    Prepared,
    /// An earlier leader's workers are waited for, which may run the job still.
    Adopting(Adoption),
    /// Its regions are deployed or are to be, each at its [`Stage`](super::regional::Stage).
    Running(Progress),
    /// All tasks were told to end, and are waited for.
    Stopping {
        then: AfterStop,
        ending: Ending,
    },
    Ended,
}

/// How far a job is whose regions are deployed. It starts anew when one of them restarts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// Whether all tasks run, so that checkpoints are taken.
    pub(super) is_ready: bool,
    /// Whether all data was read, so that there is a final checkpoint to be taken.
    pub(super) is_ending: bool,
    /// Whether the tasks were told to finish.
    pub(super) is_finishing: bool,
}

#[derive(Clone, Debug)]
pub(super) enum AfterStop {
    Fail(Failure),
    Cancel,
}
