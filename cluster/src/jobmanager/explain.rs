//! What holds a job back now, as clients are told: `millstream why`.

use std::time::Duration;

use millstream_client::proto::v1;
use millstream_controlplane::{
    clock::Moment,
    why::{Facts, Finding, Severity, why},
};
use millstream_model::id::JobId;
use tonic::Status;

use super::{
    cluster::{Cluster, wall_millis},
    ended::EndedJob,
};

/// How long a JobMaster may take to say how its tasks are.
const PATIENCE: Duration = Duration::from_secs(5);

/// Looks at a job. Waits for its JobMaster.
pub(super) async fn explain(cluster: &Cluster, id: JobId) -> Result<v1::ExplainJobResponse, Status> {
    let known = cluster
        .with_job(id, |job| (job.handle.clone(), job.shape.clone(), job.checkpoint_interval, job.trouble.clone()));
    let Some((handle, shape, checkpoint_interval, trouble)) = known else {
        if let Some(ended) = cluster.earlier(id) {
            return Ok(v1::ExplainJobResponse { findings: vec![earlier(&ended)] });
        }
        return Err(Status::not_found(format!("there is no job {id} on this cluster")));
    };
    let asked = handle.clone();
    let execution = tokio::task::spawn_blocking(move || asked.execution(PATIENCE)).await;
    let execution = execution.map_err(|cause| Status::internal(cause.to_string()))?;
    let execution = execution.map_err(|busy| Status::unavailable(busy.to_string()))?;
    let (status, metrics) = (handle.status(), handle.metrics());
    let findings = why(&Facts {
        shape: &shape,
        status,
        metrics: &metrics,
        execution: execution.as_ref(),
        missing_slots: if status.is_terminal() { 0 } else { cluster.missing_slots(id) },
        trouble: trouble.as_deref(),
        checkpoint_interval,
        now: Moment(Duration::from_millis(wall_millis().max(0) as u64)),
    });
    Ok(v1::ExplainJobResponse { findings: findings.into_iter().map(told).collect() })
}

/// Of a job that has ended with an earlier JobManager no more is known than how.
fn earlier(ended: &EndedJob) -> v1::Finding {
    let status = ended.result.status().as_str_name().trim_start_matches("JOB_STATUS_");
    let why = ended.result.failure.as_ref().map(|failure| format!(": {}", failure.message)).unwrap_or_default();
    let text = format!("The job has ended before this JobManager began, and is {status}{why}");
    v1::Finding { severity: v1::Severity::Note.into(), kind: "Ended".to_owned(), vertex_id: None, subtask: None, text }
}

fn told(finding: Finding) -> v1::Finding {
    let Finding { severity, kind, vertex, subtask, text } = finding;
    let severity = match severity {
        Severity::Problem => v1::Severity::Problem,
        Severity::Warning => v1::Severity::Warning,
        Severity::Note => v1::Severity::Note,
    };
    let (kind, vertex_id) = (format!("{kind:?}"), vertex.map(|id| id.to_string()));
    v1::Finding { severity: severity.into(), kind, vertex_id, subtask, text }
}
