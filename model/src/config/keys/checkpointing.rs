//! Keys about checkpoints and what a job starts from.

use std::time::Duration;

use super::{
    super::{key::Key, words::*},
    Group,
};

group! {
    CHECKPOINTING: "State and checkpoints", "How state is kept, how often it is saved, and what a job starts from.";

    /// Time between the starts of two checkpoints. Without one there are no checkpoints, and a restarted job begins
    /// anew.
    CHECKPOINTING_INTERVAL: Option<Duration> = Key::optional("execution.checkpointing.interval").at_least("10 ms");

    /// The directory or object store that checkpoints are written to, as a path or a URI. All processes of the
    /// cluster must reach it.
    CHECKPOINTING_DIR: Option<String> = Key::optional("execution.checkpointing.dir")
        .aliases(&["state.checkpoints.dir", "state.backend.fs.checkpointdir"]);

    /// A checkpoint that is not complete after this time is given up.
    CHECKPOINTING_TIMEOUT: Duration = Key::new("execution.checkpointing.timeout", "10 min").at_least("10 ms");

    /// The least time between the end of a checkpoint and the start of the next.
    CHECKPOINTING_MIN_PAUSE: Duration = Key::new("execution.checkpointing.min-pause", "0 ms");

    /// How many checkpoints may be under way at once.
    CHECKPOINTING_MAX_CONCURRENT: u32 = Key::new("execution.checkpointing.max-concurrent-checkpoints", "1")
        .at_least("1");

    /// How many checkpoints in a row may fail before the job does.
    CHECKPOINTING_TOLERABLE_FAILURES: u32 = Key::new("execution.checkpointing.tolerable-failed-checkpoints", "0");

    /// How many completed checkpoints are kept. Two, where Flink keeps one: if the newest turns out to be damaged, a
    /// job falls back to the one before.
    CHECKPOINTING_NUM_RETAINED: u32 = Key::new("execution.checkpointing.num-retained", "2")
        .aliases(&["state.checkpoints.num-retained"])
        .at_least("1");

    /// `EXACTLY_ONCE`: after a restart each record counts once; inputs wait for each other at a checkpoint.
    /// `AT_LEAST_ONCE`: some may count twice; inputs never wait.
    CHECKPOINTING_MODE: CheckpointingMode = Key::new("execution.checkpointing.mode", "EXACTLY_ONCE");

    /// Whether checkpoints may overtake records under backpressure; what they overtake becomes part of the checkpoint.
    UNALIGNED_ENABLED: bool = Key::new("execution.checkpointing.unaligned.enabled", "false")
        .aliases(&["execution.checkpointing.unaligned"]);

    /// With unaligned checkpoints: how long one waits for its turn before it overtakes. `0` overtakes at once.
    ALIGNED_CHECKPOINT_TIMEOUT: Duration = Key::new("execution.checkpointing.aligned-checkpoint-timeout", "0 ms")
        .aliases(&["execution.checkpointing.alignment-timeout"]);

    /// What happens to the checkpoints of a job that ends: `RETAIN_ON_CANCELLATION` keeps them until they are deleted
    /// by hand, `DELETE_ON_CANCELLATION` keeps them only if the job failed, `NO_EXTERNALIZED_CHECKPOINTS` never.
    CHECKPOINT_RETENTION: CheckpointRetention = Key::new(
        "execution.checkpointing.externalized-checkpoint-retention",
        "NO_EXTERNALIZED_CHECKPOINTS",
    );

    /// A savepoint or retained checkpoint that the job starts from.
    STATE_RECOVERY_PATH: Option<String> = Key::optional("execution.state-recovery.path")
        .aliases(&["execution.savepoint.path"]);

    /// What holds keyed state while a job runs.
    STATE_BACKEND: StateBackend = Key::new("state.backend.type", "hashmap").aliases(&["state.backend"]);
}
