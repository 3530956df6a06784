//! Keys about the processes that run tasks.

use std::time::Duration;

use super::{
    super::{
        affinity::Affinity,
        key::Key,
        memory_size::MemorySize,
        words::{MemoryLimit, NetworkIo},
    },
    Group,
};

group! {
    TASKMANAGER: "TaskManagers", "The processes that run tasks: how many at once, and in how much memory.";

    /// How many slots a TaskManager offers; each runs one pipeline of the job, on a thread of its own.
    TASK_SLOTS: u32 = Key::new("taskmanager.numberOfTaskSlots", "1").at_least("1").at_most("32768");

    /// How many TaskManagers a job that is run directly gets, on this machine. With `1` it runs in its own process, with
    /// all the slots that it needs. With more, each is a process that offers `taskmanager.numberOfTaskSlots`.
    LOCAL_TASK_MANAGERS: u32 = Key::new("local.number-taskmanager", "1")
        .aliases(&["minicluster.number-of-taskmanagers"])
        .at_least("1")
        .at_most("1024");

    /// Which CPUs the threads of slots run on. `auto` gives each a CPU of its own if the process owns its CPUs, `off`
    /// leaves it to the system, and a list such as `0-3,8` names them.
    AFFINITY: Affinity = Key::new("taskmanager.affinity", "auto").ours();

    /// What the sockets between workers are read and written with: `uring` asks many of them with one system call of
    /// io_uring, `syscall` asks each alone, and `auto` takes what is faster for as many as have something to do. Where the
    /// kernel has no io_uring or forbids it, all are the same.
    NETWORK_IO: NetworkIo = Key::new("taskmanager.network.io", "auto").ours();

    /// The memory of a TaskManager with all its workers. Without it, and without `taskmanager.memory.flink.size`, it is what
    /// the machine has, or the TaskManager's cgroup if that is less; where several TaskManagers share a machine, each needs
    /// a value.
    PROCESS_MEMORY: Option<MemorySize> = Key::optional("taskmanager.memory.process.size").at_least("64 mb");

    /// The memory of the slots, each of which has an equal part of it: a worker may take up as much as its slots have. With
    /// a value, `taskmanager.memory.process.size` is only a number to compare with.
    FLINK_MEMORY: Option<MemorySize> = Key::optional("taskmanager.memory.flink.size").at_least("16 mb");

    /// The part of `taskmanager.memory.process.size` that belongs to no slot: the TaskManager's own process. No JVM is here;
    /// the name is Flink's.
    OVERHEAD_MEMORY_FRACTION: f64 = Key::new("taskmanager.memory.jvm-overhead.fraction", "0.1")
        .at_least("0")
        .at_most("0.9");

    /// The least that belongs to no slot. Flink's default is 192 MB, of which a JVM needs the most.
    OVERHEAD_MEMORY_MIN: MemorySize = Key::new("taskmanager.memory.jvm-overhead.min", "64 mb");

    /// The most that belongs to no slot.
    OVERHEAD_MEMORY_MAX: MemorySize = Key::new("taskmanager.memory.jvm-overhead.max", "1 gb");

    /// The part of the slots' memory that is for keyed state, shared equally by the slots. Flink has state in its heap, and
    /// uses managed memory for RocksDB.
    MANAGED_MEMORY_FRACTION: f64 = Key::new("taskmanager.memory.managed.fraction", "0.4").at_least("0").at_most("1");

    /// The memory for keyed state. With a value, the fraction is not used. A job whose state needs more in a slot than the
    /// slot's part of it fails.
    MANAGED_MEMORY: Option<MemorySize> = Key::optional("taskmanager.memory.managed.size")
        .aliases(&["taskmanager.memory.size"]);

    /// What keeps a worker process to the memory of its slots: `auto` is a cgroup of version 2 if the TaskManager may make
    /// one, else `rlimit`, which limits what the process may allocate; `none` leaves it to the system.
    MEMORY_LIMIT: MemoryLimit = Key::new("taskmanager.memory.limit", "auto").ours();

    /// Whether the memory of workers may consist of huge pages, where the kernel makes them. Keyed state of tens of millions
    /// of keys is found faster in them. Without them, workers of many peers start and connect in a third of the time, and
    /// need less than half of the memory.
    MEMORY_HUGE_PAGES: bool = Key::new("taskmanager.memory.huge-pages", "false").ours();

    /// The part of the slots' memory that is for buffers between tasks, shared equally by the slots.
    NETWORK_MEMORY_FRACTION: f64 = Key::new("taskmanager.memory.network.fraction", "0.1")
        .aliases(&["taskmanager.network.memory.fraction"])
        .at_least("0")
        .at_most("1");

    /// The least memory for buffers between tasks.
    NETWORK_MEMORY_MIN: MemorySize = Key::new("taskmanager.memory.network.min", "64 mb")
        .aliases(&["taskmanager.network.memory.min"]);

    /// The most memory for buffers between tasks. Without a value, the fraction decides alone.
    NETWORK_MEMORY_MAX: Option<MemorySize> = Key::optional("taskmanager.memory.network.max")
        .aliases(&["taskmanager.network.memory.max"]);

    /// The size of one buffer. Where a task has so many channels that a buffer for each takes more than half of
    /// `taskmanager.network.memory.gate-size.max`, the job's buffers are smaller, down to 4 kb.
    SEGMENT_SIZE: MemorySize = Key::new("taskmanager.memory.segment-size", "32 kb").at_least("4 kb").at_most("1 gb");

    /// How many buffers beyond its pool a task may take per output to finish the record it is at.
    MAX_OVERDRAFT_BUFFERS: u32 = Key::new("taskmanager.network.memory.max-overdraft-buffers-per-gate", "5");

    /// How much memory a subtask may take, when the overdraft is used up, to finish the record it is at: for its outputs
    /// and in front of its async functions together. Beyond it the job fails, since one record has become too much;
    /// `flat_map_iter` is the way out.
    OVERFLOW_MAX: MemorySize = Key::new("taskmanager.memory.overflow.max", "64 mb").ours();

    /// How many bytes may be under way into one task, over all of its channels, and out of one. Where the channels could use
    /// more, each has a part of half of it for itself, and the rest goes to those that announce a backlog.
    GATE_SIZE_MAX: MemorySize = Key::new("taskmanager.network.memory.gate-size.max", "8 mb")
        .at_least("64 kb")
        .ours();

    /// Whether the amount of data under way into a task follows how fast the task reads it. Unlike in Flink it is on by
    /// default.
    DEBLOAT_ENABLED: bool = Key::new("taskmanager.network.memory.buffer-debloat.enabled", "true");

    /// What is under way into a task should be read within this time.
    DEBLOAT_TARGET: Duration = Key::new("taskmanager.network.memory.buffer-debloat.target", "1 s").at_least("1 ms");

    /// How often the amount of data under way is looked at.
    DEBLOAT_PERIOD: Duration = Key::new("taskmanager.network.memory.buffer-debloat.period", "200 ms").at_least("1 ms");

    /// The least change of the amount of data under way that is made, in percent.
    DEBLOAT_THRESHOLD: u32 = Key::new("taskmanager.network.memory.buffer-debloat.threshold-percentages", "25")
        .at_most("100");

    /// How many bytes may be under way on a channel between two slots of a process.
    CHANNEL_WINDOW: MemorySize = Key::new("taskmanager.network.memory.channel-window", "128 kb")
        .at_least("4 kb")
        .ours();

    /// How many bytes may be under way from one worker to another, at each of the two. Their channels share them: each
    /// gets at most a quarter, and at least what a channel within a process gets.
    REMOTE_WINDOW: MemorySize = Key::new("taskmanager.network.memory.remote-window", "4 mb")
        .at_least("4 kb")
        .ours();
}
