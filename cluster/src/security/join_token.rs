//! What a TaskManager needs to join a cluster, in one file: the certificate of the cluster's authority, so that it tells
//! nothing to anybody else, and a secret, so that the JobManager gives it a certificate.

use std::path::Path;

use millstream_client::access::{AccessError, check_private};
use millstream_model::{config::SECURITY_JOIN_TOKEN_FILE, fault::Failure};
use millstream_storage::durable;
use pem::Pem;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use subtle::ConstantTimeEq;

use super::authority::Authority;

const SECRET_BYTES: usize = 32;
const SECRET: &str = "token: ";

/// The content of such a file.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct JoinToken {
    pub(crate) authority: CertificateDer<'static>,
    pub(crate) secret: String,
}

impl JoinToken {
    /// # Errors
    /// If the file cannot be read, others can read it too, or it has something else in it.
    pub(crate) fn read(path: &Path) -> Result<JoinToken, AccessError> {
        let key = SECURITY_JOIN_TOKEN_FILE.name();
        check_private(key, path)?;
        let text = std::fs::read(path);
        let text = text.map_err(|source| AccessError::Unreadable { key, path: path.to_owned(), source })?;
        JoinToken::parse(&text).map_err(|cause| AccessError::Unusable {
            key,
            path: path.to_owned(),
            cause: format!("it is no join token, as a JobManager makes one: {cause}"),
        })
    }

    /// The one of an authority that lies in a file. One that is not there is made, and so is one where that of another
    /// authority lies: with that nobody can join any more.
    ///
    /// # Errors
    /// If others can read the file, it has something else in it, or none can be made.
    pub(crate) fn kept_in(path: &Path, authority: &Authority) -> Result<JoinToken, Failure> {
        match JoinToken::read(path) {
            Ok(token) if token.authority == *authority.certificate() => return Ok(token),
            Ok(_) => tracing::warn!(
                path = %path.display(),
                "the join token is of an authority that is gone, and is replaced: copies of it are worthless"
            ),
            Err(AccessError::Unreadable { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        let token = JoinToken { authority: authority.certificate().clone(), secret: new_secret()? };
        durable::write_secret(path, token.to_text().as_bytes()).map_err(|error| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            Failure::fatal(format!(
                "{}: no join token can be put there: {error}{cause}",
                SECURITY_JOIN_TOKEN_FILE.name()
            ))
        })?;
        tracing::info!(path = %path.display(), "a new join token was made");
        Ok(token)
    }

    /// Whether somebody has the secret. How long that takes says nothing about how much of it is right.
    pub(crate) fn is_secret(&self, shown: &str) -> bool {
        self.secret.as_bytes().ct_eq(shown.as_bytes()).into()
    }

    fn to_text(&self) -> String {
        let certificate = pem::encode(&Pem::new("CERTIFICATE", self.authority.to_vec()));
        format!(
            "Lets a TaskManager join a Millstream cluster ({}). Keep it secret.\n{SECRET}{}\n{certificate}",
            SECURITY_JOIN_TOKEN_FILE.name(),
            self.secret
        )
    }

    fn parse(text: &[u8]) -> Result<JoinToken, String> {
        let text = std::str::from_utf8(text).map_err(|_| "it is no text".to_owned())?;
        let secret = text.lines().find_map(|line| line.strip_prefix(SECRET)).map(str::trim);
        let secret = secret.ok_or_else(|| format!("no line of it begins with '{SECRET}'"))?;
        if secret.len() != 2 * SECRET_BYTES || !secret.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(format!("its token is not {} hexadecimal digits", 2 * SECRET_BYTES));
        }
        let authority = CertificateDer::from_pem_slice(text.as_bytes());
        let authority = authority.map_err(|cause| format!("its certificate: {cause}"))?;
        webpki::anchor_from_trusted_cert(&authority).map_err(|cause| format!("its certificate: {cause}"))?;
        Ok(JoinToken { authority, secret: secret.to_owned() })
    }
}

/// The secret is in no log.
impl std::fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinToken").finish_non_exhaustive()
    }
}

fn new_secret() -> Result<String, Failure> {
    let mut bytes = [0; SECRET_BYTES];
    let filled = rustls::crypto::ring::default_provider().secure_random.fill(&mut bytes);
    filled.map_err(|_| Failure::fatal("no join token can be made: the system has no randomness"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::PermissionsExt,
        time::{Duration, SystemTime},
    };

    use super::*;

    fn authority() -> Authority {
        Authority::generate(SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 30)).unwrap()
    }

    #[test]
    fn a_join_token_is_made_once_for_an_authority() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("join-token");
        let [one, other] = [authority(), authority()];
        let made = JoinToken::kept_in(&path, &one).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(JoinToken::kept_in(&path, &one).unwrap(), made);
        assert_eq!(JoinToken::read(&path).unwrap(), made);
        assert!(made.is_secret(&made.secret) && !made.is_secret("") && !made.is_secret(&made.secret[1..]));
        let replaced = JoinToken::kept_in(&path, &other).unwrap();
        assert_ne!(replaced.secret, made.secret);
        assert_eq!(JoinToken::read(&path).unwrap(), replaced);
        assert_eq!(format!("{made:?}"), "JoinToken { .. }");
    }

    #[test]
    fn a_file_that_is_open_or_something_else_is_refused_by_key_and_left_as_it_is() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("join-token");
        let authority = authority();
        let good = JoinToken::kept_in(&path, &authority).unwrap().to_text();
        let refused = |text: &str, mode| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let message = JoinToken::kept_in(&path, &authority).unwrap_err().message;
            assert!(message.contains("security.join-token-file"), "{message}");
            assert!(message.contains(&*path.to_string_lossy()), "{message}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            message
        };
        assert!(refused(&good, 0o640).contains("chmod 600"));
        assert!(refused("a-token-for-clients", 0o600).contains("no line of it begins with 'token: '"));
        assert!(refused(&good.replace("token: ", "token: 0"), 0o600).contains("hexadecimal"));
        assert!(refused(&good.replace("BEGIN CERT", "BEGIN BERT"), 0o600).contains("its certificate"));
        let missing = JoinToken::read(&root.path().join("none")).unwrap_err().to_string();
        assert!(missing.contains("security.join-token-file") && missing.contains("none"), "{missing}");
    }
}
