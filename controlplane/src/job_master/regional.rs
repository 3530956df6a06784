//! The regions of a job that runs: each is stopped, waits and is deployed again beside the others, which run on.
//!
//! ```text
//!  Deployed ──failure──► Stopping ──all its tasks have ended──► BackingOff ──pause over──┐
//!     ▲                                                              too few slots       │
//!     ├──────────────────────────────────────────────── WaitingForSlots ◄────────────────┤
//!     └──────────────────────────────────────────────────────────────────────────────────┘
//! ```
//! While any region is not deployed the job is RESTARTING, as in Flink, and no checkpoint is taken: so all that restart at
//! that time start from the same one, the newest, which those that run on have contributed to as well.
//!
//! **Invariant:** a region is deployed only when none of its tasks that this leader knows of runs.

use std::{collections::BTreeSet, time::Duration};

use millstream_model::{
    fault::Failure,
    id::{Generation, Subtask, WorkerId},
    message::Command,
    state::JobStatus,
};

use super::{
    JobMaster,
    phase::{Ending, Phase, Progress},
};
use crate::{clock::Moment, regions::RegionIndex, scheduler::NotEnoughSlots};

/// Where a region is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stage {
    Deployed,
    /// Its tasks were told to end, and are waited for.
    Stopping {
        after: Duration,
        ending: Ending,
    },
    /// Nothing of it runs until this time.
    BackingOff {
        until: Moment,
    },
    /// There are too few slots for it; more workers may come.
    WaitingForSlots {
        shortage: NotEnoughSlots,
        give_up_at: Moment,
    },
}

impl JobMaster {
    pub(super) fn stage(&self, region: RegionIndex) -> Stage {
        self.stages[region.0]
    }

    pub(super) fn enter_stage(&mut self, region: RegionIndex, stage: Stage) {
        self.stages[region.0] = stage;
    }

    pub(super) fn is_deployed(&self, region: RegionIndex) -> bool {
        matches!(self.stage(region), Stage::Deployed)
    }

    pub(super) fn all_deployed(&self) -> bool {
        self.stages.iter().all(|stage| matches!(stage, Stage::Deployed))
    }

    /// Stops these regions and deploys them again after a pause. Those that restart anyway do so as they would have.
    pub(super) fn restart(&mut self, regions: BTreeSet<RegionIndex>, after: Duration, now: Moment) {
        let aborts = self.checkpoints.stop();
        self.apply(aborts, now);
        self.refuse_asked();
        for region in regions.into_iter().filter(|region| self.is_deployed(*region)).collect::<Vec<_>>() {
            self.stop_region(region, after, now);
        }
        if self.execution.status() == JobStatus::Running {
            self.execution.become_status(JobStatus::Restarting, now);
        }
        self.phase = Phase::Running(Progress::default());
    }

    pub(super) fn stop_region(&mut self, region: RegionIndex, after: Duration, now: Moment) {
        tracing::debug!(job = %self.graph.job_id, %region, of = self.regions.count(), "a region is stopped");
        self.execution.cancel(self.regions.subtasks(region).iter().copied(), now);
        self.send_to_region(region, |generation| Command::Cancel { generation });
        self.enter_stage(region, Stage::Stopping { after, ending: self.cancellation.begin(now) });
    }

    /// The pauses of regions whose tasks have all ended begin.
    pub(super) fn settle_stopped(&mut self, now: Moment) {
        for region in self.regions.all() {
            let Stage::Stopping { after, .. } = self.stage(region) else { continue };
            let subtasks = self.regions.subtasks(region);
            if self.execution.executions_of(subtasks).all(|execution| execution.state().is_terminal()) {
                match self.regions.count() {
                    1 => tracing::info!(job = %self.graph.job_id, ?after, "the job restarts"),
                    of => tracing::info!(job = %self.graph.job_id, %region, of, ?after, "a region restarts"),
                }
                self.enter_stage(region, Stage::BackingOff { until: now + after });
            }
        }
    }

    /// When something is to be done for a region without any event.
    pub(super) fn next_regional_deadline(&self) -> Option<Moment> {
        let deadline = |stage: &Stage| match stage {
            Stage::Deployed => None,
            Stage::Stopping { ending, .. } => Some(ending.next_deadline()),
            Stage::BackingOff { until } => Some(*until),
            Stage::WaitingForSlots { give_up_at, .. } => Some(*give_up_at),
        };
        self.stages.iter().filter_map(deadline).min()
    }

    /// Does for regions what is due by now.
    pub(super) fn on_regional_time(&mut self, now: Moment) {
        let mut due = Vec::new();
        for region in self.regions.all() {
            match self.stage(region) {
                Stage::Stopping { ending, .. } if ending.is_given_up(now) => return self.on_stuck(now),
                Stage::Stopping { after, ending } if ending.resend_at <= now => {
                    self.send_to_region(region, |generation| Command::Cancel { generation });
                    let ending = Ending { resend_at: now + self.cancellation.interval, ..ending };
                    self.enter_stage(region, Stage::Stopping { after, ending });
                }
                Stage::BackingOff { until } if until <= now => due.push(region),
                Stage::WaitingForSlots { shortage, give_up_at } if give_up_at <= now => {
                    let timeout = self.slot_timeout;
                    let message = format!("{shortage}; no more have come within {timeout:?} (slot.request.timeout)");
                    return self.fail_job(Failure::fatal(message), now);
                }
                _ => {}
            }
        }
        if !due.is_empty() {
            let deployed = self.deploy(&due, now);
            self.unless_set_back(deployed, now);
        }
    }

    /// The regions that wait for slots.
    pub(super) fn waiting_for_slots(&self) -> Vec<RegionIndex> {
        let is_waiting = |region: &RegionIndex| matches!(self.stage(*region), Stage::WaitingForSlots { .. });
        self.regions.all().filter(is_waiting).collect()
    }

    /// The regions of these subtasks.
    pub(super) fn regions_of(&self, subtasks: &[Subtask]) -> BTreeSet<RegionIndex> {
        subtasks.iter().filter_map(|subtask| self.regions.region_of(*subtask)).collect()
    }

    /// The generations of all regions that this leader has deployed or adopted.
    pub(super) fn generations(&self) -> BTreeSet<Generation> {
        self.execution.executions().map(|execution| execution.attempt.generation).collect()
    }

    /// Sends a command to all workers that have tasks of a region, about its current generation.
    pub(super) fn send_to_region(&self, region: RegionIndex, command: impl Fn(Generation) -> Command) {
        let mut workers = BTreeSet::<WorkerId>::new();
        let mut current = None;
        for execution in self.execution.executions_of(self.regions.subtasks(region)) {
            workers.insert(execution.worker);
            current = Some(execution.attempt.generation);
        }
        if let Some(generation) = current {
            self.workers.send_to(&workers, self.epoch, &command(generation));
        }
    }

    /// The same for all regions that are deployed.
    pub(super) fn send_to_deployed(&self, command: impl Fn(Generation) -> Command) {
        let deployed = self.regions.all().filter(|region| self.is_deployed(*region));
        deployed.for_each(|region| self.send_to_region(region, &command));
    }
}
