//! The threads of a worker's slots. A slot has one, which the tasks of all regions in it share; tasks whose functions block
//! have threads of their own.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread::JoinHandle,
    time::Duration,
};

use millstream_model::{
    config::{self, Threading},
    deployment::Placement,
    fault::Failure,
    id::{SlotIndex, Subtask},
    job_graph::JobGraph,
};
use tokio::runtime::Handle;

use crate::{
    processors::Processors,
    slot_thread::{self, Mail, SlotMailbox},
};

/// Those that are there for several regions.
#[derive(Default)]
pub(crate) struct SlotThreads {
    shared: BTreeMap<SlotIndex, SharedThread>,
}

struct SharedThread {
    mailbox: SlotMailbox,
    handle: JoinHandle<()>,
    /// How many have tasks on it.
    regions: usize,
}

/// Those that the tasks of one region run on.
#[derive(Default)]
pub(crate) struct RegionThreads {
    /// Of the thread of each subtask.
    pub(crate) mailboxes: BTreeMap<Subtask, SlotMailbox>,
    shared: BTreeSet<SlotIndex>,
    own: Vec<(SlotMailbox, JoinHandle<()>)>,
}

impl RegionThreads {
    /// How many nobody else uses.
    pub(crate) fn own(&self) -> usize {
        self.own.len()
    }

    pub(crate) fn set_spin(&self, spin: Duration) {
        self.mailboxes.values().for_each(|mailbox| mailbox.send(Mail::Spin(spin)));
    }
}

impl SlotThreads {
    /// Threads for these tasks; those that are not there yet are started.
    ///
    /// # Errors
    /// If one cannot be, or the graph and the placements do not fit together.
    pub(crate) fn enter(
        &mut self,
        graph: &JobGraph,
        placements: &[Placement],
        processors: &Processors,
        runtime: &Handle,
    ) -> Result<RegionThreads, Failure> {
        let mut threads = RegionThreads::default();
        match self.add(&mut threads, graph, placements, processors, runtime) {
            Ok(()) => Ok(threads),
            Err(failure) => {
                self.leave(threads);
                Err(failure)
            }
        }
    }

    fn add(
        &mut self,
        threads: &mut RegionThreads,
        graph: &JobGraph,
        placements: &[Placement],
        processors: &Processors,
        runtime: &Handle,
    ) -> Result<(), Failure> {
        let threading = graph.configuration.get(&config::TASK_THREADING)?;
        for Placement { subtask, slot, .. } in placements {
            let start = || {
                let name = format!("slot-{}", slot.0);
                slot_thread::start(&name, slot.0 as usize, processors, runtime.clone())
            };
            let vertex = graph.vertex_index(subtask.vertex).ok_or_else(|| unknown_vertex(*subtask))?;
            let mailbox = if threading == Threading::Task || graph.vertices[vertex].on_own_thread {
                let (mailbox, handle) = start()?;
                threads.own.push((mailbox.clone(), handle));
                mailbox
            } else {
                if !self.shared.contains_key(slot) {
                    let (mailbox, handle) = start()?;
                    self.shared.insert(*slot, SharedThread { mailbox, handle, regions: 0 });
                }
                let shared = self.shared.get_mut(slot).expect("it is there, or was started");
                shared.regions += usize::from(threads.shared.insert(*slot));
                shared.mailbox.clone()
            };
            threads.mailboxes.insert(*subtask, mailbox);
        }
        Ok(())
    }

    /// A region has no tasks any more that are to go on. Threads that nobody uses then are waited for: they end when their
    /// last task has.
    pub(crate) fn leave(&mut self, threads: RegionThreads) {
        let mut ending = threads.own;
        for slot in threads.shared {
            let Some(shared) = self.shared.get_mut(&slot) else { continue };
            shared.regions -= 1;
            if shared.regions == 0
                && let Some(SharedThread { mailbox, handle, .. }) = self.shared.remove(&slot)
            {
                ending.push((mailbox, handle));
            }
        }
        ending.iter().for_each(|(mailbox, _)| mailbox.send(Mail::End));
        ending.into_iter().for_each(|(_, handle)| drop(handle.join()));
    }

    /// How many there are for several regions.
    pub(crate) fn shared(&self) -> usize {
        self.shared.len()
    }
}

pub(crate) fn unknown_vertex(subtask: Subtask) -> Failure {
    Failure::fatal(format!("the deployment names vertex {}, which the job graph does not have", subtask.vertex))
}
