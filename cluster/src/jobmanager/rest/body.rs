//! Bodies of requests: how large they may be, and how slow.

use std::time::Duration;

use axum::{
    body::{Body, BodyDataStream, Bytes},
    http::StatusCode,
};
use tokio::time::{Instant, timeout_at};
use tokio_stream::StreamExt;

use super::answer::RestError;

/// What each body may take, however short.
const PATIENCE: Duration = Duration::from_secs(20);
/// And for its length: the slowest client that is waited for, in bytes a second.
const SLOWEST: u64 = 16 << 10;

/// A body that is being read.
pub(super) struct IncomingBody {
    stream: BodyDataStream,
    began: Instant,
    patience: Duration,
    bytes: u64,
}

/// A body cannot be read to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the request's body is larger than {limit} bytes ({key})")]
    TooLarge { limit: u64, key: &'static str },
    #[error("the request's body has stopped coming, or comes too slowly")]
    TooSlow,
    #[error("the request's body has ended early: {0}")]
    Broken(String),
}

impl From<BodyError> for RestError {
    fn from(error: BodyError) -> RestError {
        let status = match error {
            BodyError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            BodyError::TooSlow => StatusCode::REQUEST_TIMEOUT,
            BodyError::Broken(_) => StatusCode::BAD_REQUEST,
        };
        RestError::new(status, error.to_string())
    }
}

/// How large something may be, and the key that says so.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    pub(super) bytes: u64,
    pub(super) key: &'static str,
}

impl Limit {
    pub(super) fn exceeded(self) -> BodyError {
        BodyError::TooLarge { limit: self.bytes, key: self.key }
    }

    /// For something that has something else beside it.
    pub(super) fn with_room_for(self, beside: Limit) -> Limit {
        Limit { bytes: self.bytes.saturating_add(beside.bytes), key: self.key }
    }
}

impl IncomingBody {
    pub(super) fn new(body: Body) -> IncomingBody {
        IncomingBody { stream: body.into_data_stream(), began: Instant::now(), patience: PATIENCE, bytes: 0 }
    }

    /// The next piece; `None` after the last one. Cancellation-safe.
    pub(super) async fn next(&mut self, limit: Limit) -> Result<Option<Bytes>, BodyError> {
        let deadline = self.began + self.patience + Duration::from_secs(self.bytes / SLOWEST);
        let piece = timeout_at(deadline, self.stream.next()).await.map_err(|_| BodyError::TooSlow)?;
        let Some(piece) = piece else { return Ok(None) };
        let piece = piece.map_err(|cause| BodyError::Broken(cause.to_string()))?;
        self.bytes += piece.len() as u64;
        if self.bytes > limit.bytes {
            return Err(limit.exceeded());
        }
        Ok(Some(piece))
    }

    /// All of it.
    pub(super) async fn whole(mut self, limit: Limit) -> Result<Vec<u8>, BodyError> {
        let mut all = Vec::new();
        while let Some(piece) = self.next(limit).await? {
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }

    /// Reads what is left, for a client that looks for the answer only when it has sent everything.
    pub(super) async fn drain(&mut self, limit: Limit) {
        while let Ok(Some(_)) = self.next(limit).await {}
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use axum::response::IntoResponse;

    use super::*;

    const LIMIT: Limit = Limit { bytes: 10, key: "the.key" };

    fn status(error: BodyError) -> u16 {
        RestError::from(error).into_response().status().as_u16()
    }

    #[tokio::test]
    async fn each_way_not_to_send_a_body_has_its_status() {
        let piece = || Ok::<_, io::Error>(Bytes::from_static(b"five "));
        let whole = IncomingBody::new(Body::from_stream(tokio_stream::iter([piece(), piece()]))).whole(LIMIT).await;
        assert_eq!(whole.unwrap(), b"five five ");

        let long = IncomingBody::new(Body::from_stream(tokio_stream::iter([piece(), piece(), piece()])));
        let error = long.whole(LIMIT).await.unwrap_err();
        assert!(error.to_string().contains("10 bytes (the.key)"), "{error}");
        assert_eq!(status(error), 413);

        let broken = tokio_stream::iter([piece(), Err(io::ErrorKind::ConnectionReset.into())]);
        assert_eq!(status(IncomingBody::new(Body::from_stream(broken)).whole(LIMIT).await.unwrap_err()), 400);

        let stalled = tokio_stream::iter([piece()]).chain(tokio_stream::pending());
        let mut stalled = IncomingBody::new(Body::from_stream(stalled));
        stalled.patience = Duration::from_millis(20);
        assert_eq!(status(stalled.whole(LIMIT).await.unwrap_err()), 408);
    }
}
