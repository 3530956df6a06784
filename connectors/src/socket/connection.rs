//! The I/O half: connects, reads, and connects again.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use millstream_api::context::TaskWaker;
use millstream_model::fault::Failure;
use tokio::{io::AsyncReadExt, net::TcpStream, sync::mpsc, time::sleep};

/// How many chunks may wait for the reader. When so many do, the socket is not read, and TCP slows the server down.
pub const CHUNKS: usize = 4;
const CHUNK_BYTES: usize = 32 << 10;
/// Flink's, between attempts to connect.
const PAUSE: Duration = Duration::from_millis(500);

/// What comes from the socket. When the channel closes, there is nothing more to come.
#[derive(Debug)]
pub enum Arrival {
    Bytes(Vec<u8>),
    /// The connection has ended.
    Closed,
    Failed(Failure),
}

/// Reads until the server closes the connection and `attempts` to connect again are used up (`None`: for ever), or
/// until nobody listens.
pub async fn read(
    host: String,
    port: u16,
    mut attempts: Option<u32>,
    arrivals: mpsc::Sender<Arrival>,
    waker: TaskWaker,
) {
    let out = Out { arrivals, waker };
    let mut was_connected = false;
    loop {
        let Some(connected) = out.unless_gone(TcpStream::connect((host.as_str(), port))).await else { return };
        match connected {
            Ok(stream) => {
                was_connected = true;
                if !out.all_of(stream).await {
                    return;
                }
            }
            Err(cause) if !was_connected => {
                out.give(Arrival::Failed(Failure::new(format!(
                    "cannot connect to {host}:{port}: {cause}; the server must listen before the job starts (to try it \
                     out: nc -lk {port})"
                ))))
                .await;
                return;
            }
            Err(cause) => tracing::info!(host, port, %cause, "cannot connect again yet"),
        }
        match &mut attempts {
            Some(0) => return out.end(),
            Some(left) => *left -= 1,
            None => {}
        }
        if out.unless_gone(sleep(PAUSE)).await.is_none() {
            return;
        }
    }
}

/// The way to the reader.
struct Out {
    arrivals: mpsc::Sender<Arrival>,
    waker: TaskWaker,
}

impl Out {
    /// Passes on what comes from `stream`. Returns whether anybody still listens.
    async fn all_of(&self, mut stream: TcpStream) -> bool {
        loop {
            let mut bytes = Vec::with_capacity(CHUNK_BYTES);
            let Some(read) = self.unless_gone(stream.read_buf(&mut bytes)).await else { return false };
            match read {
                Ok(1..) => {
                    if !self.give(Arrival::Bytes(bytes)).await {
                        return false;
                    }
                }
                Ok(0) => return self.give(Arrival::Closed).await,
                // A connection that breaks is one that closes: the socket has no end of its own.
                Err(cause) => {
                    tracing::warn!(%cause, "the connection of a socket source broke");
                    return self.give(Arrival::Closed).await;
                }
            }
        }
    }

    /// Returns whether anybody listens.
    async fn give(&self, arrival: Arrival) -> bool {
        let given = self.arrivals.send(arrival).await.is_ok();
        self.waker.wake();
        given
    }

    /// Tells the reader that there is nothing more to come.
    fn end(self) {
        drop(self.arrivals);
        self.waker.wake();
    }

    /// `None` if nobody listens any more.
    async fn unless_gone<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let (mut work, mut gone) = (pin!(work), pin!(self.arrivals.closed()));
        poll_fn(|context| match work.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => gone.as_mut().poll(context).map(|()| None),
        })
        .await
    }
}
