//! TLS to a JobManager: whose certificates a client believes, and how a connection is made.

use std::{io, path::Path, sync::Arc};

use hyper_util::rt::TokioIo;
use millstream_model::config::{Configuration, SSL_REST_ENABLED, SSL_REST_TRUSTSTORE};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use crate::access::AccessError;

/// How a client over TLS is made, if the configuration asks for it (`security.ssl.rest.enabled`).
///
/// # Errors
/// If the certificates that it is to believe cannot be had.
pub(crate) fn configured(configuration: &Configuration) -> Result<Option<Arc<ClientConfig>>, AccessError> {
    if !configuration.get(&SSL_REST_ENABLED)? {
        return Ok(None);
    }
    let key = SSL_REST_TRUSTSTORE.name();
    let path = configuration.get(&SSL_REST_TRUSTSTORE)?.ok_or(AccessError::NoTrust { key })?;
    let path = Path::new(&path);
    let unusable =
        |cause: &dyn std::fmt::Display| AccessError::Unusable { key, path: path.to_owned(), cause: cause.to_string() };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|cause| unusable(&cause))? {
        roots.add(certificate.map_err(|cause| unusable(&cause))?).map_err(|cause| unusable(&cause))?;
    }
    if roots.is_empty() {
        return Err(unusable(&"it has no certificate in PEM"));
    }
    // Named, since a program may have other providers in it.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
    let mut config = builder.map_err(|cause| unusable(&cause))?.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Some(Arc::new(config)))
}

/// Connects to a host, which has to prove that it has this name or address.
///
/// # Errors
/// If nobody answers there, or does not prove it.
pub(crate) async fn connect(
    endpoint: &Endpoint,
    host: &str,
    port: u16,
    config: Arc<ClientConfig>,
) -> Result<Channel, tonic::transport::Error> {
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let connect = move |_| {
        let (host, connector) = (host.clone(), TlsConnector::from(config.clone()));
        async move {
            let name = ServerName::try_from(host.clone());
            let name = name.map_err(|cause| io::Error::new(io::ErrorKind::InvalidInput, cause))?;
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            connector.connect(name, stream).await.map(TokioIo::new)
        }
    };
    endpoint.connect_with_connector(tower::service_fn(connect)).await
}
