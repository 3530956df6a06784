//! A worker process on a host of its own, and the way of the JobMaster to it.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use crossbeam_channel::{Sender, unbounded};
use millstream::{
    model::message::{FromWorker, Report},
    worker_process::WorkerSetup,
};
use millstream_controlplane::{ProcessLink, WorkerLink};
use millstream_providers::process::{Output, WorkerProcess};

use crate::{
    hosts::Hosts,
    weather::{Relay, Weather},
};

/// A worker that listens. It is killed when this is dropped.
pub struct HostedWorker {
    pub process: Arc<WorkerProcess>,
    /// What its peers reach it by, if there is weather.
    pub relay: Option<Relay>,
    slots: u32,
    address: SocketAddr,
}

impl HostedWorker {
    /// Starts a worker on a host, where it binds whatever its setup says, and waits until it listens.
    ///
    /// # Panics
    /// If it does not within a minute. What it prints says why.
    pub fn start(
        (hosts, host): (&Hosts, u8),
        artifact: &Path,
        mut setup: WorkerSetup,
        weather: Option<Weather>,
        reports: Sender<FromWorker>,
    ) -> HostedWorker {
        let (worker, slots) = (setup.worker, setup.slots);
        setup.network.as_mut().expect("hosts are connected").bind = SocketAddr::new(hosts.address(host), 0);
        let setup = setup.to_line();
        let (registered, registration) = unbounded();
        let pass_on = move |message: FromWorker| {
            if let Report::Registered { shuffle_address, .. } = &message.report {
                let _ = registered.send(*shuffle_address);
            }
            // The job may have ended.
            let _ = reports.send(message);
        };
        let process = hosts.on(host, || WorkerProcess::start(artifact, worker, &setup, Output::Inherited, pass_on));
        let process = Arc::new(process.expect("the artifact can be started"));
        let address = registration.recv_timeout(Duration::from_secs(60));
        let address = address.unwrap_or_else(|_| panic!("worker {} does not start", worker.0));
        let address = address.expect("a worker with a network listens");
        let relay = weather.map(|weather| Relay::to(address, hosts, weather, u64::from(worker.0)));
        HostedWorker { process, address: relay.as_ref().map_or(address, |relay| relay.address), relay, slots }
    }

    pub fn link(&self) -> Box<dyn WorkerLink> {
        Box::new(ProcessLink::new(&self.process, self.slots, Some(self.address)))
    }
}
