//! What a TaskManager's workers may have of its memory, what keeps them to it, and how one that has used up its own is told
//! from those that end otherwise.

use std::path::PathBuf;

use millstream::{memory, worker_process::WorkerMemory};
use millstream_client::proto::v1;
use millstream_model::{
    config::{
        Configuration, FLINK_MEMORY, MANAGED_MEMORY, MEMORY_HUGE_PAGES, MEMORY_LIMIT, MemoryLimit, MemorySize,
        PROCESS_MEMORY, SEGMENT_SIZE, TASK_SLOTS,
    },
    fault::Failure,
    id::{AllocationId, JobId, WorkerId},
    memory::TaskManagerMemory,
    message::MemoryMetrics,
};
use millstream_providers::process::KILLED;

use super::{
    cgroup::{self, Cgroup, CgroupTree},
    kernel_kills::KernelKills,
};
use crate::metrics::MemoryShares;

/// The memory of a TaskManager, shared out.
#[derive(Debug)]
pub(super) struct Memory {
    shares: TaskManagerMemory,
    segment_bytes: u64,
    huge_pages: bool,
    keeper: Keeper,
    /// Of this process, where there is one.
    own_cgroup: Option<PathBuf>,
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
    /// What the kernel had killed before it was started.
    kills_before: KernelKills,
    /// Of the TaskManager.
    own_cgroup: Option<PathBuf>,
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
        Ok(Memory {
            shares,
            segment_bytes: configuration.get(&SEGMENT_SIZE)?.bytes(),
            huge_pages: configuration.get(&MEMORY_HUGE_PAGES)?,
            keeper,
            own_cgroup: cgroup::of_this_process().ok(),
        })
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
        let kills_before = KernelKills::now(self.own_cgroup.as_deref());
        WorkerLimit { bytes_max, slots, kept_by, kills_before, own_cgroup: self.own_cgroup.clone() }
    }

    /// What a worker is told of its memory.
    pub(super) fn of_worker(&self, limit: &WorkerLimit) -> WorkerMemory {
        let data_bytes_max = matches!(limit.kept_by, KeptBy::Rlimit).then_some(limit.bytes_max);
        WorkerMemory { of_each_slot: Some(self.shares.of_slots(1)), data_bytes_max, huge_pages: self.huge_pages }
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

    /// What is to be said of a worker that was killed, and not since it had used up its memory: whether the kernel may have
    /// done it.
    pub(super) fn killed(&self, end: &EndOfWorker<'_>) -> Option<String> {
        end.how.contains(KILLED).then(|| self.kills_before.explain(self.kills()))
    }

    fn kills(&self) -> KernelKills {
        KernelKills::now(self.own_cgroup.as_deref())
    }

    /// What is to be said of a worker that has ended, if it has used up its memory.
    pub(super) fn out_of_memory(&self, end: &EndOfWorker<'_>) -> Option<String> {
        let what = match (&self.kept_by, end.failed_bytes) {
            (KeptBy::Cgroup(cgroup), _) if cgroup.ran_out_of_memory() => {
                "the kernel has killed it when it wanted more (cgroup)".to_owned()
            }
            (KeptBy::Rlimit, Some(bytes)) => format!("{bytes} more could not be allocated (RLIMIT_DATA)"),
            _ => return None,
        };
        let EndOfWorker { job_name, job, worker, memory, .. } = end;
        let state = match memory.managed_max {
            0 | u64::MAX => "how much of it was keyed state is not known".to_owned(),
            max => format!(
                "the account of keyed state held {} of its {max} bytes ({}) when the worker last said so, which is twice a \
                 second, and buffers {}",
                memory.managed_used,
                MANAGED_MEMORY.name(),
                memory.network_used
            ),
        };
        Some(format!(
            "out of memory in job '{job_name}' ({job}): worker {} has used up the {} bytes ({}) of its {} slots, and {what}. \
             Of these, {state}. Raise {} or {}, or look for what grows in functions, sources and sinks",
            worker.0,
            self.bytes_max,
            readable(self.bytes_max),
            self.slots,
            PROCESS_MEMORY.name(),
            FLINK_MEMORY.name(),
        ))
    }
}

/// How one worker has ended.
#[derive(Debug)]
pub(super) struct EndOfWorker<'a> {
    pub(super) job_name: &'a str,
    pub(super) job: JobId,
    pub(super) worker: WorkerId,
    /// As the provider says it.
    pub(super) how: &'a str,
    /// How many bytes could not be allocated, if its last words say so.
    pub(super) failed_bytes: Option<u64>,
    /// What it has said of its memory last.
    pub(super) memory: MemoryMetrics,
}

/// In whole megabytes.
fn readable(bytes: u64) -> MemorySize {
    MemorySize::from_bytes(bytes - bytes % (1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(kept_by: KeptBy) -> WorkerLimit {
        let kills_before = KernelKills::now(None);
        WorkerLimit { bytes_max: 200 << 20, slots: 2, kept_by, kills_before, own_cgroup: None }
    }

    fn end(how: &str, failed_bytes: Option<u64>) -> EndOfWorker<'_> {
        let memory = MemoryMetrics { managed_used: 77, managed_max: 80 << 20, ..MemoryMetrics::default() };
        EndOfWorker { job_name: "shop", job: JobId(7), worker: WorkerId(3), how, failed_bytes, memory }
    }

    #[test]
    fn who_has_used_up_its_memory_is_told_the_job_the_limit_and_the_key() {
        const ABORTED: &str = "killed by signal 6 (SIGABRT)";
        let message = limit(KeptBy::Rlimit).out_of_memory(&end(ABORTED, Some(4096))).unwrap();
        let state = "keyed state held 77 of its 83886080 bytes";
        for part in
            ["out of memory in job 'shop'", "209715200 bytes (200 mb)", "4096 more", state, PROCESS_MEMORY.name()]
        {
            assert!(message.contains(part), "{part}: {message}");
        }
        let early = EndOfWorker { memory: MemoryMetrics::default(), ..end(ABORTED, Some(4096)) };
        let message = limit(KeptBy::Rlimit).out_of_memory(&early).unwrap();
        assert!(message.contains("keyed state is not known"), "{message}");
        assert_eq!(limit(KeptBy::Rlimit).out_of_memory(&end(ABORTED, None)), None, "it has ended otherwise");
        let unlimited = limit(KeptBy::Nothing).out_of_memory(&end(ABORTED, Some(4096)));
        assert_eq!(unlimited, None, "it was not limited by this TaskManager");
    }

    #[test]
    fn of_who_was_killed_it_is_said_whether_the_kernel_may_have_done_it() {
        let message = limit(KeptBy::Nothing).killed(&end("killed by signal 9 (SIGKILL)", None)).unwrap();
        assert!(message.contains("kernel"), "{message}");
        assert_eq!(limit(KeptBy::Nothing).killed(&end("exit code 1", None)), None);
    }
}
