//! Who a worker is to others, and whom it believes.
//!
//! Each cluster (or job) has an authority of its own, which signs a short-lived certificate per worker. The certificate's
//! one name says which worker of which cluster it is: `worker-3.0123456789abcdef0123456789abcdef.millstream`.

use std::{fmt, time::SystemTime};

use millstream_model::id::WorkerId;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    KeyPair, KeyUsagePurpose, NameConstraints, SanType,
};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

/// How far the clocks of two machines may be apart: a certificate is valid this long before it was issued.
const CLOCK_SKEW: Duration = Duration::minutes(10);

/// Signs the certificates of one cluster. Whoever has it can be any worker, so it stays with the coordinator.
#[derive(Clone, Serialize, Deserialize)]
pub struct ClusterCa {
    cluster: String,
    /// DER.
    certificate: Vec<u8>,
    /// PKCS #8 DER.
    key: Vec<u8>,
}

/// What a worker needs to prove who it is. Its key is a secret of this worker.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub worker: WorkerId,
    /// 32 hexadecimal digits: the id of the cluster or the job.
    pub cluster: String,
    /// Its own certificate first, each in DER.
    pub certificates: Vec<Vec<u8>>,
    /// PKCS #8 DER.
    pub key: Vec<u8>,
    /// The certificate of the authority that all workers of the cluster trust, in DER.
    pub authority: Vec<u8>,
}

/// A certificate could not be made, or is of no use.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("a certificate could not be issued")]
    Issue(#[from] rcgen::Error),
    #[error("the validity ends beyond the calendar")]
    Validity(#[from] time::error::ComponentRange),
    #[error("certificate, key or authority cannot be used")]
    Unusable(#[from] rustls::Error),
    #[error("the authority's certificate cannot be used: {0}")]
    Authority(String),
}

impl ClusterCa {
    /// Makes a new authority for a cluster, valid from `now` on.
    ///
    /// # Errors
    /// If the system has no randomness, or `validity` is absurd.
    pub fn generate(cluster: u128, now: SystemTime, validity: std::time::Duration) -> Result<Self, IdentityError> {
        let cluster = format!("{cluster:032x}");
        let key = KeyPair::generate()?;
        let mut params = authority(&cluster);
        (params.not_before, params.not_after) = valid(now, validity)?;
        let certificate = params.self_signed(&key)?.der().to_vec();
        Ok(ClusterCa { cluster, certificate, key: key.serialize_der() })
    }

    /// Issues a certificate, and its key, for one worker.
    ///
    /// # Errors
    /// If the system has no randomness, this authority was read from something else, or `validity` is absurd.
    pub fn issue(
        &self,
        worker: WorkerId,
        now: SystemTime,
        validity: std::time::Duration,
    ) -> Result<Identity, IdentityError> {
        let signing_key = KeyPair::try_from(self.key.as_slice())?;
        // Only its name and its key go into what it signs, so this stands for the certificate that others trust.
        let issuer = authority(&self.cluster).self_signed(&signing_key)?;
        let key = KeyPair::generate()?;
        let name = name(worker, &self.cluster);
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("worker-{}", worker.0));
        params.subject_alt_names = vec![SanType::DnsName(name.try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // Each worker both dials and listens.
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = valid(now, validity)?;
        let certificate = params.signed_by(&key, &issuer, &signing_key)?.der().to_vec();
        Ok(Identity {
            worker,
            cluster: self.cluster.clone(),
            certificates: vec![certificate],
            key: key.serialize_der(),
            authority: self.certificate.clone(),
        })
    }
}

impl fmt::Debug for ClusterCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterCa").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("Identity");
        text.field("worker", &self.worker).field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

/// The name in the certificate of a worker.
pub fn name(worker: WorkerId, cluster: &str) -> String {
    format!("worker-{}.{cluster}.millstream", worker.0)
}

/// Reads which worker a name means; `None` if it is not one of this cluster's.
pub fn worker_named(name: &str, cluster: &str) -> Option<WorkerId> {
    let digits = name.strip_prefix("worker-")?.strip_suffix(".millstream")?.strip_suffix(cluster)?.strip_suffix('.')?;
    // A number has one text only, so that no two names mean the same worker.
    let worker = WorkerId(digits.parse().ok()?);
    (self::name(worker, cluster) == name).then_some(worker)
}

fn authority(cluster: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("millstream {cluster}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName(format!("{cluster}.millstream"))],
        excluded_subtrees: Vec::new(),
    });
    params
}

fn valid(
    now: SystemTime,
    validity: std::time::Duration,
) -> Result<(OffsetDateTime, OffsetDateTime), time::error::ComponentRange> {
    let seconds = |duration: std::time::Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    // A time before 1970 is the clock of a machine that has none.
    let now = seconds(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
    let end = OffsetDateTime::from_unix_timestamp(now.saturating_add(seconds(validity)))?;
    Ok((OffsetDateTime::from_unix_timestamp(now)?.saturating_sub(CLOCK_SKEW), end))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: u128 = 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef;
    const DAY: std::time::Duration = std::time::Duration::from_secs(86_400);

    fn identity() -> Identity {
        let now = SystemTime::UNIX_EPOCH + 20_000 * DAY;
        ClusterCa::generate(CLUSTER, now, DAY).and_then(|ca| ca.issue(WorkerId(3), now, DAY)).expect("it is sound")
    }

    #[test]
    fn a_name_means_one_worker_of_one_cluster() {
        let cluster = format!("{CLUSTER:032x}");
        let name = name(WorkerId(3), &cluster);
        assert_eq!(name, "worker-3.0123456789abcdef0123456789abcdef.millstream");
        assert_eq!(worker_named(&name, &cluster), Some(WorkerId(3)));
        for other in [
            name.replace("-3", "-+3"),
            name.replace("-3", "-03"),
            name.replace("-3", "-"),
            name.replace("-3.", "-3.4."),
            name.replace(".01", ".11"),
            name.replace("stream", "dream"),
            "*.millstream".to_owned(),
        ] {
            assert_eq!(worker_named(&other, &cluster), None, "{other}");
        }
    }

    #[test]
    fn an_identity_survives_being_sent() {
        let identity = identity();
        let bytes = postcard::to_stdvec(&identity).expect("it can be encoded");
        assert_eq!(postcard::from_bytes::<Identity>(&bytes).expect("they are its bytes"), identity);
    }

    #[test]
    fn the_key_is_in_no_log() {
        let text = format!("{:?}", identity());
        assert_eq!(text, "Identity { worker: WorkerId(3), cluster: \"0123456789abcdef0123456789abcdef\", .. }");
    }
}
