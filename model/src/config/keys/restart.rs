//! Keys about what happens after a failure.

use std::time::Duration;

use super::{
    super::{key::Key, words::*},
    Group,
};

group! {
    RESTART: "Restarts", "What happens when a job fails. The keys of a strategy have an effect only if it is the one in use.";

    /// `none`, `fixed-delay`, `failure-rate` or `exponential-delay`. Without a value it is `exponential-delay` if
    /// checkpoints are on, else `none`.
    RESTART_STRATEGY: Option<RestartStrategy> = Key::optional("restart-strategy.type")
        .aliases(&["restart-strategy"]);

    /// `region`: a failure restarts the tasks that exchange records with the one that failed, directly or by others, and
    /// leaves the rest of the job running. `full`: it restarts all tasks of the job.
    FAILOVER_STRATEGY: FailoverStrategy = Key::new("jobmanager.execution.failover-strategy", "region");

    /// How many restarts there are before the job is given up.
    FIXED_DELAY_ATTEMPTS: u32 = Key::new("restart-strategy.fixed-delay.attempts", "1");

    /// The pause before a restart.
    FIXED_DELAY_DELAY: Duration = Key::new("restart-strategy.fixed-delay.delay", "1 s");

    /// How many failures there may be per interval before the job is given up.
    FAILURE_RATE_MAX_FAILURES: u32 = Key::new("restart-strategy.failure-rate.max-failures-per-interval", "1");

    /// The interval in which failures are counted.
    FAILURE_RATE_INTERVAL: Duration = Key::new("restart-strategy.failure-rate.failure-rate-interval", "1 min");

    /// The pause before a restart.
    FAILURE_RATE_DELAY: Duration = Key::new("restart-strategy.failure-rate.delay", "1 s");

    /// The pause before the first restart.
    EXPONENTIAL_DELAY_INITIAL_BACKOFF: Duration =
        Key::new("restart-strategy.exponential-delay.initial-backoff", "1 s").at_least("1 ms");

    /// The longest pause.
    EXPONENTIAL_DELAY_MAX_BACKOFF: Duration =
        Key::new("restart-strategy.exponential-delay.max-backoff", "1 min").at_least("1 ms");

    /// Each pause is this many times the one before.
    EXPONENTIAL_DELAY_MULTIPLIER: f64 =
        Key::new("restart-strategy.exponential-delay.backoff-multiplier", "1.5").at_least("1");

    /// After running this long without a failure, the next pause is the first one again.
    EXPONENTIAL_DELAY_RESET_THRESHOLD: Duration =
        Key::new("restart-strategy.exponential-delay.reset-backoff-threshold", "1 h");

    /// The part of a pause that is random, so that jobs which failed together do not restart together.
    EXPONENTIAL_DELAY_JITTER: f64 =
        Key::new("restart-strategy.exponential-delay.jitter-factor", "0.1").at_least("0").at_most("1");

    /// How many restarts there are, with none of them lasting the threshold above, before the job is given up.
    EXPONENTIAL_DELAY_ATTEMPTS: u32 =
        Key::new("restart-strategy.exponential-delay.attempts-before-reset-backoff", "2147483647");
}
