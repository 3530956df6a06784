//! How a job's tasks get to workers: which slots there are, what the tasks start from, and what their workers are told.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read},
};

use millstream_model::{
    config,
    deployment::{ChannelToken, CompletedCheckpoint, Deployment, Peer},
    fault::Failure,
    id::WorkerId,
    message::{Command, ToWorker},
    state::JobStatus,
};

use super::{
    JobMaster, WorkerLink,
    keeper::Setback,
    phase::{Phase, Waiting},
    restore,
};
use crate::{clock::Moment, scheduler};

impl JobMaster {
    /// What a deployment starts from: what the user named, or for a job that has run its own latest.
    pub(super) fn restore_point(&mut self) -> Result<Option<CompletedCheckpoint>, Failure> {
        if !self.keeper.is_new() {
            return self.keeper.latest(&self.graph);
        }
        let location = self.graph.configuration.get(&config::STATE_RECOVERY_PATH)?;
        let Some(location) = location else { return Ok(None) };
        let checkpoint = restore::named(&self.graph, &location)?;
        self.checkpoints.continue_after(checkpoint.id);
        Ok(Some(checkpoint))
    }

    /// Starts all tasks at the next generation, or waits for slots.
    pub(super) fn deploy(&mut self, restore: Option<CompletedCheckpoint>, now: Moment) -> Result<(), Setback> {
        let give_up_at = now + self.slot_timeout;
        self.deploy_by(give_up_at, restore, now)
    }

    /// A worker has joined: perhaps there are slots now.
    pub(super) fn on_joined(&mut self, link: Box<dyn WorkerLink>, now: Moment) {
        let worker = link.worker();
        if !self.workers.join(link) {
            return;
        }
        tracing::info!(job = %self.graph.job_id, worker = worker.0, "a worker has joined");
        if matches!(self.phase, Phase::Adopting(_)) {
            return self.ask_for_status(worker);
        }
        if let Phase::WaitingForSlots(waiting) = &mut self.phase {
            let (give_up_at, restore) = (waiting.give_up_at, waiting.restore.take());
            let deployed = self.deploy_by(give_up_at, restore, now);
            self.unless_set_back(deployed, now);
        }
    }

    /// Nobody can join any more.
    pub(super) fn on_no_more_workers(&mut self, now: Moment) {
        self.workers.close();
        if let Phase::WaitingForSlots(Waiting { shortage, .. }) = self.phase {
            self.unless_set_back(Err(Failure::from(shortage).into()), now);
        }
    }

    /// No slots have come in time.
    pub(super) fn on_no_slots(&mut self, now: Moment) {
        if let Phase::WaitingForSlots(Waiting { shortage, .. }) = self.phase {
            let timeout = self.slot_timeout;
            let message = format!("{shortage}; no more have come within {timeout:?} (slot.request.timeout)");
            self.unless_set_back(Err(Failure::fatal(message).into()), now);
        }
    }

    /// Ends the job if it could not be deployed.
    pub(super) fn unless_set_back(&mut self, deployed: Result<(), Setback>, now: Moment) {
        match deployed {
            Ok(()) => {}
            Err(Setback::LeadershipLost(error)) => self.on_leadership_lost(&error, now),
            Err(Setback::Failed(failure)) if self.has_run() => self.fail(failure, now),
            Err(Setback::Failed(failure)) => self.cannot_start(failure, now),
        }
    }

    fn deploy_by(
        &mut self,
        give_up_at: Moment,
        restore: Option<CompletedCheckpoint>,
        now: Moment,
    ) -> Result<(), Setback> {
        let placements = match scheduler::place(&self.graph, &self.workers.offers()) {
            Ok(placements) => placements,
            Err(shortage) if self.workers.is_open() => {
                tracing::info!(job = %self.graph.job_id, %shortage, "the job waits for slots");
                if self.execution.status() == JobStatus::Initializing {
                    self.execution.become_status(JobStatus::Created, now);
                }
                self.phase = Phase::WaitingForSlots(Waiting { restore, shortage, give_up_at });
                return Ok(());
            }
            Err(shortage) => return Err(Failure::from(shortage).into()),
        };
        let token = random_token()
            .map_err(|cause| Failure::new(format!("the system gives no randomness (/dev/urandom): {cause}")))?;
        let generation = self.keeper.next_generation(restore.as_ref())?;
        if let Some(checkpoint) = restore.as_ref().filter(|checkpoint| self.keeper.is_own(checkpoint)) {
            self.checkpoints.on_restored(checkpoint.id);
        }
        let restored_from = restore.as_ref().map(|checkpoint| &checkpoint.directory);
        tracing::info!(job = %self.graph.job_id, generation = generation.0, ?restored_from, "the job is deployed");

        if self.execution.status() == JobStatus::Initializing {
            self.execution.become_status(JobStatus::Created, now);
        }
        self.execution.become_status(JobStatus::Running, now);
        self.execution.deploy(generation, &placements, now);
        self.phase = Phase::Running { is_ready: false, is_ending: false };
        {
            let metrics = &mut self.view.lock().metrics;
            metrics.tasks.clear();
            metrics.rates.clear();
            self.rates.clear();
            metrics.shuffle.clear();
        }
        let placed: BTreeSet<WorkerId> = placements.iter().map(|placement| placement.worker).collect();
        let taking_part: Vec<_> = self.workers.links().filter(|link| placed.contains(&link.worker())).collect();
        let peers = taking_part
            .iter()
            .map(|link| Peer { worker: link.worker(), shuffle_address: link.shuffle_address() })
            .collect();
        let deployment = Deployment { generation, token, placements, peers, restore };
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
