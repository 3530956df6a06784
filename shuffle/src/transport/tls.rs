//! TLS 1.3 with proof of identity on both sides, for every transport that encrypts.

use std::{
    fmt::Debug,
    sync::{Arc, LazyLock},
};

use millstream_model::id::WorkerId;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore, SignatureScheme,
    client::{Resumption, danger::HandshakeSignatureValid},
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, UnixTime},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    version::TLS13,
};
use webpki::EndEntityCert;

use super::identity::{Identity, IdentityError, worker_named};

/// What is spoken inside; a change of the frames that old workers cannot read changes it.
const PROTOCOL: &[u8] = b"millstream/1";

/// How a worker dials others.
///
/// # Errors
/// If certificate and key do not belong together.
pub fn client(identity: &Identity) -> Result<rustls::ClientConfig, IdentityError> {
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots(identity)?)
        .with_client_auth_cert(certificates(identity), key(identity))?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    // Each connection proves both identities anew.
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// How a worker answers others.
///
/// # Errors
/// If certificate and key do not belong together.
pub fn server(identity: &Identity) -> Result<rustls::ServerConfig, IdentityError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(identity)?), provider())
        .build()
        .map_err(|error| IdentityError::Authority(error.to_string()))?;
    let verifier = WorkersOfCluster { verifier, cluster: identity.cluster.clone() };
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(certificates(identity), key(identity))?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The worker whose certificate this is.
///
/// # Errors
/// If it is not one of a worker of this cluster.
pub fn worker_of(certificate: &CertificateDer<'_>, cluster: &str) -> Result<WorkerId, ForeignWorker> {
    let Ok(parsed) = EndEntityCert::try_from(certificate) else {
        return Err(ForeignWorker { presented: String::new(), cluster: cluster.to_owned() });
    };
    let named = parsed.valid_dns_names().find_map(|name| worker_named(name, cluster));
    named.ok_or_else(|| ForeignWorker {
        presented: parsed.valid_dns_names().collect::<Vec<_>>().join(", "),
        cluster: cluster.to_owned(),
    })
}

/// A certificate that this cluster's authority has signed, but for nobody of this cluster.
#[derive(Debug, thiserror::Error)]
#[error("'{presented}' is not a worker of the cluster {cluster}")]
pub struct ForeignWorker {
    presented: String,
    cluster: String,
}

/// Puts a TLS alert in words if it says that one side does not believe the other; `None` for every other failure.
pub fn refusal(alert: u8) -> Option<&'static str> {
    // RFC 8446, appendix B.2.
    Some(match alert {
        42 => "the certificate is another's",
        43..=44 => "the certificate is not valid for this",
        45 => "the certificate has expired, or the clocks of the two machines differ",
        46 | 49 => "the certificate is not one of a worker of this cluster",
        48 => "the certificate was signed by the authority of another cluster",
        51 => "a signature is wrong: the authority only has the same name, or the key is another's",
        116 => "there is no certificate",
        _ => return None,
    })
}

/// The standard name of the cipher suite that this worker asks for first, which is the one that it gets.
pub fn preferred_cipher() -> &'static str {
    let suite = provider().cipher_suites.first().map(|suite| suite.suite());
    suite.and_then(|suite| suite.as_str()).unwrap_or("unknown")
}

/// Believes those whom the authority has signed, as far as their name is one of the cluster.
#[derive(Debug)]
struct WorkersOfCluster {
    verifier: Arc<dyn ClientCertVerifier>,
    cluster: String,
}

impl ClientCertVerifier for WorkersOfCluster {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.verifier.verify_client_cert(end_entity, intermediates, now)?;
        match worker_of(end_entity, &self.cluster) {
            Ok(_) => Ok(verified),
            Err(foreign) => Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(foreign))))),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

fn roots(identity: &Identity) -> Result<RootCertStore, IdentityError> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(identity.authority.clone()))?;
    Ok(roots)
}

fn certificates(identity: &Identity) -> Vec<CertificateDer<'static>> {
    identity.certificates.iter().cloned().map(CertificateDer::from).collect()
}

fn key(identity: &Identity) -> rustls::pki_types::PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(identity.key.clone()).into()
}

/// Ring, with the cipher first that this processor is fast at. A server takes the first that its client names.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let (fast, other) =
            (ring::cipher_suite::TLS13_AES_128_GCM_SHA256, { ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256 });
        let suites = if has_aes() { vec![fast, other] } else { vec![other, fast] };
        Arc::new(CryptoProvider { cipher_suites: suites, ..ring::default_provider() })
    });
    Arc::clone(&PROVIDER)
}

fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::transport::identity::ClusterCa;

    #[test]
    fn a_certificate_says_which_worker_it_is() {
        let (now, day) = (SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 30), Duration::from_secs(86_400));
        let ca = ClusterCa::generate(7, now, day).expect("it is sound");
        let identity = ca.issue(WorkerId(42), now, day).expect("it is sound");
        let certificate = CertificateDer::from(identity.certificates[0].clone());
        assert_eq!(worker_of(&certificate, &identity.cluster).expect("it is ours"), WorkerId(42));
        let foreign = worker_of(&certificate, "other").expect_err("it is another's").to_string();
        assert!(foreign.contains("worker-42.") && foreign.contains("other"), "{foreign}");
        assert!(worker_of(&CertificateDer::from(vec![48, 1, 0]), &identity.cluster).is_err());
    }
}
