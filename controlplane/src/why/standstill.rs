//! Why a job does not run, and what has kept it from running.

use millstream_model::state::{ExecutionState, JobStatus};

use super::{Facts, Finding, Kind, Severity, shown};

pub(super) fn look(facts: &Facts<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let Facts { status, metrics, .. } = *facts;
    let since = shown(facts.now.since(metrics.status_since));
    let finding = |severity, kind, text| Finding { severity, kind, vertex: None, subtask: None, text };
    let failure = metrics.last_failure.as_ref().map(ToString::to_string);
    if status.is_terminal() {
        let why = failure.map(|failure| format!(": {failure}")).unwrap_or_default();
        let text = match status {
            JobStatus::Failed => format!("The job has failed{why}"),
            other => format!("The job has ended and is {}.", word(other)),
        };
        return vec![finding(Severity::Note, Kind::Ended, text)];
    }
    let running = metrics.tasks_by_state.of(ExecutionState::Running);
    if let Some(trouble) = facts.trouble {
        findings.push(finding(
            Severity::Problem,
            Kind::NotRunning,
            format!("The job's workers do not come up: {trouble}"),
        ));
    }
    if facts.missing_slots > 0 {
        let text = format!(
            "The job waits for {} more {} (for {since} so far; it fails after slot.request.timeout). Start another \
             TaskManager, give each more slots (taskmanager.numberOfTaskSlots), run the job with a lower parallelism, or \
             end another job.",
            facts.missing_slots,
            if facts.missing_slots == 1 { "slot" } else { "slots" },
        );
        findings.push(finding(Severity::Problem, Kind::NotRunning, text));
    } else if status != JobStatus::Running && facts.trouble.is_none() {
        let mut text = format!("The job is {}, and has been for {since}.", word(status));
        if status == JobStatus::Restarting && running > 0 {
            // Of regions that the failure has not touched.
            text += &format!(
                " {running} of its {} tasks run on; no checkpoint is taken until all do.",
                metrics.tasks_total
            );
        }
        findings.push(finding(Severity::Problem, Kind::NotRunning, text));
    }
    let finished = metrics.tasks_by_state.of(ExecutionState::Finished);
    if status == JobStatus::Running && running + finished < metrics.tasks_total {
        let text = format!(
            "{} of {} tasks do not run yet, {since} after the job was deployed.",
            metrics.tasks_total - running - finished,
            metrics.tasks_total
        );
        findings.push(finding(Severity::Problem, Kind::Starting, text));
    }
    if metrics.restarts > 0 || (failure.is_some() && status != JobStatus::Running) {
        let why = failure.unwrap_or_else(|| "what failed is not known any more".to_owned());
        let times = match metrics.restarts {
            0 => "The job has failed and is to be restarted".to_owned(),
            1 => "The job was restarted once".to_owned(),
            times => format!("The job was restarted {times} times"),
        };
        // It is why the job does not run, or only what happened once.
        let severity = if status == JobStatus::Running { Severity::Warning } else { Severity::Problem };
        findings.push(finding(severity, Kind::Restarted, format!("{times}; the newest failure: {why}")));
    }
    findings
}

/// A status as it is said in a sentence.
fn word(status: JobStatus) -> String {
    format!("{status:?}").to_lowercase()
}
