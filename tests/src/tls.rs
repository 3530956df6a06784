//! Certificates of all kinds, good ones and others, and requests over TLS with them.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, pem::PemObject},
};
use sha2::{Digest, Sha256};

use crate::http::Answer;

/// No answer of a test takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Signs whatever a test wants.
pub struct Authority {
    certificate: Certificate,
    key: KeyPair,
}

/// A certificate and its key.
pub struct Own {
    pub certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
    /// Both.
    pub pem: String,
}

impl Authority {
    /// One of a user's.
    ///
    /// # Panics
    /// If the system has no randomness.
    pub fn new() -> Authority {
        let key = KeyPair::generate().expect("there is randomness");
        // No two have the same name, or what one has signed would be taken for badly signed by the other.
        let mut params = named(&format!("authority {}", id(&key)));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority { certificate: params.self_signed(&key).expect("it is sound"), key }
    }

    /// The one of a cluster, with the key that its JobManager has stored: who has that can do everything.
    ///
    /// # Panics
    /// If it is none.
    pub fn of_cluster(pem: &str) -> Authority {
        let key = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).expect("it has a key");
        let key = KeyPair::try_from(key.secret_pkcs8_der()).expect("it has a key");
        // What it signs has this name in it, and nothing else of it.
        let mut params = named(&format!("millstream {}", id(&key)));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        Authority { certificate: params.self_signed(&key).expect("it is sound"), key }
    }

    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// Signs for a name, from now until `end`.
    ///
    /// # Panics
    /// If it is no name.
    pub fn sign(&self, name: &str, usage: ExtendedKeyUsagePurpose, end: SystemTime) -> Own {
        let key = KeyPair::generate().expect("there is randomness");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("it is a name");
        params.extended_key_usages = vec![usage];
        params.not_after = end.into();
        params.not_before = params.not_after - time::Duration::days(2);
        let own = params.signed_by(&key, &self.certificate, &self.key).expect("it is sound");
        let pem = own.pem() + &key.serialize_pem();
        Own { certificate: own.der().clone(), key: key.serialize_der().into(), pem }
    }
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn id(key: &KeyPair) -> String {
    Sha256::digest(key.public_key_raw()).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

impl Default for Authority {
    fn default() -> Authority {
        Authority::new()
    }
}

impl Own {
    /// What a worker has.
    pub fn of_worker(identity: &millstream_shuffle::transport::identity::Identity) -> Own {
        let certificate = CertificateDer::from(identity.certificates[0].clone());
        Own { certificate, key: identity.key.clone().into(), pem: String::new() }
    }

    /// PKCS #8 DER.
    pub fn key(&self) -> Vec<u8> {
        self.key.secret_pkcs8_der().to_vec()
    }
}

/// Asks for a path over TLS as gRPC does, with a certificate or without.
///
/// # Errors
/// If one side does not believe the other.
///
/// # Panics
/// If nobody is there.
pub fn call(address: &str, authority_pem: &str, name: &str, own: Option<&Own>, path: &str) -> Result<Answer, String> {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_slice(authority_pem.as_bytes()).expect("it has a certificate");
    roots.add(authority).expect("it is an authority");
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("they fit").with_root_certificates(roots);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let key = PrivateKeyDer::Pkcs8(own.key.clone_key());
            builder.with_client_auth_cert(vec![own.certificate.clone()], key).expect("they belong together")
        }
    };
    let name = ServerName::try_from(name.to_owned()).expect("it is a name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("it is sound");
    let stream = TcpStream::connect(address).unwrap_or_else(|cause| panic!("{address}: {cause}"));
    stream.set_read_timeout(Some(PATIENCE)).expect("it is no time of zero");
    let mut stream = StreamOwned::new(connection, stream);
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Type: application/grpc\r\n\
         Content-Length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).map_err(|cause| cause.to_string())?;
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => text.extend_from_slice(&buffer[..length]),
            // Whoever ends a connection need not say so in TLS; an answer is whole or none.
            Err(cause) if text.is_empty() => return Err(cause.to_string()),
            Err(_) => break,
        }
    }
    Answer::parse(&text).ok_or_else(|| "the answer is none of HTTP".to_owned())
}
