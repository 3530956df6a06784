//! The way to the JobManager: in clear, or over TLS with a certificate that was got with the join token.
//!
//! ```text
//!   join token (a file) ──Join, which needs no certificate──► certificate ──► each connection, until half of its time is over
//! ```
//! A certificate is looked at when a connection is made, so that is when it is got, or another one: nothing waits for its
//! end.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use millstream_client::{
    access::AccessError,
    cause::{cause_of, root_cause},
    proto::v1::{self, task_managers_client::TaskManagersClient},
    tls::{self, Refusal},
};
use millstream_model::{
    config::{Configuration, JOBMANAGER_ADDRESS, JOBMANAGER_PORT, SECURITY_JOIN_TOKEN_FILE},
    fault::Failure,
};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName},
};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use crate::security::{authority::JOBMANAGER, join_token::JoinToken};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Makes connections to one JobManager.
pub(super) struct Link {
    /// `host:port`, for people.
    pub(super) address: String,
    host: String,
    port: u16,
    endpoint: Endpoint,
    /// `None` is in clear.
    joining: Option<Joining>,
}

struct Joining {
    /// Of the join token.
    path: PathBuf,
    /// Since it was last got.
    membership: Mutex<Option<Membership>>,
}

/// A certificate that a JobManager has given.
struct Membership {
    /// What it was got with.
    token: JoinToken,
    config: Arc<ClientConfig>,
    renew_at: Instant,
}

/// Why there is no connection.
pub(super) enum NoLink {
    /// There may be one later.
    Yet(String),
    /// Nobody has to try again.
    Refused(Failure),
}

impl Link {
    /// # Errors
    /// If the address is none, or the join token cannot be used. That it is not there yet is no error: the JobManager makes
    /// it.
    pub(super) fn of(configuration: &Configuration) -> Result<Link, Failure> {
        let host = configuration.get(&JOBMANAGER_ADDRESS)?.unwrap_or_else(|| "localhost".to_owned());
        let port = configuration.get(&JOBMANAGER_PORT)?;
        let address = format!("{host}:{port}");
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|cause| {
            Failure::fatal(format!("{address} ({}) is no address: {cause}", JOBMANAGER_ADDRESS.name()))
        })?;
        let path = configuration.get(&SECURITY_JOIN_TOKEN_FILE)?.map(PathBuf::from);
        if let Some(path) = &path
            && let Err(NoLink::Refused(failure)) = read_token(path)
        {
            return Err(failure);
        }
        let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true);
        let joining = path.map(|path| Joining { path, membership: Mutex::new(None) });
        Ok(Link { address, host, port, endpoint, joining })
    }

    /// A new connection.
    ///
    /// # Errors
    /// If the JobManager cannot be reached, or is not the one of the join token, or does not let this TaskManager join.
    pub(super) async fn connect(&self) -> Result<Channel, NoLink> {
        let Some(joining) = &self.joining else {
            return self.endpoint.connect().await.map_err(|error| NoLink::Yet(root_cause(&error)));
        };
        // Each time, since a JobManager that was started anew may have made another one.
        let token = read_token(&joining.path)?;
        let mut membership = joining.membership.lock().await;
        if let Some(known) = &*membership
            && known.token == token
            && Instant::now() < known.renew_at
        {
            return self.connect_as(&joining.path, known.config.clone()).await;
        }
        let new = self.join(&joining.path, token).await?;
        let config = new.config.clone();
        *membership = Some(new);
        drop(membership);
        self.connect_as(&joining.path, config).await
    }

    async fn connect_as(&self, path: &Path, config: Arc<ClientConfig>) -> Result<Channel, NoLink> {
        let name = ServerName::try_from(JOBMANAGER).expect("it is a name of DNS");
        let connected =
            tls::connect(&self.endpoint, (&self.host, self.port), Some(name), config, &Refusal::default()).await;
        connected.map_err(|error| {
            let cause = root_cause(&error);
            if !tls::is_disbelief(&error) {
                return NoLink::Yet(cause);
            }
            let (key, path) = (SECURITY_JOIN_TOKEN_FILE.name(), path.display());
            NoLink::Yet(format!("{cause}: it is not the JobManager that has made {path} ({key})"))
        })
    }

    /// Gets a certificate. The key is made here and stays here.
    async fn join(&self, path: &Path, token: JoinToken) -> Result<Membership, NoLink> {
        let unusable = |cause: &dyn std::fmt::Display| {
            NoLink::Refused(Failure::fatal(format!(
                "{}: no certificate can be had with {}: {cause}",
                SECURITY_JOIN_TOKEN_FILE.name(),
                path.display()
            )))
        };
        let trusted = || {
            let mut roots = RootCertStore::empty();
            roots.add(token.authority.clone()).map(|()| roots)
        };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|cause| unusable(&cause))?;
        let as_nobody = trusted().and_then(|roots| tls::client(roots, None)).map_err(|cause| unusable(&cause))?;
        let channel = self.connect_as(path, as_nobody).await?;
        let asked_at = Instant::now();
        let request = v1::JoinRequest { token: token.secret.clone(), public_key: key.public_key_raw().to_vec() };
        let answer = timeout(CONNECT_TIMEOUT, TaskManagersClient::new(channel).join(request)).await;
        let answer = answer.map_err(|_| NoLink::Yet("it does not answer".to_owned()))?;
        let response = answer.map_err(|status| match is_final(&status) {
            true => unusable(&status.message()),
            false => NoLink::Yet(cause_of(&status)),
        })?;
        let v1::JoinResponse { certificate, lifetime_millis } = response.into_inner();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let shown = (vec![CertificateDer::from(certificate)], key);
        let config = trusted().and_then(|roots| tls::client(roots, Some(shown))).map_err(|cause| unusable(&cause))?;
        let lifetime = Duration::from_millis(lifetime_millis);
        tracing::info!(jobmanager = self.address, ?lifetime, "has joined the cluster, and has a certificate");
        Ok(Membership { token, config, renew_at: asked_at + lifetime / 2 })
    }
}

/// Whether the answer of a JobManager will be the same the next time.
pub(super) fn is_final(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::Unimplemented
            | Code::Unauthenticated
            | Code::PermissionDenied
    )
}

fn read_token(path: &Path) -> Result<JoinToken, NoLink> {
    JoinToken::read(path).map_err(|error| match &error {
        AccessError::Unreadable { source, .. } if source.kind() == ErrorKind::NotFound => NoLink::Yet(format!(
            "{}; the JobManager makes it, and other machines need a copy",
            Failure::from(error).message
        )),
        _ => NoLink::Refused(error.into()),
    })
}
