//! A port of the JobManager: gRPC, and REST at that of clients, behind one listener, over HTTP/2 and HTTP/1.1, with TLS or
//! without.
//!
//! Whoever connects gets so much time to say what it speaks, and for the head of each request; there are so many
//! connections at once, the next ones wait. What a request may cost beyond that its handler decides. Who speaks in clear
//! where TLS is asked for, or TLS where it is not spoken, is told so.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, extract::Request};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use rustls::pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, sink},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tower::ServiceExt;

use super::{
    opening::Opening,
    refusals::{Quiet, Wordy},
};
use crate::security::{Peer, in_clear, tls::Tls};

/// How long a client may take until it has said what it speaks, for the head of an HTTP/1.1 request, and between two of
/// them.
const HEAD_PATIENCE: Duration = Duration::from_secs(15);
/// A client over HTTP/2 that has been silent is asked whether it is there, and has to answer.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_PATIENCE: Duration = Duration::from_secs(15);
/// Of an HTTP/1.1 request's head, in bytes. Those who ask for many metrics at once have long addresses.
pub(super) const HEAD_MAX: usize = 128 << 10;
/// After there was no room for one more connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How those over TLS begin: a record of the handshake. No method of HTTP does.
const TLS_HANDSHAKE: u8 = 22;
/// As much of the words of a client that is sent away as is taken, and for so long.
const FIRST_WORDS_MAX: u64 = 64 << 10;
const LEAVE_PATIENCE: Duration = Duration::from_secs(1);

/// What is behind a port.
#[derive(Clone)]
pub(crate) struct Port {
    pub(super) tls: Option<Tls>,
    /// What somebody is told who speaks in clear and should not, and the other way round: sentences that name the keys.
    pub(super) tls_is_spoken: &'static str,
    pub(super) no_tls_is_spoken: &'static str,
    pub(super) router: Router,
    /// At once.
    pub(super) connections_max: usize,
    patience: Duration,
    /// How long somebody may stay over TLS who has shown no certificate, where nobody needs to do much without one.
    stranger_patience: Option<Duration>,
}

impl Port {
    /// The port of clients.
    pub(crate) fn of_clients(tls: Option<Tls>, router: Router) -> Port {
        Port {
            tls,
            tls_is_spoken: "TLS is spoken at this port: security.ssl.rest.enabled and security.ssl.rest.truststore are \
                            for clients too (https://)",
            no_tls_is_spoken: "no TLS is spoken at this port: security.ssl.rest.enabled is not true for the JobManager",
            router,
            connections_max: 1024,
            patience: HEAD_PATIENCE,
            stranger_patience: None,
        }
    }

    /// The port of TaskManagers, each of which has a connection for as long as it lives.
    pub(super) fn of_task_managers(tls: Option<Tls>, router: Router) -> Port {
        Port {
            tls,
            tls_is_spoken: "TLS is spoken at this port: security.join-token-file has to name the JobManager's join \
                            token for TaskManagers too",
            no_tls_is_spoken: "no TLS is spoken at this port: security.join-token-file is not set for the JobManager",
            router,
            connections_max: 16_384,
            patience: HEAD_PATIENCE,
            stranger_patience: Some(HEAD_PATIENCE),
        }
    }

    /// Serves for as long as it is polled.
    pub(crate) async fn serve(self, listener: TcpListener) -> Infallible {
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(self.patience).max_buf_size(HEAD_MAX);
        builder.http2().timer(TokioTimer::new()).keep_alive_interval(PING_INTERVAL).keep_alive_timeout(PING_PATIENCE);
        let builder = Arc::new(builder);
        let room = Arc::new(Semaphore::new(self.connections_max));
        loop {
            let permit = room.clone().acquire_owned().await.expect("it is never closed");
            let (stream, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(cause) => {
                    // Of one client, or of all of them for lack of descriptors: then it helps to wait for one to leave.
                    tracing::warn!(%cause, "a client could not be let in");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Small answers leave at once.
            let _ = stream.set_nodelay(true);
            let (builder, port) = (builder.clone(), self.clone());
            tokio::spawn(async move {
                port.let_in(&builder, stream, address).await;
                drop(permit);
            });
        }
    }

    async fn let_in(self, builder: &Builder<TokioExecutor>, stream: TcpStream, from: SocketAddr) {
        let mut first = [0];
        // Nothing, if it has gone already: whoever serves it sees that too.
        let speaks_tls = match timeout(self.patience, stream.peek(&mut first)).await {
            Ok(Ok(_)) => first == [TLS_HANDSHAKE],
            Ok(Err(_)) | Err(_) => return,
        };
        match self.tls {
            None if speaks_tls => {
                tracing::warn!(%from, "a client was not let in: {}", self.no_tls_is_spoken);
                turn_away(stream, self.no_tls_is_spoken).await;
            }
            None => converse(builder, stream, peer(from, None), self.router, self.patience).await,
            Some(_) if !speaks_tls => {
                tracing::warn!(%from, "a client was not let in: {}", self.tls_is_spoken);
                let told = converse(builder, stream, peer(from, None), in_clear(self.tls_is_spoken), self.patience);
                let _ = timeout(self.patience, told).await;
            }
            Some(tls) => match timeout(self.patience, tls.acceptor.accept(stream).into_fallible()).await {
                Ok(Ok(stream)) => {
                    let peer = peer(from, stream.get_ref().1.peer_certificates());
                    let stranger_patience = self.stranger_patience.filter(|_| peer.certificates.is_empty());
                    let conversation = converse(builder, stream, peer, self.router, self.patience);
                    match stranger_patience {
                        None => conversation.await,
                        Some(patience) => drop(timeout(patience, conversation).await),
                    }
                }
                Ok(Err((cause, stream))) => {
                    tracing::warn!(%from, %cause, "a client was not let in: the two do not agree over TLS");
                    see_off(stream).await;
                }
                Err(_) => {}
            },
        }
    }
}

fn peer(address: SocketAddr, certificates: Option<&[CertificateDer<'static>]>) -> Peer {
    Peer { address, certificates: certificates.unwrap_or_default().into() }
}

/// Serves one connection to its end.
async fn converse<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    builder: &Builder<TokioExecutor>,
    stream: S,
    peer: Peer,
    router: Router,
    patience: Duration,
) {
    let quiet = Quiet::default();
    let (asked, answered) = (quiet.clone(), quiet.clone());
    let router = router
        .map_request(move |mut request: Request<Incoming>| {
            asked.on_request(&request);
            request.extensions_mut().insert(peer.clone());
            request
        })
        .map_response(move |response| answered.on_response(response));
    let stream = TokioIo::new(Wordy::new(Opening::new(stream, patience), quiet));
    if let Err(cause) = builder.serve_connection(stream, TowerToHyperService::new(router)).await {
        tracing::debug!(cause, "a client's connection has ended");
    }
}

/// Answers a client that speaks TLS in clear, as servers of HTTP do: there is no other language to say it in.
async fn turn_away(mut stream: TcpStream, why: &str) {
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{why}\n",
        why.len() + 1
    );
    let _ = timeout(LEAVE_PATIENCE, stream.write_all(answer.as_bytes())).await;
    see_off(stream).await;
}

/// Ends a connection whose client has been told why. What it says meanwhile is read for a moment: unread, it would have the
/// connection reset, and what it was told with it.
async fn see_off(mut stream: TcpStream) {
    let seen_off = async {
        stream.shutdown().await?;
        copy(&mut stream.take(FIRST_WORDS_MAX), &mut sink()).await
    };
    let _ = timeout(LEAVE_PATIENCE, seen_off).await;
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "certificates are good by the wall clock")]
mod tests {
    use std::{fs, io, os::unix::fs::PermissionsExt, time::SystemTime};

    use super::*;
    use crate::{
        jobmanager::opening::PREFACE,
        security::{
            Guard,
            authority::{Authority, JOBMANAGER},
            tls,
        },
    };
    use axum::routing::get;
    use millstream_client::{Access, Client};
    use millstream_model::config::{Configuration, Origin};
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256};
    use rustls::{RootCertStore, pki_types::PrivatePkcs8KeyDer};
    use tokio_rustls::TlsConnector;

    const DAY: Duration = Duration::from_secs(86_400);
    const LONG: Duration = Duration::from_secs(60);

    async fn port(patience: Duration) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(|| async { "well" }));
        tokio::spawn(Port { patience, ..Port::of_clients(None, router) }.serve(listener));
        TcpStream::connect(address).await.unwrap()
    }

    /// What comes until the connection is closed from there, which it is before long.
    async fn heard(mut stream: TcpStream, said: &[u8]) -> String {
        stream.write_all(said).await.unwrap();
        let mut text = Vec::new();
        let read = timeout(LONG, stream.read_to_end(&mut text)).await;
        read.expect("the connection is closed").unwrap();
        String::from_utf8_lossy(&text).into_owned()
    }

    #[tokio::test]
    async fn a_client_that_does_not_go_on_is_left_alone() {
        let soon = Duration::from_millis(50);
        // Nothing; the beginning of both; and the beginning of a request.
        for said in [&b""[..], b"PRI * HT", b"GET / HTTP/1.1\r\nHost: "] {
            assert_eq!(heard(port(soon).await, said).await, "", "{said:?}");
        }
    }

    #[tokio::test]
    async fn what_http_itself_refuses_has_a_body_and_what_a_handler_says_is_left_as_it_is() {
        const LIKE_A_REFUSAL: &str = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let empty = get(|| async { axum::http::StatusCode::NOT_FOUND });
        let pieces = get(|| async {
            let pieces = (0..3).map(|_| Ok::<_, io::Error>(LIKE_A_REFUSAL));
            // Each is flushed by itself.
            axum::body::Body::from_stream(tokio_stream::StreamExt::throttle(
                tokio_stream::iter(pieces),
                Duration::from_millis(5),
            ))
        });
        let router = Router::new().route("/", get(|| async { "well" })).route("/empty", empty).route("/pieces", pieces);
        tokio::spawn(Port::of_clients(None, router).serve(listener));
        let connect = async || TcpStream::connect(address).await.unwrap();
        let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(70_000));
        let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: a\r\n".repeat(1_000));
        for (request, status, words) in [
            (long.as_str(), "414 ", "too long"),
            (many.as_str(), "431 ", "too large"),
            ("nonsense\r\n\r\n", "400 ", "no request of HTTP"),
        ] {
            let answer = heard(connect().await, request.as_bytes()).await;
            let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
            assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
            assert!(head.contains(&format!("content-length: {}", body.len())), "{answer}");
            assert!(body.starts_with("{\"errors\":[\"") && body.contains(words), "{answer}");
        }
        // Behind an answer that was given, on the same connection.
        let mut stream = connect().await;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut first = Vec::new();
        while !first.ends_with(b"well") {
            assert!(timeout(LONG, stream.read_buf(&mut first)).await.unwrap().unwrap() > 0);
        }
        let answer = heard(stream, long.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 414 ") && answer.contains("too long"), "{answer}");
        let last = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = heard(connect().await, last("/empty").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 404 ") && answer.ends_with("\r\n\r\n"), "{answer}");
        let answer = heard(connect().await, last("/pieces").as_bytes()).await;
        assert_eq!(answer.matches(LIKE_A_REFUSAL).count(), 3, "{answer}");
    }

    #[tokio::test]
    async fn a_client_of_either_version_is_served_however_long_it_stays() {
        let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let answer = heard(port(LONG).await, request).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("well"), "{answer}");
        // Byte by byte, and with prior knowledge of HTTP/2.
        let mut stream = port(LONG).await;
        for byte in PREFACE {
            stream.write_all(&[*byte]).await.unwrap();
        }
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        let mut settings = [0; 9];
        timeout(LONG, stream.read_exact(&mut settings)).await.unwrap().unwrap();
        assert_eq!(settings[3], 4, "the first frame is one of settings");
    }

    /// An authority and a certificate of it for localhost that is good for so many days from a year ago on, as PEM.
    fn certificates(days: i64) -> (String, String) {
        let authority_key = KeyPair::generate().unwrap();
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // No two have the same name.
        let name: String = authority_key.public_key_raw().iter().map(|byte| format!("{byte:02x}")).take(32).collect();
        authority.distinguished_name.push(DnType::CommonName, name);
        let authority = authority.self_signed(&authority_key).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut own = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        own.not_before = (SystemTime::now() - 365 * DAY).into();
        own.not_after = own.not_before + time::Duration::days(days);
        let own = own.signed_by(&key, &authority, &authority_key).unwrap();
        (authority.pem(), own.pem() + &key.serialize_pem())
    }

    fn configuration(settings: &[(&str, &std::path::Path)]) -> Configuration {
        let mut configuration = Configuration::new();
        configuration.set_text("security.ssl.rest.enabled", "true", Origin::Program);
        for (key, path) in settings {
            configuration.set_text(key, path.to_str().unwrap(), Origin::Program);
        }
        configuration
    }

    fn write(path: &std::path::Path, text: &str) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// What a client is told that asks for the jobs.
    async fn told(server: &Configuration, client: &Configuration) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("localhost:{}", listener.local_addr().unwrap().port());
        let tls = tls::of_clients(server).unwrap();
        let trust = tls.as_ref().and_then(|tls| tls.trust.clone());
        let router = Guard::of_clients(server, trust).unwrap().protect(Router::new());
        tokio::spawn(Port::of_clients(tls, router).serve(listener));
        let access = Access::configured(client).unwrap();
        let answer = match Client::connect_with(&address, &access).await {
            Ok(mut client) => client.jobs().await.map(drop),
            Err(error) => Err(error),
        };
        answer.expect_err("there are no services").to_string()
    }

    #[tokio::test]
    async fn a_client_over_tls_believes_its_authorities_alone_and_shows_its_token() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        let ((authority, own), (other, _), (expired_authority, expired)) =
            (certificates(730), certificates(730), certificates(1));
        for (name, text) in [
            ("own", &own),
            ("ca", &authority),
            ("other-ca", &other),
            ("expired", &expired),
            ("expired-ca", &expired_authority),
            ("token", &"0123456789abcdef".to_owned()),
            ("wrong", &"0123456789abcdeg".to_owned()),
        ] {
            write(&path(name), text);
        }
        let (store, trust, token) =
            ("security.ssl.rest.keystore", "security.ssl.rest.truststore", "security.token-file");
        let server = configuration(&[(store, &path("own")), (token, &path("token"))]);
        let client = |ca: &str, secret: &str| configuration(&[(trust, &path(ca)), (token, &path(secret))]);
        // It gets as far as services that are not there.
        let served = told(&server, &client("ca", "token")).await;
        assert!(served.contains("does not know a call"), "{served}");
        let wrong = told(&server, &client("ca", "wrong")).await;
        assert!(wrong.contains("not this cluster's"), "{wrong}");
        let without = told(&server, &configuration(&[(trust, &path("ca"))])).await;
        assert!(without.contains("security.token-file"), "{without}");
        let stranger = told(&server, &client("other-ca", "token")).await;
        assert!(stranger.contains("invalid peer certificate"), "{stranger}");
        let old = configuration(&[(store, &path("expired")), (token, &path("token"))]);
        let old = told(&old, &client("expired-ca", "token")).await;
        assert!(old.contains("expired"), "{old}");
        let plain = told(&server, &Configuration::new()).await;
        assert!(plain.contains("TLS is spoken at this port"), "{plain}");
        let other_way = told(&Configuration::new(), &client("ca", "token")).await;
        assert!(other_way.contains("no TLS is spoken at that port"), "{other_way}");
        // Keys that others can read are not used.
        fs::set_permissions(path("own"), fs::Permissions::from_mode(0o644)).unwrap();
        let open = tls::of_clients(&server).err().unwrap();
        assert!(open.message.contains("chmod 600") && open.message.contains(store), "{open}");
        let none = tls::of_clients(&configuration(&[])).err().unwrap();
        assert!(none.message.contains(store), "{none}");
    }

    #[tokio::test]
    async fn a_client_may_show_a_certificate_in_place_of_the_token() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        let ((authority, own), (clients, client), (_, stranger)) =
            (certificates(730), certificates(730), certificates(730));
        let (expired_authority, expired) = certificates(1);
        for (name, text) in [
            ("own", &own),
            ("ca", &authority),
            ("clients-ca", &(clients + &expired_authority)),
            ("client", &client),
            ("stranger", &stranger),
            ("expired", &expired),
            ("token", &"0123456789abcdef".to_owned()),
        ] {
            write(&path(name), text);
        }
        let (store, trust, token) =
            ("security.ssl.rest.keystore", "security.ssl.rest.truststore", "security.token-file");
        let with_certificates = |settings: &[(&str, &std::path::Path)]| {
            let mut configuration = configuration(settings);
            configuration.set_text("security.ssl.rest.authentication-enabled", "true", Origin::Program);
            configuration
        };
        let server = with_certificates(&[(store, &path("own")), (trust, &path("clients-ca"))]);
        let shows = |name: &str| with_certificates(&[(trust, &path("ca")), (store, &path(name))]);
        let shows_none = configuration(&[(trust, &path("ca"))]);
        let served = told(&server, &shows("client")).await;
        assert!(served.contains("does not know a call"), "{served}");
        let refused = told(&server, &shows_none).await;
        assert!(refused.contains("it has no certificate") && refused.contains(store), "{refused}");
        let stranger = told(&server, &shows("stranger")).await;
        assert!(stranger.contains("alert: UnknownCA"), "{stranger}");
        let expired = told(&server, &shows("expired")).await;
        assert!(expired.contains("alert: CertificateExpired"), "{expired}");
        // With a token as well, either of them will do.
        let either = with_certificates(&[(store, &path("own")), (trust, &path("clients-ca")), (token, &path("token"))]);
        for client in [shows("client"), configuration(&[(trust, &path("ca")), (token, &path("token"))])] {
            let served = told(&either, &client).await;
            assert!(served.contains("does not know a call"), "{served}");
        }
        let refused = told(&either, &shows_none).await;
        assert!(refused.contains("neither a token nor a certificate"), "{refused}");
        // What is missing is named.
        let no_trust = tls::of_clients(&with_certificates(&[(store, &path("own"))])).err().unwrap();
        assert!(no_trust.message.contains(trust), "{no_trust}");
        let mut no_tls = with_certificates(&[]);
        no_tls.set_text("security.ssl.rest.enabled", "false", Origin::Program);
        let no_tls = tls::of_clients(&no_tls).err().unwrap();
        assert!(no_tls.message.contains("security.ssl.rest.enabled"), "{no_tls}");
        let nothing = Access::configured(&with_certificates(&[(trust, &path("ca"))])).unwrap_err();
        assert!(nothing.to_string().contains(store), "{nothing}");
    }

    #[tokio::test]
    async fn who_speaks_tls_where_it_is_not_spoken_is_told_so_in_clear() {
        // As a client of TLS begins: a record of the handshake.
        let answer = heard(port(LONG).await, b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00").await;
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("security.ssl.rest.enabled"), "{answer}");
    }

    #[tokio::test]
    async fn a_stranger_does_not_stay_at_the_port_of_task_managers_and_a_member_does() {
        let authority = Authority::generate(SystemTime::now()).unwrap();
        let own = authority.jobmanager(SystemTime::now()).unwrap();
        let tls = tls::of_task_managers(own, authority.certificate()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let port = Port::of_task_managers(Some(tls), Router::new());
        tokio::spawn(Port { stranger_patience: Some(Duration::from_millis(50)), ..port }.serve(listener));
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = authority.task_manager(7, key.public_key_raw(), SystemTime::now(), DAY).unwrap();
        let shown = (vec![certificate], PrivatePkcs8KeyDer::from(key.serialize_der()).into());
        let connect = async |shown| {
            let mut roots = RootCertStore::empty();
            roots.add(authority.certificate().clone()).unwrap();
            let connector = TlsConnector::from(millstream_client::tls::client(roots, shown).unwrap());
            let stream = TcpStream::connect(address).await.unwrap();
            let mut stream = connector.connect(JOBMANAGER.try_into().unwrap(), stream).await.unwrap();
            stream.write_all(PREFACE).await.unwrap();
            stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
            stream
        };
        let mut member = connect(Some(shown)).await;
        let mut heard = Vec::new();
        // Its end need not be said in TLS.
        let _ = timeout(LONG, connect(None).await.read_to_end(&mut heard)).await.expect("the connection is closed");
        // As long as that has taken, and it is still answered: a ping.
        member.write_all(&[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]).await.unwrap();
        let mut heard = Vec::new();
        while !heard.ends_with(&[1, 2, 3, 4, 5, 6, 7, 8]) {
            let mut bytes = [0; 256];
            let length = timeout(LONG, member.read(&mut bytes)).await.unwrap().unwrap();
            assert!(length > 0, "it was closed");
            heard.extend_from_slice(&bytes[..length]);
        }
    }
}
