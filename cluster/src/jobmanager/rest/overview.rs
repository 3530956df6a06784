//! The cluster as a whole.

use std::sync::Arc;

use axum::extract::State;
use millstream::artifact::ENGINE_VERSION;
use millstream_model::state::JobStatus;
use serde_json::json;

use super::{
    Rest,
    answer::{Answer, ok},
};

/// The version of the interface, in words that also say whose it is. Clients take the numbers before the blank.
fn version() -> String {
    format!("2.3.0 (Millstream {ENGINE_VERSION})")
}

/// Which commit this was built from is not known to it.
const COMMIT: &str = "<unknown>";

/// `GET /overview`
pub(super) async fn overview(State(rest): State<Arc<Rest>>) -> Answer {
    let task_managers = rest.cluster.task_managers();
    let mut statuses = rest.cluster.each_job(|job| job.handle.status());
    statuses.extend(rest.cluster.each_earlier(|_, ended| ended.status()).into_iter().flatten());
    let count = |is: fn(JobStatus) -> bool| statuses.iter().filter(|status| is(**status)).count();
    ok(&json!({
        "taskmanagers": task_managers.len(),
        "slots-total": task_managers.iter().map(|one| one.slots).sum::<u32>(),
        "slots-available": task_managers.iter().map(|one| one.free_slots).sum::<u32>(),
        "jobs-running": count(|status| !status.is_terminal()),
        "jobs-finished": count(|status| status == JobStatus::Finished),
        "jobs-cancelled": count(|status| status == JobStatus::Canceled),
        "jobs-failed": count(|status| status == JobStatus::Failed),
        "flink-version": version(),
        "flink-commit": COMMIT,
    }))
}

/// `GET /config`
pub(super) async fn config(State(rest): State<Arc<Rest>>) -> Answer {
    ok(&json!({
        "refresh-interval": rest.refresh_interval.as_millis() as u64,
        // Those of the times in logs.
        "timezone-name": "Coordinated Universal Time",
        "timezone-offset": 0,
        "flink-version": version(),
        "flink-revision": format!("{COMMIT} @ {COMMIT}"),
        "features": {
            "web-submit": rest.submit_enabled,
            "web-cancel": rest.cancel_enabled,
            "web-rescale": false,
            "web-history": false,
        },
    }))
}
