//! Whose a TaskManager's memory is: by Flink's keys, as far as there is something to them without a JVM.
//!
//! ```text
//!  process ┬─ overhead: the TaskManager itself
//!          └─ flink: an equal part for each slot ┬─ managed: keyed state, by an account
//!                                                ├─ network: buffers between tasks, by pools
//!                                                └─ rest: user code, stacks, all else; only the sum of the three is enforced
//! ```
//! A slot owns its part whoever has it, and a worker owns the sum of its slots for its life: nothing is lent, so no job
//! takes another's.

use serde::{Deserialize, Serialize};

use crate::{
    config::{
        Configuration, FLINK_MEMORY, MANAGED_MEMORY, MANAGED_MEMORY_FRACTION, NETWORK_MEMORY_FRACTION,
        NETWORK_MEMORY_MAX, NETWORK_MEMORY_MIN, OVERHEAD_MEMORY_FRACTION, OVERHEAD_MEMORY_MAX, OVERHEAD_MEMORY_MIN,
        PROCESS_MEMORY,
    },
    fault::Failure,
};

/// What a TaskManager's memory is for. All amounts are bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TaskManagerMemory {
    /// With all its workers.
    pub process: u64,
    /// Of all slots.
    pub flink: u64,
    pub managed: u64,
    pub network: u64,
    slots: u32,
}

/// What some slots have, or one. All amounts are bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SlotMemory {
    /// For keyed state.
    pub managed: u64,
    /// For buffers between tasks.
    pub network: u64,
    /// For all: those two, and everything else.
    pub total: u64,
}

impl SlotMemory {
    /// For user code, stacks, and what else there is.
    pub fn rest(&self) -> u64 {
        self.total - self.managed - self.network
    }
}

impl TaskManagerMemory {
    /// How the memory of a TaskManager is shared out that has so many slots; `available` is what there is if the
    /// configuration does not say.
    ///
    /// # Errors
    /// If it does not go together.
    pub fn of(configuration: &Configuration, available: u64, slots: u32) -> Result<TaskManagerMemory, Failure> {
        let process = configuration.get(&PROCESS_MEMORY)?.map(|size| size.bytes());
        let flink = configuration.get(&FLINK_MEMORY)?.map(|size| size.bytes());
        let whole = process.unwrap_or(available);
        let least = configuration.get(&OVERHEAD_MEMORY_MIN)?.bytes();
        let most = configuration.get(&OVERHEAD_MEMORY_MAX)?.bytes().max(least);
        let overhead = part(whole, configuration.get(&OVERHEAD_MEMORY_FRACTION)?).clamp(least, most);
        let flink = match flink {
            Some(flink) if process.is_some_and(|process| flink > process) => {
                return Err(too_much(FLINK_MEMORY.name(), flink, PROCESS_MEMORY.name(), whole));
            }
            Some(flink) => flink,
            None if overhead >= whole => {
                return Err(too_much(OVERHEAD_MEMORY_MIN.name(), overhead, PROCESS_MEMORY.name(), whole));
            }
            None => whole - overhead,
        };
        let (least, most) = (configuration.get(&NETWORK_MEMORY_MIN)?.bytes(), configuration.get(&NETWORK_MEMORY_MAX)?);
        let most = most.map_or(u64::MAX, |most| most.bytes()).max(least);
        let network = part(flink, configuration.get(&NETWORK_MEMORY_FRACTION)?).clamp(least, most);
        let managed = match configuration.get(&MANAGED_MEMORY)? {
            Some(managed) => managed.bytes(),
            None => part(flink, configuration.get(&MANAGED_MEMORY_FRACTION)?),
        };
        if managed.saturating_add(network) > flink {
            return Err(Failure::fatal(format!(
                "{managed} bytes for state ({}, {}) and {network} bytes for buffers ({}, {}) are more than the slots' \
                 {flink} bytes ({}, {})",
                MANAGED_MEMORY.name(),
                MANAGED_MEMORY_FRACTION.name(),
                NETWORK_MEMORY_MIN.name(),
                NETWORK_MEMORY_FRACTION.name(),
                FLINK_MEMORY.name(),
                PROCESS_MEMORY.name(),
            )));
        }
        let process = process.unwrap_or_else(|| available.max(flink));
        Ok(TaskManagerMemory { process, flink, managed, network, slots: slots.max(1) })
    }

    /// What belongs to no slot.
    pub fn overhead(&self) -> u64 {
        self.process - self.flink
    }

    /// What so many slots have together.
    pub fn of_slots(&self, slots: u32) -> SlotMemory {
        let of = |bytes: u64| bytes / u64::from(self.slots) * u64::from(slots);
        SlotMemory { managed: of(self.managed), network: of(self.network), total: of(self.flink) }
    }
}

fn part(bytes: u64, fraction: f64) -> u64 {
    (bytes as f64 * fraction) as u64
}

fn too_much(what: &str, bytes: u64, of: &str, whole: u64) -> Failure {
    Failure::fatal(format!("{what} ({bytes} bytes) leaves nothing of {of} ({whole} bytes)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    fn memory(yaml: &str, slots: u32) -> Result<TaskManagerMemory, String> {
        let configuration = Configuration::from_yaml(yaml, "config.yaml").unwrap();
        TaskManagerMemory::of(&configuration, 20 * GIB, slots).map_err(|failure| failure.message)
    }

    #[test]
    fn without_sizes_the_machine_is_shared_out() {
        let memory = memory("", 4).unwrap();
        assert_eq!((memory.process, memory.overhead(), memory.flink), (20 * GIB, GIB, 19 * GIB));
        let slot = memory.of_slots(1);
        assert_eq!((slot.total, memory.of_slots(3).total), (19 * GIB / 4, 19 * GIB / 4 * 3));
        assert_eq!((slot.managed, slot.network), (memory.managed / 4, memory.network / 4));
        assert_eq!(memory.managed, (19.0 * 0.4 * GIB as f64) as u64);
        assert_eq!(slot.managed + slot.network + slot.rest(), slot.total);
    }

    #[test]
    fn sizes_are_those_of_the_keys() {
        let one = memory("taskmanager.memory.process.size: 1728m", 2).unwrap();
        assert_eq!((one.process, one.flink), (1728 * MIB, 1728 * MIB - (172.8 * MIB as f64) as u64));
        let one = memory("taskmanager.memory: {process.size: 500m, managed.size: 100m, network.max: 65m}", 2).unwrap();
        assert_eq!((one.overhead(), one.network, one.managed), (64 * MIB, 64 * MIB, 100 * MIB));
        let one = memory("taskmanager.memory: {flink.size: 1g, network: {min: 1m, fraction: 0.5}}", 8).unwrap();
        assert_eq!((one.of_slots(8).total, one.of_slots(1).network), (GIB, 64 * MIB));
        let one = memory("taskmanager.memory: {flink.size: 1g, process.size: 3g}", 1).unwrap();
        assert_eq!((one.flink, one.process), (GIB, 3 * GIB));
    }

    #[test]
    fn what_does_not_go_together_is_an_error_that_names_the_keys() {
        for (yaml, keys) in [
            ("taskmanager.memory: {process.size: 64m}", ["jvm-overhead.min", "process.size"]),
            ("taskmanager.memory: {process.size: 64m, flink.size: 65m}", ["flink.size", "process.size"]),
            ("taskmanager.memory: {process.size: 1g, managed.size: 900m}", ["managed.size", "process.size"]),
            ("taskmanager.memory: {flink.size: 60m}", ["network.min", "flink.size"]),
        ] {
            let message = memory(yaml, 1).unwrap_err();
            for key in keys {
                assert!(message.contains(&format!("taskmanager.memory.{key}")), "{yaml}: {message}");
            }
        }
    }
}
