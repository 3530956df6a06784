//! Restart strategies: whether a failed job is restarted, and after which pause. Names, defaults and rules are Flink's.

use std::{collections::VecDeque, time::Duration};

use millstream_model::config::{self, BadValue, Configuration, RestartStrategy};

use crate::clock::Moment;

/// A strategy with what it remembers of past failures.
#[derive(Clone, PartialEq, Debug)]
pub enum RestartBackoff {
    None,
    FixedDelay(FixedDelay),
    FailureRate(FailureRate),
    ExponentialDelay(ExponentialDelay),
}

/// So many restarts, each after the same pause.
#[derive(Clone, PartialEq, Debug)]
pub struct FixedDelay {
    pub attempts: u32,
    pub delay: Duration,
    used: u32,
}

/// Restarts as long as there are no more than so many failures in an interval.
#[derive(Clone, PartialEq, Debug)]
pub struct FailureRate {
    pub max_failures: u32,
    pub interval: Duration,
    pub delay: Duration,
    /// Within the last interval.
    failures: VecDeque<Moment>,
}

/// Restarts after pauses that grow, until the job has run long enough.
#[derive(Clone, PartialEq, Debug)]
pub struct ExponentialDelay {
    pub initial: Duration,
    pub max: Duration,
    pub multiplier: f64,
    pub reset_threshold: Duration,
    /// The part of a pause that is random.
    pub jitter: f64,
    pub attempts_before_reset: u32,
    /// The next pause, without jitter.
    next: Duration,
    used: u32,
    /// When the newest restart was to take place.
    restarted: Option<Moment>,
}

/// How long to wait before a restart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pause {
    pub length: Duration,
    /// Whether the restart counts. Failures during a pause of exponential-delay are one with the failure before.
    pub is_new: bool,
}

impl RestartBackoff {
    /// The strategy that is configured. Without one it is exponential-delay if checkpoints are taken, else none.
    pub fn from_configuration(configuration: &Configuration) -> Result<RestartBackoff, BadValue> {
        let has_checkpoints = configuration.get(&config::CHECKPOINTING_INTERVAL)?.is_some();
        let default = if has_checkpoints { RestartStrategy::ExponentialDelay } else { RestartStrategy::None };
        Ok(match configuration.get(&config::RESTART_STRATEGY)?.unwrap_or(default) {
            RestartStrategy::None => RestartBackoff::None,
            RestartStrategy::FixedDelay => RestartBackoff::FixedDelay(FixedDelay {
                attempts: configuration.get(&config::FIXED_DELAY_ATTEMPTS)?,
                delay: configuration.get(&config::FIXED_DELAY_DELAY)?,
                used: 0,
            }),
            RestartStrategy::FailureRate => RestartBackoff::FailureRate(FailureRate {
                max_failures: configuration.get(&config::FAILURE_RATE_MAX_FAILURES)?,
                interval: configuration.get(&config::FAILURE_RATE_INTERVAL)?,
                delay: configuration.get(&config::FAILURE_RATE_DELAY)?,
                failures: VecDeque::new(),
            }),
            RestartStrategy::ExponentialDelay => {
                let initial = configuration.get(&config::EXPONENTIAL_DELAY_INITIAL_BACKOFF)?;
                RestartBackoff::ExponentialDelay(ExponentialDelay {
                    initial,
                    max: configuration.get(&config::EXPONENTIAL_DELAY_MAX_BACKOFF)?,
                    multiplier: configuration.get(&config::EXPONENTIAL_DELAY_MULTIPLIER)?,
                    reset_threshold: configuration.get(&config::EXPONENTIAL_DELAY_RESET_THRESHOLD)?,
                    jitter: configuration.get(&config::EXPONENTIAL_DELAY_JITTER)?,
                    attempts_before_reset: configuration.get(&config::EXPONENTIAL_DELAY_ATTEMPTS)?,
                    next: initial,
                    used: 0,
                    restarted: None,
                })
            }
        })
    }

    /// The pause before the restart after a failure now; `random` is in 0..1.
    ///
    /// # Errors
    /// If there is to be no restart: why, for a person.
    pub fn on_failure(&mut self, now: Moment, random: f64) -> Result<Pause, String> {
        let of_its_own = |length| Pause { length, is_new: true };
        match self {
            Self::None => Err("there is no restart strategy; see restart-strategy.type".to_owned()),
            Self::FixedDelay(strategy) => strategy.on_failure().map(of_its_own),
            Self::FailureRate(strategy) => strategy.on_failure(now).map(of_its_own),
            Self::ExponentialDelay(strategy) => strategy.on_failure(now, random),
        }
    }
}

impl FixedDelay {
    fn on_failure(&mut self) -> Result<Duration, String> {
        if self.used >= self.attempts {
            return Err(format!("restart-strategy.fixed-delay.attempts = {} is used up", self.attempts));
        }
        self.used += 1;
        Ok(self.delay)
    }
}

impl FailureRate {
    fn on_failure(&mut self, now: Moment) -> Result<Duration, String> {
        while self.failures.pop_front_if(|failure| now.since(*failure) > self.interval).is_some() {}
        self.failures.push_back(now);
        if self.failures.len() as u32 > self.max_failures {
            let (max, interval) = (self.max_failures, self.interval);
            return Err(format!(
                "there were more failures within {interval:?} than \
                 restart-strategy.failure-rate.max-failures-per-interval = {max}"
            ));
        }
        Ok(self.delay)
    }
}

impl ExponentialDelay {
    fn on_failure(&mut self, now: Moment, random: f64) -> Result<Pause, String> {
        // What fails while a restart is awaited most likely fails for the same reason (Flink's FLIP-364).
        if let Some(restarted) = self.restarted.filter(|restarted| now < *restarted) {
            return Ok(Pause { length: restarted.since(now), is_new: false });
        }
        if self.restarted.is_some_and(|restarted| now.since(restarted) >= self.reset_threshold) {
            self.next = self.initial;
            self.used = 0;
        }
        if self.used >= self.attempts_before_reset {
            let attempts = self.attempts_before_reset;
            return Err(format!(
                "restart-strategy.exponential-delay.attempts-before-reset-backoff = {attempts} is used up"
            ));
        }
        self.used += 1;
        let pause =
            self.next.mul_f64(1.0 + self.jitter * (2.0 * random - 1.0)).clamp(self.initial.min(self.max), self.max);
        self.next = self.next.mul_f64(self.multiplier).min(self.max);
        self.restarted = Some(now + pause);
        Ok(Pause { length: pause, is_new: true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In the middle of the jitter.
    const MEAN: f64 = 0.5;

    fn strategy(set: &[(&str, &str)]) -> RestartBackoff {
        let mut configuration = Configuration::new();
        for (key, value) in set {
            configuration.set_text(key, value, config::Origin::Program);
        }
        RestartBackoff::from_configuration(&configuration).unwrap()
    }

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    #[test]
    fn the_default_depends_on_whether_checkpoints_are_taken() {
        assert_eq!(strategy(&[]), RestartBackoff::None);
        let with_checkpoints = strategy(&[("execution.checkpointing.interval", "1 s")]);
        assert!(matches!(with_checkpoints, RestartBackoff::ExponentialDelay(_)));
    }

    #[test]
    fn a_fixed_delay_restarts_as_often_as_it_says() {
        let mut fixed =
            strategy(&[("restart-strategy.type", "fixed-delay"), ("restart-strategy.fixed-delay.attempts", "2")]);
        let second = Pause { length: Duration::from_secs(1), is_new: true };
        assert_eq!(fixed.on_failure(at(0), MEAN), Ok(second));
        assert_eq!(fixed.on_failure(at(0), MEAN), Ok(second));
        assert!(fixed.on_failure(at(0), MEAN).unwrap_err().contains("attempts = 2"));
    }

    #[test]
    fn a_failure_rate_counts_the_failures_of_one_interval_only() {
        let mut rate = strategy(&[
            ("restart-strategy.type", "failure-rate"),
            ("restart-strategy.failure-rate.max-failures-per-interval", "2"),
        ]);
        for seconds in [0, 50, 70, 115] {
            assert_eq!(rate.on_failure(at(seconds), MEAN).unwrap().length, Duration::from_secs(1), "{seconds}");
        }
        assert!(rate.on_failure(at(116), MEAN).is_err());
    }

    #[test]
    fn exponential_pauses_grow_to_their_maximum_and_begin_anew_after_a_long_run() {
        let mut exponential = strategy(&[
            ("restart-strategy.type", "exponential-delay"),
            ("restart-strategy.exponential-delay.backoff-multiplier", "10"),
        ]);
        let mut pauses = Vec::new();
        for seconds in [0, 10, 100, 200, 3860, 3861] {
            pauses.push(exponential.on_failure(at(seconds), MEAN).unwrap().length.as_secs());
        }
        assert_eq!(pauses, [1, 10, 60, 60, 1, 10]);
    }

    #[test]
    fn what_fails_during_a_pause_is_restarted_with_what_it_is_for_and_does_not_lengthen_the_next() {
        let mut exponential = strategy(&[
            ("restart-strategy.type", "exponential-delay"),
            ("restart-strategy.exponential-delay.initial-backoff", "4 s"),
            ("restart-strategy.exponential-delay.attempts-before-reset-backoff", "2"),
        ]);
        let pause = |seconds, is_new| Ok(Pause { length: Duration::from_secs(seconds), is_new });
        assert_eq!(exponential.on_failure(at(10), MEAN), pause(4, true));
        assert_eq!(exponential.on_failure(at(11), MEAN), pause(3, false));
        assert_eq!(exponential.on_failure(at(13), MEAN), pause(1, false));
        assert_eq!(exponential.on_failure(at(14), MEAN), pause(6, true));
        assert!(exponential.on_failure(at(20), MEAN).is_err());
    }

    #[test]
    fn jitter_stays_within_its_part_of_the_pause() {
        for (random, millis) in [(0.0, 1350), (0.5, 1500), (1.0, 1650)] {
            let mut exponential = strategy(&[("restart-strategy.type", "exponential-delay")]);
            exponential.on_failure(at(0), MEAN).unwrap();
            let pause = exponential.on_failure(at(2), random).unwrap();
            assert_eq!(pause, Pause { length: Duration::from_millis(millis), is_new: true });
        }
    }
}
