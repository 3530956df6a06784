//! Artifacts, from where they were put in place, or from the JobManager, each once.

use std::sync::Arc;

use millstream_client::proto::v1::{self, task_managers_client::TaskManagersClient};

use super::link::{Link, NoLink};
use crate::{
    artifacts::{Artifacts, Located},
    usrlib,
};

/// The artifact's file; it is downloaded if it is not there, and checked. Over a connection of its own, so that nothing of
/// other jobs waits behind it.
///
/// # Errors
/// If it cannot be had, with the reason.
pub(super) async fn artifact(artifacts: &Arc<Artifacts>, link: &Link, sha256: &str) -> Result<Located, String> {
    if let Some(located) = artifacts.locate(sha256) {
        return Ok(located);
    }
    let (folder, wanted) = (usrlib::folder(), sha256.to_owned());
    // All that is there is read.
    let in_place = tokio::task::spawn_blocking(move || usrlib::find(&folder, &wanted)).await;
    if let Ok(Some(located)) = in_place {
        tracing::info!(path = %located.path.display(), sha256, "an artifact is in place");
        artifacts.note(located.clone());
        return Ok(located);
    }
    let because = |why: &dyn std::fmt::Display| format!("the artifact {sha256} cannot be had of the JobManager: {why}");
    let request = v1::DownloadArtifactRequest { sha256: sha256.to_owned() };
    let channel = link.connect().await.map_err(|none| match none {
        NoLink::Yet(why) => because(&why),
        NoLink::Refused(failure) => because(&failure.message),
    })?;
    let answers = TaskManagersClient::new(channel).download_artifact(request).await;
    let mut answers = answers.map_err(|status| because(&status.message()))?.into_inner();
    let mut incoming = artifacts.begin(sha256).await.map_err(|error| because(&error))?;
    while let Some(answer) = answers.message().await.map_err(|status| because(&status.message()))? {
        incoming.write(&answer.chunk).await.map_err(|error| because(&error))?;
    }
    incoming.finish().await.map_err(|error| because(&error))?;
    artifacts.locate(sha256).ok_or_else(|| because(&"it is gone again"))
}
