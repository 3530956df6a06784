//! TLS at the ports of a JobManager: at that of clients with certificates that the user has, at that of TaskManagers with
//! those of the cluster's own authority.
//!
//! Who shows no certificate is let in as nobody: what nobody may ask is for the guard to say.

use std::{fs, path::Path, sync::Arc};

use millstream_client::{access::check_private, tls::roots_in};
use millstream_model::{
    config::{Configuration, SSL_REST_AUTHENTICATION, SSL_REST_ENABLED, SSL_REST_KEYSTORE, SSL_REST_TRUSTSTORE},
    fault::Failure,
};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio_rustls::TlsAcceptor;

use super::{authority::Identity, peer::Trust};

/// How a port speaks TLS, and whose certificates it takes.
#[derive(Clone)]
pub(crate) struct Tls {
    pub(crate) acceptor: TlsAcceptor,
    pub(crate) trust: Option<Trust>,
}

/// What the port of clients speaks TLS with, if the configuration asks for it.
///
/// # Errors
/// If certificates or the key cannot be had, do not belong together, or others may read the key.
pub(crate) fn of_clients(configuration: &Configuration) -> Result<Option<Tls>, Failure> {
    let is_authenticated = configuration.get(&SSL_REST_AUTHENTICATION)?;
    if !configuration.get(&SSL_REST_ENABLED)? {
        if is_authenticated {
            return Err(Failure::fatal(format!(
                "{} is true, and certificates can only be shown over TLS: {} has to be true as well",
                SSL_REST_AUTHENTICATION.name(),
                SSL_REST_ENABLED.name()
            )));
        }
        return Ok(None);
    }
    let key = SSL_REST_KEYSTORE.name();
    let path = configuration.get(&SSL_REST_KEYSTORE)?.ok_or_else(|| {
        Failure::fatal(format!(
            "{} is true, and no certificate is there: {key} has to name a PEM file with the JobManager's certificate \
             chain and its key",
            SSL_REST_ENABLED.name()
        ))
    })?;
    let path = Path::new(&path);
    let unusable =
        |cause: &dyn std::fmt::Display| Failure::fatal(format!("{key}: {} cannot be used: {cause}", path.display()));
    check_private(key, path)?;
    let text = fs::read(path).map_err(|cause| unusable(&cause))?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let chain = chain.map_err(|cause| unusable(&cause))?;
    let private = PrivateKeyDer::from_pem_slice(&text).map_err(|cause| unusable(&format!("its key: {cause}")))?;
    let trust = is_authenticated.then(|| trust_in_clients(configuration)).transpose()?;
    let acceptor = acceptor(chain, private, trust.as_ref()).map_err(|cause| unusable(&cause))?;
    Ok(Some(Tls { acceptor, trust }))
}

fn trust_in_clients(configuration: &Configuration) -> Result<Trust, Failure> {
    let key = SSL_REST_TRUSTSTORE.name();
    let path = configuration.get(&SSL_REST_TRUSTSTORE)?.ok_or_else(|| {
        Failure::fatal(format!(
            "{} is true, and nothing says whose certificates are believed: {key} has to name a PEM file with those of \
             their authorities",
            SSL_REST_AUTHENTICATION.name()
        ))
    })?;
    Ok(Trust::in_clients(Arc::new(roots_in(key, Path::new(&path))?)))
}

/// What the port of TaskManagers speaks TLS with: the JobManager's `identity`, and trust in whom its authority signs for.
///
/// # Errors
/// If one of them cannot be used.
pub(crate) fn of_task_managers(identity: Identity, authority: &CertificateDer<'static>) -> Result<Tls, String> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).map_err(|cause| cause.to_string())?;
    let trust = Trust::in_cluster(Arc::new(roots));
    let acceptor = acceptor(vec![identity.certificate], identity.key, Some(&trust))?;
    Ok(Tls { acceptor, trust: Some(trust) })
}

fn acceptor(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    trust: Option<&Trust>,
) -> Result<TlsAcceptor, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[&rustls::version::TLS13]);
    let builder = builder.map_err(|cause| cause.to_string())?;
    let builder = match trust {
        None => builder.with_no_client_auth(),
        Some(trust) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(trust.roots().clone(), provider);
            let verifier = verifier.allow_unauthenticated().build().map_err(|cause| cause.to_string())?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|cause| cause.to_string())?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    if trust.is_some() {
        // Each connection proves anew who it is of.
        config.send_tls13_tickets = 0;
    }
    Ok(TlsAcceptor::from(Arc::new(config)))
}
