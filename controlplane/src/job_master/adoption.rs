//! Whether the attempts that an earlier leader has deployed go on as they are, region by region.
//!
//! ```text
//!  take_up ──► Adopting ──every subtask of a region runs at its stored generation──► the region runs on as it is
//!                  │
//!                  ├──another generation, a task that does not run, a lost worker, time-out──► the next generation, restart
//!                  └──so for all regions──► the whole job is deployed anew, with new workers
//! ```
//! Workers that join are asked for the state of their tasks. The question carries the new leader's epoch, and from then on
//! they refuse what the old one may still say.
//!
//! **Invariant:** a region is adopted only if each of its subtasks was reported exactly once, as running, at exactly the
//! generation that the store has for the region. A worker is used again only if it has said what it runs, and nothing of it
//! is alive that the store does not know of.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use millstream_model::{
    deployment::Placement,
    fault::Failure,
    id::{ExecutionAttemptId, Generation, Subtask, WorkerId},
    message::{Command, TaskStatus, ToWorker},
    state::{ExecutionState, JobStatus},
};

use super::{
    JobMaster,
    phase::{Phase, Progress},
    regional::Stage,
};
use crate::{
    clock::Moment,
    regions::{RegionIndex, Regions},
};

/// Told which workers a job goes on with; returns those that are not used again.
pub type OnDecided = Box<dyn FnOnce(&BTreeSet<WorkerId>) -> Vec<WorkerId> + Send>;

/// How a JobMaster takes up a job whose workers may have outlived an earlier one.
pub struct AdoptionConfig {
    /// How long all workers may take to report: `recovery.adopt-timeout`.
    pub timeout: Duration,
    /// Told once which workers the job goes on with: none if nothing of it was adopted. The others are not used again and
    /// have to be ended: it returns all of them, also those that are still on their way into `joining`. Those that the job
    /// gets instead may join from then on. Called on the JobMaster's thread, which waits for it.
    pub decided: OnDecided,
}

impl fmt::Debug for AdoptionConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdoptionConfig").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// What is known so far of the attempts of an earlier leader. A decider.
#[derive(Debug)]
pub(super) struct Adoption {
    regions: Regions,
    /// Of each region.
    stored: Vec<Option<Generation>>,
    /// What is alive at the stored generations.
    found: BTreeMap<Subtask, Found>,
    /// The regions that cannot be adopted, each with the reason, for people.
    broken: BTreeMap<RegionIndex, String>,
    /// The workers that have said what they run.
    heard: BTreeSet<WorkerId>,
    /// Those that run what they should not.
    foreign: BTreeSet<WorkerId>,
    pub(super) give_up_at: Moment,
}

#[derive(Debug)]
struct Found {
    placement: Placement,
    end_of_data: bool,
}

/// What follows from a report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// Of some regions it is not known yet.
    Wait,
    Decide,
}

/// What came of it.
#[derive(Debug)]
struct Decision {
    adopted: BTreeMap<RegionIndex, Generation>,
    broken: BTreeMap<RegionIndex, String>,
    kept: BTreeSet<WorkerId>,
    found: BTreeMap<Subtask, Found>,
}

impl Adoption {
    pub(super) fn new(regions: Regions, stored: Vec<Option<Generation>>, give_up_at: Moment) -> Adoption {
        let never = |region: &RegionIndex| stored[region.0].is_none();
        let unknown = "its generation is not in the store".to_owned();
        let broken = regions.all().filter(never).map(|region| (region, unknown.clone())).collect();
        let (found, heard, foreign) = Default::default();
        Adoption { regions, stored, found, broken, heard, foreign, give_up_at }
    }

    /// A worker has said what it runs.
    pub(super) fn on_status(&mut self, worker: WorkerId, tasks: &[TaskStatus]) -> Verdict {
        self.heard.insert(worker);
        for task in tasks {
            self.on_task_status(worker, task);
        }
        self.verdict()
    }

    fn on_task_status(&mut self, worker: WorkerId, task: &TaskStatus) {
        let TaskStatus { attempt: ExecutionAttemptId { subtask, generation }, slot, state, end_of_data } = *task;
        let Some(region) = self.regions.region_of(subtask) else {
            self.foreign.insert(worker);
            return;
        };
        let stored = self.stored[region.0];
        if Some(generation) != stored {
            if !state.is_terminal() {
                self.foreign.insert(worker);
            }
            let stored = stored.unwrap_or_default().0;
            let why = format!("worker {} runs generation {} and the store has {stored}", worker.0, generation.0);
            return self.give_up(region, why);
        }
        if state != ExecutionState::Running {
            self.give_up(region, format!("task {subtask} is {state:?}"));
        }
        if state.is_terminal() {
            return;
        }
        let other = self.found.get(&subtask).map(|found| found.placement.worker).filter(|other| *other != worker);
        if let Some(other) = other {
            self.foreign.extend([worker, other]);
            return self.give_up(region, format!("workers {} and {} both run task {subtask}", other.0, worker.0));
        }
        let placement = Placement { subtask, worker, slot };
        let before = self.found.insert(subtask, Found { placement, end_of_data });
        if before.is_some_and(|before| before.end_of_data) {
            self.found.entry(subtask).and_modify(|found| found.end_of_data = true);
        }
    }

    /// A task has changed its state since its worker has said what it runs.
    pub(super) fn on_task(&mut self, attempt: ExecutionAttemptId, state: ExecutionState) -> Verdict {
        let ExecutionAttemptId { subtask, generation } = attempt;
        let region = self.regions.region_of(subtask).filter(|region| self.stored[region.0] == Some(generation));
        if let Some(region) = region.filter(|_| self.found.contains_key(&subtask) && state != ExecutionState::Running) {
            self.give_up(region, format!("task {subtask} has become {state:?}"));
            if state.is_terminal() {
                self.found.remove(&subtask);
            }
        }
        self.verdict()
    }

    pub(super) fn on_end_of_data(&mut self, attempt: ExecutionAttemptId) {
        let ExecutionAttemptId { subtask, generation } = attempt;
        let region = self.regions.region_of(subtask).filter(|region| self.stored[region.0] == Some(generation));
        if let Some(found) = self.found.get_mut(&subtask).filter(|_| region.is_some()) {
            found.end_of_data = true;
        }
    }

    pub(super) fn on_worker_failed(&mut self, worker: WorkerId, failure: &Failure) -> Verdict {
        let why = format!("worker {} is gone: {failure}", worker.0);
        let lost: Vec<Subtask> = self
            .found
            .extract_if(.., |_, found| found.placement.worker == worker)
            .map(|(subtask, _)| subtask)
            .collect();
        for region in lost.iter().filter_map(|subtask| self.regions.region_of(*subtask)).collect::<BTreeSet<_>>() {
            self.give_up(region, why.clone());
        }
        if !self.heard.contains(&worker) {
            // What it ran it can tell nobody. If only one region misses anything, it was of that.
            let undecided: Vec<_> = self.undecided().collect();
            if let [region] = undecided[..] {
                self.give_up(region, why);
            }
        }
        self.verdict()
    }

    fn give_up(&mut self, region: RegionIndex, why: String) {
        self.broken.entry(region).or_insert(why);
    }

    fn undecided(&self) -> impl Iterator<Item = RegionIndex> {
        self.regions.all().filter(|region| !self.broken.contains_key(region) && self.missing(*region) > 0)
    }

    fn missing(&self, region: RegionIndex) -> usize {
        self.regions.subtasks(region).iter().filter(|subtask| !self.found.contains_key(subtask)).count()
    }

    fn verdict(&self) -> Verdict {
        if self.undecided().next().is_none() { Verdict::Decide } else { Verdict::Wait }
    }

    /// Time is over for those of which it is not known.
    fn on_overdue(&mut self, timeout: Duration) {
        for region in self.undecided().collect::<Vec<_>>() {
            let (missing, all) = (self.missing(region), self.regions.subtasks(region).len());
            let why = format!("{missing} of {all} tasks were not reported within {timeout:?} (recovery.adopt-timeout)");
            self.give_up(region, why);
        }
    }

    /// `linked` are the workers that are there.
    fn decide(mut self, linked: &BTreeSet<WorkerId>) -> Decision {
        let is_kept = |worker: &WorkerId| self.heard.contains(worker) && !self.foreign.contains(worker);
        let kept: BTreeSet<WorkerId> = linked.iter().copied().filter(is_kept).collect();
        let ended: Vec<_> = self.found.extract_if(.., |_, found| !kept.contains(&found.placement.worker)).collect();
        for (subtask, Found { placement, .. }) in ended {
            if let Some(region) = self.regions.region_of(subtask) {
                self.give_up(region, format!("worker {} runs what the store does not know of", placement.worker.0));
            }
        }
        let is_adopted = |region: &RegionIndex| !self.broken.contains_key(region) && self.missing(*region) == 0;
        let generation = |region: RegionIndex| Some((region, self.stored[region.0]?));
        let adopted = self.regions.all().filter(is_adopted).filter_map(generation).collect();
        let Adoption { found, broken, .. } = self;
        Decision { adopted, broken, kept, found }
    }
}

impl JobMaster {
    /// Waits for the workers of an earlier leader.
    pub(super) fn begin_adoption(&mut self, timeout: Duration, now: Moment) {
        let stored: Vec<_> =
            self.keeper.stored(&self.regions).into_iter().map(|stored| stored.map(|it| it.generation)).collect();
        tracing::info!(job = %self.graph.job_id, generations = ?stored, "the job may be running still");
        let adoption = Adoption::new(self.regions.clone(), stored, now + timeout);
        let verdict = adoption.verdict();
        self.phase = Phase::Adopting(adoption);
        let links: Vec<_> = self.workers.links().map(|link| link.worker()).collect();
        links.into_iter().for_each(|worker| self.ask_for_status(worker));
        self.on_verdict(verdict, now);
    }

    pub(super) fn ask_for_status(&self, worker: WorkerId) {
        if let Some(link) = self.workers.links().find(|link| link.worker() == worker) {
            link.send(ToWorker { epoch: self.epoch, command: Command::ReportStatus });
        }
    }

    pub(super) fn on_verdict(&mut self, verdict: Verdict, now: Moment) {
        if verdict == Verdict::Decide {
            self.conclude_adoption(now);
        }
    }

    pub(super) fn on_adoption_overdue(&mut self, now: Moment) {
        let timeout = self.adoption.as_ref().map(|adoption| adoption.timeout).unwrap_or_default();
        if let Phase::Adopting(adoption) = &mut self.phase {
            adoption.on_overdue(timeout);
        }
        self.conclude_adoption(now);
    }

    fn conclude_adoption(&mut self, now: Moment) {
        let Phase::Adopting(adoption) = std::mem::replace(&mut self.phase, Phase::Prepared) else { return };
        let stored = adoption.stored.clone();
        let decision = adoption.decide(&self.workers.links().map(|link| link.worker()).collect());
        if decision.adopted.is_empty() {
            self.adopt_nothing(&stored, decision, now);
        } else {
            self.adopt(&stored, decision, now);
        }
    }

    /// These regions run on, as they are. Checkpoints of the old leader that were under way are given up, and sinks hear
    /// once more of the newest durable one: the old leader may have moved the pointer and not told them. What is left of the
    /// other regions is stopped, and they restart.
    fn adopt(&mut self, stored: &[Option<Generation>], decision: Decision, now: Moment) {
        let Decision { adopted, broken, kept, found } = decision;
        let unfinished = match self.keeper.unfinished() {
            Ok(unfinished) => unfinished,
            Err(setback) => return self.unless_set_back(Err(setback), now),
        };
        let (count, of) = (adopted.len(), self.regions.count());
        let job = self.graph.job_id;
        if broken.is_empty() {
            tracing::info!(%job, regions = of, "the job is adopted: all of its tasks run");
        } else {
            let why: BTreeSet<_> = broken.values().collect();
            tracing::warn!(%job, count, of, ?why, "the job is adopted in part, and the other regions are restarted");
        }
        self.workers.keep(&kept);
        let placements_of = |region: RegionIndex| -> Vec<Placement> {
            let subtasks = self.regions.subtasks(region).iter();
            subtasks.filter_map(|subtask| found.get(subtask)).map(|found| found.placement).collect()
        };
        let of_adopted: Vec<_> = adopted.iter().map(|(region, at)| (*region, *at, placements_of(*region))).collect();
        let of_broken: Vec<_> = broken.keys().map(|region| (*region, placements_of(*region))).collect();
        self.execution.become_status(JobStatus::Created, now);
        self.execution.become_status(JobStatus::Running, now);
        self.phase = Phase::Running(Progress::default());
        for (region, placements) in of_broken {
            if let Some(generation) = stored[region.0] {
                self.slots.keep(&self.graph, &placements);
                self.execution.take_over_to_cancel(generation, &placements, now);
            }
            self.stop_region(region, Duration::ZERO, now);
        }
        for (region, generation, placements) in of_adopted {
            self.slots.keep(&self.graph, &placements);
            self.execution.adopt(generation, &placements, now);
            self.enter_stage(region, Stage::Deployed);
            for subtask in self.regions.subtasks(region).iter().filter(|subtask| found[subtask].end_of_data) {
                self.execution.on_end_of_data(ExecutionAttemptId { subtask: *subtask, generation });
            }
        }
        if !broken.is_empty() {
            self.execution.become_status(JobStatus::Restarting, now);
        }
        for checkpoint in unfinished {
            self.send_to_deployed(|generation| Command::CheckpointAborted { generation, checkpoint });
        }
        if let Some(checkpoint) = self.keeper.pointer() {
            self.send_to_deployed(|generation| Command::CheckpointComplete { generation, checkpoint });
        }
        self.decide(&kept);
    }

    /// Nothing of what the old leader has started is used: the job starts again from its newest checkpoint.
    fn adopt_nothing(&mut self, stored: &[Option<Generation>], decision: Decision, now: Moment) {
        let why = decision.broken.into_values().collect::<BTreeSet<_>>();
        tracing::warn!(job = %self.graph.job_id, ?why, "the job cannot be adopted and is restarted");
        for generation in stored.iter().flatten() {
            self.workers.send_to_all(self.epoch, &Command::Cancel { generation: *generation });
        }
        self.workers.keep(&BTreeSet::new());
        let deployed = self.deploy_all(now);
        self.unless_set_back(deployed, now);
        self.decide(&BTreeSet::new());
    }

    pub(super) fn decide(&mut self, kept: &BTreeSet<WorkerId>) {
        if let Some(adoption) = self.adoption.take() {
            let ended = (adoption.decided)(kept);
            // Some may not have joined yet. Nobody would tell of their end.
            ended.into_iter().for_each(|worker| self.workers.leave(worker));
        }
    }
}
