//! The beginning of a connection: until a client has said whether it speaks HTTP/1.1 or HTTP/2, it is not waited for long.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// How connections over HTTP/2 begin.
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection on which it is not known yet whether the client speaks HTTP/1.1 or HTTP/2: it has so much time to say
/// so.
pub(super) struct Opening<S> {
    stream: S,
    /// Bytes that are as HTTP/2 begins.
    agreed: usize,
    /// `None` once it is known.
    limit: Option<Pin<Box<Sleep>>>,
}

impl<S> Opening<S> {
    pub(super) fn new(stream: S, patience: Duration) -> Opening<S> {
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
