//! Everything that a JobMaster reacts to.

use crossbeam_channel::{Receiver, never, select};
use millstream_model::message::FromWorker;

use super::{WorkerLink, handle::Request};
use crate::clock::{Clock, Moment};

pub(super) enum Event {
    Report(FromWorker),
    Joined(Box<dyn WorkerLink>),
    /// Nobody can join any more.
    NoMoreWorkers,
    /// No worker is left that could report anything.
    WorkersGone,
    Request(Request),
    /// The time that was asked for has come.
    Timer,
}

/// Where events come from.
#[derive(Debug)]
pub(super) struct Events {
    pub(super) reports: Receiver<FromWorker>,
    pub(super) joining: Receiver<Box<dyn WorkerLink>>,
    pub(super) requests: Receiver<Request>,
    pub(super) clock: Clock,
}

impl Events {
    /// Waits for the next event, at most until the deadline.
    pub(super) fn next(&mut self, deadline: Option<Moment>) -> Event {
        let now = self.clock.now();
        // Without a deadline nothing happens by itself; waking up in vain once in a while is harmless.
        let wait = deadline.map_or(std::time::Duration::from_secs(3600), |deadline| deadline.since(now));
        loop {
            select! {
                recv(self.reports) -> report => match report {
                    Ok(report) => return Event::Report(report),
                    Err(_) => {
                        self.reports = never();
                        return Event::WorkersGone;
                    }
                },
                recv(self.joining) -> link => match link {
                    Ok(link) => return Event::Joined(link),
                    Err(_) => {
                        self.joining = never();
                        return Event::NoMoreWorkers;
                    }
                },
                recv(self.requests) -> request => match request {
                    Ok(request) => return Event::Request(request),
                    // All handles are gone; the job goes on.
                    Err(_) => self.requests = never(),
                },
                default(wait) => return Event::Timer,
            }
        }
    }
}
