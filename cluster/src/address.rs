//! Where ports are opened. Whoever reaches one can have code run here, so that is this machine only, unless the user insists.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use millstream_model::{
    config::{Configuration, PortRange, SECURITY_INSECURE},
    fault::Failure,
};
use tokio::net::TcpListener;

/// What keeps others out at a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Protection {
    /// TLS, and everybody has to show who they are.
    TlsAndProof,
    /// Not both of them. How the user gets them, as the end of a sentence.
    Missing(&'static str),
}

impl Protection {
    /// That of a port for clients, with both or not.
    pub(crate) fn of_clients(has_both: bool) -> Protection {
        if has_both {
            return Protection::TlsAndProof;
        }
        Protection::Missing(
            "set security.ssl.rest.enabled and security.ssl.rest.keystore, and either security.token-file or \
             security.ssl.rest.authentication-enabled and security.ssl.rest.truststore",
        )
    }
}

/// Opens a port at `host`, which `keys` name.
///
/// # Errors
/// If others could reach it and nobody has said that they may, or it cannot be had.
pub(crate) async fn listen(
    host: &str,
    port: u16,
    keys: &str,
    protection: Protection,
    configuration: &Configuration,
) -> Result<TcpListener, Failure> {
    let address = resolve(host, port, keys)?;
    if let Protection::Missing(remedy) = protection
        && !address.ip().is_loopback()
    {
        if !configuration.get(&SECURITY_INSECURE)? {
            return Err(Failure::fatal(format!(
                "{address} ({keys}) can be reached from other machines, and whoever reaches it can run any code here: \
                 it needs TLS and authentication, and has not both: {remedy}. Or use a loopback address, or set {} to \
                 true if the network keeps others out",
                SECURITY_INSECURE.name()
            )));
        }
        tracing::warn!(%address, "whoever reaches this port can run any code here: security.insecure is set");
    }
    TcpListener::bind(address).await.map_err(|cause| {
        let hint = if cause.kind() == std::io::ErrorKind::AddrInUse {
            "; another process has it: is a cluster running already (bin/stop-cluster.sh)?"
        } else {
            ""
        };
        Failure::fatal(format!("cannot open port {address} ({keys}): {cause}{hint}"))
    })
}

/// Opens the first of `ports` that nobody has. Otherwise as [`listen`].
pub(crate) async fn listen_at_first_free(
    host: &str,
    ports: &PortRange,
    keys: &str,
    protection: Protection,
    configuration: &Configuration,
) -> Result<TcpListener, Failure> {
    let mut last = Failure::fatal(format!("no port is configured ({keys})"));
    for port in ports.ports() {
        match listen(host, port, keys, protection, configuration).await {
            Ok(listener) => return Ok(listener),
            Err(failure) => last = failure,
        }
    }
    if ports.ports().count() > 1 {
        last.message.push_str("; none of the ports before it could be had either");
    }
    Err(last)
}

fn resolve(host: &str, port: u16, keys: &str) -> Result<SocketAddr, Failure> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, port));
    }
    let found = (host, port).to_socket_addrs();
    let mut found = found.map_err(|cause| Failure::fatal(format!("cannot find '{host}' ({keys}): {cause}")))?;
    // `localhost` may have two; everybody can reach the older one.
    let all: Vec<SocketAddr> = found.by_ref().collect();
    let best = all.iter().find(|address| address.is_ipv4()).or(all.first());
    best.copied().ok_or_else(|| Failure::fatal(format!("'{host}' ({keys}) has no address")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Protection = Protection::Missing("set this.key");

    #[tokio::test]
    async fn other_machines_are_kept_out_unless_the_user_insists() {
        let mut configuration = Configuration::new();
        let refused = listen("0.0.0.0", 0, "rest.address", OPEN, &configuration).await.unwrap_err();
        assert!(refused.message.contains("rest.address") && refused.message.contains("security.insecure"), "{refused}");
        assert!(refused.message.contains("set this.key"), "{refused}");
        listen("0.0.0.0", 0, "rest.address", Protection::TlsAndProof, &configuration).await.unwrap();
        configuration.set(&SECURITY_INSECURE, true);
        listen("0.0.0.0", 0, "rest.address", OPEN, &configuration).await.unwrap();
        listen("localhost", 0, "rest.address", OPEN, &Configuration::new()).await.unwrap();
    }

    #[tokio::test]
    async fn a_port_in_use_is_an_error_with_a_hint() {
        let first = listen("127.0.0.1", 0, "rest.port", OPEN, &Configuration::new()).await.unwrap();
        let port = first.local_addr().unwrap().port();
        let second = listen("127.0.0.1", port, "rest.port", OPEN, &Configuration::new()).await.unwrap_err();
        assert!(second.message.contains("another process has it"), "{second}");
    }
}
