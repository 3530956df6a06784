//! Keeps web pages of others from having code run here.
//!
//! A browser sends forms of any page to any address, `localhost` among them, and a file that is uploaded here can be
//! run. So a request that changes something and comes from a page (it has an `Origin` then) has to come from this very
//! server; and from a name that others cannot have lead to this machine. Clients that are no browsers have no `Origin`.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{Rest, answer::RestError};

pub(super) async fn check(State(rest): State<Arc<Rest>>, request: Request, next: Next) -> Response {
    if !request.method().is_safe() && !is_trusted(request.headers(), request.uri().host(), &rest.host) {
        let message = "This request comes from a web page of another site, and is not served.";
        return RestError::new(StatusCode::FORBIDDEN, message).into_response();
    }
    next.run(request).await
}

/// Whether a request comes from no page, or one of ours. Over HTTP/2 the host is in the address.
fn is_trusted(headers: &HeaderMap, host: Option<&str>, own_name: &str) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let text = |value: &axum::http::HeaderValue| value.to_str().unwrap_or_default().to_ascii_lowercase();
    let origin = text(origin);
    let Some((_, from)) = origin.split_once("://") else { return false };
    let in_header = headers.get(header::HOST).map(text);
    let name_only = |authority: &str| name_of(authority).to_owned();
    match (in_header, host) {
        (Some(to), _) => from == to && is_ours(&name_only(&to), own_name),
        (None, Some(to)) => name_of(from) == to && is_ours(to, own_name),
        (None, None) => false,
    }
}

/// A name without its port.
fn name_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => authority,
    }
}

fn is_ours(name: &str, own_name: &str) -> bool {
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.eq_ignore_ascii_case(own_name) || bare.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted(origin: Option<&str>, host: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        is_trusted(&headers, None, "flink.example")
    }

    #[test]
    fn pages_of_others_are_kept_out() {
        assert!(trusted(None, "anything:8081"));
        assert!(trusted(Some("http://localhost:8081"), "localhost:8081"));
        assert!(trusted(Some("http://127.0.0.1:8081"), "127.0.0.1:8081"));
        assert!(trusted(Some("http://[::1]:8081"), "[::1]:8081"));
        assert!(trusted(Some("https://flink.example"), "flink.example"));
        assert!(!trusted(Some("http://evil.example"), "localhost:8081"));
        assert!(!trusted(Some("http://localhost:3000"), "localhost:8081"));
        assert!(!trusted(Some("null"), "localhost:8081"));
        // A name of another that leads here.
        assert!(!trusted(Some("http://evil.example:8081"), "evil.example:8081"));
    }
}
