//! What a TaskManager's workers may have of its memory, what keeps them to it, and how one that has used up its own is told
//! from those that end otherwise.

use millstream::{memory, worker_process::WorkerMemory};
use millstream_client::proto::v1;
use millstream_model::{
    config::{
        Configuration, FLINK_MEMORY, MANAGED_MEMORY, MEMORY_LIMIT, MemoryLimit, MemorySize, PROCESS_MEMORY,
        SEGMENT_SIZE, TASK_SLOTS,
    },
    fault::Failure,
    id::{AllocationId, JobId, WorkerId},
    memory::TaskManagerMemory,
};

use super::cgroup::{Cgroup, CgroupTree};
use crate::metrics::MemoryShares;

/// The memory of a TaskManager, shared out.
#[derive(Debug)]
pub(super) struct Memory {
    shares: TaskManagerMemory,
    segment_bytes: u64,
    keeper: Keeper,
}

/// What keeps workers to their memory.
#[derive(Debug)]
enum Keeper {
    Cgroups(CgroupTree),
    Rlimit,
    Nothing,
}

/// What keeps one worker to its memory.
#[derive(Debug)]
pub(super) struct WorkerLimit {
    bytes_max: u64,
    slots: u32,
    kept_by: KeptBy,
}

#[derive(Debug)]
enum KeptBy {
    Cgroup(Cgroup),
    Rlimit,
    Nothing,
}

impl Memory {
    /// # Errors
    /// If the configuration does not go together.
    pub(super) fn of(configuration: &Configuration) -> Result<Memory, Failure> {
        let slots = configuration.get(&TASK_SLOTS)?;
        let shares = TaskManagerMemory::of(configuration, memory::available_bytes(), slots)?;
        let (keeper, how) = match configuration.get(&MEMORY_LIMIT)? {
            MemoryLimit::None => (Keeper::Nothing, "nothing".to_owned()),
            MemoryLimit::Rlimit => (Keeper::Rlimit, "RLIMIT_DATA".to_owned()),
            MemoryLimit::Auto => match CgroupTree::of_this_process() {
                Ok(tree) => {
                    let how = format!("cgroups in {}", tree.root().display());
                    (Keeper::Cgroups(tree), how)
                }
                Err(why) => (Keeper::Rlimit, format!("RLIMIT_DATA, since there can be no cgroups: {why}")),
            },
        };
        let of_a_slot = shares.of_slots(1);
        tracing::info!(
            process = %readable(shares.process),
            slot = %readable(of_a_slot.total),
            managed = %readable(of_a_slot.managed),
            network = %readable(of_a_slot.network),
            kept_by = how,
            "the memory of this TaskManager is shared out"
        );
        Ok(Memory { shares, segment_bytes: configuration.get(&SEGMENT_SIZE)?.bytes(), keeper })
    }

    /// For a JobManager.
    pub(super) fn describe(&self) -> v1::MemoryShares {
        v1::MemoryShares {
            process_bytes: self.shares.process,
            flink_bytes: self.shares.flink,
            managed_bytes: self.shares.managed,
            network_bytes: self.shares.network,
            segment_bytes: self.segment_bytes,
        }
    }

    /// For those who watch.
    pub(super) fn numbers(&self) -> MemoryShares {
        MemoryShares { managed: self.shares.managed, network: self.shares.network, segment: self.segment_bytes }
    }

    /// For a worker with so many slots.
    pub(super) fn limit(&self, allocation: AllocationId, slots: u32) -> WorkerLimit {
        let bytes_max = self.shares.of_slots(slots).total;
        let kept_by = match &self.keeper {
            Keeper::Cgroups(tree) => tree.make(allocation, bytes_max).map_or_else(
                |why| {
                    tracing::warn!(why, "a worker gets no cgroup, but RLIMIT_DATA");
                    KeptBy::Rlimit
                },
                KeptBy::Cgroup,
            ),
            Keeper::Rlimit => KeptBy::Rlimit,
            Keeper::Nothing => KeptBy::Nothing,
        };
        WorkerLimit { bytes_max, slots, kept_by }
    }

    /// What a worker is told of its memory.
    pub(super) fn of_worker(&self, limit: &WorkerLimit) -> WorkerMemory {
        let data_bytes_max = matches!(limit.kept_by, KeptBy::Rlimit).then_some(limit.bytes_max);
        WorkerMemory { of_each_slot: Some(self.shares.of_slots(1)), data_bytes_max }
    }
}

impl WorkerLimit {
    /// What its process has in its environment. mimalloc begins with a gigabyte, which it asks for in a way that counts as
    /// allocated before any of it is used; so it asks for less at a time, where that counts.
    pub(super) fn environment(&self) -> &'static [(&'static str, &'static str)] {
        match self.kept_by {
            KeptBy::Rlimit => &[("MIMALLOC_ARENA_EAGER_COMMIT", "0")],
            KeptBy::Cgroup(_) | KeptBy::Nothing => &[],
        }
    }

    /// The worker's process is there, and does nothing yet.
    pub(super) fn place(&self, process: u32) {
        if let KeptBy::Cgroup(cgroup) = &self.kept_by
            && let Err(why) = cgroup.add(process)
        {
            tracing::warn!(process, why, "a worker could not be put into its cgroup: nothing limits its memory");
        }
    }

    /// What is to be said of a worker that has ended, if it has used up its memory. `failed` is how many bytes could not be
    /// allocated, if its last words say so.
    pub(super) fn out_of_memory(&self, job: (&str, JobId), worker: WorkerId, failed: Option<u64>) -> Option<String> {
        let what = match (&self.kept_by, failed) {
            (KeptBy::Cgroup(cgroup), _) if cgroup.ran_out_of_memory() => {
                "the kernel has killed it when it wanted more (cgroup)".to_owned()
            }
            (KeptBy::Rlimit, Some(bytes)) => format!("{bytes} more could not be allocated (RLIMIT_DATA)"),
            _ => return None,
        };
        let (name, job) = job;
        Some(format!(
            "out of memory in job '{name}' ({job}): worker {} has used up the {} bytes ({}) of its {} slots, and {what}. \
             Keyed state is not the reason: it has a limit of its own ({}). Raise {} or {}, or look for what grows in \
             functions, sources and sinks",
            worker.0,
            self.bytes_max,
            readable(self.bytes_max),
            self.slots,
            MANAGED_MEMORY.name(),
            PROCESS_MEMORY.name(),
            FLINK_MEMORY.name(),
        ))
    }
}

/// In whole megabytes.
fn readable(bytes: u64) -> MemorySize {
    MemorySize::from_bytes(bytes - bytes % (1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(kept_by: KeptBy) -> WorkerLimit {
        WorkerLimit { bytes_max: 200 << 20, slots: 2, kept_by }
    }

    #[test]
    fn who_has_used_up_its_memory_is_told_the_job_the_limit_and_the_key() {
        let of = |limit: &WorkerLimit, failed| limit.out_of_memory(("shop", JobId(7)), WorkerId(3), failed);
        let message = of(&limit(KeptBy::Rlimit), Some(4096)).unwrap();
        for part in ["out of memory in job 'shop'", "209715200 bytes (200 mb)", "4096 more", PROCESS_MEMORY.name()] {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert_eq!(of(&limit(KeptBy::Rlimit), None), None, "it has ended otherwise");
        assert_eq!(of(&limit(KeptBy::Nothing), Some(4096)), None, "it was not limited by this TaskManager");
    }
}
