//! TaskManagers. Where Flink shows a JVM, or what is measured by nobody here, there is -1: Flink's own word for
//! unknown.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use axum::extract::{Path, State};
use millstream_controlplane::ExecutionSnapshot;
use millstream_model::id::{JobId, SlotIndex, WorkerId};
use serde_json::{Value, json};

use super::{
    Rest,
    answer::{Answer, RestError, ok},
    jobs,
};
use crate::jobmanager::cluster::{Holder, Occupied};

/// The tasks of the jobs that hold slots.
#[derive(Default)]
struct Tasks(BTreeMap<JobId, Option<ExecutionSnapshot>>);

impl Tasks {
    async fn of(task_managers: &[Occupied]) -> Result<Tasks, RestError> {
        let mut tasks = Tasks::default();
        for Holder { job, .. } in task_managers.iter().flat_map(|one| &one.holders) {
            if let Entry::Vacant(place) = tasks.0.entry(job.job()) {
                place.insert(jobs::snapshot(job.clone()).await?);
            }
        }
        Ok(tasks)
    }

    /// How many have not ended, of a job in a slot.
    fn in_slot(&self, job: JobId, worker: WorkerId, slot: SlotIndex) -> usize {
        let snapshot = self.0.get(&job).and_then(Option::as_ref);
        let tasks = snapshot.into_iter().flat_map(|snapshot| &snapshot.tasks);
        tasks.filter(|task| task.place == Some((worker, slot)) && !task.state.is_terminal()).count()
    }
}

/// A slot that a job holds.
struct Slot {
    job: JobId,
    tasks: usize,
}

fn slots(of: &Occupied, tasks: &Tasks) -> Vec<Slot> {
    let slots = of.holders.iter().flat_map(|holder| {
        let job = holder.job.job();
        (0..holder.slots).map(move |slot| Slot { job, tasks: tasks.in_slot(job, holder.worker, SlotIndex(slot)) })
    });
    slots.collect()
}

/// What a slot has at its disposal is not known: workers keep to their limits by themselves.
fn unknown_resource() -> Value {
    json!({
        "cpuCores": -1.0, "taskHeapMemory": -1, "taskOffHeapMemory": -1, "managedMemory": -1, "networkMemory": -1,
        "extendedResources": {},
    })
}

/// -1 in place of nothing.
fn known(number: u64) -> i64 {
    if number == 0 { -1 } else { number as i64 }
}

fn brief(of: &Occupied, slots: &[Slot]) -> Value {
    json!({
        "id": of.id.to_string(),
        "path": of.address,
        // Each worker process has a port of its own.
        "dataPort": -1,
        "jmxPort": -1,
        // Not a duration, whatever its name: Flink has the time of the last heartbeat here.
        "timeSinceLastHeartbeat": of.heard_millis,
        "slotsNumber": of.slots,
        "freeSlots": of.free_slots,
        "assignedTasks": slots.iter().map(|slot| slot.tasks).sum::<usize>(),
        "totalResource": unknown_resource(),
        "freeResource": unknown_resource(),
        "hardware": {
            "cpuCores": known(of.cpu_cores.into()), "physicalMemory": known(of.physical_memory_bytes),
            // Of a JVM's heap.
            "freeMemory": -1, "managedMemory": -1,
        },
        "memoryConfiguration": {
            "frameworkHeap": -1, "taskHeap": -1, "frameworkOffHeap": -1, "taskOffHeap": -1, "networkMemory": -1,
            "managedMemory": -1, "jvmMetaspace": -1, "jvmOverhead": -1, "totalFlinkMemory": -1,
            "totalProcessMemory": -1,
        },
    })
}

/// `GET /taskmanagers`
pub(super) async fn all(State(rest): State<Arc<Rest>>) -> Answer {
    let occupied = rest.cluster.occupied();
    let tasks = Tasks::of(&occupied).await?;
    let all: Vec<Value> = occupied.iter().map(|one| brief(one, &slots(one, &tasks))).collect();
    ok(&json!({ "taskmanagers": all }))
}

/// `GET /taskmanagers/:taskmanagerid`
pub(super) async fn details(State(rest): State<Arc<Rest>>, Path(id): Path<String>) -> Answer {
    let mut occupied = rest.cluster.occupied();
    occupied.retain(|one| one.id.to_string() == id);
    let Some(one) = occupied.first() else {
        // The words are Flink's.
        return Err(RestError::not_found(format!(
            "Could not find TaskExecutor with the given id: {}.",
            id.escape_debug()
        )));
    };
    let tasks = Tasks::of(&occupied).await?;
    let slots = slots(one, &tasks);
    let mut details = brief(one, &slots);
    let allocated = slots.iter().map(
        |slot| json!({ "jobId": slot.job.to_string(), "resource": unknown_resource(), "assignedTasks": slot.tasks }),
    );
    details["allocatedSlots"] = allocated.collect();
    details["metrics"] = json!({
        "heapUsed": -1, "heapCommitted": -1, "heapMax": -1, "nonHeapUsed": -1, "nonHeapCommitted": -1,
        "nonHeapMax": -1, "directCount": -1, "directUsed": -1, "directMax": -1, "mappedCount": -1, "mappedUsed": -1,
        "mappedMax": -1, "nettyShuffleMemorySegmentsAvailable": -1, "nettyShuffleMemorySegmentsUsed": -1,
        "nettyShuffleMemorySegmentsTotal": -1, "nettyShuffleMemoryAvailable": -1, "nettyShuffleMemoryUsed": -1,
        "nettyShuffleMemoryTotal": -1,
        // There is none.
        "garbageCollectors": [],
    });
    ok(&details)
}
