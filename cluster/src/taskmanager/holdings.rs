//! What a TaskManager holds, whoever the JobManager is: its slots, the workers that have them, and what they have to tell.

use std::collections::BTreeMap;

use millstream_client::proto::v1;
use millstream_model::id::AllocationId;
use millstream_slots::SlotTable;
use tokio::sync::mpsc::{self, UnboundedReceiver};

use super::workers::{WorkerEvent, Workers};
use crate::{
    logs::store::JobLogs,
    metrics::{MemoryInUse, WorkerNumbers},
};

/// Outlives a connection. The workers are killed when it is dropped.
#[derive(Debug)]
pub(super) struct Holdings {
    pub(super) table: SlotTable,
    pub(super) workers: Workers,
    events: UnboundedReceiver<WorkerEvent>,
    /// The first line of each worker, by which it says that it is there. A later JobManager is told it again.
    registered: BTreeMap<AllocationId, Vec<u8>>,
}

impl Holdings {
    /// Holds nothing yet. What its workers say of themselves goes to `numbers`.
    pub(super) fn new(slots: u32, logs: JobLogs, numbers: WorkerNumbers) -> Holdings {
        let (sender, events) = mpsc::unbounded_channel();
        Holdings {
            table: SlotTable::new(slots),
            workers: Workers::new(sender, logs, numbers),
            events,
            registered: BTreeMap::new(),
        }
    }

    pub(super) async fn next_event(&mut self) -> Option<WorkerEvent> {
        self.events.recv().await
    }

    /// A worker has said something; of the first time, a copy is kept.
    pub(super) fn note(&mut self, allocation: AllocationId, line: &[u8]) {
        if self.table.held().any(|(held, _)| held == allocation) {
            self.registered.entry(allocation).or_insert_with(|| line.to_vec());
        }
    }

    /// A worker has gone. Its slots are for the caller to free.
    pub(super) fn forget(&mut self, allocation: AllocationId) {
        self.workers.forget(allocation);
        self.registered.remove(&allocation);
    }

    /// Takes note of what workers had to tell while nobody listened. What they said was about a time that is over: the next
    /// JobManager asks for the state that things are in then.
    pub(super) fn catch_up(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            match event {
                WorkerEvent::Line { allocation, line } => self.note(allocation, &line),
                WorkerEvent::Ended { allocation, why, .. } => {
                    tracing::warn!(%allocation, why, "a worker has ended while there was no JobManager");
                    self.forget(allocation);
                    self.table.free_up(allocation);
                }
            }
        }
    }

    /// The JobManager is gone: workers that run stay for the next one, those that were about to come up are ended.
    pub(super) fn keep_what_runs(&mut self) {
        self.catch_up();
        let held: Vec<AllocationId> = self.table.held().map(|(id, _)| id).collect();
        held.into_iter().filter(|id| !self.registered.contains_key(id)).for_each(|id| self.workers.kill(id));
    }

    /// Of all workers.
    pub(super) fn memory_in_use(&self) -> MemoryInUse {
        self.workers.memory_in_use()
    }

    /// How many workers run.
    pub(super) fn count(&self) -> usize {
        self.registered.len()
    }

    /// What the next JobManager is told. One whose worker never came up is not worth telling: its slots are free as soon as
    /// its process has gone.
    pub(super) fn describe(&self) -> Vec<v1::HeldSlots> {
        let held = self.table.held().filter_map(|(id, allocation)| {
            let registered = self.registered.get(&id)?.clone();
            let (allocation_id, job_id) = (id.to_string(), allocation.job.to_string());
            Some(v1::HeldSlots { allocation_id, job_id, slots: allocation.slots, registered })
        });
        held.collect()
    }
}
