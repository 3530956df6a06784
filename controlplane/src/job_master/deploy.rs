//! How a job's tasks get to workers: which slots there are, what the tasks start from, and what their workers are told.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read},
};

use millstream_model::{
    config,
    deployment::{ChannelToken, CompletedCheckpoint, Deployment, Peer, Placement},
    fault::Failure,
    id::{Subtask, WorkerId},
    message::{Command, ToWorker},
    state::JobStatus,
};

use super::{
    JobMaster, WorkerLink,
    keeper::{Deployed, Setback},
    phase::{Phase, Progress},
    regional::Stage,
    restore,
};
use crate::{clock::Moment, regions::RegionIndex, scheduler::NotEnoughSlots};

impl JobMaster {
    /// What the job starts from: what the user named, or if it has run its own latest.
    fn restore_point(&mut self) -> Result<Option<CompletedCheckpoint>, Failure> {
        if !self.keeper.is_new() {
            return self.keeper.latest(&self.graph);
        }
        let location = self.graph.configuration.get(&config::STATE_RECOVERY_PATH)?;
        let Some(location) = location else { return Ok(None) };
        let checkpoint = restore::named(&self.graph, &location)?;
        self.checkpoints.continue_after(checkpoint.id);
        Ok(Some(checkpoint))
    }

    /// Starts all regions, or waits for slots.
    pub(super) fn deploy_all(&mut self, now: Moment) -> Result<(), Setback> {
        // Found out now: what the user named may not be there, for which nobody has to wait.
        self.start_from = self.restore_point()?;
        self.phase = Phase::Running(Progress::default());
        let all: Vec<_> = self.regions.all().collect();
        self.deploy(&all, now)
    }

    /// A worker has joined: perhaps there are slots now.
    pub(super) fn on_joined(&mut self, link: Box<dyn WorkerLink>, now: Moment) {
        let worker = link.worker();
        if !self.workers.join(link) {
            return;
        }
        tracing::info!(job = %self.graph.job_id, worker = worker.0, "a worker has joined");
        match self.phase {
            Phase::Adopting(_) => self.ask_for_status(worker),
            Phase::Running(_) => {
                let waiting = self.waiting_for_slots();
                if waiting.is_empty() {
                    return;
                }
                let deployed = self.deploy(&waiting, now);
                self.unless_set_back(deployed, now);
            }
            _ => {}
        }
    }

    /// Nobody can join any more.
    pub(super) fn on_no_more_workers(&mut self, now: Moment) {
        self.workers.close();
        if !matches!(self.phase, Phase::Running(_)) {
            return;
        }
        let shortages = self.stages.iter().find_map(|stage| match stage {
            Stage::WaitingForSlots { shortage, .. } => Some(*shortage),
            _ => None,
        });
        if let Some(shortage) = shortages {
            self.fail_job(Failure::from(shortage), now);
        }
    }

    /// Ends the job if it could not be deployed.
    pub(super) fn unless_set_back(&mut self, deployed: Result<(), Setback>, now: Moment) {
        match deployed {
            Ok(()) => {}
            Err(Setback::LeadershipLost(error)) => self.on_leadership_lost(&error, now),
            Err(Setback::Failed(failure)) => self.fail_job(failure, now),
        }
    }

    /// Deploys those of these regions that there are slots for, each at its next generation; the others wait. The first time
    /// a job is deployed as a whole.
    pub(super) fn deploy(&mut self, regions: &[RegionIndex], now: Moment) -> Result<(), Setback> {
        let mut placed = Vec::new();
        if self.has_run() {
            for region in regions {
                let subtasks = self.regions.subtasks(*region).to_vec();
                placed.extend(self.place(&[*region], &subtasks, now)?.map(|placements| (*region, placements)));
            }
        } else {
            let subtasks: Vec<_> = regions.iter().flat_map(|region| self.regions.subtasks(*region)).copied().collect();
            if let Some(placements) = self.place(regions, &subtasks, now)? {
                let mut placements = placements.into_iter();
                for region in regions {
                    let count = self.regions.subtasks(*region).len();
                    placed.push((*region, placements.by_ref().take(count).collect()));
                }
            }
        }
        if placed.is_empty() {
            return Ok(());
        }
        let restore = if self.has_run() { self.keeper.latest(&self.graph)? } else { self.start_from.take() };
        let order: Vec<_> = placed.iter().map(|(region, _)| *region).collect();
        let generations = self.keeper.next_generations(&self.regions, &order, restore.as_ref())?;
        if let Some(checkpoint) = restore.as_ref().filter(|checkpoint| self.keeper.is_own(checkpoint)) {
            self.checkpoints.on_restored(checkpoint.id);
        }
        self.restarts += std::mem::take(&mut self.restarts_under_way);
        let (job, restored_from) = (self.graph.job_id, restore.as_ref().map(|checkpoint| &checkpoint.directory));
        let generation = generations.last().map(|deployed| deployed.generation.0);
        if order.len() == self.regions.count() {
            tracing::info!(%job, generation, ?restored_from, "the job is deployed");
        } else {
            let regions: Vec<_> = order.iter().map(|region| region.0).collect();
            let of = self.regions.count();
            tracing::info!(%job, ?regions, of, generation, ?restored_from, "a part of the job is deployed");
        }
        for ((region, placements), deployed) in placed.into_iter().zip(generations) {
            self.deploy_region(region, placements, deployed, restore.clone(), now)?;
        }
        if self.all_deployed() && self.execution.status() != JobStatus::Running {
            self.become_created(now);
            self.execution.become_status(JobStatus::Running, now);
        }
        Ok(())
    }

    /// A place for each of these subtasks, if there are slots for all. If not, their regions wait.
    fn place(
        &mut self,
        regions: &[RegionIndex],
        subtasks: &[Subtask],
        now: Moment,
    ) -> Result<Option<Vec<Placement>>, Setback> {
        match self.slots.place(&self.graph, subtasks, &self.workers.offers()) {
            Ok(placements) => Ok(Some(placements)),
            Err(shortage) if self.workers.is_open() => {
                tracing::info!(job = %self.graph.job_id, %shortage, "the job waits for slots");
                self.become_created(now);
                regions.iter().for_each(|region| self.wait_for_slots(*region, shortage, now));
                Ok(None)
            }
            Err(shortage) => Err(Failure::from(shortage).into()),
        }
    }

    /// One that waits already waits no longer for that.
    fn wait_for_slots(&mut self, region: RegionIndex, shortage: NotEnoughSlots, now: Moment) {
        let give_up_at = match self.stage(region) {
            Stage::WaitingForSlots { give_up_at, .. } => give_up_at,
            _ => now + self.slot_timeout,
        };
        self.enter_stage(region, Stage::WaitingForSlots { shortage, give_up_at });
    }

    fn become_created(&mut self, now: Moment) {
        if self.execution.status() == JobStatus::Initializing {
            self.execution.become_status(JobStatus::Created, now);
        }
    }

    fn deploy_region(
        &mut self,
        region: RegionIndex,
        placements: Vec<Placement>,
        deployed: Deployed,
        restore: Option<CompletedCheckpoint>,
        now: Moment,
    ) -> Result<(), Setback> {
        let token = random_token()
            .map_err(|cause| Failure::new(format!("the system gives no randomness (/dev/urandom): {cause}")))?;
        let Deployed { generation, attempt } = deployed;
        self.execution.deploy(generation, &placements, now);
        self.enter_stage(region, Stage::Deployed);
        {
            let links: BTreeSet<_> = self.workers.links().map(|link| link.worker()).collect();
            let metrics = &mut self.view.lock().metrics;
            for Placement { subtask, .. } in &placements {
                metrics.tasks.remove(subtask);
                metrics.rates.remove(subtask);
                self.rates.remove(subtask);
            }
            metrics.shuffle.retain(|(one, other), _| links.contains(one) && links.contains(other));
        }
        let placed: BTreeSet<WorkerId> = placements.iter().map(|placement| placement.worker).collect();
        let taking_part: Vec<_> = self.workers.links().filter(|link| placed.contains(&link.worker())).collect();
        let peers = taking_part
            .iter()
            .map(|link| Peer { worker: link.worker(), shuffle_address: link.shuffle_address() })
            .collect();
        let deployment = Deployment { generation, attempt, token, placements, peers, restore };
        for link in taking_part {
            let (graph, deployment) = (Box::new(self.graph.clone()), Box::new(deployment.clone()));
            link.send(ToWorker { epoch: self.epoch, command: Command::Deploy { graph, deployment } });
        }
        Ok(())
    }
}

/// A secret that nobody can guess, whatever they know of others.
fn random_token() -> io::Result<ChannelToken> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(ChannelToken(u128::from_ne_bytes(bytes)))
}
