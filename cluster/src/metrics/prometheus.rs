//! Serves numbers to Prometheus, in its text format 0.0.4, as Flink's `PrometheusReporter` names them.
//!
//! Written here and not by a client library: those keep registries of what is counted, and put `_total` behind names, where
//! Flink's dashboards look for none. What is left is the format itself, which the real Prometheus reads in a test.

use std::{fmt::Write, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
    routing::get,
};

use super::scrape::{Collect, Kind, Scrape};

/// What is served, and how.
struct Endpoint {
    numbers: Arc<dyn Collect>,
    filters_labels: bool,
}

/// Answers at `/metrics`, and at `/` as Flink does.
pub(super) fn router(numbers: Arc<dyn Collect>, filters_labels: bool) -> Router {
    let endpoint = Arc::new(Endpoint { numbers, filters_labels });
    Router::new().route("/", get(answer)).route("/metrics", get(answer)).with_state(endpoint)
}

async fn answer(State(endpoint): State<Arc<Endpoint>>) -> Response {
    let mut scrape = Scrape::default();
    endpoint.numbers.collect(&mut scrape);
    let mut response = render(&scrape, endpoint.filters_labels).into_response();
    let format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, format);
    response
}

fn render(scrape: &Scrape, filters_labels: bool) -> String {
    let mut text = String::new();
    for family in scrape.families.values() {
        let name = plain(&format!("flink.{}.{}", family.scope, family.name));
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let (own, scope) = (escaped(&family.name), plain(&family.scope));
        let _ = writeln!(text, "# HELP {name} {own} (scope: {scope})\n# TYPE {name} {kind}");
        for (labels, value) in &family.points {
            text.push_str(&name);
            for (nth, (label, value)) in labels.iter().enumerate() {
                let value = if filters_labels { plain(value) } else { escaped(value) };
                let _ = write!(text, "{}{label}=\"{value}\"", if nth == 0 { '{' } else { ',' });
            }
            let _ = writeln!(text, "{} {}", if labels.is_empty() { "" } else { "}" }, number(*value));
        }
    }
    text
}

/// Letters, digits, `_` and `:`; all else becomes `_`, as Flink has it.
fn plain(text: &str) -> String {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || character == ':' || character == '_';
    text.chars().map(|character| if is_plain(character) { character } else { '_' }).collect()
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn number(value: f64) -> String {
    match value {
        value if value.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels_are_as_flink_writes_them() {
        let labels =
            Arc::new(vec![("task_name", "Source: \"a\\b\"\n-> map".to_owned()), ("subtask_index", "0".to_owned())]);
        let mut scrape = Scrape::default();
        scrape.scope("taskmanager.job.task", &labels).counter("numRecordsIn", 12.0).gauge("Shuffle.x-y", f64::NAN);
        scrape.scope("jobmanager", &Arc::default()).gauge("numRunningJobs", 1.5);
        assert_eq!(
            render(&scrape, true),
            "# HELP flink_jobmanager_numRunningJobs numRunningJobs (scope: jobmanager)\n\
             # TYPE flink_jobmanager_numRunningJobs gauge\n\
             flink_jobmanager_numRunningJobs 1.5\n\
             # HELP flink_taskmanager_job_task_Shuffle_x_y Shuffle.x-y (scope: taskmanager_job_task)\n\
             # TYPE flink_taskmanager_job_task_Shuffle_x_y gauge\n\
             flink_taskmanager_job_task_Shuffle_x_y{task_name=\"Source:__a_b____ map\",subtask_index=\"0\"} NaN\n\
             # HELP flink_taskmanager_job_task_numRecordsIn numRecordsIn (scope: taskmanager_job_task)\n\
             # TYPE flink_taskmanager_job_task_numRecordsIn counter\n\
             flink_taskmanager_job_task_numRecordsIn{task_name=\"Source:__a_b____ map\",subtask_index=\"0\"} 12\n"
                .replace("____ map", "_____map")
        );
        assert!(render(&scrape, false).contains("task_name=\"Source: \\\"a\\\\b\\\"\\n-> map\""));
    }
}
