//! The exchange between this worker and all others: the sockets, and a link per peer. The threads of slots drive it while
//! they have nothing else to do, and a thread of its own whenever they do not (see [`lease`]).
//!
//! ```text
//!  worker ──attach/detach──► Exchange ──mail──► net loop ──► Listener, Transport per peer ═══ peers
//!    ▲                                             │ Link per peer
//!    └──────────── ExchangeEvent ◄─────────────────┘
//! ```
//! The worker with the smaller number dials, the other one listens: so there is one connection per pair.

mod drive;
mod lease;
mod net_loop;
#[cfg(test)]
pub(crate) mod tests;

use std::{io, net::SocketAddr, sync::Arc, thread::JoinHandle, time::Duration};

use crossbeam_channel::{Sender, unbounded};
use millstream_model::{
    config::NetworkIo,
    fault::Failure,
    id::{Generation, WorkerId},
    message::ShuffleMetrics,
};

pub use self::drive::SlotDrive;
use self::{drive::Drive, net_loop::NetLoop};
use crate::{
    link::{Local, PeerChannels},
    transport::Listener,
    wake::Waker,
    wire::message::CoordinatorEvent,
};

/// Makes the listener.
pub type Listen = Box<dyn FnOnce() -> io::Result<Box<dyn Listener>> + Send>;

/// How a worker's exchange behaves.
#[derive(Clone, Debug)]
pub struct ExchangeConfig {
    pub local: Local,
    /// How long a peer may take to be connected.
    pub connect_timeout: Duration,
    /// What its sockets are read and written with.
    pub io: NetworkIo,
}

/// What the exchange tells its worker.
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

/// Called on whichever thread drives the network: it must not wait.
type OnEvent = Box<dyn Fn(ExchangeEvent) + Send>;

/// The handle of a worker's exchange. Connections end when it is dropped.
pub struct Exchange {
    mails: Sender<Mail>,
    drive: Arc<Drive>,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

enum Mail {
    Attach { peer: WorkerId, address: SocketAddr, channels: Box<PeerChannels> },
    Detach(Generation),
    Send { peer: WorkerId, event: CoordinatorEvent },
    Stop,
}

impl Exchange {
    /// Starts the net thread. `on_event` is called on whichever thread drives the network: it must not wait.
    ///
    /// # Errors
    /// If its sockets or its thread cannot be had.
    pub fn start(
        config: ExchangeConfig,
        listen: Listen,
        on_event: impl Fn(ExchangeEvent) + Send + 'static,
    ) -> io::Result<Exchange> {
        let (mails, receiver) = unbounded();
        let doorbell = Arc::new(Waker::default());
        let net_loop = NetLoop::new(config, listen, receiver, doorbell.clone(), Box::new(on_event))?;
        let address = net_loop.address();
        let drive = Arc::new(Drive::new(net_loop, doorbell)?);
        let driven = drive.clone();
        let thread = std::thread::Builder::new().name("net".to_owned()).spawn(move || driven.run_net_thread())?;
        Ok(Exchange { mails, drive, address, thread: Some(thread) })
    }

    /// Where other workers connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How the connections to peers are doing. Waits for a round that is under way.
    pub fn metrics(&self) -> Vec<(WorkerId, ShuffleMetrics)> {
        self.drive.metrics()
    }

    /// Makes the net loop go round; what signals of outlets and grants are made with.
    pub fn waker(&self) -> Arc<Waker> {
        self.drive.doorbell().clone()
    }

    /// What the thread of a slot drives the network with.
    pub fn slot_drive(&self) -> SlotDrive {
        SlotDrive::new(self.drive.clone())
    }

    /// Adds the channels between this worker and a peer, which is connected to if it is not yet.
    pub fn attach(&self, peer: WorkerId, address: SocketAddr, channels: PeerChannels) {
        self.mail(Mail::Attach { peer, address, channels: Box::new(channels) });
    }

    /// Forgets the channels of this deployment.
    pub fn detach(&self, generation: Generation) {
        self.mail(Mail::Detach(generation));
    }

    /// The way to the coordinators and subtasks of a peer.
    pub fn line(&self, peer: WorkerId) -> PeerLine {
        PeerLine { mails: self.mails.clone(), waker: self.waker(), peer }
    }

    fn mail(&self, mail: Mail) {
        // The loop ends with this handle only.
        let _ = self.mails.send(mail);
        self.drive.doorbell().wake();
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
        self.drive.end();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
