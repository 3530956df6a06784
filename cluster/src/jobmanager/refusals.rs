//! Words for what HTTP itself refuses. A request whose head hyper does not take (400, 414, 431) is answered by hyper, with a head
//! that says so and no body; no handler hears of it, and hyper cannot be told what else to say. So the answer is given its
//! body on its way out, in Flink's form.
//!
//! **Invariant:** nothing is changed that a handler has answered, whatever it looks like. A connection is *quiet* while none has a
//! request: before the first of them, and when the last one's answer was given away and flushed. What is written then to a
//! client of HTTP/1.1 is of hyper's own. (Of a refused request that was sent before the answer to the one before it had
//! come, the answer stays without a body; so do all of HTTP/2, where hyper resets the stream instead.)

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, ready},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::Request,
    http::Version,
    response::Response,
};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::port::HEAD_MAX;

const QUIET: u8 = 0;
/// A handler has a request, or its answer is on its way.
const BUSY: u8 = 1;
/// The answer was given away, and is not flushed.
const ANSWERED: u8 = 2;
/// HTTP/2 has many requests at once, and answers of another form.
const NEVER: u8 = 3;

/// The state of one connection: its service and its stream both know it.
#[derive(Clone, Debug, Default)]
pub(super) struct Quiet(Arc<AtomicU8>);

impl Quiet {
    /// A handler gets a request.
    pub(super) fn on_request<B>(&self, request: &Request<B>) {
        let state = if request.version() >= Version::HTTP_2 { NEVER } else { BUSY };
        self.0.store(state, Ordering::Relaxed);
    }

    /// A handler has answered.
    pub(super) fn on_response(&self, response: Response) -> Response {
        if self.0.load(Ordering::Relaxed) == NEVER {
            return response;
        }
        response.map(|body| Body::new(Answer { body, _given: Given(self.clone()) }))
    }

    fn change(&self, from: u8, to: u8) {
        let _ = self.0.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// The body of an answer. hyper drops it when it has all of it.
struct Answer {
    body: Body,
    _given: Given,
}

struct Given(Quiet);

impl Drop for Given {
    fn drop(&mut self) {
        self.0.change(BUSY, ANSWERED);
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

/// A connection whose refusals have words.
pub(super) struct Wordy<S> {
    stream: S,
    quiet: Quiet,
    /// What is still to be written in place of so many bytes.
    instead: Vec<u8>,
    stands_for: usize,
}

impl<S> Wordy<S> {
    pub(super) fn new(stream: S, quiet: Quiet) -> Wordy<S> {
        Wordy { stream, quiet, instead: Vec::new(), stands_for: 0 }
    }
}

impl<S: AsyncWrite + Unpin> Wordy<S> {
    /// Writes a refusal with its words, if this is one.
    fn poll_refusal(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<Option<usize>>> {
        if self.instead.is_empty() {
            let is_quiet = self.quiet.0.load(Ordering::Relaxed) == QUIET;
            let Some(instead) = is_quiet.then(|| with_words(bytes)).flatten() else { return Poll::Ready(Ok(None)) };
            (self.instead, self.stands_for) = (instead, bytes.len());
        }
        while !self.instead.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(context, &self.instead))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => drop(self.instead.drain(..written)),
            }
        }
        Poll::Ready(Ok(Some(self.stands_for)))
    }
}

/// An answer without a body that says that something is wrong, with one.
fn with_words(answer: &[u8]) -> Option<Vec<u8>> {
    const NO_BODY: &str = "content-length: 0\r\n";
    let head = std::str::from_utf8(answer).ok()?;
    let status = head.strip_prefix("HTTP/1.1 ").or_else(|| head.strip_prefix("HTTP/1.0 "))?;
    let fields = head.strip_suffix("\r\n").filter(|head| head.find("\r\n\r\n").is_none())?;
    let (before, after) = fields.split_once(NO_BODY)?;
    let words = match status.split_once("\r\n")?.0 {
        status if status.starts_with("414") => {
            "The address of the request is too long: 65534 bytes are the most.".to_owned()
        }
        status if status.starts_with("431") => {
            format!("The head of the request is too large: {HEAD_MAX} bytes and 100 fields are the most.")
        }
        status if status.starts_with("400") => "What came is no request of HTTP.".to_owned(),
        status if status.starts_with(['4', '5']) => status.get(4..)?.to_owned(),
        _ => return None,
    };
    let body = json!({ "errors": [words] }).to_string();
    let length = body.len();
    let fields =
        format!("{before}content-type: application/json; charset=UTF-8\r\ncontent-length: {length}\r\n{after}");
    Some(format!("{fields}\r\n{body}").into_bytes())
}

impl<S: AsyncRead + Unpin> AsyncRead for Wordy<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wordy<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match ready!(self.poll_refusal(context, bytes))? {
            Some(written) => Poll::Ready(Ok(written)),
            None => Pin::new(&mut self.stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.stream).poll_flush(context));
        self.quiet.change(ANSWERED, QUIET);
        Poll::Ready(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // hyper writes a refusal at once.
        if let [all] = bytes
            && let Some(written) = ready!(self.poll_refusal(context, all))?
        {
            return Poll::Ready(Ok(written));
        }
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_refusals_without_a_body_get_one() {
        let refused = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\ndate: now\r\n\r\n";
        let text = String::from_utf8(with_words(refused).unwrap()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\ndate: now", body.len())), "{text}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert!(body["errors"][0].as_str().unwrap().contains("too large"), "{body}");
        for other in [
            &b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"[..],
            b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}",
            b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 400",
            b"a line of a log",
        ] {
            assert_eq!(with_words(other), None, "{}", String::from_utf8_lossy(other));
        }
    }
}
