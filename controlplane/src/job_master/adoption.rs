//! Whether the attempts that an earlier leader has deployed go on as they are.
//!
//! ```text
//!  take_up ──► Adopting ──every subtask runs at the stored generation──► Running: nothing was restarted
//!                  │
//!                  └──another generation, a task that does not run, a lost worker, time-out──► generation + 1, restart
//! ```
//! Workers that join are asked for the state of their tasks. The question carries the new leader's epoch, and from then on
//! they refuse what the old one may still say.
//!
//! **Invariant:** a job is adopted only if each of its subtasks was reported exactly once, as running, at exactly the
//! generation in the store. In all other cases no worker of the old leader is used again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use millstream_model::{
    deployment::Placement,
    id::{ExecutionAttemptId, Generation, Subtask, WorkerId},
    job_graph::JobGraph,
    message::{Command, TaskStatus, ToWorker},
    state::{ExecutionState, JobStatus},
};

use super::{JobMaster, keeper::Setback, phase::Phase};
use crate::clock::Moment;

/// How a JobMaster takes up a job whose workers may have outlived an earlier one.
pub struct AdoptionConfig {
    /// How long all workers may take to report: `recovery.adopt-timeout`.
    pub timeout: Duration,
    /// Told once whether the job was adopted. If not, its old workers are not used again and have to be ended: it returns
    /// all of them, also those that are still on their way into `joining`. Those that the job gets instead may join from
    /// then on. Called on the JobMaster's thread, which waits for it.
    pub decided: Box<dyn FnOnce(bool) -> Vec<WorkerId> + Send>,
}

impl fmt::Debug for AdoptionConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdoptionConfig").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// What is known so far of the attempts of an earlier leader. A decider.
#[derive(Debug)]
pub(super) struct Adoption {
    generation: Generation,
    missing: BTreeSet<Subtask>,
    found: BTreeMap<Subtask, Found>,
    pub(super) give_up_at: Moment,
}

#[derive(Debug)]
struct Found {
    placement: Placement,
    end_of_data: bool,
}

/// What follows from a report.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// Some have not reported yet.
    Wait,
    Adopt,
    /// With the reason, for people.
    Restart(String),
}

impl Adoption {
    pub(super) fn new(graph: &JobGraph, generation: Generation, give_up_at: Moment) -> Adoption {
        let vertices = graph.vertices.iter();
        let missing = vertices
            .flat_map(|vertex| (0..vertex.parallelism).map(|index| Subtask { vertex: vertex.id, index }))
            .collect();
        Adoption { generation, missing, found: BTreeMap::new(), give_up_at }
    }

    /// A worker has said what it runs. One that runs nothing changes nothing.
    pub(super) fn on_status(&mut self, worker: WorkerId, tasks: &[TaskStatus]) -> Verdict {
        for TaskStatus { attempt, slot, state, end_of_data } in tasks {
            let ExecutionAttemptId { subtask, generation } = *attempt;
            if generation != self.generation {
                let stored = self.generation.0;
                return Verdict::Restart(format!(
                    "worker {} runs generation {} and the store has {stored}",
                    worker.0, generation.0
                ));
            }
            if *state != ExecutionState::Running {
                return Verdict::Restart(format!("task {subtask} is {state:?}"));
            }
            let found = self.found.get(&subtask).map(|found| found.placement.worker);
            if found == Some(worker) {
                continue; // repeated
            }
            if !self.missing.remove(&subtask) {
                return Verdict::Restart(format!("worker {} runs task {subtask}, which is not its own", worker.0));
            }
            let placement = Placement { subtask, worker, slot: *slot };
            self.found.insert(subtask, Found { placement, end_of_data: *end_of_data });
        }
        if self.missing.is_empty() { Verdict::Adopt } else { Verdict::Wait }
    }

    /// A task has changed its state since its worker has said what it runs.
    pub(super) fn on_task(&self, attempt: ExecutionAttemptId, state: ExecutionState) -> Verdict {
        let is_known = attempt.generation == self.generation && self.found.contains_key(&attempt.subtask);
        if is_known && state != ExecutionState::Running {
            return Verdict::Restart(format!("task {} has become {state:?}", attempt.subtask));
        }
        Verdict::Wait
    }

    pub(super) fn on_end_of_data(&mut self, attempt: ExecutionAttemptId) {
        if let Some(found) = self.found.get_mut(&attempt.subtask).filter(|_| attempt.generation == self.generation) {
            found.end_of_data = true;
        }
    }

    /// Why it is given up when time is over.
    fn overdue(&self, timeout: Duration) -> String {
        let (missing, all) = (self.missing.len(), self.missing.len() + self.found.len());
        format!("{missing} of {all} tasks were not reported within {timeout:?} (recovery.adopt-timeout)")
    }
}

impl JobMaster {
    /// Waits for the workers of an earlier leader.
    pub(super) fn begin_adoption(&mut self, timeout: Duration, now: Moment) {
        tracing::info!(job = %self.graph.job_id, generation = self.generation().0, "the job may be running still");
        self.phase = Phase::Adopting(Adoption::new(&self.graph, self.generation(), now + timeout));
        let links: Vec<_> = self.workers.links().map(|link| link.worker()).collect();
        links.into_iter().for_each(|worker| self.ask_for_status(worker));
    }

    pub(super) fn ask_for_status(&self, worker: WorkerId) {
        if let Some(link) = self.workers.links().find(|link| link.worker() == worker) {
            link.send(ToWorker { epoch: self.epoch, command: Command::ReportStatus });
        }
    }

    pub(super) fn on_verdict(&mut self, verdict: Verdict, now: Moment) {
        match verdict {
            Verdict::Wait => {}
            Verdict::Adopt => self.adopt(now),
            Verdict::Restart(why) => self.give_up_adoption(&why, now),
        }
    }

    pub(super) fn on_adoption_overdue(&mut self, now: Moment) {
        let timeout = self.adoption.as_ref().map(|adoption| adoption.timeout).unwrap_or_default();
        if let Phase::Adopting(adoption) = &self.phase {
            let why = adoption.overdue(timeout);
            self.give_up_adoption(&why, now);
        }
    }

    /// All tasks run on, as they are. Checkpoints of the old leader that were under way are given up, and sinks hear once
    /// more of the newest durable one: the old leader may have moved the pointer and not told them.
    fn adopt(&mut self, now: Moment) {
        let Phase::Adopting(adoption) = std::mem::replace(&mut self.phase, Phase::Prepared) else { return };
        let generation = self.generation();
        let unfinished = match self.keeper.unfinished() {
            Ok(unfinished) => unfinished,
            Err(setback) => return self.unless_set_back(Err(setback), now),
        };
        tracing::info!(job = %self.graph.job_id, generation = generation.0, "the job is adopted: all of its tasks run");
        let placements: Vec<_> = adoption.found.values().map(|found| found.placement).collect();
        self.execution.become_status(JobStatus::Created, now);
        self.execution.become_status(JobStatus::Running, now);
        self.execution.adopt(generation, &placements, now);
        for (subtask, _) in adoption.found.iter().filter(|(_, found)| found.end_of_data) {
            self.execution.on_end_of_data(ExecutionAttemptId { subtask: *subtask, generation });
        }
        self.phase = Phase::Running { is_ready: false, is_ending: false };
        for checkpoint in unfinished {
            self.send_to_all(Command::CheckpointAborted { generation, checkpoint });
        }
        if let Some(checkpoint) = self.keeper.pointer() {
            self.send_to_all(Command::CheckpointComplete { generation, checkpoint });
        }
        self.decide(true);
    }

    /// Nothing of what the old leader has started is used: the job starts again from its newest checkpoint.
    pub(super) fn give_up_adoption(&mut self, why: &str, now: Moment) {
        tracing::warn!(job = %self.graph.job_id, why, "the job cannot be adopted and is restarted");
        self.phase = Phase::Prepared;
        self.workers.send_to_all(self.epoch, &Command::Cancel { generation: self.generation() });
        self.workers.replace_all();
        let deployed = self.restore_point().map_err(Setback::from).and_then(|restore| self.deploy(restore, now));
        self.unless_set_back(deployed, now);
        self.decide(false);
    }

    pub(super) fn decide(&mut self, is_adopted: bool) {
        if let Some(adoption) = self.adoption.take() {
            let ended = (adoption.decided)(is_adopted);
            // Some may not have joined yet. Nobody would tell of their end.
            ended.into_iter().for_each(|worker| self.workers.leave(worker));
        }
    }
}
