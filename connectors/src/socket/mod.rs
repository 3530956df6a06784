//! Lines from a TCP socket: for trying things out. What was read is not read again after a restart.
//!
//! | Look here for | module |
//! |---|---|
//! | the source as programs name it, and its reader | this one |
//! | connecting and reading | [`connection`] |
//! | cutting bytes at a delimiter | [`delimited`] |

use std::borrow::Cow;

use millstream_api::{
    context::RuntimeContext,
    metrics::Counter,
    source::{Source, SourceOut, SourceReader, SourceSnapshot, SourceStatus},
};
use millstream_model::fault::Failure;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::{self, error::TryRecvError};

mod connection;
mod delimited;

use self::{connection::Arrival, delimited::Delimited};
use crate::{InvalidUtf8, invalid_utf8::SKIPPED};

/// Connects to a server and reads what it sends, one record per line, as Flink's `socketTextStream`.
///
/// One subtask reads; at a higher parallelism the others end at once. The stream ends when the server closes the
/// connection, unless [`SocketTextSource::reconnect`] says otherwise; what came after the last delimiter is a record too.
/// A connection has no position to go back to: after a restart, what was on its way is lost.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SocketTextSource {
    host: String,
    port: u16,
    delimiter: String,
    attempts: Option<u32>,
    invalid_utf8: InvalidUtf8,
}

impl SocketTextSource {
    /// `host` is a name or an address.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        let (host, delimiter) = (host.into(), "\n".to_owned());
        SocketTextSource { host, port, delimiter, attempts: Some(0), invalid_utf8: InvalidUtf8::Fail }
    }

    /// What ends a record; a line feed by default, and then a carriage return before it is removed as well.
    ///
    /// # Panics
    /// If it is empty.
    #[must_use]
    #[track_caller]
    pub fn delimiter(mut self, delimiter: impl Into<String>) -> Self {
        self.delimiter = delimiter.into();
        assert!(!self.delimiter.is_empty(), "a delimiter must have at least one character");
        self
    }

    /// How often to connect again, in all, after the server has closed the connection or if it cannot be reached then;
    /// `None` is for ever. There is half a second between attempts.
    #[must_use]
    pub fn reconnect(mut self, attempts: impl Into<Option<u32>>) -> Self {
        self.attempts = attempts.into();
        self
    }

    #[must_use]
    pub fn invalid_utf8(mut self, policy: InvalidUtf8) -> Self {
        self.invalid_utf8 = policy;
        self
    }
}

impl Source for SocketTextSource {
    type Out = String;
    type Reader = SocketTextReader;

    // Not bounded, as in Flink: that the server will close the connection is not known before.

    fn reader(self, context: &mut RuntimeContext) -> Result<SocketTextReader, Failure> {
        let server = format!("{}:{}", self.host, self.port);
        let arrivals = (context.index_of_this_subtask() == 0).then(|| {
            let (sender, arrivals) = mpsc::channel(connection::CHUNKS);
            context.spawn_io(connection::read(self.host, self.port, self.attempts, sender, context.waker()));
            arrivals
        });
        Ok(SocketTextReader {
            server,
            records: Delimited::new(self.delimiter),
            arrivals,
            invalid_utf8: self.invalid_utf8,
            skipped: context.accumulator(SKIPPED),
            count: 0,
        })
    }
}

/// Cuts what arrives into records.
pub struct SocketTextReader {
    server: String,
    records: Delimited,
    /// `None` when there is nothing more to come.
    arrivals: Option<mpsc::Receiver<Arrival>>,
    invalid_utf8: InvalidUtf8,
    skipped: Counter,
    count: u64,
}

impl SourceReader for SocketTextReader {
    type Out = String;

    fn poll(&mut self, out: &mut SourceOut<'_, String>) -> Result<SourceStatus, Failure> {
        loop {
            loop {
                if out.should_pause() {
                    return Ok(SourceStatus::More);
                }
                let Some(record) = self.records.next() else { break };
                self.count += 1;
                match (str::from_utf8(record), self.invalid_utf8) {
                    (Ok(text), _) => out.emit(text),
                    (Err(_), InvalidUtf8::Skip) => self.skipped.add(1),
                    (Err(_), InvalidUtf8::Replace) => {
                        let text: Cow<'_, str> = String::from_utf8_lossy(record);
                        out.emit(&*text);
                    }
                    (Err(_), InvalidUtf8::Fail) => return Err(not_utf8(&self.server, self.count)),
                }
            }
            let Some(arrivals) = &mut self.arrivals else { return Ok(SourceStatus::End) };
            match arrivals.try_recv() {
                Ok(Arrival::Bytes(bytes)) => self.records.feed(&bytes),
                Ok(Arrival::Closed) => self.records.end(),
                Ok(Arrival::Failed(failure)) => return Err(failure),
                Err(TryRecvError::Empty) => return Ok(SourceStatus::Idle),
                Err(TryRecvError::Disconnected) => self.arrivals = None,
            }
        }
    }

    fn snapshot(&mut self, _: &mut SourceSnapshot<'_>) {}

    fn position(&self) -> String {
        format!("{}, record {}", self.server, self.count)
    }
}

fn not_utf8(server: &str, count: u64) -> Failure {
    Failure::fatal(format!(
        "record {count} from {server} is not UTF-8 text; let the source skip such records or replace what is invalid: \
         SocketTextSource::invalid_utf8(InvalidUtf8::Skip) or (InvalidUtf8::Replace)"
    ))
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        net::{TcpListener, TcpStream},
        thread,
        time::Duration,
    };

    use super::*;
    use crate::fake::SourceJob;

    /// A server that serves one connection after another, each in its own way.
    fn serve(ways: Vec<Box<dyn FnOnce(TcpStream) + Send>>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for way in ways {
                way(listener.accept().unwrap().0);
            }
        });
        port
    }

    fn saying(text: &'static [u8]) -> Box<dyn FnOnce(TcpStream) + Send> {
        Box::new(|mut stream| stream.write_all(text).unwrap())
    }

    fn records(source: SocketTextSource) -> Result<Vec<String>, Failure> {
        let mut job = SourceJob::start(source, 2, None)?;
        job.run_to_end()?;
        Ok(job.emitted.take())
    }

    #[test]
    fn a_closed_connection_ends_the_stream_and_the_last_line() {
        let port = serve(vec![saying(b"one\ntwo\r\n\nthree")]);
        assert_eq!(records(SocketTextSource::new("127.0.0.1", port)).unwrap(), ["one", "two", "", "three"]);
    }

    #[test]
    fn a_delimiter_may_be_longer_and_come_in_pieces() {
        let slowly = |mut stream: TcpStream| {
            for piece in ["on", "e-", "-two-", "-", "-three--"] {
                stream.write_all(piece.as_bytes()).unwrap();
                stream.flush().unwrap();
            }
        };
        let port = serve(vec![Box::new(slowly)]);
        let source = SocketTextSource::new("localhost", port).delimiter("--");
        assert_eq!(records(source).unwrap(), ["one", "two", "-three"]);
    }

    #[test]
    fn a_server_that_comes_back_is_read_on_as_often_as_wanted() {
        let port = serve(vec![saying(b"one\n"), saying(b"two\n"), saying(b"three\n")]);
        assert_eq!(records(SocketTextSource::new("127.0.0.1", port).reconnect(1)).unwrap(), ["one", "two"]);
    }

    #[test]
    fn a_server_that_does_not_come_back_ends_the_stream_when_all_attempts_are_used() {
        let port = serve(vec![saying(b"one\n")]);
        assert_eq!(records(SocketTextSource::new("127.0.0.1", port).reconnect(2)).unwrap(), ["one"]);
    }

    #[test]
    fn a_refused_connection_fails_with_the_server_and_what_to_do() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let failure = records(SocketTextSource::new("127.0.0.1", port)).unwrap_err();
        assert!(failure.message.contains(&format!("127.0.0.1:{port}")), "{failure}");
        assert!(failure.message.contains("nc -lk"), "{failure}");
    }

    #[test]
    fn invalid_utf8_follows_the_policy() {
        let source = || SocketTextSource::new("127.0.0.1", serve(vec![saying(b"a\n\xff\nb\n")]));
        let failure = records(source()).unwrap_err();
        assert!(failure.message.contains("record 2 from 127.0.0.1"), "{failure}");
        assert_eq!(records(source().invalid_utf8(InvalidUtf8::Skip)).unwrap(), ["a", "b"]);
        assert_eq!(records(source().invalid_utf8(InvalidUtf8::Replace)).unwrap(), ["a", "\u{fffd}", "b"]);
    }

    #[test]
    fn a_reader_that_is_dropped_lets_the_connection_go() {
        let (closed, was_closed) = std::sync::mpsc::channel();
        let port = serve(vec![Box::new(move |mut stream| {
            stream.write_all(b"one\n").unwrap();
            let read = std::io::Read::read(&mut stream, &mut [0]);
            closed.send(read.is_ok_and(|bytes| bytes == 0)).unwrap();
        })]);
        let mut job = SourceJob::start(SocketTextSource::new("127.0.0.1", port), 1, None).unwrap();
        assert!(!job.run(10, Duration::from_millis(200)).unwrap());
        drop(job);
        assert_eq!(was_closed.recv_timeout(Duration::from_secs(10)), Ok(true));
    }
}
