//! What was uploaded: artifacts, by the name that their uploader gave them. Flink keeps JARs here, so the paths are
//! called so. They are forgotten when the JobManager ends, unless `web.upload.dir` says where they are to be kept: as Flink's.

use std::{
    collections::BTreeMap,
    io,
    path::Path as FilePath,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::extract::{Path, State};
use millstream_model::{config::Configuration, fault::Failure};
use serde_json::json;

use super::{
    Rest,
    answer::{Answer, RestError, ok},
    upload_folder::UploadFolder,
};
use crate::{artifacts::Artifacts, jobmanager::cluster::wall_millis, random_id};

/// Of a name, in bytes: with what precedes it in an id it has to be a file's name.
const NAME_MAX: usize = 200;
/// Of what precedes the name in an id.
const NUMBER_DIGITS: usize = 32;

/// Uploaded artifacts, by id, and where they are kept.
#[derive(Debug, Default)]
pub(super) struct Jars {
    by_id: Mutex<BTreeMap<String, Jar>>,
    folder: Option<UploadFolder>,
}

/// One of them.
#[derive(Clone, Debug)]
pub(super) struct Jar {
    pub(super) name: String,
    pub(super) sha256: String,
    pub(super) uploaded_millis: i64,
}

impl Jars {
    /// With what is in the folder.
    ///
    /// # Errors
    /// If there is to be one and it cannot be made.
    pub(super) async fn load(configuration: &Configuration, artifacts: &Artifacts) -> Result<Jars, Failure> {
        let folder = UploadFolder::open(configuration)?;
        let mut by_id = BTreeMap::new();
        if let Some(folder) = &folder {
            by_id.extend(folder.load(artifacts).await);
        }
        Ok(Jars { by_id: Mutex::new(by_id), folder })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Jar>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an artifact that is stored at `path`; returns its id.
    ///
    /// # Errors
    /// If the folder does not take it.
    pub(super) async fn add(&self, name: String, sha256: String, path: &FilePath) -> io::Result<String> {
        let id = format!("{:0NUMBER_DIGITS$x}_{name}", random_id());
        if let Some(folder) = &self.folder {
            folder.keep(&id, path).await?;
        }
        let jar = Jar { name, sha256, uploaded_millis: wall_millis() };
        self.lock().insert(id.clone(), jar);
        Ok(id)
    }

    pub(super) fn find(&self, id: &str) -> Result<Jar, RestError> {
        self.lock().get(id).cloned().ok_or_else(|| unknown(id))
    }

    /// Forgets one. Returns its hash if no other has it.
    async fn remove(&self, id: &str) -> Result<Option<String>, RestError> {
        let (removed, is_last) = {
            let mut jars = self.lock();
            let removed = jars.remove(id).ok_or_else(|| unknown(id))?;
            let is_last = jars.values().all(|jar| jar.sha256 != removed.sha256);
            (removed, is_last)
        };
        if let Some(folder) = &self.folder {
            folder.remove(id).await;
        }
        Ok(is_last.then_some(removed.sha256))
    }
}

fn unknown(id: &str) -> RestError {
    let id: String = id.chars().take(NAME_MAX).collect();
    RestError::not_found(format!("There is no uploaded artifact '{}'; GET /jars lists them.", id.escape_debug()))
}

/// The name in an id, if it is one.
pub(super) fn name_of(id: &str) -> Option<&str> {
    let (number, name) = id.split_at_checked(NUMBER_DIGITS)?;
    let is_number = number.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    name.strip_prefix('_').filter(|name| is_number && plain_name(name) == *name)
}

/// What an uploader's name for a file becomes: no folders, nothing that does not print, and not too long.
pub(super) fn plain_name(given: &str) -> String {
    let last = given.rsplit(['/', '\\']).next().unwrap_or_default();
    let plain: String = last.chars().filter(|character| !character.is_control()).collect();
    let plain = plain[..plain.floor_char_boundary(NAME_MAX)].trim();
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
    if let Some(sha256) = rest.jars.remove(&id).await?
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
        assert_eq!(plain_name(&"é".repeat(1000)), "é".repeat(NAME_MAX / 2));
    }

    #[test]
    fn files_of_other_names_are_no_uploads() {
        let number = "0123456789abcdef".repeat(2);
        assert_eq!(name_of(&format!("{number}_my job")), Some("my job"));
        for other in [
            "",
            "job",
            &number,
            &format!("{number}job"),
            &format!("{number}_"),
            &format!("{number}_.."),
            &format!("{}_job", "X".repeat(32)),
            &format!("é{number}_job"),
        ] {
            assert_eq!(name_of(other), None, "{other:?}");
        }
    }

    #[tokio::test]
    async fn an_artifact_that_was_uploaded_twice_is_there_until_both_are_removed() {
        let jars = Jars::default();
        let add = || jars.add("a".to_owned(), "hash".to_owned(), FilePath::new("nowhere"));
        let (one, two) = (add().await.unwrap(), add().await.unwrap());
        assert_ne!(one, two);
        assert_eq!(jars.remove(&one).await.unwrap(), None);
        assert!(jars.remove(&one).await.is_err());
        assert_eq!(jars.remove(&two).await.unwrap().as_deref(), Some("hash"));
    }

    #[tokio::test]
    async fn what_cannot_be_kept_is_not_there() {
        let place = tempfile::tempdir().unwrap();
        let mut configuration = Configuration::default();
        configuration.apply_dynamic([format!("web.upload.dir={}", place.path().display())]).unwrap();
        let artifacts = Artifacts::open_kept(place.path().join("artifacts")).unwrap();
        let jars = Jars::load(&configuration, &artifacts).await.unwrap();
        let failed = jars.add("a".to_owned(), "hash".to_owned(), &place.path().join("missing")).await;
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(jars.lock().is_empty());
        assert!(Jars::load(&configuration, &artifacts).await.unwrap().lock().is_empty());
    }
}
