//! The way of a JobMaster to a worker that is a process started from here.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Weak},
};

use millstream_model::{
    id::WorkerId,
    message::{Command, ToWorker},
};
use millstream_providers::process::WorkerProcess;

use crate::WorkerLink;

/// A link that borrows: the process ends when its owner drops it, whoever has a link.
pub struct ProcessLink {
    process: Weak<WorkerProcess>,
    worker: WorkerId,
    slots: u32,
    shuffle_address: Option<SocketAddr>,
    before_shutdown: Option<Box<dyn Fn() + Send>>,
}

impl ProcessLink {
    /// To a worker with so many slots, which listens there, if its jobs leave it.
    pub fn new(process: &Arc<WorkerProcess>, slots: u32, shuffle_address: Option<SocketAddr>) -> ProcessLink {
        let (worker, process) = (process.worker(), Arc::downgrade(process));
        ProcessLink { process, worker, slots, shuffle_address, before_shutdown: None }
    }

    /// Has `notice` called before the worker is told to end, by the thread that tells it: for owners that replace
    /// processes which end by themselves.
    pub fn before_shutdown(mut self, notice: impl Fn() + Send + 'static) -> ProcessLink {
        self.before_shutdown = Some(Box::new(notice));
        self
    }
}

impl WorkerLink for ProcessLink {
    fn send(&self, message: ToWorker) {
        if let (Command::Shutdown, Some(notice)) = (&message.command, &self.before_shutdown) {
            notice();
        }
        // A process that is gone has said so.
        if let Some(process) = self.process.upgrade() {
            process.send(&message);
        }
    }

    fn worker(&self) -> WorkerId {
        self.worker
    }

    fn slots(&self) -> u32 {
        self.slots
    }

    fn shuffle_address(&self) -> Option<SocketAddr> {
        self.shuffle_address
    }
}

impl fmt::Debug for ProcessLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ProcessLink").field(&self.worker).finish()
    }
}
