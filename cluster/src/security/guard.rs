//! The one place where each request at a port is checked, before anything else looks at it.

use std::{path::Path, sync::Arc, time::SystemTime};

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
use rustls::pki_types::{CertificateDer, UnixTime};
use serde_json::json;
use subtle::ConstantTimeEq;
use tonic::Status;

use super::{
    peer::{Peer, Trust},
    permission::{Permission, Role, permission},
};

/// Of a request that everybody may send, in bytes: a join token and a key are a few hundred.
const STRANGERS_BODY_MAX: usize = 16 << 10;

/// Knows who may ask for what. Clones share it.
#[derive(Clone)]
pub(crate) struct Guard {
    /// What a client may show.
    token: Option<Arc<str>>,
    /// Whose certificates are believed. Without this and a token nothing is asked of anybody.
    trust: Option<Trust>,
    /// What somebody is told who shows nothing, as the end of a sentence.
    wanted: &'static str,
}

/// Why a request is served.
#[derive(PartialEq, Eq, Debug)]
enum Admitted {
    /// Whoever sends it may.
    Known,
    /// Everybody may.
    Anybody,
}

/// Why a request is not served.
#[derive(PartialEq, Eq, Debug)]
enum Refused {
    /// It does not say who it is from. What it could have.
    Nobody(&'static str),
    /// It says something that is not true.
    WrongToken,
    /// What is wrong with the certificate of who sends it.
    BadCertificate(String),
    /// It is from somebody who may not.
    NotAllowed(Role),
}

impl Guard {
    /// The guard of the port of clients, who may show a certificate if there is somebody to trust, and the token if there
    /// is one.
    ///
    /// # Errors
    /// If the token cannot be read.
    pub(crate) fn of_clients(configuration: &Configuration, trust: Option<Trust>) -> Result<Guard, Failure> {
        let path = configuration.get(&SECURITY_TOKEN_FILE)?;
        let token = path.map(|path| read_secret(SECURITY_TOKEN_FILE.name(), Path::new(&path))).transpose()?;
        let wanted = match (&token, &trust) {
            (Some(_), Some(_)) => {
                "it has neither a token nor a certificate, and one is asked for: security.token-file or \
                 security.ssl.rest.keystore names the file for clients"
            }
            (None, Some(_)) => {
                "it has no certificate, and one is asked for: security.ssl.rest.authentication-enabled and \
                 security.ssl.rest.keystore are for clients too"
            }
            _ => "it has no token, and one is asked for: security.token-file names the file for clients",
        };
        Ok(Guard { token: token.map(Arc::from), trust, wanted })
    }

    /// The guard of the port of TaskManagers, of which each has a certificate of the cluster.
    pub(crate) fn of_task_managers(trust: Option<Trust>) -> Guard {
        let wanted = "it has no certificate of this cluster, and one is asked for: security.join-token-file names the \
                      file with which TaskManagers get theirs";
        Guard { token: None, trust, wanted }
    }

    /// Whether somebody has to show who they are.
    pub(crate) fn asks_for_proof(&self) -> bool {
        self.token.is_some() || self.trust.is_some()
    }

    /// Has all requests checked that are for `router`.
    pub(crate) fn protect(self, router: Router) -> Router {
        if !self.asks_for_proof() {
            return router;
        }
        router.layer(middleware::from_fn_with_state(self, check))
    }

    /// `certificates` are those that were shown when the connection was made, if any.
    fn admit(
        &self,
        path: &str,
        is_grpc: bool,
        headers: &HeaderMap,
        certificates: &[CertificateDer<'static>],
        now: UnixTime,
    ) -> Result<Admitted, Refused> {
        let permission = permission(path, is_grpc);
        if permission == Some(Permission::Everybody) {
            return Ok(Admitted::Anybody);
        }
        let role = match &self.trust {
            Some(trust) if !certificates.is_empty() => {
                trust.role(certificates, now).map_err(Refused::BadCertificate)?
            }
            _ => self.role_by_token(headers)?,
        };
        match permission {
            Some(Permission::Only(wanted)) if wanted == role => Ok(Admitted::Known),
            _ => Err(Refused::NotAllowed(role)),
        }
    }

    fn role_by_token(&self, headers: &HeaderMap) -> Result<Role, Refused> {
        let token = self.token.as_ref().ok_or(Refused::Nobody(self.wanted))?;
        let shown = headers.get(header::AUTHORIZATION).ok_or(Refused::Nobody(self.wanted))?;
        let (scheme, shown) = shown.to_str().ok().and_then(|text| text.split_once(' ')).ok_or(Refused::WrongToken)?;
        // How long it takes says nothing about how much of it is right.
        let is_right = bool::from(shown.trim().as_bytes().ct_eq(token.as_bytes()));
        if scheme.eq_ignore_ascii_case("bearer") && is_right { Ok(Role::Client) } else { Err(Refused::WrongToken) }
    }
}

async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let is_grpc = is_grpc(&request);
    let peer = request.extensions().get::<Peer>();
    let certificates = peer.map(|peer| peer.certificates.clone()).unwrap_or_default();
    match guard.admit(request.uri().path(), is_grpc, request.headers(), &certificates, wall_clock()) {
        Ok(Admitted::Known) => next.run(request).await,
        Ok(Admitted::Anybody) => match small(request).await {
            Some(request) => next.run(request).await,
            None if is_grpc => grpc_answer(&Status::resource_exhausted("that is too large for this call")),
            None => rest_answer(StatusCode::PAYLOAD_TOO_LARGE, "that is too large for this path"),
        },
        Err(refused) => {
            let from = peer.map_or_else(|| "unknown".to_owned(), |peer| peer.address.to_string());
            tracing::warn!(path = request.uri().path(), from, why = refused.why(), "a request was refused");
            refused.answer(is_grpc)
        }
    }
}

/// A request of somebody who has shown nothing, with all of its body; `None` if that is large: what those may ask for fits
/// into little, and more would only fill the memory.
async fn small(request: Request) -> Option<Request> {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, STRANGERS_BODY_MAX).await.ok()?;
    Some(Request::from_parts(head, Body::from(body)))
}

/// Whether a request is a call, and wants to be told so.
fn is_grpc(request: &Request) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    content_type.starts_with(b"application/grpc")
}

#[expect(clippy::disallowed_methods, reason = "certificates are good by the wall clock")]
fn wall_clock() -> UnixTime {
    UnixTime::since_unix_epoch(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

/// Answers everything that is asked in clear at a port with TLS: in words that a client of either kind shows, and with
/// nothing else. `why` is a sentence.
pub(crate) fn in_clear(why: &'static str) -> Router {
    let tell = move |request: Request| async move {
        if is_grpc(&request) {
            grpc_answer(&Status::unauthenticated(why))
        } else {
            rest_answer(StatusCode::BAD_REQUEST, why)
        }
    };
    Router::new().fallback(tell)
}

fn grpc_answer(status: &Status) -> Response {
    let (parts, ()) = status.clone().into_http::<()>().into_parts();
    Response::from_parts(parts, Body::empty())
}

fn rest_answer(status: StatusCode, why: &str) -> Response {
    let mut response = Response::new(Body::from(json!({ "errors": [why] }).to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=UTF-8"));
    response
}

impl Refused {
    fn why(&self) -> String {
        let key = SECURITY_TOKEN_FILE.name();
        match self {
            Refused::Nobody(wanted) => (*wanted).to_owned(),
            Refused::WrongToken => format!("its token is not this cluster's: {key} has to name the same for both"),
            Refused::BadCertificate(what) => format!("its certificate {what}"),
            Refused::NotAllowed(role) => format!("the role {role:?} may not ask for this"),
        }
    }

    /// Each kind of client is told in its own words.
    fn answer(&self, is_grpc: bool) -> Response {
        let is_known = matches!(self, Refused::NotAllowed(_));
        if is_grpc {
            let refuse = if is_known { Status::permission_denied } else { Status::unauthenticated };
            return grpc_answer(&refuse(self.why()));
        }
        if is_known {
            return rest_answer(StatusCode::FORBIDDEN, &self.why());
        }
        let mut response = rest_answer(StatusCode::UNAUTHORIZED, &self.why());
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        response
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::routing::get;
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
    use rustls::RootCertStore;
    use tower::ServiceExt;

    use super::*;
    use crate::security::authority::Authority;

    const TOKEN: &str = "0123456789abcdef";
    const LIST: &str = "/millstream.v1.JobSubmission/ListJobs";

    fn guard() -> Guard {
        Guard { token: Some(TOKEN.into()), trust: None, wanted: "it has no token: security.token-file" }
    }

    fn admitted(path: &str, authorization: Option<&str>) -> Result<Admitted, Refused> {
        let guard = guard();
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        }
        guard.admit(path, path.contains(".v1."), &headers, &[], UnixTime::since_unix_epoch(Duration::ZERO))
    }

    #[test]
    fn a_client_is_let_in_by_its_token_and_nobody_else_is() {
        for path in ["/jobs", LIST] {
            assert_eq!(admitted(path, Some("Bearer 0123456789abcdef")), Ok(Admitted::Known));
            assert_eq!(admitted(path, Some("bearer 0123456789abcdef")), Ok(Admitted::Known));
            assert!(matches!(admitted(path, None), Err(Refused::Nobody(_))));
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
        assert_eq!(admitted("/grpc.health.v1.Health/Check", None), Ok(Admitted::Anybody));
    }

    #[test]
    fn a_task_manager_may_do_what_its_certificate_says_for_as_long_as_it_is_good() {
        let (start, day) = (Duration::from_secs(1 << 30), Duration::from_secs(86_400));
        let authority = Authority::generate(SystemTime::UNIX_EPOCH + start).unwrap();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = authority.task_manager(7, key.public_key_raw(), SystemTime::UNIX_EPOCH + start, day).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate().clone()).unwrap();
        let guard = Guard::of_task_managers(Some(Trust::in_cluster(Arc::new(roots))));
        let [attach, join] = ["Attach", "Join"].map(|method| format!("/millstream.v1.TaskManagers/{method}"));
        let admitted = |path: &str, certificates: &[CertificateDer<'static>], after| {
            guard.admit(path, true, &HeaderMap::new(), certificates, UnixTime::since_unix_epoch(start + after))
        };
        let shown = [certificate];
        assert_eq!(admitted(&attach, &shown, day), Ok(Admitted::Known));
        let late = admitted(&attach, &shown, 2 * day);
        assert_eq!(late, Err(Refused::BadCertificate("has expired".to_owned())));
        // With nothing it can join and do nothing else, and with a good certificate not all that others may.
        assert_eq!(admitted(&join, &[], day), Ok(Admitted::Anybody));
        assert!(matches!(admitted(&attach, &[], day), Err(Refused::Nobody(_))));
        assert_eq!(admitted(LIST, &shown, day), Err(Refused::NotAllowed(Role::TaskManager)));
        // A token is nothing here.
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, format!("Bearer {TOKEN}").parse().unwrap());
        let with_token = guard.admit(&attach, true, &headers, &[], UnixTime::since_unix_epoch(start));
        assert!(matches!(with_token, Err(Refused::Nobody(_))));
    }

    #[tokio::test]
    async fn a_stranger_may_not_send_much() {
        let join = "/millstream.v1.TaskManagers/Join";
        let read = |body: Body| async { axum::body::to_bytes(body, usize::MAX).await.unwrap().len().to_string() };
        let router = guard().protect(Router::new().route(join, axum::routing::post(read)));
        let send = |bytes: usize| {
            let request = axum::http::Request::post(join).header(header::CONTENT_TYPE, "application/grpc");
            router.clone().oneshot(request.body(Body::from(vec![0; bytes])).unwrap())
        };
        let served = send(STRANGERS_BODY_MAX).await.unwrap();
        assert!(served.headers().get("grpc-status").is_none());
        let refused = send(STRANGERS_BODY_MAX + 1).await.unwrap();
        assert_eq!(refused.headers()["grpc-status"], "8");
    }

    #[tokio::test]
    async fn what_is_asked_in_clear_is_told_that_tls_is_spoken() {
        let router = in_clear("TLS is spoken here");
        let ask = |content_type: &str| {
            let request = axum::http::Request::get(LIST).header(header::CONTENT_TYPE, content_type);
            router.clone().oneshot(request.body(Body::empty()).unwrap())
        };
        assert_eq!(ask("application/json").await.unwrap().status(), StatusCode::BAD_REQUEST);
        assert_eq!(ask("application/grpc").await.unwrap().headers()["grpc-status"], "16");
    }

    #[tokio::test]
    async fn a_refusal_is_in_the_words_of_who_asks() {
        let router = guard().protect(Router::new().route("/jobs", get(|| async { "served" })));
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
