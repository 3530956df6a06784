//! Does what the checkpoint coordinator says, and answers those who asked for a checkpoint.

use std::collections::VecDeque;

use crossbeam_channel::Sender;
use millstream_model::{id::CheckpointId, message::Command};

use super::{JobMaster, handle::CheckpointRefused, keeper::Setback, phase::Phase};
use crate::{checkpoint::Action, clock::Moment};

impl JobMaster {
    pub(super) fn on_checkpoint_request(
        &mut self,
        answer: Sender<Result<CheckpointId, CheckpointRefused>>,
        now: Moment,
    ) {
        let job = self.graph.job_id;
        if !self.keeper.has_directory() {
            return answer_to(answer, Err(CheckpointRefused::NoDirectory { job }));
        }
        let (is_accepted, actions) = self.checkpoints.request(now);
        if is_accepted {
            self.asked.push(answer);
        } else {
            answer_to(answer, Err(CheckpointRefused::NotRunning { job, status: self.execution.status() }));
        }
        self.apply(actions, now);
    }

    /// Does what the checkpoint coordinator says, and what it says to the results of that.
    pub(super) fn apply(&mut self, actions: Vec<Action>, now: Moment) {
        let mut actions = VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            match action {
                Action::Begin { checkpoint } => {
                    // Before what follows, which may be the end of the job.
                    let begun = self.begin_checkpoint(checkpoint, now);
                    begun.into_iter().rev().for_each(|action| actions.push_front(action));
                }
                Action::SnapshotCoordinators { checkpoint } => {
                    self.send_to_deployed(|generation| Command::SnapshotCoordinators { generation, checkpoint });
                }
                Action::Trigger { checkpoint, kind } => {
                    self.send_to_deployed(|generation| Command::TriggerCheckpoint { generation, checkpoint, kind });
                }
                Action::Complete(collected) => {
                    let checkpoint = collected.id;
                    match self.keeper.complete(&self.graph, collected) {
                        Ok(()) => actions.extend(self.checkpoints.on_durable(checkpoint, now)),
                        Err(Setback::Failed(failure)) => {
                            actions.extend(self.checkpoints.on_not_durable(checkpoint, failure, now));
                        }
                        Err(Setback::LeadershipLost(error)) => return self.on_leadership_lost(&error, now),
                    }
                }
                Action::Notify { checkpoint } => {
                    tracing::info!(job = %self.graph.job_id, %checkpoint, "checkpoint complete");
                    self.send_to_deployed(|generation| Command::CheckpointComplete { generation, checkpoint });
                    self.answer_waiting(checkpoint, &Ok(checkpoint));
                }
                Action::Abort { checkpoint, reason } => {
                    tracing::warn!(job = %self.graph.job_id, %checkpoint, %reason, "checkpoint given up");
                    self.send_to_deployed(|generation| Command::CheckpointAborted { generation, checkpoint });
                    let refused = CheckpointRefused::GivenUp { checkpoint, reason: reason.to_string() };
                    self.answer_waiting(checkpoint, &Err(refused));
                }
                Action::Delete { checkpoints } => {
                    if let Err(error) = self.keeper.delete(&checkpoints) {
                        return self.on_leadership_lost(&error, now);
                    }
                }
                Action::Finish => {
                    let aborts = self.checkpoints.stop();
                    actions.extend(aborts);
                    self.refuse_asked();
                    if let Phase::Running(progress) = &mut self.phase {
                        progress.is_finishing = true;
                    }
                    self.send_to_deployed(|generation| Command::Finish { generation });
                }
                Action::FailJob { failure } => return self.on_failure(self.regions.all().collect(), failure, now),
            }
        }
    }

    fn begin_checkpoint(&mut self, checkpoint: CheckpointId, now: Moment) -> Vec<Action> {
        self.waiting.extend(self.asked.drain(..).map(|asked| (checkpoint, asked)));
        match self.keeper.begin(checkpoint) {
            Ok(true) => self.checkpoints.on_begun(checkpoint, now),
            Ok(false) => {
                tracing::warn!(job = %self.graph.job_id, %checkpoint, "another coordinator has used this number");
                // Those who wait for it wait for the one that it becomes.
                let waiting = self.waiting.extract_if(.., |(awaited, _)| *awaited == checkpoint);
                self.asked.extend(waiting.map(|(_, asked)| asked));
                self.checkpoints.on_number_taken(checkpoint)
            }
            Err(failure) => self.checkpoints.on_not_begun(checkpoint, failure, now),
        }
    }

    fn answer_waiting(&mut self, checkpoint: CheckpointId, answer: &Result<CheckpointId, CheckpointRefused>) {
        for (_, waiting) in self.waiting.extract_if(.., |(awaited, _)| *awaited == checkpoint) {
            answer_to(waiting, answer.clone());
        }
    }

    /// No checkpoint will be triggered for those who asked.
    pub(super) fn refuse_asked(&mut self) {
        let refused = CheckpointRefused::NotRunning { job: self.graph.job_id, status: self.execution.status() };
        self.asked.drain(..).for_each(|asked| answer_to(asked, Err(refused.clone())));
    }
}

/// Whoever asked may have gone.
pub(super) fn answer_to(
    waiting: Sender<Result<CheckpointId, CheckpointRefused>>,
    answer: Result<CheckpointId, CheckpointRefused>,
) {
    let _ = waiting.send(answer);
}
