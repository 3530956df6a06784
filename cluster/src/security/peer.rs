//! Who is at the other end of a connection, by the certificate that was shown there.

use std::{net::SocketAddr, sync::Arc};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, UnixTime},
};
use webpki::{EndEntityCert, KeyUsage};

use super::{authority::is_task_manager, permission::Role};

/// The other end of a connection. Each of its requests has it with it.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// Its own certificate first. Nothing if it has shown none.
    pub(crate) certificates: Arc<[CertificateDer<'static>]>,
}

/// Whose certificates are believed at a port, and what they make of who shows one.
#[derive(Clone, Debug)]
pub(crate) struct Trust {
    roots: Arc<RootCertStore>,
    names: Names,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Names {
    /// The name says the role: the authority is the cluster's.
    SayTheRole,
    /// Everybody whom the authority has signed for is a client: it is the user's.
    AreClients,
}

impl Trust {
    /// The authority of a cluster.
    pub(crate) fn in_cluster(roots: Arc<RootCertStore>) -> Trust {
        Trust { roots, names: Names::SayTheRole }
    }

    /// The authorities that a user names for clients.
    pub(crate) fn in_clients(roots: Arc<RootCertStore>) -> Trust {
        Trust { roots, names: Names::AreClients }
    }

    pub(crate) fn roots(&self) -> &Arc<RootCertStore> {
        &self.roots
    }

    /// What somebody is who has shown these certificates, its own first. At each request anew, since a connection may
    /// live longer than its certificates.
    ///
    /// # Errors
    /// The end of a sentence about the certificate: it is not good for this, or not any more.
    pub(super) fn role(&self, certificates: &[CertificateDer<'static>], now: UnixTime) -> Result<Role, String> {
        let (own, between) = certificates.split_first().ok_or("is missing")?;
        let own = EndEntityCert::try_from(own).map_err(|cause| format!("cannot be read: {cause}"))?;
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms.all;
        let usage = KeyUsage::client_auth();
        own.verify_for_usage(algorithms, &self.roots.roots, between, now, usage, None, None).map_err(|cause| {
            match cause {
                webpki::Error::CertExpired { .. } => "has expired".to_owned(),
                webpki::Error::CertNotValidYet { .. } => "is not good yet: do the clocks agree?".to_owned(),
                webpki::Error::UnknownIssuer => "is of another authority".to_owned(),
                other => format!("is not good for this: {other}"),
            }
        })?;
        match self.names {
            Names::AreClients => Ok(Role::Client),
            Names::SayTheRole if own.valid_dns_names().any(is_task_manager) => Ok(Role::TaskManager),
            Names::SayTheRole => {
                let names: Vec<&str> = own.valid_dns_names().collect();
                Err(format!("is of '{}', which is no TaskManager", names.join(", ")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256};

    use super::*;
    use crate::security::authority::Authority;

    const DAY: Duration = Duration::from_secs(86_400);
    const START: Duration = Duration::from_secs(1 << 30);

    fn at(after: Duration) -> UnixTime {
        UnixTime::since_unix_epoch(START + after)
    }

    fn start() -> SystemTime {
        SystemTime::UNIX_EPOCH + START
    }

    fn roots(certificate: &CertificateDer<'static>) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        Arc::new(roots)
    }

    fn task_manager(authority: &Authority) -> CertificateDer<'static> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        authority.task_manager(7, key.public_key_raw(), start(), DAY).unwrap()
    }

    #[test]
    fn a_task_manager_is_one_until_its_certificate_expires() {
        let authority = Authority::generate(start()).unwrap();
        let trust = Trust::in_cluster(roots(authority.certificate()));
        let shown = [task_manager(&authority)];
        assert_eq!(trust.role(&shown, at(Duration::ZERO)), Ok(Role::TaskManager));
        assert_eq!(trust.role(&shown, at(DAY)), Ok(Role::TaskManager));
        assert_eq!(trust.role(&shown, at(DAY + Duration::from_secs(1))), Err("has expired".to_owned()));
        let before = UnixTime::since_unix_epoch(START - DAY);
        assert!(trust.role(&shown, before).unwrap_err().contains("clocks"));
    }

    #[test]
    fn nobody_else_is_a_task_manager() {
        let [authority, other] = [(); 2].map(|()| Authority::generate(start()).unwrap());
        let trust = Trust::in_cluster(roots(authority.certificate()));
        let role = |certificate: CertificateDer<'static>| trust.role(&[certificate], at(Duration::ZERO)).unwrap_err();
        assert_eq!(role(task_manager(&other)), "is of another authority");
        // The JobManager's is for servers, whatever its name.
        let jobmanager = role(authority.jobmanager(start()).unwrap().certificate);
        assert!(jobmanager.contains("not good for this"), "{jobmanager}");
        assert!(role(authority.certificate().clone()).contains("not good for this"));
        assert!(role(CertificateDer::from(vec![48, 1, 0])).contains("cannot be read"));
        assert_eq!(trust.role(&[], at(Duration::ZERO)), Err("is missing".to_owned()));
    }

    #[test]
    fn whom_the_users_authority_has_signed_for_is_a_client_and_no_task_manager() {
        let authority_key = KeyPair::generate().unwrap();
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = authority.self_signed(&authority_key).unwrap();
        let signed = |usage| {
            let key = KeyPair::generate().unwrap();
            let mut params =
                CertificateParams::new(vec!["taskmanager-00000000000000000000000000000007.millstream".to_owned()])
                    .unwrap();
            params.extended_key_usages = vec![usage];
            params.signed_by(&key, &authority, &authority_key).unwrap().der().clone()
        };
        let trust = Trust::in_clients(roots(authority.der()));
        let now = at(Duration::ZERO);
        assert_eq!(trust.role(&[signed(ExtendedKeyUsagePurpose::ClientAuth)], now), Ok(Role::Client));
        assert!(trust.role(&[signed(ExtendedKeyUsagePurpose::ServerAuth)], now).is_err());
        let cluster = Authority::generate(start()).unwrap();
        let cluster = Trust::in_cluster(roots(cluster.certificate()));
        let refused = cluster.role(&[signed(ExtendedKeyUsagePurpose::ClientAuth)], now);
        assert_eq!(refused, Err("is of another authority".to_owned()));
    }
}
