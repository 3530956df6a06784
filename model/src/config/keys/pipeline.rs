//! Keys about the shape of a job.

use std::time::Duration;

use super::{super::key::Key, Group};
use crate::{id::JobId, key_group::MaxParallelism};

group! {
    PIPELINE: "Jobs", "How a program becomes a job.";

    /// The name of the job in logs, metrics and the dashboard. Without one, the name of the program is used.
    PIPELINE_NAME: Option<String> = Key::optional("pipeline.name");

    /// The parallelism of operators that set none.
    PARALLELISM: u32 = Key::new("parallelism.default", "1").at_least("1").at_most("32768");

    /// The number of key groups, which is the highest parallelism that the job's state can ever be spread over, of
    /// operators that set none: 1 to 32768. `-1` derives it from the operator's parallelism: half more than it,
    /// rounded up to a power of two, at least 128. Changing it makes the state of keyed operators unreadable.
    PIPELINE_MAX_PARALLELISM: Option<MaxParallelism> = Key::new("pipeline.max-parallelism", "-1");

    /// Whether operators that need no exchange between them run as one task. Off is for finding out which of them is
    /// slow.
    OPERATOR_CHAINING: bool = Key::new("pipeline.operator-chaining.enabled", "true")
        .aliases(&["pipeline.operator-chaining"]);

    /// How often sources emit watermarks. `0` emits none between those that a source makes itself.
    AUTO_WATERMARK_INTERVAL: Duration = Key::new("pipeline.auto-watermark-interval", "200 ms");

    /// The id of the job, as 32 hexadecimal digits. Without one, each submission gets a new id; a fixed one lets the
    /// next run of the same program find the checkpoints of this one.
    PIPELINE_JOB_ID: Option<JobId> = Key::optional("pipeline.jobid").ours();
}
