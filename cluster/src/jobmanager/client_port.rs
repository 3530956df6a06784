//! The port of clients: gRPC and REST behind one listener, over HTTP/2 and HTTP/1.1, with TLS or without.
//!
//! Whoever connects gets so much time to say what it speaks, and for the head of each request; there are so many
//! connections at once, the next ones wait. What a request may cost beyond that its handler decides.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpListener,
    sync::Semaphore,
    time::{Sleep, sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

/// How long a client may take until it has said what it speaks, for the head of an HTTP/1.1 request, and between two of
/// them.
pub(crate) const HEAD_PATIENCE: Duration = Duration::from_secs(15);
/// A client over HTTP/2 that has been silent is asked whether it is there, and has to answer.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_PATIENCE: Duration = Duration::from_secs(15);
const CONNECTIONS_MAX: usize = 1024;
/// Of an HTTP/1.1 request's head, in bytes. Those who ask for many metrics at once have long addresses.
const HEAD_MAX: usize = 128 << 10;
/// After there was no room for one more connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How connections over HTTP/2 begin.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves a port for as long as it is polled.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    patience: Duration,
) -> Infallible {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(patience).max_buf_size(HEAD_MAX);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(PING_INTERVAL).keep_alive_timeout(PING_PATIENCE);
    let builder = Arc::new(builder);
    let service = TowerToHyperService::new(router);
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let permit = room.clone().acquire_owned().await.expect("it is never closed");
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(cause) => {
                // Of one client, or of all of them for lack of descriptors: then it helps to wait for one to leave.
                tracing::warn!(%cause, "a client could not be let in");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Small answers leave at once.
        let _ = stream.set_nodelay(true);
        let (builder, service, tls) = (builder.clone(), service.clone(), tls.clone());
        tokio::spawn(async move {
            let served = match tls {
                None => builder.serve_connection(TokioIo::new(Opening::new(stream, patience)), service).await,
                Some(tls) => match timeout(patience, tls.accept(stream)).await {
                    Ok(Ok(stream)) => {
                        builder.serve_connection(TokioIo::new(Opening::new(stream, patience)), service).await
                    }
                    Ok(Err(cause)) => {
                        tracing::warn!(%cause, "a client was not let in: it does not speak TLS as is asked for here");
                        Ok(())
                    }
                    Err(_) => Ok(()),
                },
            };
            if let Err(cause) = served {
                tracing::debug!(cause, "a client's connection has ended");
            }
            drop(permit);
        });
    }
}

/// A connection on which it is not known yet whether the client speaks HTTP/1.1 or HTTP/2: it has so much time to say
/// so.
struct Opening<S> {
    stream: S,
    /// Bytes that are as HTTP/2 begins.
    agreed: usize,
    /// `None` once it is known.
    limit: Option<Pin<Box<Sleep>>>,
}

impl<S> Opening<S> {
    fn new(stream: S, patience: Duration) -> Opening<S> {
        Opening { stream, agreed: 0, limit: Some(Box::pin(sleep(patience))) }
    }

    fn on_read(&mut self, bytes: &[u8]) {
        let rest = &PREFACE[self.agreed..];
        let length = bytes.len().min(rest.len());
        self.agreed += length;
        if bytes[..length] != rest[..length] || self.agreed == PREFACE.len() {
            self.limit = None;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Opening<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        let Some(limit) = &mut this.limit else { return read };
        if read.is_pending() {
            let over = limit.as_mut().poll(context);
            return over.map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "it does not say what it speaks")));
        }
        this.on_read(&buffer.filled()[before..]);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Opening<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "certificates are good by the wall clock")]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, time::SystemTime};

    use axum::routing::get;
    use millstream_client::{Access, Client};
    use millstream_model::config::{Configuration, Origin};
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::*;
    use crate::security::{Guard, tls};

    const DAY: Duration = Duration::from_secs(86_400);
    const LONG: Duration = Duration::from_secs(60);

    async fn port(patience: Duration) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(|| async { "well" }));
        tokio::spawn(serve(listener, None, router, patience));
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
        let router = Guard::of_clients(server).unwrap().protect(Router::new());
        tokio::spawn(serve(listener, tls, router, LONG));
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
        assert!(plain.contains("was lost"), "{plain}");
        // Keys that others can read are not used.
        fs::set_permissions(path("own"), fs::Permissions::from_mode(0o644)).unwrap();
        let open = tls::of_clients(&server).err().unwrap();
        assert!(open.message.contains("chmod 600") && open.message.contains(store), "{open}");
        let none = tls::of_clients(&configuration(&[])).err().unwrap();
        assert!(none.message.contains(store), "{none}");
    }
}
