//! Signs who is who in a cluster: the JobManager itself, and each TaskManager that has the join token.
//!
//! The key never leaves the JobManager: a TaskManager makes its own and has the public half signed.

use std::{
    fs, io,
    path::Path,
    time::{Duration, SystemTime},
};

use millstream_client::access::check_private;
use millstream_model::fault::Failure;
use millstream_storage::durable;
use pem::Pem;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, KeyPair, KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
    SignatureAlgorithm, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use webpki::anchor_from_trusted_cert;

/// What all names in the certificates of a cluster end with. Nothing else can be signed for.
const DOMAIN: &str = "millstream";
/// The name of the one who has the authority's key. There is one in a cluster, wherever it runs.
pub(crate) const JOBMANAGER: &str = "jobmanager.millstream";
/// How far the clocks of two machines may be apart: a certificate is good this long before it was signed.
const CLOCK_SKEW: Duration = Duration::from_secs(600);
/// Of a point on the curve P-256, uncompressed.
const PUBLIC_KEY_BYTES: usize = 65;

/// The authority of one cluster. Whoever has it can be anybody there.
pub(crate) struct Authority {
    certificate: CertificateDer<'static>,
    key: KeyPair,
}

/// A certificate and its key, of this process.
pub(crate) struct Identity {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Authority {
    /// Makes a new one. It has no end, in the way of RFC 5280, 4.1.2.5: removing its file is what ends it.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub(crate) fn generate(now: SystemTime) -> Result<Authority, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = own_params(&key);
        (params.not_before, params.not_after) = (earlier(now), date_time_ymd(9999, 12, 31));
        let certificate = params.self_signed(&key)?.der().clone();
        Ok(Authority { certificate, key })
    }

    /// The one in a file, or a new one that is put there. `config_key` is what names the file.
    ///
    /// # Errors
    /// If others may read the file, it has something else in it, or none can be made.
    pub(crate) fn kept_in(path: &Path, config_key: &'static str, now: SystemTime) -> Result<Authority, Failure> {
        let unusable = |cause: &dyn std::fmt::Display| {
            Failure::fatal(format!(
                "{config_key}: the cluster's authority in {} cannot be used: {cause}",
                path.display()
            ))
        };
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                let authority = Authority::generate(now).map_err(|cause| unusable(&cause))?;
                if let Some(folder) = path.parent() {
                    durable::create_directory(folder).map_err(|error| unusable(&error))?;
                }
                durable::write_secret(path, authority.to_pem().as_bytes()).map_err(|error| unusable(&error))?;
                tracing::info!(path = %path.display(), authority = authority.fingerprint(), "a new authority was made");
                return Ok(authority);
            }
            Err(cause) => return Err(unusable(&cause)),
        };
        check_private(config_key, path)?;
        Authority::from_pem(&text).map_err(|cause| unusable(&cause))
    }

    fn to_pem(&self) -> String {
        let certificate = pem::encode(&Pem::new("CERTIFICATE", self.certificate.to_vec()));
        certificate + &pem::encode(&Pem::new("PRIVATE KEY", self.key.serialize_der()))
    }

    fn from_pem(text: &[u8]) -> Result<Authority, String> {
        let certificate = CertificateDer::from_pem_slice(text).map_err(|cause| format!("its certificate: {cause}"))?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(text).map_err(|cause| format!("its key: {cause}"))?;
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ECDSA_P256_SHA256);
        let key = key.map_err(|cause| format!("its key: {cause}"))?;
        let anchor = anchor_from_trusted_cert(&certificate).map_err(|cause| format!("its certificate: {cause}"))?;
        if !anchor.subject_public_key_info.ends_with(key.public_key_raw()) {
            return Err("its certificate and its key do not belong together".to_owned());
        }
        Ok(Authority { certificate, key })
    }

    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// For people, to tell two apart.
    pub(crate) fn fingerprint(&self) -> String {
        fingerprint(self.key.public_key_raw())
    }

    /// Signs for the JobManager, that is for this process: as long as the authority is good.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub(crate) fn jobmanager(&self, now: SystemTime) -> Result<Identity, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = params(JOBMANAGER, ExtendedKeyUsagePurpose::ServerAuth)?;
        (params.not_before, params.not_after) = (earlier(now), date_time_ymd(9999, 12, 31));
        let certificate = self.sign(params, &key)?;
        Ok(Identity { certificate, key: PrivatePkcs8KeyDer::from(key.serialize_der()).into() })
    }

    /// Signs for a TaskManager, whose public key is a point on the curve P-256.
    ///
    /// # Errors
    /// If it is none, or `lifetime` is absurd.
    pub(crate) fn task_manager(
        &self,
        id: u128,
        public_key: &[u8],
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<CertificateDer<'static>, rcgen::Error> {
        let name = task_manager_name(id);
        let mut params = params(&name, ExtendedKeyUsagePurpose::ClientAuth)?;
        let end = now.checked_add(lifetime).ok_or(rcgen::Error::CouldNotParseCertificate)?;
        (params.not_before, params.not_after) = (earlier(now), OffsetDateTime::from(end));
        self.sign(params, &PublicKey::of(public_key).ok_or(rcgen::Error::UnsupportedSignatureAlgorithm)?)
    }

    fn sign(
        &self,
        params: CertificateParams,
        key: &impl PublicKeyData,
    ) -> Result<CertificateDer<'static>, rcgen::Error> {
        // Only its name and its key go into what it signs, so this stands for the certificate that others trust.
        let issuer: Certificate = own_params(&self.key).self_signed(&self.key)?;
        Ok(params.signed_by(key, &issuer, &self.key)?.der().clone())
    }
}

/// The name in the certificate of a TaskManager.
fn task_manager_name(id: u128) -> String {
    format!("taskmanager-{id:032x}.{DOMAIN}")
}

/// Whether a name is one of a TaskManager.
pub(super) fn is_task_manager(name: &str) -> bool {
    let id = name.strip_prefix("taskmanager-").and_then(|rest| rest.strip_suffix(DOMAIN)?.strip_suffix('.'));
    id.is_some_and(|id| u128::from_str_radix(id, 16).is_ok_and(|id| task_manager_name(id) == name))
}

/// The public half of somebody else's key.
struct PublicKey<'k>(&'k [u8]);

impl PublicKey<'_> {
    fn of(bytes: &[u8]) -> Option<PublicKey<'_>> {
        // Whether it lies on the curve shows when its owner proves that it has the other half.
        (bytes.len() == PUBLIC_KEY_BYTES && bytes[0] == 4).then_some(PublicKey(bytes))
    }
}

impl PublicKeyData for PublicKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0
    }

    fn algorithm(&self) -> &SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

fn own_params(key: &KeyPair) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // No two have the same name, so that what one has signed is never taken for badly signed by the other.
    params.distinguished_name.push(DnType::CommonName, format!("millstream {}", fingerprint(key.public_key_raw())));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName(DOMAIN.to_owned())],
        excluded_subtrees: Vec::new(),
    });
    params
}

fn params(name: &str, usage: ExtendedKeyUsagePurpose) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = vec![SanType::DnsName(name.try_into()?)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn earlier(now: SystemTime) -> OffsetDateTime {
    now.checked_sub(CLOCK_SKEW).unwrap_or(SystemTime::UNIX_EPOCH).into()
}

fn fingerprint(public_key: &[u8]) -> String {
    Sha256::digest(public_key).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const KEY: &str = "security.authority-file";

    #[test]
    fn the_next_jobmanager_reads_the_authority_of_the_last_one() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("security/authority.pem");
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 30);
        let first = Authority::kept_in(&path, KEY, now).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let second = Authority::kept_in(&path, KEY, now).unwrap();
        assert_eq!(first.certificate, second.certificate);
        assert_eq!(first.fingerprint(), second.fingerprint());
        fs::remove_file(&path).unwrap();
        let third = Authority::kept_in(&path, KEY, now).unwrap();
        assert_ne!(first.fingerprint(), third.fingerprint());
    }

    #[test]
    fn an_authority_that_is_open_or_damaged_is_refused_by_key_and_file() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("authority.pem");
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 30);
        let refused = || Authority::kept_in(&path, KEY, now).err().unwrap().message;
        let [one, two] = [(); 2].map(|()| Authority::generate(now).unwrap());
        fs::write(&path, one.to_pem()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let open = refused();
        assert!(open.contains(KEY) && open.contains("authority.pem") && open.contains("chmod 600"), "{open}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let (certificate, key) = (one.to_pem(), two.to_pem());
        let certificate = certificate.split_at(certificate.find("-----BEGIN PRIVATE").unwrap()).0.to_owned();
        let key = key.split_at(key.find("-----BEGIN PRIVATE").unwrap()).1.to_owned();
        for text in [String::new(), certificate.clone(), certificate + &key] {
            fs::write(&path, text).unwrap();
            let damaged = refused();
            assert!(damaged.contains(KEY) && damaged.contains("authority.pem"), "{damaged}");
        }
    }

    #[test]
    fn a_key_that_is_none_and_an_absurd_lifetime_are_errors() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 30);
        let authority = Authority::generate(now).unwrap();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let day = Duration::from_secs(86_400);
        authority.task_manager(7, key.public_key_raw(), now, day).unwrap();
        for bad in [&[][..], &[4; 64], &[5; 65]] {
            authority.task_manager(7, bad, now, day).unwrap_err();
        }
        authority.task_manager(7, key.public_key_raw(), now, Duration::MAX).unwrap_err();
    }

    #[test]
    fn a_task_managers_name_has_one_form() {
        assert!(is_task_manager(&task_manager_name(7)));
        for other in [
            JOBMANAGER,
            "taskmanager-7.millstream",
            "taskmanager-+0000000000000000000000000000007.millstream",
            "taskmanager-0000000000000000000000000000000G.millstream",
            "x.taskmanager-00000000000000000000000000000007.millstream",
            "taskmanager-00000000000000000000000000000007.millstreams",
        ] {
            assert!(!is_task_manager(other), "{other}");
        }
    }
}
