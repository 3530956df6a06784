//! `millstream why`: what holds a job back now, in words.

use anyhow::Result;
use millstream_client::proto::v1::{Finding, Severity};
use serde_json::{Value, json};

use crate::{Form, jobs::JobOptions, show};

/// Shows what holds a job back.
///
/// # Errors
/// If there is none with this id.
pub fn run(options: &JobOptions) -> Result<()> {
    let findings = options.cluster.ask(async |mut client| Ok(client.why(options.job).await?))?;
    match options.cluster.output {
        Form::Json => show(&format!("{}\n", Value::from_iter(findings.iter().map(as_json)))),
        Form::Text => show(&findings.iter().map(as_text).collect::<String>()),
    }
}

fn severity(finding: &Finding) -> &'static str {
    match finding.severity() {
        Severity::Problem => "problem",
        Severity::Warning => "warning",
        Severity::Note | Severity::Unspecified => "note",
    }
}

fn as_text(finding: &Finding) -> String {
    format!("{:<8} {}\n", severity(finding), finding.text)
}

fn as_json(finding: &Finding) -> Value {
    json!({
        "severity": severity(finding), "kind": finding.kind, "vertex": finding.vertex_id, "subtask": finding.subtask,
        "text": finding.text,
    })
}
