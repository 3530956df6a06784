//! What clients of Flink that are written in Java send, and what runs here instead.

use std::sync::Arc;

use axum::{body::Body, extract::State};

use super::{Rest, answer::RestError, body::IncomingBody};

/// How every Java archive begins: it is a ZIP file.
pub(super) const ARCHIVE_MAGIC: &[u8] = b"PK";

const INSTEAD: &str = "Millstream runs programs that are written in Rust with its crate `millstream`: run the \
                       executable that `cargo build --release` makes of one with `millstream run -m HOST:PORT \
                       EXECUTABLE`, or upload it with POST /jars/upload and run it with POST /jars/:jarid/run.";

/// An uploaded file that is a Java archive.
pub(super) fn archive(name: &str) -> RestError {
    RestError::bad_request(format!("'{name}' is a Java archive (JAR), and there is no JVM here. {INSTEAD}"))
}

/// `POST /jobs`: a job graph as Java serializes it, with its archives.
pub(super) async fn job_graph(State(rest): State<Arc<Rest>>, body: Body) -> RestError {
    // A client that is not done with sending would not read the answer.
    IncomingBody::new(body).drain(rest.upload_max).await;
    RestError::bad_request(format!(
        "This job cannot run here: it is a job graph of Flink's, serialized by Java, and there is no JVM here. \
         {INSTEAD}"
    ))
}
