//! Why checkpoints take long, or fail.

use std::time::Duration;

use super::{Facts, Finding, Kind, Severity, shown};
use crate::checkpoint::{CheckpointPhases, PendingStats, Slowest};

/// No checkpoint below this is worth a word, whatever the interval.
const SHORT: Duration = Duration::from_secs(1);
/// Subtasks that are named.
const NAMED_MAX: usize = 3;

pub(super) fn look(facts: &Facts<'_>) -> Vec<Finding> {
    let stats = &facts.metrics.checkpoints;
    let mut findings = Vec::new();
    let finding = |severity, text| Finding { severity, kind: Kind::Checkpoint, vertex: None, subtask: None, text };
    if let Some(failure) = &stats.last_failure {
        let text = match stats.failed {
            1 => format!("One checkpoint has failed: {failure}."),
            failed => format!("{failed} checkpoints have failed; the newest: {failure}."),
        };
        findings.push(finding(Severity::Warning, text));
    }
    let pending = facts.execution.and_then(|execution| execution.checkpoint_under_way.as_ref());
    if let Some(pending) = pending {
        let age = facts.now.since(pending.since);
        if is_long(age, facts) {
            findings.push(finding(Severity::Problem, under_way(facts, pending, age)));
        }
    }
    if let Some(last) = &stats.last_completed {
        let text = format!(
            "Checkpoint {} took {}: {}.",
            last.id,
            shown(last.duration),
            phases(facts, &last.phases, last.duration)
        );
        match is_long(last.duration, facts) {
            true => findings.push(finding(Severity::Warning, text)),
            false => findings.push(finding(Severity::Note, text)),
        }
    }
    findings
}

/// Longer than there is time until the next one.
fn is_long(duration: Duration, facts: &Facts<'_>) -> bool {
    duration >= SHORT.max(facts.checkpoint_interval.unwrap_or(SHORT))
}

fn under_way(facts: &Facts<'_>, pending: &PendingStats, age: Duration) -> String {
    let named = pending.missing.iter().take(NAMED_MAX).map(|subtask| facts.shape.name_of(*subtask));
    let mut named = named.collect::<Vec<_>>().join(", ");
    if pending.missing.len() > NAMED_MAX {
        named.push_str(&format!(" and {} more", pending.missing.len() - NAMED_MAX));
    }
    let what = match (pending.is_triggered, pending.missing.is_empty()) {
        (false, _) => "the coordinators of its sources have not all been snapshotted".to_owned(),
        (true, false) => format!(
            "{named} {} not acknowledged it: the barrier is behind records that wait there, or the snapshot is being \
             stored",
            if pending.missing.len() == 1 { "has" } else { "have" }
        ),
        (true, true) => "all parts are there, and its metadata is being stored".to_owned(),
    };
    format!("Checkpoint {} has been under way for {}: {what}.", pending.id, shown(age))
}

/// Where the time went, the longest phase first.
fn phases(facts: &Facts<'_>, phases: &CheckpointPhases, duration: Duration) -> String {
    let coordinators = Slowest { duration: phases.coordinators, subtask: None };
    let mut all = [
        (coordinators, "for the snapshots of coordinators"),
        (phases.start_delay, "until the barrier was there, behind other records"),
        (phases.alignment, "to align barriers"),
        (phases.sync, "for the snapshot on the slot's thread"),
        (phases.asynchronous, "to store it"),
    ];
    all.sort_by_key(|(slowest, _)| std::cmp::Reverse(slowest.duration));
    let shown = all.iter().filter(|(slowest, _)| slowest.duration * 10 >= duration && !slowest.duration.is_zero());
    let shown = shown.map(|(slowest, what)| {
        let of = slowest.subtask.map(|subtask| format!(" of {}", facts.shape.name_of(subtask))).unwrap_or_default();
        format!("{} {what}{of}", super::shown(slowest.duration))
    });
    let shown: Vec<String> = shown.collect();
    match shown.is_empty() {
        true => "no subtask took long for any of it, so it was the JobManager's storage".to_owned(),
        false => shown.join(", "),
    }
}
