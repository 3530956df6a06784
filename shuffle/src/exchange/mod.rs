//! The exchange between this worker and all others: one thread that owns the sockets and drives a link per peer.
//!
//! ```text
//!  worker ──attach/detach──► Exchange ──mail──► net loop ──► Listener, Transport per peer ═══ peers
//!    ▲                                             │ Link per peer
//!    └──────────── ExchangeEvent ◄─────────────────┘
//! ```
//! The worker with the smaller number dials, the other one listens: so there is one connection per pair.

mod net_loop;
#[cfg(test)]
pub(crate) mod tests;

use std::{io, net::SocketAddr, sync::Arc, thread::JoinHandle, time::Duration};

use crossbeam_channel::{Sender, bounded, unbounded};
use millstream_model::{
    fault::Failure,
    id::{Generation, WorkerId},
    message::ShuffleMetrics,
};

use self::net_loop::NetLoop;
use crate::{
    link::{Local, PeerChannels},
    transport::Listener,
    wake::Waker,
    wire::message::CoordinatorEvent,
};

/// Makes the listener, on the thread that will drive it.
pub type Listen = Box<dyn FnOnce() -> io::Result<Box<dyn Listener>> + Send>;

/// How a worker's exchange behaves.
#[derive(Clone, Debug)]
pub struct ExchangeConfig {
    pub local: Local,
    /// How long a peer may take to be connected.
    pub connect_timeout: Duration,
}

/// What the exchange tells its worker. Called on the net loop's thread: it must not wait.
#[derive(Clone, PartialEq, Debug)]
pub enum ExchangeEvent {
    /// Nothing more will come from a peer or get to it; deployments with channels to it cannot go on.
    Lost {
        peer: WorkerId,
        generations: Vec<Generation>,
        failure: Failure,
    },
    /// A peer does not serve a channel of this deployment.
    Refused {
        peer: WorkerId,
        generation: Generation,
        failure: Failure,
    },
    Coordinator {
        event: CoordinatorEvent,
    },
}

/// The handle of a worker's exchange. Connections end when it is dropped.
pub struct Exchange {
    mails: Sender<Mail>,
    waker: Arc<Waker>,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

enum Mail {
    Attach {
        peer: WorkerId,
        address: SocketAddr,
        channels: Box<PeerChannels>,
    },
    Detach(Generation),
    Send {
        peer: WorkerId,
        event: CoordinatorEvent,
    },
    /// Tell the numbers of peers.
    Show(Sender<Vec<(WorkerId, ShuffleMetrics)>>),
    Stop,
}

impl Exchange {
    /// Starts the net loop.
    ///
    /// # Errors
    /// If its sockets or its thread cannot be had.
    pub fn start(
        config: ExchangeConfig,
        listen: Listen,
        on_event: impl Fn(ExchangeEvent) + Send + 'static,
    ) -> io::Result<Exchange> {
        let (mails, receiver) = unbounded();
        let waker = Arc::new(Waker::default());
        let (started, has_started) = bounded(1);
        let woken = waker.clone();
        let run = move || match NetLoop::new(config, listen, receiver, woken, on_event) {
            Ok(net_loop) => {
                let _ = started.send(Ok(net_loop.address()));
                net_loop.run();
            }
            Err(error) => drop(started.send(Err(error))),
        };
        let thread = std::thread::Builder::new().name("net".to_owned()).spawn(run)?;
        let address = has_started.recv().map_err(|_| io::Error::other("the net thread has panicked"))??;
        Ok(Exchange { mails, waker, address, thread: Some(thread) })
    }

    /// Where other workers connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How the connections to peers are doing. Waits for the net loop, which never waits itself.
    pub fn metrics(&self) -> Vec<(WorkerId, ShuffleMetrics)> {
        let (told, numbers) = bounded(1);
        self.mail(Mail::Show(told));
        // A loop that has panicked knows of no peers.
        numbers.recv().unwrap_or_default()
    }

    /// Wakes the net loop; what signals of outlets and grants are made with.
    pub fn waker(&self) -> Arc<Waker> {
        self.waker.clone()
    }

    /// Adds the channels between this worker and a peer, which is connected to if it is not yet.
    pub fn attach(&self, peer: WorkerId, address: SocketAddr, channels: PeerChannels) {
        self.mail(Mail::Attach { peer, address, channels: Box::new(channels) });
    }

    /// Forgets the channels of deployments up to this one.
    pub fn detach(&self, generation: Generation) {
        self.mail(Mail::Detach(generation));
    }

    /// The way to the coordinators and subtasks of a peer.
    pub fn line(&self, peer: WorkerId) -> PeerLine {
        PeerLine { mails: self.mails.clone(), waker: self.waker.clone(), peer }
    }

    fn mail(&self, mail: Mail) {
        // The loop ends with this handle only.
        let _ = self.mails.send(mail);
        self.waker.wake();
    }
}

/// A way to the coordinators and subtasks of a peer, to be used from any thread.
#[derive(Clone)]
pub struct PeerLine {
    mails: Sender<Mail>,
    waker: Arc<Waker>,
    peer: WorkerId,
}

impl PeerLine {
    pub fn peer(&self) -> WorkerId {
        self.peer
    }

    /// Sends an event. Events arrive in order; nothing happens if no deployment has channels to the peer.
    pub fn send(&self, event: CoordinatorEvent) {
        // The loop may have ended with its worker.
        let _ = self.mails.send(Mail::Send { peer: self.peer, event });
        self.waker.wake();
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.mail(Mail::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
