//! `POST /jars/:jarid/run`: starts an uploaded artifact's `main()` beside the JobManager and answers with the id of the
//! job that it has executed. What the body says comes before what the query says, as in Flink.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    body::Body,
    extract::{Path, RawQuery, State},
    http::StatusCode,
};
use millstream_model::{
    config::{PARALLELISM, PIPELINE_JOB_ID, STATE_RECOVERY_PATH},
    id::JobId,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    Rest,
    answer::{Answer, RestError, ok},
    body::IncomingBody,
    query::Query,
};
use crate::jobmanager::programs::{Invocation, NotExecuted};

const PARAMETERS: [&str; 5] = ["programArg", "parallelism", "savepointPath", "allowNonRestoredState", "entry-class"];

/// Flink's `JarRunRequestBody`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RunRequest {
    entry_class: Option<String>,
    program_args_list: Option<Vec<String>>,
    parallelism: Option<i64>,
    job_id: Option<String>,
    allow_non_restored_state: Option<bool>,
    savepoint_path: Option<String>,
    restore_mode: Option<String>,
    claim_mode: Option<String>,
    flink_configuration: Option<BTreeMap<String, String>>,
}

impl RunRequest {
    fn parse(body: &[u8]) -> Result<RunRequest, RestError> {
        if body.trim_ascii().is_empty() {
            return Ok(RunRequest::default());
        }
        // A list would do for a structure, too, and nobody means that.
        let object = serde_json::from_slice::<Map<String, Value>>(body);
        object.and_then(|object| serde_json::from_value(Value::Object(object))).map_err(|cause| {
            RestError::bad_request(format!("Bad request, could not parse the body as a request to run: {cause}"))
        })
    }

    /// Takes from the query what the body does not say.
    fn or_from(mut self, query: &Query) -> Result<RunRequest, RestError> {
        query.only(&PARAMETERS)?;
        let arguments = query.all("programArg");
        self.program_args_list = self.program_args_list.or((!arguments.is_empty()).then_some(arguments));
        self.savepoint_path = self.savepoint_path.or(query.get("savepointPath").map(str::to_owned));
        self.entry_class = self.entry_class.or(query.get("entry-class").map(str::to_owned));
        if self.parallelism.is_none() {
            self.parallelism = parsed(query, "parallelism", "a number")?;
        }
        if self.allow_non_restored_state.is_none() {
            self.allow_non_restored_state = parsed(query, "allowNonRestoredState", "true or false")?;
        }
        Ok(self)
    }

    /// The program's arguments: configuration, what is asked for in other words, which wins, and its own.
    fn arguments(self) -> Result<Vec<String>, RestError> {
        self.check()?;
        let mut arguments = Vec::new();
        for (key, value) in self.flink_configuration.unwrap_or_default() {
            if key.is_empty() || key.contains(['=', '\0']) {
                let key = key.escape_debug();
                return Err(RestError::bad_request(format!("flinkConfiguration: '{key}' is no configuration key.")));
            }
            arguments.push(format!("-D{key}={value}"));
        }
        if let Some(parallelism) = self.parallelism {
            PARALLELISM.parse(&parallelism.to_string()).map_err(|expected| {
                RestError::bad_request(format!("parallelism is {parallelism}, and expected is {expected}."))
            })?;
            arguments.push(format!("-D{}={parallelism}", PARALLELISM.name()));
        }
        if let Some(path) = self.savepoint_path.filter(|path| !path.is_empty()) {
            arguments.push(format!("-D{}={path}", STATE_RECOVERY_PATH.name()));
        }
        if let Some(id) = self.job_id {
            let id: JobId = id.parse().map_err(|cause| RestError::bad_request(format!("jobId: {cause}")))?;
            arguments.push(format!("-D{}={id}", PIPELINE_JOB_ID.name()));
        }
        arguments.extend(self.program_args_list.unwrap_or_default());
        Ok(arguments)
    }

    /// Refuses what would be ignored.
    fn check(&self) -> Result<(), RestError> {
        let refused = |why: &str| Err(RestError::bad_request(why));
        if self.entry_class.as_ref().is_some_and(|class| !class.is_empty()) {
            return refused("An executable has one main(): leave out entryClass.");
        }
        if self.allow_non_restored_state == Some(true) {
            return refused(
                "allowNonRestoredState is not supported yet: state that no operator takes up ends the job.",
            );
        }
        let mode = self.claim_mode.as_deref().or(self.restore_mode.as_deref());
        match mode {
            None | Some("NO_CLAIM") => Ok(()),
            Some(_) => refused("claimMode can only be NO_CLAIM so far: what a job starts from stays its owner's."),
        }
    }
}

fn parsed<T: std::str::FromStr>(query: &Query, name: &str, expected: &str) -> Result<Option<T>, RestError> {
    let parse = |text: &str| {
        let bad =
            || RestError::bad_request(format!("{name} is '{}', and expected is {expected}.", text.escape_debug()));
        text.parse().map_err(|_| bad())
    };
    query.get(name).map(parse).transpose()
}

/// `POST /jars/:jarid/run`
pub(super) async fn run(
    State(rest): State<Arc<Rest>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    body: Body,
) -> Answer {
    let query = Query::parse(query.as_deref())?;
    let body = IncomingBody::new(body).whole(rest.content_max).await?;
    let arguments = RunRequest::parse(&body)?.or_from(&query)?.arguments()?;
    let jar = rest.jars.find(&id)?;
    let artifact = rest.artifacts.find(&jar.sha256);
    let artifact =
        artifact.ok_or_else(|| RestError::not_found("The artifact is not there any more: upload it again."))?;
    let executed = rest.programs.run_detached(Invocation { artifact, arguments }).await;
    let job = executed.map_err(|error| {
        let status = match error {
            // Clients of Flink ask again.
            NotExecuted::Busy => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        };
        RestError::new(status, format!("Could not execute application: {error}"))
    })?;
    // Since Flink 2.3 each job is one of an application; of a job that was submitted alone it has the job's id.
    ok(&json!({ "jobid": job.to_string(), "applicationId": job.to_string() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(body: &str, query: &str) -> Result<Vec<String>, String> {
        let query = Query::parse(Some(query)).unwrap();
        let request = RunRequest::parse(body.as_bytes()).and_then(|request| request.or_from(&query));
        request.and_then(RunRequest::arguments).map_err(|error| format!("{error:?}"))
    }

    #[test]
    fn what_is_asked_for_becomes_arguments_and_the_body_comes_before_the_query() {
        let body = r#"{"programArgsList": ["-Da=b", "c d"], "parallelism": 3, "savepointPath": "/chk",
            "jobId": "0123456789abcdef0123456789abcdef", "claimMode": "NO_CLAIM", "entryClass": null,
            "flinkConfiguration": {"x.y": "z=1"}}"#;
        let expected = [
            "-Dx.y=z=1",
            "-Dparallelism.default=3",
            "-Dexecution.state-recovery.path=/chk",
            "-Dpipeline.jobid=0123456789abcdef0123456789abcdef",
            "-Da=b",
            "c d",
        ];
        assert_eq!(arguments(body, "parallelism=7&programArg=x").unwrap(), expected);
        let expected = ["-Dparallelism.default=7", "x", "y"];
        assert_eq!(arguments("", "parallelism=7&programArg=x,y&allowNonRestoredState=false").unwrap(), expected);
        assert_eq!(arguments("{}", "").unwrap(), [""; 0]);
    }

    #[test]
    fn what_would_be_ignored_is_refused_with_its_name() {
        for (body, query, words) in [
            ("[]", "", "could not parse the body"),
            ("{\"programArgs\": \"a b\"}", "", "programArgs"),
            ("{\"parallelism\": 0}", "", "parallelism is 0"),
            ("{\"parallelism\": \"many\"}", "", "could not parse the body"),
            ("", "parallelism=many", "'many'"),
            ("", "program-args=a", "program-args"),
            ("{\"entryClass\": \"org.example.Job\"}", "", "entryClass"),
            ("", "entry-class=org.example.Job", "entryClass"),
            ("{\"allowNonRestoredState\": true}", "", "allowNonRestoredState"),
            ("{\"claimMode\": \"CLAIM\"}", "", "NO_CLAIM"),
            ("{\"restoreMode\": \"LEGACY\"}", "", "NO_CLAIM"),
            ("{\"jobId\": \"7\"}", "", "jobId"),
            ("{\"flinkConfiguration\": {\"a=b\": \"c\"}}", "", "flinkConfiguration"),
        ] {
            let refused = arguments(body, query).unwrap_err();
            assert!(refused.contains(words), "{body} {query}: {refused}");
        }
    }
}
