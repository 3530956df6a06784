//! Keys about how a job's records are processed.

use std::time::Duration;

use super::{
    super::{buffer_timeout::BufferTimeout, key::Key, words::*},
    Group,
};

group! {
    EXECUTION: "Execution", "How records are processed and passed on.";

    /// `BATCH`: aggregates give only the final result of each key, at the end of bounded inputs; the job still runs as
    /// one bounded stream with a last watermark, and a source without an end is refused. `AUTOMATIC`: `BATCH` if every
    /// source is bounded, else `STREAMING`.
    RUNTIME_MODE: RuntimeMode = Key::new("execution.runtime-mode", "STREAMING");

    /// The longest time that a record waits under load for the buffer it is in to fill up. `0` sends each record at
    /// once; `-1` sets no bound: buffers leave when they are full. Whatever this says, half-full buffers leave as soon
    /// as a task has no more input.
    BUFFER_TIMEOUT: BufferTimeout = Key::new("execution.buffer-timeout.interval", "100 ms")
        .aliases(&["execution.buffer-timeout"]);

    /// `slot`: one thread per slot runs all its subtasks in turn. `task`: each subtask has a thread of its own, as in
    /// Flink, for jobs whose functions block.
    TASK_THREADING: Threading = Key::new("task.threading", "slot").ours();

    /// How long a thread without work looks for more before it sleeps. Spinning saves the 20 to 25 us of a wake-up;
    /// where the process has a CPU quota, or does not own its CPUs, or the job has more slots on this host than there are
    /// CPUs, threads sleep at once. `0` never spins.
    TASK_SPIN: Duration = Key::new("task.spin", "20 us").at_most("10 ms").ours();

    /// A step of an operator that takes longer is counted, and logged with the operator's name: meanwhile, nothing
    /// else in its slot runs.
    TASK_STEP_WARNING: Duration = Key::new("task.step-warning", "1 ms").ours();

    /// The pause between two attempts to cancel a task that does not end.
    TASK_CANCELLATION_INTERVAL: Duration = Key::new("task.cancellation.interval", "30 s")
        .aliases(&["task.cancellation-interval"]);

    /// A task that has not ended this long after it was cancelled ends its process. `0` waits forever.
    TASK_CANCELLATION_TIMEOUT: Duration = Key::new("task.cancellation.timeout", "3 min");

    /// Which records are checked before they are read in place. `auto` checks each one that came over a link that is
    /// not both authenticated and encrypted, and the first of every other channel; links inside a process are
    /// trusted.
    SHUFFLE_VALIDATE: Validation = Key::new("shuffle.validate", "auto").ours();

    /// How often sources emit markers that measure how long records take to the sinks. `0` emits none.
    LATENCY_INTERVAL: Duration = Key::new("metrics.latency.interval", "0 ms");
}
