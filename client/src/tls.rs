//! TLS to a JobManager: whose certificates are believed, what is shown, and how a connection is made.

use std::{
    fs, io,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use hyper_util::rt::TokioIo;
use millstream_model::config::{
    Configuration, SSL_REST_AUTHENTICATION, SSL_REST_ENABLED, SSL_REST_KEYSTORE, SSL_REST_TRUSTSTORE,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};

use crate::access::{AccessError, check_private};

/// A certificate chain, its own first, and its key.
pub type Shown = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// How a client over TLS is made, if the configuration asks for it (`security.ssl.rest.enabled`).
///
/// # Errors
/// If the certificates that it is to believe or to show cannot be had.
pub(crate) fn configured(configuration: &Configuration) -> Result<Option<Arc<ClientConfig>>, AccessError> {
    if !configuration.get(&SSL_REST_ENABLED)? {
        return Ok(None);
    }
    let key = SSL_REST_TRUSTSTORE.name();
    let path = configuration.get(&SSL_REST_TRUSTSTORE)?.ok_or(AccessError::NoTrust { key })?;
    let roots = roots_in(key, Path::new(&path))?;
    if !configuration.get(&SSL_REST_AUTHENTICATION)? {
        return client(roots, None).map(Some).map_err(|cause| unusable(key, Path::new(&path), &cause));
    }
    let key = SSL_REST_KEYSTORE.name();
    let path = configuration.get(&SSL_REST_KEYSTORE)?.ok_or(AccessError::NoCertificate { key })?;
    let path = Path::new(&path);
    check_private(key, path)?;
    let text = fs::read(path).map_err(|source| AccessError::Unreadable { key, path: path.to_owned(), source })?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let chain = chain.map_err(|cause| unusable(key, path, &cause))?;
    let own =
        PrivateKeyDer::from_pem_slice(&text).map_err(|cause| unusable(key, path, &format!("its key: {cause}")))?;
    client(roots, Some((chain, own))).map(Some).map_err(|cause| unusable(key, path, &cause))
}

fn unusable(key: &'static str, path: &Path, cause: &dyn std::fmt::Display) -> AccessError {
    AccessError::Unusable { key, path: path.to_owned(), cause: cause.to_string() }
}

/// The authorities in a PEM file, which `key` names.
///
/// # Errors
/// If it cannot be read, or has none in it.
pub fn roots_in(key: &'static str, path: &Path) -> Result<RootCertStore, AccessError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|cause| unusable(key, path, &cause))? {
        let certificate = certificate.map_err(|cause| unusable(key, path, &cause))?;
        roots.add(certificate).map_err(|cause| unusable(key, path, &cause))?;
    }
    if roots.is_empty() {
        return Err(unusable(key, path, &"it has no certificate in PEM"));
    }
    Ok(roots)
}

/// A client that believes whom `roots` sign for.
///
/// # Errors
/// If what it is to show cannot be used.
pub fn client(roots: RootCertStore, shown: Option<Shown>) -> Result<Arc<ClientConfig>, rustls::Error> {
    // Named, since a program may have other providers in it.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13])?;
    let builder = builder.with_root_certificates(roots);
    let mut config = match shown {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// What the other side has said last if it has ended a connection for what this side has shown. Clones share it.
///
/// In TLS 1.3 that is said after the connection was made, and whoever has a call under way hears no more than that the
/// connection is gone.
#[derive(Clone, Default, Debug)]
pub struct Refusal(Arc<Mutex<Option<String>>>);

impl Refusal {
    /// As TLS names it.
    pub fn said(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, error: &io::Error) {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
        if let Some(alert @ rustls::Error::AlertReceived(_)) = cause {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(alert.to_string());
        }
    }
}

/// Connects to a host, which has to prove that it has a name: without `name`, that or the address of the host.
///
/// # Errors
/// If nobody answers there, or does not prove it.
pub async fn connect(
    endpoint: &Endpoint,
    (host, port): (&str, u16),
    name: Option<ServerName<'static>>,
    config: Arc<ClientConfig>,
    refusal: &Refusal,
) -> Result<Channel, tonic::transport::Error> {
    let refusal = refusal.clone();
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let connect = move |_| {
        let (host, name, connector) = (host.clone(), name.clone(), TlsConnector::from(config.clone()));
        let refusal = refusal.clone();
        async move {
            let name = match name {
                Some(name) => name,
                None => ServerName::try_from(host.clone())
                    .map_err(|cause| io::Error::new(io::ErrorKind::InvalidInput, cause))?,
            };
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            let stream = connector.connect(name, stream).await.map_err(explain)?;
            Ok::<_, io::Error>(TokioIo::new(Heard { stream, refusal }))
        }
    };
    endpoint.connect_with_connector(tower::service_fn(connect)).await
}

/// Whether an error, or one that it wraps, is that the other side is somebody who is not believed.
pub fn is_disbelief(error: &(dyn std::error::Error + 'static)) -> bool {
    let own = error.downcast_ref::<io::Error>().and_then(|error| error.get_ref()?.downcast_ref::<rustls::Error>());
    matches!(own, Some(rustls::Error::InvalidCertificate(_))) || error.source().is_some_and(is_disbelief)
}

/// A connection that notes what ends it.
struct Heard {
    stream: TlsStream<TcpStream>,
    refusal: Refusal,
}

impl AsyncRead for Heard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let Poll::Ready(Err(error)) = read else { return read };
        self.refusal.note(&error);
        // Of a process that was killed. Where a message ends, HTTP/2 knows by itself.
        let is_end = error.kind() == io::ErrorKind::UnexpectedEof;
        Poll::Ready(Err(if is_end { io::Error::new(error.kind(), "it has closed the connection") } else { error }))
    }
}

impl AsyncWrite for Heard {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// What TLS says when the other side does not speak it is a riddle.
fn explain(error: io::Error) -> io::Error {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidMessage(_)) => {
            io::Error::new(error.kind(), "no TLS is spoken at that port, or something else than TLS")
        }
        _ => error,
    }
}
