//! Keys that do not go together: each rule is a sentence that names the keys and says what holds.

use super::{
    key::{Definition, Key},
    keys::*,
    settings::Configuration,
    value::Value,
    words::*,
};

/// All rules that a configuration breaks. Keys with bad values are passed over: they are reported as such.
pub(super) fn all(configuration: &Configuration) -> Vec<String> {
    let rules = [checkpoints, memory, restarts];
    rules.into_iter().flat_map(|rule| rule(&Look(configuration))).collect()
}

/// A look at a configuration that takes bad values for unset ones.
struct Look<'a>(&'a Configuration);

impl Look<'_> {
    fn get<T: Value>(&self, key: &Key<T>) -> Option<T> {
        self.0.get(key).ok()
    }

    fn is_set(&self, key: &Definition) -> bool {
        self.0.find(key).is_some()
    }
}

/// The rules for checkpoints are Flink's (`CheckpointConfig`, `CheckpointCoordinator`).
fn checkpoints(look: &Look<'_>) -> Vec<String> {
    let unaligned = look.get(&UNALIGNED_ENABLED) == Some(true);
    let concurrent = look.get(&CHECKPOINTING_MAX_CONCURRENT).is_some_and(|count| count > 1);
    let mut found = Vec::new();
    if unaligned && concurrent {
        found.push(format!(
            "{} goes with one checkpoint at a time: {} has no effect",
            UNALIGNED_ENABLED.name(),
            CHECKPOINTING_MAX_CONCURRENT.name()
        ));
    }
    if unaligned && look.get(&CHECKPOINTING_MODE) == Some(CheckpointingMode::AtLeastOnce) {
        found.push(format!(
            "{} has no effect: with {} AT_LEAST_ONCE no checkpoint is ever aligned",
            UNALIGNED_ENABLED.name(),
            CHECKPOINTING_MODE.name()
        ));
    }
    if concurrent && look.get(&CHECKPOINTING_MIN_PAUSE).is_some_and(|pause| !pause.is_zero()) {
        found.push(format!(
            "{} leaves one checkpoint at a time: {} has no effect",
            CHECKPOINTING_MIN_PAUSE.name(),
            CHECKPOINTING_MAX_CONCURRENT.name()
        ));
    }
    if !unaligned && look.is_set(&ALIGNED_CHECKPOINT_TIMEOUT.definition) {
        found.push(format!("{} has no effect without {}", ALIGNED_CHECKPOINT_TIMEOUT.name(), UNALIGNED_ENABLED.name()));
    }
    found
}

fn memory(look: &Look<'_>) -> Vec<String> {
    let mut found = Vec::new();
    if look.is_set(&MANAGED_MEMORY.definition) && look.is_set(&MANAGED_MEMORY_FRACTION.definition) {
        found.push(format!("{} has no effect beside {}", MANAGED_MEMORY_FRACTION.name(), MANAGED_MEMORY.name()));
    }
    let bounds = look.get(&NETWORK_MEMORY_MIN).zip(look.get(&NETWORK_MEMORY_MAX).flatten());
    if let Some((min, max)) = bounds.filter(|(min, max)| min > max) {
        let (min_name, max_name) = (NETWORK_MEMORY_MIN.name(), NETWORK_MEMORY_MAX.name());
        found.push(format!("{min_name} ({min}) is more than {max_name} ({max})"));
    }
    found
}

fn restarts(look: &Look<'_>) -> Vec<String> {
    let Some(chosen) = look.get(&RESTART_STRATEGY) else { return Vec::new() };
    // Without a choice it is exponential-delay or none, depending on whether checkpoints are on.
    let in_use = chosen.unwrap_or(RestartStrategy::ExponentialDelay).to_text();
    let has_no_effect = |key: &&Definition| {
        let strategy = key.name.strip_prefix("restart-strategy.").and_then(|rest| rest.split_once('.'));
        strategy.is_some_and(|(strategy, _)| strategy != in_use) && look.is_set(key)
    };
    let choice = chosen.map_or_else(|| "not set".to_owned(), |strategy| strategy.to_text());
    let mut found: Vec<String> = super::keys::all()
        .filter(has_no_effect)
        .map(|key| format!("{} has no effect: {} is {choice}", key.name, RESTART_STRATEGY.name()))
        .collect();
    let backoffs = look.get(&EXPONENTIAL_DELAY_INITIAL_BACKOFF).zip(look.get(&EXPONENTIAL_DELAY_MAX_BACKOFF));
    if backoffs.is_some_and(|(initial, max)| initial > max) {
        let (initial, max) = (EXPONENTIAL_DELAY_INITIAL_BACKOFF.name(), EXPONENTIAL_DELAY_MAX_BACKOFF.name());
        found.push(format!("{initial} is more than {max}"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(yaml: &str) -> Vec<String> {
        all(&Configuration::from_yaml(yaml, "config.yaml").unwrap())
    }

    #[test]
    fn each_rule_is_found_and_names_its_keys() {
        for (yaml, expected) in [
            (
                "execution.checkpointing: {unaligned.enabled: true, max-concurrent-checkpoints: 2}",
                "execution.checkpointing.unaligned.enabled goes with one checkpoint at a time: \
                 execution.checkpointing.max-concurrent-checkpoints has no effect",
            ),
            (
                "execution.checkpointing: {unaligned.enabled: true, mode: AT_LEAST_ONCE}",
                "execution.checkpointing.unaligned.enabled has no effect: with execution.checkpointing.mode \
                 AT_LEAST_ONCE no checkpoint is ever aligned",
            ),
            (
                "execution.checkpointing: {min-pause: 1 s, max-concurrent-checkpoints: 2}",
                "execution.checkpointing.min-pause leaves one checkpoint at a time: \
                 execution.checkpointing.max-concurrent-checkpoints has no effect",
            ),
            (
                "execution.checkpointing.aligned-checkpoint-timeout: 1 s",
                "execution.checkpointing.aligned-checkpoint-timeout has no effect without \
                 execution.checkpointing.unaligned.enabled",
            ),
            (
                "taskmanager.memory.managed: {size: 1 gb, fraction: 0.3}",
                "taskmanager.memory.managed.fraction has no effect beside taskmanager.memory.managed.size",
            ),
            (
                "taskmanager.memory.network.max: 32mb",
                "taskmanager.memory.network.min (64 mb) is more than taskmanager.memory.network.max (32 mb)",
            ),
            (
                "restart-strategy: {type: failure-rate, fixed-delay.attempts: 3}",
                "restart-strategy.fixed-delay.attempts has no effect: restart-strategy.type is failure-rate",
            ),
            (
                "restart-strategy.fixed-delay.attempts: 3",
                "restart-strategy.fixed-delay.attempts has no effect: restart-strategy.type is not set",
            ),
            (
                "restart-strategy.exponential-delay.initial-backoff: 2 min",
                "restart-strategy.exponential-delay.initial-backoff is more than \
                 restart-strategy.exponential-delay.max-backoff",
            ),
        ] {
            assert_eq!(found(yaml), [expected], "{yaml}");
        }
    }

    #[test]
    fn what_goes_together_is_not_reported() {
        for yaml in [
            "",
            "execution.checkpointing: {unaligned.enabled: true, aligned-checkpoint-timeout: 1 s, min-pause: 1 s}",
            "taskmanager.memory.network: {min: 32mb, max: 32mb}",
            "restart-strategy: {type: fixeddelay, fixed-delay.attempts: 3}",
            "restart-strategy.exponential-delay.jitter-factor: 0.2",
            "taskmanager.memory.network.max: much",
        ] {
            assert_eq!(found(yaml), [""; 0], "{yaml}");
        }
    }
}
