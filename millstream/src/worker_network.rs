//! How the workers of one job find and trust each other: what a cluster tells each worker process about the network.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, SystemTime},
};

pub use millstream_dataplane::ClusterCa;
use millstream_dataplane::{Carrier, IdentityError, NetworkSetup};
use millstream_model::{
    config::{
        Configuration, NETWORK_IO, NetworkIo, SECURITY_INSECURE, SHUFFLE_BIND_HOST, SHUFFLE_CONNECT_TIMEOUT,
        SHUFFLE_IDLE_TIMEOUT, SHUFFLE_LANES, SHUFFLE_PORT, SHUFFLE_SOCKET_BUFFER, SHUFFLE_TLS,
    },
    fault::Failure,
    id::{JobId, WorkerId},
    job_graph::JobGraph,
};

/// How the workers of a job speak with each other: with identities of an authority that only those have who start workers
/// of the job.
#[derive(Debug)]
pub struct JobNetwork {
    authority: ClusterCa,
    job: JobId,
    transport: Carrier,
    bind: SocketAddr,
    lanes: u8,
    socket_buffer: usize,
    connect_timeout: Duration,
    idle_timeout: Duration,
    io: NetworkIo,
}

impl JobNetwork {
    /// How long certificates are good for. A process shows its own when it is connected; jobs run longer than a day, so
    /// that late replacements find peers whose certificates are old.
    const VALIDITY: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

    /// The authority of a new job. Workers trust each other only if one and the same has signed for them.
    ///
    /// # Errors
    /// If no keys can be made.
    pub fn new_authority(job: JobId) -> Result<ClusterCa, Failure> {
        ClusterCa::generate(job.0, wall_clock(), JobNetwork::VALIDITY).map_err(no_identity)
    }

    /// # Errors
    /// If the configuration has a bad value.
    pub fn new(graph: &JobGraph, authority: ClusterCa) -> Result<JobNetwork, Failure> {
        let configuration = &graph.configuration;
        Ok(JobNetwork {
            authority,
            job: graph.job_id,
            transport: Carrier::configured(configuration)?,
            bind: bind_address(configuration)?,
            lanes: configuration.get(&SHUFFLE_LANES)? as u8,
            socket_buffer: configuration.get(&SHUFFLE_SOCKET_BUFFER)?.bytes() as usize,
            connect_timeout: configuration.get(&SHUFFLE_CONNECT_TIMEOUT)?,
            idle_timeout: configuration.get(&SHUFFLE_IDLE_TIMEOUT)?,
            io: configuration.get(&NETWORK_IO)?,
        })
    }

    /// What a worker of the job is told about the network.
    ///
    /// # Errors
    /// If no keys can be made.
    pub fn setup(&self, worker: WorkerId) -> Result<NetworkSetup, Failure> {
        let JobNetwork { authority, job, transport, bind, lanes, socket_buffer, connect_timeout, idle_timeout, io } =
            self;
        let identity = authority.issue(worker, wall_clock(), JobNetwork::VALIDITY).map_err(no_identity)?;
        Ok(NetworkSetup {
            identity,
            job: *job,
            transport: *transport,
            bind: *bind,
            lanes: *lanes,
            socket_buffer: *socket_buffer,
            connect_timeout: *connect_timeout,
            idle_timeout: *idle_timeout,
            io: *io,
        })
    }
}

fn no_identity(cause: IdentityError) -> Failure {
    Failure::new(format!("no identity for a worker could be made: {cause}"))
}

/// Where a worker takes connections of others.
///
/// # Errors
/// If the configuration has a bad value.
pub fn bind_address(configuration: &Configuration) -> Result<SocketAddr, Failure> {
    let host = configuration.get(&SHUFFLE_BIND_HOST)?;
    let host: IpAddr = match host.as_str() {
        "localhost" => Ipv4Addr::LOCALHOST.into(),
        other => other.parse().map_err(|_| {
            Failure::fatal(format!("{} is '{other}', which is no IP address", SHUFFLE_BIND_HOST.name()))
        })?,
    };
    Ok(SocketAddr::new(host, configuration.get(&SHUFFLE_PORT)? as u16))
}

/// Whether workers may open their ports where this configuration says, as it says.
///
/// # Errors
/// If others could reach them without TLS and nobody has said that they may, or the configuration has a bad value.
pub fn check_configured_exposure(configuration: &Configuration) -> Result<(), Failure> {
    let transport = if configuration.get(&SHUFFLE_TLS)? { Carrier::Tcp } else { Carrier::PlainTcp };
    check_exposure(bind_address(configuration)?, transport, configuration)
}

/// Whether a worker may open its port at `bind`, by what the configuration of its machine says. Without TLS whoever
/// reaches it can read and write records.
///
/// # Errors
/// If others could reach it without TLS and nobody has said that they may, or the configuration has a bad value.
pub fn check_exposure(bind: SocketAddr, transport: Carrier, configuration: &Configuration) -> Result<(), Failure> {
    if transport != Carrier::PlainTcp || bind.ip().is_loopback() {
        return Ok(());
    }
    if !configuration.get(&SECURITY_INSECURE)? {
        return Err(Failure::fatal(format!(
            "{} ({}) can be reached from other machines, and whoever reaches a worker there can read and write its \
             records, since {} is false. Leave that on, use a loopback address, or set {} to true if the network keeps \
             others out",
            bind.ip(),
            SHUFFLE_BIND_HOST.name(),
            SHUFFLE_TLS.name(),
            SECURITY_INSECURE.name()
        )));
    }
    tracing::warn!(address = %bind.ip(), "whoever reaches a worker's port can read and write its records: \
         security.insecure is set, and security.ssl.internal.enabled is false");
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "certificates are good from now on")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_without_tls_is_kept_on_this_machine_unless_the_user_insists() {
        let mut configuration = Configuration::new();
        let [here, everywhere] = ["127.0.0.1:0", "0.0.0.0:0"].map(|text| text.parse::<SocketAddr>().unwrap());
        for encrypted in [Carrier::Quic, Carrier::Tcp, Carrier::Auto] {
            check_exposure(everywhere, encrypted, &configuration).unwrap();
        }
        check_exposure(here, Carrier::PlainTcp, &configuration).unwrap();
        let refused = check_exposure(everywhere, Carrier::PlainTcp, &configuration).unwrap_err().message;
        for key in ["taskmanager.bind-host", "security.ssl.internal.enabled", "security.insecure"] {
            assert!(refused.contains(key), "{refused}");
        }
        configuration.set(&SECURITY_INSECURE, true);
        check_exposure(everywhere, Carrier::PlainTcp, &configuration).unwrap();
    }
}
