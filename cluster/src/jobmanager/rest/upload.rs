//! `POST /jars/upload`: an artifact, as the one file of a form. It goes into the same store as those that
//! `millstream run` sends, under its hash, once it has been seen to be one.

use std::{io::ErrorKind, path::PathBuf, sync::Arc};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header},
};
use millstream::artifact::ENGINE_VERSION;
use millstream_model::config::WEB_UPLOAD_DIRECTORY;
use serde_json::json;

use super::{
    Rest,
    answer::{Answer, RestError, ok},
    body::IncomingBody,
    jars::plain_name,
    java,
    multipart::{Found, Malformed, Multipart, boundary},
};
use crate::{
    artifacts::{ArtifactError, Incoming},
    executable::Executable,
};

/// How every executable of this system begins.
const ELF_MAGIC: &[u8] = b"\x7fELF";

impl From<Malformed> for RestError {
    fn from(error: Malformed) -> RestError {
        RestError::bad_request(error.to_string())
    }
}

impl From<ArtifactError> for RestError {
    fn from(error: ArtifactError) -> RestError {
        let status = match &error {
            ArtifactError::BadHash(_) | ArtifactError::Damaged { .. } => StatusCode::BAD_REQUEST,
            ArtifactError::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ArtifactError::Io { source, .. } if source.kind() == ErrorKind::StorageFull => {
                StatusCode::INSUFFICIENT_STORAGE
            }
            ArtifactError::Io { .. } | ArtifactError::Unreadable { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        };
        RestError::new(status, error.to_string())
    }
}

/// `POST /jars/upload`
pub(super) async fn upload(State(rest): State<Arc<Rest>>, headers: HeaderMap, body: Body) -> Answer {
    let mut body = IncomingBody::new(body);
    match receive(&rest, &headers, &mut body).await {
        Ok((name, incoming)) => store(&rest, name, incoming).await,
        Err(error) => {
            // A client that is not done with sending would not read the answer; one that sends too much need not.
            if error.is_worth_draining() {
                body.drain(rest.upload_max).await;
            }
            Err(error)
        }
    }
}

/// The one file of the form.
async fn receive<'a>(
    rest: &'a Rest,
    headers: &HeaderMap,
    body: &mut IncomingBody,
) -> Result<(String, Incoming<'a>), RestError> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let boundary = boundary(content_type).ok_or_else(|| {
        RestError::bad_request(
            "The artifact is expected as the file of a form (multipart/form-data), as in \
             `curl -F jarfile=@EXECUTABLE ADDRESS/jars/upload`.",
        )
    })?;
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let whole_max = rest.upload_max.with_room_for(rest.content_max);
    if length.is_some_and(|length| length > whole_max.bytes) {
        return Err(rest.upload_max.exceeded().into());
    }
    let mut multipart = Multipart::new(&boundary);
    let mut form = Form::default();
    while let Some(piece) = body.next(whole_max).await? {
        multipart.feed(&piece);
        while let Some(found) = multipart.next()? {
            form.take(rest, found).await?;
        }
    }
    multipart.finish()?;
    form.file.map(|file| (file.name, file.incoming)).ok_or_else(|| exactly_one(0))
}

/// What has come of a form.
#[derive(Default)]
struct Form<'a> {
    file: Option<File<'a>>,
    is_in_file: bool,
    /// Of what is no file, in bytes.
    other: u64,
}

/// The artifact as far as it has come.
struct File<'a> {
    name: String,
    incoming: Incoming<'a>,
    bytes: u64,
    /// As many bytes as it takes to see what it is.
    beginning: Vec<u8>,
}

impl<'a> Form<'a> {
    async fn take(&mut self, rest: &'a Rest, found: Found) -> Result<(), RestError> {
        match found {
            Found::Part(part) => {
                self.is_in_file = part.file_name.is_some();
                let Some(given) = part.file_name else { return Ok(()) };
                if self.file.is_some() {
                    return Err(exactly_one(2));
                }
                let incoming = rest.artifacts.begin_unnamed().await?;
                self.file = Some(File { name: plain_name(&given), incoming, bytes: 0, beginning: Vec::new() });
            }
            Found::Content(piece) => match &mut self.file {
                Some(file) if self.is_in_file => {
                    file.bytes += piece.len() as u64;
                    if file.bytes > rest.upload_max.bytes {
                        return Err(rest.upload_max.exceeded().into());
                    }
                    file.look_at(&piece)?;
                    file.incoming.write(&piece).await?;
                }
                // Of the fields of a form nothing is needed.
                _ => {
                    self.other += piece.len() as u64;
                    if self.other > rest.content_max.bytes {
                        return Err(rest.content_max.exceeded().into());
                    }
                }
            },
            Found::PartEnd => {
                if let Some(file) = self.file.as_ref().filter(|_| self.is_in_file)
                    && file.beginning.len() < ELF_MAGIC.len()
                {
                    return Err(no_executable(&file.name));
                }
            }
        }
        Ok(())
    }
}

impl File<'_> {
    /// Sees by its first bytes what it cannot be, so that nothing else is stored even for a moment.
    fn look_at(&mut self, piece: &[u8]) -> Result<(), RestError> {
        if self.beginning.len() >= ELF_MAGIC.len() {
            return Ok(());
        }
        let missing = ELF_MAGIC.len() - self.beginning.len();
        self.beginning.extend_from_slice(&piece[..missing.min(piece.len())]);
        if self.beginning.starts_with(java::ARCHIVE_MAGIC) {
            return Err(java::archive(&self.name));
        }
        if !ELF_MAGIC.starts_with(&self.beginning) {
            return Err(no_executable(&self.name));
        }
        Ok(())
    }
}

fn no_executable(name: &str) -> RestError {
    RestError::bad_request(format!(
        "'{name}' is no ELF executable. Upload what `cargo build --release` makes of a program with the crate \
         `millstream`."
    ))
}

/// The words are Flink's.
fn exactly_one(count: usize) -> RestError {
    let count = if count > 1 { "more".to_owned() } else { count.to_string() };
    RestError::bad_request(format!("Exactly 1 file must be sent, received {count}."))
}

/// Gives the artifact its place, if it is one for this cluster.
async fn store(rest: &Rest, name: String, incoming: Incoming<'_>) -> Answer {
    let sealed = incoming.seal().await?;
    let (path, shown) = (sealed.path().to_owned(), PathBuf::from(&name));
    let looked_at =
        tokio::task::spawn_blocking(move || Executable::read_as(&path, shown).map_err(|error| error.to_string()));
    let looked_at =
        looked_at.await.map_err(|cause| RestError::bad_request(format!("'{name}' cannot be read: {cause}")))?;
    let note = looked_at.map_err(RestError::bad_request)?.note;
    if note.engine_version != ENGINE_VERSION {
        return Err(RestError::bad_request(format!(
            "'{name}' is of Millstream {} and this cluster of {ENGINE_VERSION}: build it with that version.",
            note.engine_version
        )));
    }
    let sha256 = sealed.sha256.clone();
    let bytes = sealed.keep().await?;
    let stored = rest.artifacts.find(&sha256).unwrap_or_default();
    let id = rest.jars.add(name, sha256.clone(), &stored).await.map_err(|cause| {
        let full = cause.kind() == ErrorKind::StorageFull;
        let status = if full { StatusCode::INSUFFICIENT_STORAGE } else { StatusCode::INTERNAL_SERVER_ERROR };
        RestError::new(status, format!("cannot keep the artifact in {}: {cause}", WEB_UPLOAD_DIRECTORY.name()))
    })?;
    tracing::info!(id, sha256, bytes, "an artifact was uploaded by REST");
    // Flink shows a path of its machine, of which clients take what follows the last slash for the id.
    ok(&json!({ "filename": format!("/jars/{id}"), "status": "success" }))
}
