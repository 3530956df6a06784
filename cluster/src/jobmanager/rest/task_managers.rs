//! TaskManagers. Where Flink shows a JVM, or what is measured by nobody here, there is -1: Flink's own word for
//! unknown.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use axum::extract::{Path, State};
use millstream_client::proto::v1;
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

/// What some slots of a TaskManager have. A slot has a processor's worth of time, as far as others leave it that: Flink's
/// number where nothing else is configured.
fn resource(of: &Occupied, slots: u32) -> Value {
    let memory = of.memory.map(Shares::of);
    let megabytes =
        |bytes: fn(Shares) -> u64| memory.map_or(-1, |memory| (bytes(memory.of_slots(of, slots)) >> 20) as i64);
    json!({
        "cpuCores": f64::from(slots),
        // No heap of a JVM, but what of a slot's memory is for none of the others.
        "taskHeapMemory": megabytes(|memory| memory.rest),
        "taskOffHeapMemory": 0,
        "managedMemory": megabytes(|memory| memory.managed),
        "networkMemory": megabytes(|memory| memory.network),
        "extendedResources": {},
    })
}

/// What slots have, in bytes.
#[derive(Clone, Copy)]
struct Shares {
    managed: u64,
    network: u64,
    rest: u64,
}

impl Shares {
    /// Of all slots.
    fn of(memory: v1::MemoryShares) -> Shares {
        let (managed, network) = (memory.managed_bytes, memory.network_bytes);
        Shares { managed, network, rest: memory.flink_bytes.saturating_sub(managed).saturating_sub(network) }
    }

    fn of_slots(self, of: &Occupied, slots: u32) -> Shares {
        let share = |bytes: u64| bytes / u64::from(of.slots.max(1)) * u64::from(slots);
        Shares { managed: share(self.managed), network: share(self.network), rest: share(self.rest) }
    }
}

/// Under Flink's names, as far as there is something to them without a JVM; 0 is what there is none of.
fn memory_configuration(of: &Occupied) -> Value {
    let bytes = |bytes: fn(v1::MemoryShares) -> u64| of.memory.map_or(-1, |memory| bytes(memory) as i64);
    json!({
        "frameworkHeap": 0,
        "taskHeap": bytes(|memory| Shares::of(memory).rest),
        "frameworkOffHeap": 0,
        "taskOffHeap": 0,
        "networkMemory": bytes(|memory| memory.network_bytes),
        "managedMemory": bytes(|memory| memory.managed_bytes),
        "jvmMetaspace": 0,
        "jvmOverhead": bytes(|memory| memory.process_bytes.saturating_sub(memory.flink_bytes)),
        "totalFlinkMemory": bytes(|memory| memory.flink_bytes),
        "totalProcessMemory": bytes(|memory| memory.process_bytes),
    })
}

/// Buffers between tasks, under the names of Flink's: bytes, and the same in whole buffers.
fn shuffle_memory(of: &Occupied) -> Value {
    let known = of.memory.zip(of.memory_in_use);
    let numbers = known.map(|(memory, used)| {
        let (total, segment) = (memory.network_bytes, memory.segment_bytes.max(1));
        let used = used.network_bytes.min(total);
        (total, used, total / segment, used / segment)
    });
    let number = |of: fn((u64, u64, u64, u64)) -> u64| numbers.map_or(-1, |numbers| of(numbers) as i64);
    json!({
        "nettyShuffleMemorySegmentsAvailable": number(|(.., total, used)| total - used),
        "nettyShuffleMemorySegmentsUsed": number(|(.., used)| used),
        "nettyShuffleMemorySegmentsTotal": number(|(.., total, _)| total),
        "nettyShuffleMemoryAvailable": number(|(total, used, ..)| total - used),
        "nettyShuffleMemoryUsed": number(|(_, used, ..)| used),
        "nettyShuffleMemoryTotal": number(|(total, ..)| total),
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
        "totalResource": resource(of, of.slots),
        "freeResource": resource(of, of.free_slots),
        "hardware": {
            "cpuCores": known(of.cpu_cores.into()), "physicalMemory": known(of.physical_memory_bytes),
            // In Flink, of a JVM's heap.
            "freeMemory": of.memory.map_or(-1, |memory| Shares::of(memory).rest as i64),
            "managedMemory": of.memory.map_or(-1, |memory| memory.managed_bytes as i64),
        },
        "memoryConfiguration": memory_configuration(of),
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
        |slot| json!({ "jobId": slot.job.to_string(), "resource": resource(one, 1), "assignedTasks": slot.tasks }),
    );
    details["allocatedSlots"] = allocated.collect();
    let mut metrics = json!({
        "heapUsed": -1, "heapCommitted": -1, "heapMax": -1, "nonHeapUsed": -1, "nonHeapCommitted": -1,
        "nonHeapMax": -1, "directCount": -1, "directUsed": -1, "directMax": -1, "mappedCount": -1, "mappedUsed": -1,
        "mappedMax": -1,
        // There is none.
        "garbageCollectors": [],
    });
    if let (Value::Object(metrics), Value::Object(shuffle)) = (&mut metrics, shuffle_memory(one)) {
        metrics.extend(shuffle);
    }
    details["metrics"] = metrics;
    ok(&details)
}
