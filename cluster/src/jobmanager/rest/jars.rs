//! What was uploaded: artifacts, by the name that their uploader gave them. Flink keeps JARs here, so the paths are
//! called so. They are forgotten when the JobManager ends, as Flink's are unless it is told otherwise.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::extract::{Path, State};
use serde_json::json;

use super::{
    Rest,
    answer::{Answer, RestError, ok},
};
use crate::{jobmanager::cluster::wall_millis, random_id};

/// Of a name, in characters.
const NAME_MAX: usize = 200;

/// Uploaded artifacts, by id.
#[derive(Debug, Default)]
pub(super) struct Jars(Mutex<BTreeMap<String, Jar>>);

/// One of them.
#[derive(Clone, Debug)]
pub(super) struct Jar {
    name: String,
    pub(super) sha256: String,
    uploaded_millis: i64,
}

impl Jars {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Jar>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an artifact that is stored; returns its id.
    pub(super) fn add(&self, name: String, sha256: String) -> String {
        let id = format!("{:032x}_{name}", random_id());
        let jar = Jar { name, sha256, uploaded_millis: wall_millis() };
        self.lock().insert(id.clone(), jar);
        id
    }

    pub(super) fn find(&self, id: &str) -> Result<Jar, RestError> {
        self.lock().get(id).cloned().ok_or_else(|| unknown(id))
    }

    /// Forgets one. Returns its hash if no other has it.
    fn remove(&self, id: &str) -> Result<Option<String>, RestError> {
        let mut jars = self.lock();
        let removed = jars.remove(id).ok_or_else(|| unknown(id))?;
        let is_last = jars.values().all(|jar| jar.sha256 != removed.sha256);
        Ok(is_last.then_some(removed.sha256))
    }
}

fn unknown(id: &str) -> RestError {
    let id: String = id.chars().take(NAME_MAX).collect();
    RestError::not_found(format!("There is no uploaded artifact '{}'; GET /jars lists them.", id.escape_debug()))
}

/// What an uploader's name for a file becomes: no folders, nothing that does not print, and not too long. It is never
/// used as a path.
pub(super) fn plain_name(given: &str) -> String {
    let last = given.rsplit(['/', '\\']).next().unwrap_or_default();
    let plain: String = last.chars().filter(|character| !character.is_control()).take(NAME_MAX).collect();
    let plain = plain.trim();
    if plain.is_empty() || plain.chars().all(|character| character == '.') {
        "artifact".to_owned()
    } else {
        plain.to_owned()
    }
}

/// `GET /jars`
pub(super) async fn all(State(rest): State<Arc<Rest>>) -> Answer {
    let mut jars: Vec<(String, Jar)> = rest.jars.lock().iter().map(|(id, jar)| (id.clone(), jar.clone())).collect();
    // The newest first.
    jars.sort_by_key(|(_, jar)| std::cmp::Reverse(jar.uploaded_millis));
    let files = jars.into_iter().map(|(id, jar)| {
        // There is no choice of what to enter: an executable has one `main()`.
        json!({ "id": id, "name": jar.name, "uploaded": jar.uploaded_millis, "entry": [] })
    });
    ok(&json!({ "address": format!("http://{}", rest.address), "files": files.collect::<Vec<_>>() }))
}

/// `DELETE /jars/:jarid`
pub(super) async fn remove(State(rest): State<Arc<Rest>>, Path(id): Path<String>) -> Answer {
    // Workers of a job that runs may still have to fetch it.
    if let Some(sha256) = rest.jars.remove(&id)?
        && !rest.cluster.needs_artifact(&sha256)
    {
        rest.artifacts.remove(&sha256).await;
    }
    ok(&json!({}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_never_a_path() {
        for (given, plain) in [
            ("job", "job"),
            ("../../etc/passwd", "passwd"),
            (r"C:\jobs\job.exe", "job.exe"),
            ("..", "artifact"),
            ("", "artifact"),
            ("a\r\nb\0c", "abc"),
            ("/", "artifact"),
        ] {
            assert_eq!(plain_name(given), plain, "{given:?}");
        }
        assert_eq!(plain_name(&"é".repeat(1000)).chars().count(), NAME_MAX);
    }

    #[test]
    fn an_artifact_that_was_uploaded_twice_is_there_until_both_are_removed() {
        let jars = Jars::default();
        let (one, two) = (jars.add("a".to_owned(), "hash".to_owned()), jars.add("a".to_owned(), "hash".to_owned()));
        assert_ne!(one, two);
        assert_eq!(jars.remove(&one).unwrap(), None);
        assert!(jars.remove(&one).is_err());
        assert_eq!(jars.remove(&two).unwrap().as_deref(), Some("hash"));
    }
}
