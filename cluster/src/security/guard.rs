//! The one place where each request at a port is checked, before anything else looks at it.

use std::{path::Path, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::Response,
};
use millstream_client::access::read_secret;
use millstream_model::{
    config::{Configuration, SECURITY_TOKEN_FILE},
    fault::Failure,
};
use serde_json::json;
use subtle::ConstantTimeEq;
use tonic::Status;

use super::permission::{Permission, Role, permission};

/// Knows who may ask for what. Clones share it.
#[derive(Clone)]
pub(crate) struct Guard {
    /// `None` if nothing is asked of clients.
    token: Option<Arc<str>>,
}

/// Why a request is not served.
#[derive(PartialEq, Eq, Debug)]
enum Refused {
    /// It does not say who it is from.
    Nobody,
    /// It says something that is not true.
    WrongToken,
    /// It is from somebody who may not.
    NotAllowed(Role),
}

impl Guard {
    /// The guard of the port of clients.
    ///
    /// # Errors
    /// If the token cannot be read.
    pub(crate) fn of_clients(configuration: &Configuration) -> Result<Guard, Failure> {
        let path = configuration.get(&SECURITY_TOKEN_FILE)?;
        let token = path.map(|path| read_secret(SECURITY_TOKEN_FILE.name(), Path::new(&path))).transpose()?;
        Ok(Guard { token: token.map(Arc::from) })
    }

    /// Whether clients have to show who they are.
    pub(crate) fn asks_for_a_token(&self) -> bool {
        self.token.is_some()
    }

    /// Has all requests checked that are for `router`.
    pub(crate) fn protect(self, router: Router) -> Router {
        if self.token.is_none() {
            return router;
        }
        router.layer(middleware::from_fn_with_state(self, check))
    }

    fn admit(&self, path: &str, is_grpc: bool, headers: &HeaderMap) -> Result<(), Refused> {
        let permission = permission(path, is_grpc);
        if permission == Some(Permission::Everybody) {
            return Ok(());
        }
        let role = self.role(headers)?;
        match permission {
            Some(Permission::Only(wanted)) if wanted == role => Ok(()),
            _ => Err(Refused::NotAllowed(role)),
        }
    }

    fn role(&self, headers: &HeaderMap) -> Result<Role, Refused> {
        let shown = headers.get(header::AUTHORIZATION).ok_or(Refused::Nobody)?;
        let (scheme, shown) = shown.to_str().ok().and_then(|text| text.split_once(' ')).ok_or(Refused::WrongToken)?;
        let token = self.token.as_ref().ok_or(Refused::Nobody)?;
        // How long it takes says nothing about how much of it is right.
        let is_right = bool::from(shown.trim().as_bytes().ct_eq(token.as_bytes()));
        if scheme.eq_ignore_ascii_case("bearer") && is_right { Ok(Role::Client) } else { Err(Refused::WrongToken) }
    }
}

async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let content_type = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let is_grpc = content_type.starts_with(b"application/grpc");
    match guard.admit(request.uri().path(), is_grpc, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refused) => {
            tracing::warn!(path = request.uri().path(), why = refused.why(), "a request was refused");
            refused.answer(is_grpc)
        }
    }
}

impl Refused {
    fn why(&self) -> String {
        let key = SECURITY_TOKEN_FILE.name();
        match self {
            Refused::Nobody => format!("it has no token, and one is asked for: {key} names the file for clients"),
            Refused::WrongToken => format!("its token is not this cluster's: {key} has to name the same for both"),
            Refused::NotAllowed(role) => format!("the role {role:?} may not ask for this"),
        }
    }

    /// Each kind of client is told in its own words.
    fn answer(&self, is_grpc: bool) -> Response {
        let is_known = matches!(self, Refused::NotAllowed(_));
        if is_grpc {
            let refuse = if is_known { Status::permission_denied } else { Status::unauthenticated };
            let (parts, ()) = refuse(self.why()).into_http::<()>().into_parts();
            return Response::from_parts(parts, Body::empty());
        }
        let mut response = Response::new(Body::from(json!({ "errors": [self.why()] }).to_string()));
        *response.status_mut() = if is_known { StatusCode::FORBIDDEN } else { StatusCode::UNAUTHORIZED };
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=UTF-8"));
        if !is_known {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;

    const TOKEN: &str = "0123456789abcdef";
    const LIST: &str = "/millstream.v1.JobSubmission/ListJobs";

    fn admitted(path: &str, authorization: Option<&str>) -> Result<(), Refused> {
        let guard = Guard { token: Some(TOKEN.into()) };
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        }
        guard.admit(path, path.contains(".v1."), &headers)
    }

    #[test]
    fn a_client_is_let_in_by_its_token_and_nobody_else_is() {
        for path in ["/jobs", LIST] {
            assert_eq!(admitted(path, Some("Bearer 0123456789abcdef")), Ok(()));
            assert_eq!(admitted(path, Some("bearer 0123456789abcdef")), Ok(()));
            assert_eq!(admitted(path, None), Err(Refused::Nobody));
            let wrong = [
                "",
                "Bearer",
                "Bearer ",
                "Bearer 0123456789abcde",
                "Bearer 0123456789abcdeg",
                "Basic 0123456789abcdef",
            ];
            for text in wrong {
                assert_eq!(admitted(path, Some(text)), Err(Refused::WrongToken), "{text}");
            }
        }
    }

    #[test]
    fn a_client_is_no_task_manager_and_health_is_for_everybody() {
        let attach = "/millstream.v1.TaskManagers/Attach";
        assert_eq!(admitted(attach, Some("Bearer 0123456789abcdef")), Err(Refused::NotAllowed(Role::Client)));
        assert_eq!(admitted("/grpc.health.v1.Health/Check", None), Ok(()));
    }

    #[tokio::test]
    async fn a_refusal_is_in_the_words_of_who_asks() {
        let guard = Guard { token: Some(TOKEN.into()) };
        let router = guard.protect(Router::new().route("/jobs", get(|| async { "served" })));
        let ask = |path: &str, content_type: &str| {
            let request = axum::http::Request::get(path).header(header::CONTENT_TYPE, content_type);
            router.clone().oneshot(request.body(Body::empty()).unwrap())
        };
        let rest = ask("/jobs", "application/json").await.unwrap();
        assert_eq!(rest.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(rest.headers()[header::WWW_AUTHENTICATE], "Bearer");
        let body = axum::body::to_bytes(rest.into_body(), 1 << 16).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert!(body["errors"][0].as_str().unwrap().contains("security.token-file"), "{body}");
        // Paths that are none too: who is nobody does not get to know.
        assert_eq!(ask("/none", "text/plain").await.unwrap().status(), StatusCode::UNAUTHORIZED);
        let grpc = ask(LIST, "application/grpc").await.unwrap();
        assert_eq!(grpc.headers()["grpc-status"], "16");
    }
}
