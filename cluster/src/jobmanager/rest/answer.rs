//! Answers in Flink's form: JSON always, and errors as `{"errors": [...]}`.

use axum::{
    body::{Body, to_bytes},
    extract::Request,
    http::{HeaderValue, Method, StatusCode, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

/// What handlers return.
pub(super) type Answer = Result<Response, RestError>;

/// Of an error that another layer has put into words.
const LONGEST_REASON: usize = 64 << 10;

/// A request that was not served, and why.
#[derive(Debug)]
pub(super) struct RestError {
    status: StatusCode,
    message: String,
}

impl RestError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> RestError {
        RestError { status, message: message.into() }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> RestError {
        RestError::new(StatusCode::BAD_REQUEST, message)
    }

    /// Whether the rest of the request is read before this is answered: not if it is too much, or does not come.
    pub(super) fn is_worth_draining(&self) -> bool {
        !matches!(self.status, StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT)
    }

    pub(super) fn not_found(message: impl Into<String>) -> RestError {
        RestError::new(StatusCode::NOT_FOUND, message)
    }
}

impl IntoResponse for RestError {
    fn into_response(self) -> Response {
        json_with(self.status, &json!({ "errors": [self.message] }))
    }
}

/// A request that was served.
pub(super) fn ok(value: &Value) -> Answer {
    Ok(json_with(StatusCode::OK, value))
}

/// One whose effect is to come.
pub(super) fn accepted() -> Answer {
    Ok(json_with(StatusCode::ACCEPTED, &json!({})))
}

fn json_with(status: StatusCode, value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}

const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=UTF-8");

/// Puts errors that did not come from a handler into Flink's form.
pub(super) async fn in_flinks_form(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let is_error = response.status().is_client_error() || response.status().is_server_error();
    if !is_error || response.headers().get(header::CONTENT_TYPE) == Some(&JSON) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let reason = to_bytes(body, LONGEST_REASON).await.unwrap_or_default();
    let reason = match String::from_utf8_lossy(&reason) {
        reason if reason.is_empty() => parts.status.canonical_reason().unwrap_or("an error").to_owned(),
        reason => reason.into_owned(),
    };
    parts.headers.insert(header::CONTENT_TYPE, JSON);
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(json!({ "errors": [reason] }).to_string()))
}

/// A method that a path does not have.
pub(super) async fn wrong_method(method: Method, uri: Uri) -> RestError {
    RestError::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} cannot be asked with {method}.", uri.path()))
}

/// A path that is none. Its words are Flink's.
pub(super) fn unknown_path(uri: &Uri) -> RestError {
    RestError::not_found(format!("Unable to load requested file {}.", uri.path()))
}
