//! What workers do, in the world's time.

use millstream_model::{
    deployment::{ChannelToken, SubtaskState},
    fault::Failure,
    id::{CheckpointId, ExecutionAttemptId, Generation, JobId, Subtask, WorkerId},
    message::{FromWorker, Report},
};

use super::{At, Event, World};
use crate::{
    job_manager::FromTaskManager,
    network::Time,
    worker::{Deed, InChannel, Snapshot, Taken, Worker},
};

/// A receiver that is not there yet is asked again after so long.
const AGAIN: Time = 20_000;

/// Between two attempts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Channel {
    job: JobId,
    generation: Generation,
    from: Subtask,
    to: Subtask,
    /// Its token. It is random, so that nothing may depend on the order of these.
    token: u128,
}

impl World {
    /// Lets a worker do something, and does what it wants done.
    pub(super) fn with_worker(&mut self, at: At, turn: impl FnOnce(&mut Worker) -> Vec<Deed>) {
        let Some(running) = self.hosts[at.host].workers.get_mut(&at.allocation) else { return };
        let deeds = turn(&mut running.worker);
        let (id, job) = (running.worker.id(), running.worker.job().id);
        for deed in deeds {
            self.do_deed(at, id, job, deed);
        }
    }

    fn do_deed(&mut self, at: At, id: WorkerId, job: JobId, deed: Deed) {
        match deed {
            Deed::Report(report) => self.report(at, id, report),
            Deed::Begins(attempt) => self.judge_beginning(at, job, attempt),
            Deed::Ends(attempt) => self.note(|| format!("{} {attempt:?} is over", crate::store::short(job))),
            Deed::Send(to, element) => self.send(at, to, element),
            Deed::Store(attempt, checkpoint, snapshot) => {
                let delay = self.random.u64(500..30_000);
                let delay = self.hosts[at.host].slowed(self.now, delay);
                self.after(delay, Event::Stored(at, attempt, checkpoint, Box::new(snapshot)));
            }
            Deed::Start(attempt) => {
                let delay = self.random.u64(100..50_000);
                let delay = self.hosts[at.host].slowed(self.now, delay);
                self.after(delay, Event::Started(at, attempt));
            }
            Deed::Commit { sink, checkpoint, lines } => self.judge_commit(job, sink, checkpoint, &lines),
            Deed::Exit => {
                if let Some(running) = self.hosts[at.host].workers.get_mut(&at.allocation) {
                    running.is_ending = true;
                }
                let delay = self.delay(at.host);
                self.after(delay, Event::Exited(at));
            }
            Deed::Violation(what) => self.violated(format!("{}: {what}", crate::store::short(job))),
        }
    }

    fn report(&mut self, at: At, worker: WorkerId, report: Report) {
        if let Some(connection) = self.hosts[at.host].connection {
            let message = Box::new(FromWorker { worker, report });
            self.send_up(connection, FromTaskManager::Report(at.allocation, message));
        }
    }

    pub(super) fn on_ready(&mut self, at: At) {
        let now = self.now;
        let host = &mut self.hosts[at.host];
        let is_born = now >= host.still_births_until;
        let Some(running) = host.workers.get_mut(&at.allocation).filter(|it| !it.is_ending) else { return };
        if !is_born {
            return self.worker_ends(at);
        }
        running.is_ready = true;
        let id = running.worker.id();
        let held = host.table.held().find(|(held, _)| *held == at.allocation);
        let slots = held.map_or(0, |(_, allocation)| allocation.slots);
        self.report(at, id, Report::Registered { slots, shuffle_address: None });
    }

    /// A worker's process has ended.
    pub(super) fn worker_ends(&mut self, at: At) {
        let host = &mut self.hosts[at.host];
        if host.workers.remove(&at.allocation).is_none() {
            return;
        }
        host.table.free_up(at.allocation);
        let connection = host.connection;
        self.note(|| format!("host {}: the worker of allocation {} has ended", at.host, at.allocation.0));
        if let Some(connection) = connection {
            self.send_up(connection, FromTaskManager::Freed(at.allocation));
        }
    }

    pub(super) fn on_started(&mut self, at: At, attempt: ExecutionAttemptId) {
        self.with_worker(at, |worker| worker.on_started(attempt));
        self.next_step(at, attempt);
    }

    pub(super) fn on_step(&mut self, at: At, attempt: ExecutionAttemptId) {
        self.with_worker(at, |worker| worker.on_step(attempt));
        self.next_step(at, attempt);
    }

    fn next_step(&mut self, at: At, attempt: ExecutionAttemptId) {
        let Some(running) = self.hosts[at.host].workers.get(&at.allocation) else { return };
        if !running.worker.readers().contains(&attempt) {
            return;
        }
        let index = self.jobs.iter().position(|job| job.id == running.worker.job().id);
        let pace = self.paces[index.expect("workers are of jobs")];
        let delay = self.random.u64(pace / 2..pace * 3 / 2);
        let delay = self.hosts[at.host].slowed(self.now, delay);
        self.after(delay, Event::Step(at, attempt));
    }

    pub(super) fn on_stored(
        &mut self,
        at: At,
        attempt: ExecutionAttemptId,
        checkpoint: CheckpointId,
        snapshot: &Snapshot,
    ) {
        let Some(running) = self.hosts[at.host].workers.get(&at.allocation) else { return };
        let directory = self.directory(running.worker.job().id);
        let Subtask { vertex, index } = attempt.subtask;
        let name = format!("{}-{index}-{}", vertex.0, attempt.generation.0);
        let bytes = serde_json::to_vec(snapshot).expect("it has only numbers");
        let stored = match directory.write(checkpoint, &name, &bytes) {
            Ok(file) => Ok(SubtaskState { subtask: attempt.subtask, file: Some(file) }),
            Err(error) => Err(Failure::new(error.to_string())),
        };
        self.with_worker(at, |worker| worker.on_stored(attempt, checkpoint, stored));
    }

    fn send(&mut self, at: At, to: WorkerId, element: InChannel) {
        let InChannel { job, generation, token, from, to: subtask, .. } = element;
        let channel = Channel { job, generation, from, to: subtask, token: token.0 };
        let delay = self.delay(at.host);
        let arrives = self.channels.entry(channel).or_default().push((to, element), self.now, delay);
        self.at(arrives, Event::Arrives(channel));
    }

    /// Something has come through a channel, or waits in it for its receiver.
    pub(super) fn on_arrives(&mut self, channel: Channel) {
        while let Some((to, element)) = self.channels.get(&channel).and_then(|stream| stream.front(self.now)).copied() {
            let sender = self.find_sender(&channel);
            let cut =
                |host: usize| self.hosts[host].is_partitioned(self.now).then_some(self.hosts[host].partitioned_until);
            let receivers = self.find_receivers(channel.job, to);
            let apart = receivers.iter().any(|receiver| sender.is_none_or(|sender| sender.host != receiver.host));
            let until =
                receivers.iter().filter_map(|receiver| cut(receiver.host)).chain(sender.and_then(|it| cut(it.host)));
            if apart && let Some(until) = until.max() {
                return self.at(until, Event::Arrives(channel));
            }
            let mut answer = Taken::Refused;
            for receiver in receivers {
                let mut taken = Taken::Refused;
                self.with_worker(receiver, |worker| {
                    let (answer, deeds) = worker.on_element(element);
                    taken = answer;
                    deeds
                });
                if taken != Taken::Refused {
                    answer = taken;
                }
                if taken == Taken::Yes {
                    break;
                }
            }
            match answer {
                Taken::Yes => drop(self.channels.get_mut(&channel).and_then(|stream| stream.pop(self.now))),
                Taken::NotYet if sender.is_some() => return self.after(AGAIN, Event::Arrives(channel)),
                Taken::NotYet | Taken::Refused => {
                    self.channels.remove(&channel);
                    if let Some(sender) = sender {
                        let attempt = ExecutionAttemptId { subtask: channel.from, generation: channel.generation };
                        self.with_worker(sender, |worker| {
                            worker.fail(attempt, "the connection to its receiver is lost")
                        });
                    }
                    return;
                }
            }
        }
    }

    fn find_sender(&self, channel: &Channel) -> Option<At> {
        let attempt = ExecutionAttemptId { subtask: channel.from, generation: channel.generation };
        self.find(|worker| worker.job().id == channel.job && worker.runs(attempt, ChannelToken(channel.token)))
            .first()
            .copied()
    }

    fn find_receivers(&self, job: JobId, id: WorkerId) -> Vec<At> {
        self.find(|worker| worker.job().id == job && worker.id() == id)
    }

    fn find(&self, is_it: impl Fn(&Worker) -> bool) -> Vec<At> {
        let all = self.hosts.iter().enumerate().flat_map(|(host, it)| {
            it.workers.iter().map(move |(allocation, running)| (At { host, allocation: *allocation }, running))
        });
        all.filter(|(_, running)| is_it(&running.worker)).map(|(at, _)| at).collect()
    }
}
