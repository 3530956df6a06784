//! Who is too slow, who gets too much, and who keeps its slot from others.

use std::time::Duration;

use super::{Facts, Finding, Kind, Severity, Vertex, percent, running, shown};
use crate::job_master::TaskSnapshot;

/// Less than this part of its time in waiting for room is nothing, as for Flink.
const HELD_BACK: f64 = 0.1;
/// And more than this is much.
const HELD_BACK_MUCH: f64 = 0.5;
/// What is busy for less of its time cannot be what others wait for.
const BUSY: f64 = 0.5;
/// What is busy for more of its time will soon be too slow.
const NEARLY_FULL: f64 = 0.8;
/// A subtask that gets so many times what its vertex' subtasks get on average.
const SKEWED: f64 = 2.0;
/// Below so many records a second nothing is skewed.
const RECORDS_MIN: f64 = 1.0;
const LONG_STEP: Duration = Duration::from_millis(100);
/// Steps that are told of.
const STEPS_MAX: usize = 3;

/// How the subtasks of a vertex spend their time.
struct Load<'a> {
    vertex: &'a Vertex,
    tasks: Vec<&'a TaskSnapshot>,
    /// The busiest, and how much of its time that is.
    busiest: (u32, f64),
    /// The one that waits most for room, and for how much of its time.
    most_held: (u32, f64),
}

impl<'a> Load<'a> {
    fn of(facts: &Facts<'a>, vertex: &'a Vertex) -> Load<'a> {
        let tasks = running(facts, vertex);
        let highest = |share: fn(&TaskSnapshot) -> f64| {
            let shares = tasks.iter().map(|task| (task.subtask.index, share(task)));
            shares.max_by(|(_, one), (_, other)| one.total_cmp(other)).unwrap_or_default()
        };
        let busiest = highest(|task| task.rates.map_or(0.0, |rates| rates.busy_millis_per_second / 1e3));
        let most_held = highest(|task| task.rates.map_or(0.0, |rates| rates.backpressured_millis_per_second / 1e3));
        Load { vertex, tasks, busiest, most_held }
    }

    fn is_held(&self) -> bool {
        self.most_held.1 >= HELD_BACK
    }

    /// The subtask that gets most, and how many times the average that is.
    fn skew(&self) -> Option<(u32, f64)> {
        let rates: Vec<(u32, f64)> = self
            .tasks
            .iter()
            .filter_map(|task| Some((task.subtask.index, task.rates?.records_in_per_second)))
            .collect();
        let average = rates.iter().map(|(_, rate)| rate).sum::<f64>() / rates.len() as f64;
        let (subtask, most) = rates.iter().copied().max_by(|(_, one), (_, other)| one.total_cmp(other))?;
        (rates.len() > 1 && average >= RECORDS_MIN && most >= SKEWED * average).then(|| (subtask, most / average))
    }
}

pub(super) fn look(facts: &Facts<'_>) -> Vec<Finding> {
    let loads: Vec<Load<'_>> = facts.shape.vertices.iter().map(|vertex| Load::of(facts, vertex)).collect();
    if loads.iter().flat_map(|load| &load.tasks).all(|task| task.rates.is_none()) {
        let text = "The tasks have not reported for long enough to say more: ask again in a second.".to_owned();
        return vec![Finding { severity: Severity::Note, kind: Kind::Nothing, vertex: None, subtask: None, text }];
    }
    let mut findings = held_back(facts, &loads);
    if findings.is_empty() {
        findings.extend(busiest(&loads));
    }
    findings.extend(loads.iter().enumerate().filter_map(|(index, load)| skewed(facts, index, load)));
    findings.extend(long_steps(&loads));
    findings
}

/// What those wait for that wait, where the waiting begins: at tasks that are not held back themselves.
fn held_back(facts: &Facts<'_>, loads: &[Load<'_>]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    let successors = |index: usize| {
        let from = facts.shape.edges.iter().filter(move |(from, _)| *from == index);
        from.filter_map(|(_, to)| loads.get(*to))
    };
    for (index, held) in loads.iter().enumerate().filter(|(_, load)| load.is_held()) {
        if successors(index).any(Load::is_held) {
            continue; // It waits for one that waits.
        }
        let Some(slow) = successors(index).max_by(|one, other| one.busiest.1.total_cmp(&other.busiest.1)) else {
            continue;
        };
        let (_, waits) = held.most_held;
        let severity = if waits >= HELD_BACK_MUCH { Severity::Problem } else { Severity::Warning };
        let (subtask, busy) = slow.busiest;
        if let Some(known) = findings.iter_mut().find(|finding| finding.vertex == Some(slow.vertex.id)) {
            known.text.push_str(&format!(" '{}' waits for it, too, {} of its time.", held.vertex.name, percent(waits)));
            known.severity = known.severity.min(severity);
            continue;
        }
        let (kind, text) = match busy >= BUSY {
            true => (
                Kind::Bottleneck,
                format!(
                    "'{}' holds the job back: {} is busy {} of its time, and '{}' waits {} of its time for room there. {}",
                    slow.vertex.name,
                    slow.vertex.subtask(subtask),
                    percent(busy),
                    held.vertex.name,
                    percent(waits),
                    remedy(slow)
                ),
            ),
            false => (
                Kind::Transfer,
                format!(
                    "'{}' waits {} of its time for room at '{}', which is busy for no more than {} of its own: records are \
                     held up on their way, by the network, by other channels of the same consumer, or while barriers are \
                     aligned. The metrics shuffle.credit.* say more.",
                    held.vertex.name,
                    percent(waits),
                    slow.vertex.name,
                    percent(busy)
                ),
            ),
        };
        findings.push(Finding { severity, kind, vertex: Some(slow.vertex.id), subtask: Some(subtask), text });
    }
    findings
}

fn remedy(slow: &Load<'_>) -> String {
    match slow.skew() {
        Some((subtask, times)) => format!(
            "More parallelism would not help: subtask {subtask} alone gets {times:.1} times what they get on average."
        ),
        None => {
            format!("A higher parallelism than {} for it, or a faster function, would help.", slow.vertex.parallelism)
        }
    }
}

/// Nobody waits for room.
fn busiest(loads: &[Load<'_>]) -> Option<Finding> {
    let load = loads.iter().max_by(|one, other| one.busiest.1.total_cmp(&other.busiest.1))?;
    let (subtask, busy) = load.busiest;
    let name = load.vertex.subtask(subtask);
    let (severity, kind, text) = match busy >= NEARLY_FULL {
        true => (
            Severity::Warning,
            Kind::Busy,
            format!(
                "Nobody waits for room, but {name} is busy {} of its time: with more input it will be too slow.",
                percent(busy)
            ),
        ),
        false => (
            Severity::Note,
            Kind::Nothing,
            format!(
                "Nothing holds the job back: the busiest task, {name}, is busy {} of its time, and none waits for room. \
                     It takes its input as fast as that comes.",
                percent(busy)
            ),
        ),
    };
    Some(Finding { severity, kind, vertex: Some(load.vertex.id), subtask: Some(subtask), text })
}

fn skewed(facts: &Facts<'_>, index: usize, load: &Load<'_>) -> Option<Finding> {
    let (subtask, times) = load.skew()?;
    let is_source = !facts.shape.edges.iter().any(|(_, to)| *to == index);
    let cause = match is_source {
        true => "its splits are of different sizes, or it has got more of them",
        false => "some keys have far more records than others",
    };
    let text = format!(
        "{} gets {times:.1} times as many records as they get on average: {cause}.",
        capitalised(&load.vertex.subtask(subtask))
    );
    Some(Finding {
        severity: Severity::Warning,
        kind: Kind::Skew,
        vertex: Some(load.vertex.id),
        subtask: Some(subtask),
        text,
    })
}

fn long_steps(loads: &[Load<'_>]) -> Vec<Finding> {
    let steps = loads.iter().flat_map(|load| load.tasks.iter().map(move |task| (load, task)));
    let longest = |task: &TaskSnapshot| Duration::from_nanos(task.rates.map_or(0, |rates| rates.longest_step_nanos));
    let mut steps: Vec<_> = steps.map(|(load, task)| (longest(task), load, task.subtask.index)).collect();
    steps.retain(|(longest, ..)| *longest >= LONG_STEP);
    steps.sort_by_key(|(longest, ..)| std::cmp::Reverse(*longest));
    let found = steps.into_iter().take(STEPS_MAX).map(|(longest, load, subtask)| Finding {
        severity: Severity::Warning,
        kind: Kind::LongStep,
        vertex: Some(load.vertex.id),
        subtask: Some(subtask),
        text: format!(
            "{} took {} for one step in the last seconds: its function blocks, and meanwhile no other task of its slot \
             runs and no checkpoint passes it. An async function, or on_own_thread(), keeps that from others.",
            capitalised(&load.vertex.subtask(subtask)),
            shown(longest)
        ),
    });
    found.collect()
}

fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}
