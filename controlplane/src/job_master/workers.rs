//! The workers that a job has, as they come and go.

use std::collections::BTreeSet;

use millstream_model::{
    id::{LeaderEpoch, WorkerId},
    message::{Command, ToWorker},
};

use super::WorkerLink;
use crate::scheduler::WorkerSlots;

/// Those that may be used now.
pub(super) struct Workers {
    links: Vec<Box<dyn WorkerLink>>,
    /// Those that have left. Their end and their joining come by different ways, so that it may be known before them.
    gone: BTreeSet<WorkerId>,
    /// Whether more can join.
    is_open: bool,
}

impl Workers {
    pub(super) fn new(links: Vec<Box<dyn WorkerLink>>) -> Workers {
        Workers { links, gone: BTreeSet::new(), is_open: true }
    }

    /// Whether the worker may be used: one that has left never comes back under its id.
    pub(super) fn join(&mut self, link: Box<dyn WorkerLink>) -> bool {
        let worker = link.worker();
        if self.gone.contains(&worker) {
            return false;
        }
        assert!(self.links.iter().all(|known| known.worker() != worker), "two workers are both {}", worker.0);
        // By id, so that it is not chance that says what runs where.
        let place = self.links.partition_point(|known| known.worker() < worker);
        self.links.insert(place, link);
        true
    }

    pub(super) fn leave(&mut self, worker: WorkerId) {
        self.links.retain(|link| link.worker() != worker);
        self.gone.insert(worker);
    }

    /// Only these of those that are there are used any more; others may join.
    pub(super) fn keep(&mut self, kept: &BTreeSet<WorkerId>) {
        let replaced = self.links.extract_if(.., |link| !kept.contains(&link.worker()));
        self.gone.extend(replaced.map(|link| link.worker()));
    }

    /// None is left; returns those that were there.
    pub(super) fn leave_all(&mut self) -> Vec<WorkerId> {
        self.is_open = false;
        self.links.drain(..).map(|link| link.worker()).collect()
    }

    /// No more will join.
    pub(super) fn close(&mut self) {
        self.is_open = false;
    }

    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    pub(super) fn links(&self) -> impl Iterator<Item = &dyn WorkerLink> {
        self.links.iter().map(|link| &**link)
    }

    pub(super) fn offers(&self) -> Vec<WorkerSlots> {
        self.links().map(|link| WorkerSlots { worker: link.worker(), slots: link.slots() }).collect()
    }

    pub(super) fn send_to(&self, workers: &BTreeSet<WorkerId>, epoch: LeaderEpoch, command: &Command) {
        let addressed = self.links().filter(|link| workers.contains(&link.worker()));
        addressed.for_each(|link| link.send(ToWorker { epoch, command: command.clone() }));
    }

    pub(super) fn send_to_all(&self, epoch: LeaderEpoch, command: &Command) {
        self.links().for_each(|link| link.send(ToWorker { epoch, command: command.clone() }));
    }
}
