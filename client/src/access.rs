//! What a client needs to be let in by a JobManager: its token, and whose certificates it believes.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use millstream_model::{
    config::{BadValue, Configuration, SECURITY_TOKEN_FILE},
    fault::Failure,
};
use rustls::ClientConfig;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::Interceptor,
};

use crate::tls;

/// Shorter ones are found by trying.
const SHORTEST_SECRET: usize = 16;

/// How a client shows that it may ask. The default is for a JobManager that asks for nothing.
#[derive(Clone, Default)]
pub struct Access {
    authorization: Option<MetadataValue<Ascii>>,
    /// `None` is without TLS.
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

/// A secret of a file, or what else lets clients in, cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    #[error("{key}: {path} cannot be read")]
    Unreadable { key: &'static str, path: PathBuf, source: io::Error },
    #[error("{key}: others may read {path} (mode {mode:03o}): `chmod 600` keeps them out")]
    Open { key: &'static str, path: PathBuf, mode: u32 },
    #[error("{key}: {path} does not have a line of {SHORTEST_SECRET} printable characters or more, without blanks")]
    NoSecret { key: &'static str, path: PathBuf },
    #[error("security.ssl.rest.enabled is true, and nothing says whose certificates to believe: {key} has to")]
    NoTrust { key: &'static str },
    #[error(
        "security.ssl.rest.authentication-enabled is true, and there is no certificate to show: {key} has to name one"
    )]
    NoCertificate { key: &'static str },
    #[error("{key}: {path} cannot be used: {cause}")]
    Unusable { key: &'static str, path: PathBuf, cause: String },
    #[error(transparent)]
    BadValue(#[from] BadValue),
}

impl Access {
    /// What a configuration says about it: `security.token-file`, `security.ssl.rest.enabled`.
    ///
    /// # Errors
    /// If a file cannot be used, or others can read the token too.
    pub fn configured(configuration: &Configuration) -> Result<Access, AccessError> {
        let tls = tls::configured(configuration)?;
        let Some(path) = configuration.get(&SECURITY_TOKEN_FILE)? else {
            return Ok(Access { authorization: None, tls });
        };
        let secret = read_secret(SECURITY_TOKEN_FILE.name(), Path::new(&path))?;
        let mut value: MetadataValue<Ascii> =
            format!("Bearer {secret}").parse().expect("a secret has printable characters only");
        value.set_sensitive(true);
        Ok(Access { authorization: Some(value), tls })
    }
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("has_token", &self.authorization.is_some()).finish_non_exhaustive()
    }
}

impl Interceptor for Access {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.authorization {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

impl From<AccessError> for Failure {
    fn from(error: AccessError) -> Failure {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        Failure::fatal(format!("{error}{cause}"))
    }
}

/// Reads a secret, which is the one line of a file that nobody but its owner may read. `key` names the file.
///
/// # Errors
/// If there is no such file, or others may read it, or it has no secret in it.
pub fn read_secret(key: &'static str, path: &Path) -> Result<String, AccessError> {
    let unreadable = |source| AccessError::Unreadable { key, path: path.to_owned(), source };
    check_private(key, path)?;
    let text = fs::read_to_string(path).map_err(unreadable)?;
    let secret = text.trim_end_matches(['\n', '\r']);
    if secret.len() < SHORTEST_SECRET || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(AccessError::NoSecret { key, path: path.to_owned() });
    }
    Ok(secret.to_owned())
}

/// Whether nobody but its owner may read a file, which `key` names.
///
/// # Errors
/// If others may, or there is no such file.
pub fn check_private(key: &'static str, path: &Path) -> Result<(), AccessError> {
    let metadata = fs::metadata(path);
    let metadata = metadata.map_err(|source| AccessError::Unreadable { key, path: path.to_owned(), source })?;
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(AccessError::Open { key, path: path.to_owned(), mode }) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_is_read_if_nobody_else_can() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("token");
        let read = |text: &str, mode| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            read_secret("security.token-file", &path).map_err(|error| error.to_string())
        };
        assert_eq!(read("0123456789abcdef\n", 0o600).unwrap(), "0123456789abcdef");
        assert_eq!(read("0123456789abcdef", 0o400).unwrap(), "0123456789abcdef");
        assert!(read("0123456789abcdef", 0o640).unwrap_err().contains("mode 640"));
        for bad in ["", "short\n", "with blanks in it, but long", "two-lines-of-it\ntwo-lines-of-it"] {
            assert!(read(bad, 0o600).unwrap_err().contains("security.token-file"), "{bad}");
        }
        let missing = read_secret("security.token-file", &root.path().join("none")).unwrap_err();
        assert!(missing.to_string().contains("none cannot be read"), "{missing}");
    }

    #[test]
    fn the_token_is_in_no_log() {
        let access = Access { authorization: Some("Bearer 0123456789abcdef".parse().unwrap()), tls: None };
        assert_eq!(format!("{access:?}"), "Access { has_token: true, .. }");
    }
}
