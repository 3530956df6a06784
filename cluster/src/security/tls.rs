//! TLS at the port of clients, with a certificate that the user has.

use std::{fs, path::Path, sync::Arc};

use millstream_client::access::check_private;
use millstream_model::{
    config::{Configuration, SSL_REST_ENABLED, SSL_REST_KEYSTORE},
    fault::Failure,
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio_rustls::TlsAcceptor;

/// What the port of clients speaks TLS with, if the configuration asks for it.
///
/// # Errors
/// If the certificate or its key cannot be had, do not belong together, or others may read the key.
pub(crate) fn of_clients(configuration: &Configuration) -> Result<Option<TlsAcceptor>, Failure> {
    if !configuration.get(&SSL_REST_ENABLED)? {
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
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
    let builder = builder.map_err(|cause| unusable(&cause))?.with_no_client_auth();
    let mut config = builder.with_single_cert(chain, private).map_err(|cause| unusable(&cause))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}
