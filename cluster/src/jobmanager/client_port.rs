//! The port of clients: gRPC and REST behind one listener, over HTTP/2 without TLS and HTTP/1.1.
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
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{Sleep, sleep},
};

/// How long a client may take until it has said what it speaks, for the head of an HTTP/1.1 request, and between two of
/// them.
pub(super) const HEAD_PATIENCE: Duration = Duration::from_secs(15);
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
pub(super) async fn serve(listener: TcpListener, router: Router, patience: Duration) -> Infallible {
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
        let (builder, service) = (builder.clone(), service.clone());
        tokio::spawn(async move {
            let served = builder.serve_connection(TokioIo::new(Opening::new(stream, patience)), service).await;
            if let Err(cause) = served {
                tracing::debug!(cause, "a client's connection has ended");
            }
            drop(permit);
        });
    }
}

/// A connection on which it is not known yet whether the client speaks HTTP/1.1 or HTTP/2: it has so much time to say
/// so.
struct Opening {
    stream: TcpStream,
    /// Bytes that are as HTTP/2 begins.
    agreed: usize,
    /// `None` once it is known.
    limit: Option<Pin<Box<Sleep>>>,
}

impl Opening {
    fn new(stream: TcpStream, patience: Duration) -> Opening {
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

impl AsyncRead for Opening {
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

impl AsyncWrite for Opening {
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
mod tests {
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::timeout,
    };

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    async fn port(patience: Duration) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(|| async { "well" }));
        tokio::spawn(serve(listener, router, patience));
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
}
