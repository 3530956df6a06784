//! Which processors the process owns: whether slot threads may be pinned and may spin.

use std::{collections::BTreeSet, fs};

use millstream_model::{
    config::Affinity,
    deployment::Deployment,
    id::{SlotIndex, WorkerId},
};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

/// What slot threads may do with their processors.
#[derive(Clone, Debug)]
pub(crate) struct Processors {
    /// To pin slot threads to, in turn; empty if they are not to be pinned.
    pins: Vec<usize>,
    /// Threads that may spin at the same time.
    spinners: usize,
}

impl Processors {
    /// What `taskmanager.affinity` comes to here. Pinning by itself needs a set of processors smaller than the machine:
    /// otherwise others have the same right to them. Under a quota nothing spins: what is burnt comes back as pauses.
    pub(crate) fn find(affinity: &Affinity) -> Processors {
        let allowed = allowed();
        let pins = match affinity {
            Affinity::Auto if !allowed.is_empty() && allowed.len() < online() => allowed.clone(),
            Affinity::Cpus(list) => list.iter().map(|cpu| *cpu as usize).collect(),
            Affinity::Auto | Affinity::Off => Vec::new(),
        };
        let spinners = if has_quota() { 0 } else { allowed.len() };
        Processors { pins, spinners }
    }

    /// Pins the calling thread, if threads are pinned.
    pub(crate) fn pin(&self, thread: usize) {
        if self.pins.is_empty() {
            return;
        }
        let cpu = self.pins[thread % self.pins.len()];
        let mut set = CpuSet::new();
        let pinned = set.set(cpu).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
        if let Err(cause) = pinned {
            tracing::warn!(cpu, %cause, "a slot thread could not be pinned; taskmanager.affinity names processors it may not use");
        }
    }

    /// Whether `threads` threads may spin before they park.
    pub(crate) fn may_spin(&self, threads: usize) -> bool {
        threads <= self.spinners
    }
}

/// Slots of other workers at the same address: their threads want the same processors.
pub(crate) fn neighbours(deployment: &Deployment, worker: WorkerId) -> BTreeSet<(WorkerId, SlotIndex)> {
    let host_of = |worker: WorkerId| {
        let peer = deployment.peers.iter().find(|peer| peer.worker == worker)?;
        peer.shuffle_address.map(|address| address.ip())
    };
    let Some(own) = host_of(worker) else { return BTreeSet::new() };
    let elsewhere = deployment.placements.iter().filter(|placement| placement.worker != worker);
    let slots = elsewhere.map(|placement| (placement.worker, placement.slot)).collect::<BTreeSet<_>>();
    slots.into_iter().filter(|(worker, _)| host_of(*worker) == Some(own)).collect()
}

fn allowed() -> Vec<usize> {
    let set = sched_getaffinity(Pid::from_raw(0));
    set.map_or(Vec::new(), |set| (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect())
}

/// Processors of the machine.
fn online() -> usize {
    let list = fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    count_of_list(list.trim())
}

/// The number of processors in a list such as `0-3,8`.
fn count_of_list(list: &str) -> usize {
    let of_range = |range: &str| match range.split_once('-') {
        Some((first, last)) => Some(last.parse::<usize>().ok()? - first.parse::<usize>().ok()? + 1),
        None => range.parse::<usize>().ok().map(|_| 1),
    };
    list.split(',').filter_map(of_range).sum()
}

/// Whether a cgroup limits the processor time of this process.
fn has_quota() -> bool {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let version_2 = fs::read_to_string(format!("/sys/fs/cgroup{own}/cpu.max")).unwrap_or_default();
    let version_1 = fs::read_to_string("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").unwrap_or_default();
    (!version_2.is_empty() && !version_2.starts_with("max"))
        || version_1.trim().parse::<i64>().is_ok_and(|quota| quota > 0)
}

#[cfg(test)]
mod tests {
    use millstream_model::{
        deployment::{ChannelToken, Peer, Placement},
        id::{Generation, JobVertexId, Subtask},
    };

    use super::*;

    #[test]
    fn processor_lists_are_counted() {
        for (list, count) in [("0-1", 2), ("0", 1), ("0-3,8,10-11", 7), ("", 0)] {
            assert_eq!(count_of_list(list), count, "{list}");
        }
    }

    #[test]
    fn slots_of_workers_at_the_same_address_are_neighbours() {
        let placement = |worker, slot, index| Placement {
            subtask: Subtask { vertex: JobVertexId(1), index },
            worker: WorkerId(worker),
            slot: SlotIndex(slot),
        };
        let peer = |worker, address: &str| Peer {
            worker: WorkerId(worker),
            shuffle_address: Some(address.parse().expect("it is one")),
        };
        let deployment = Deployment {
            generation: Generation(1),
            attempt: 1,
            token: ChannelToken(1),
            // Two subtasks share the first slot of worker 1.
            placements: vec![
                placement(0, 0, 0),
                placement(1, 0, 1),
                placement(1, 0, 2),
                placement(1, 1, 3),
                placement(2, 0, 4),
            ],
            peers: vec![peer(0, "10.0.0.1:1"), peer(1, "10.0.0.1:2"), peer(2, "10.0.0.2:1")],
            restore: None,
        };
        let of = |worker| neighbours(&deployment, WorkerId(worker)).len();
        assert_eq!([of(0), of(1), of(2), of(3)], [2, 1, 0, 0]);
    }
}
