//! Who belongs to this cluster: what the JobManager knows of it. It keeps the authority and the join token, and gives
//! certificates to TaskManagers that have the token.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use millstream_client::proto::v1;
use millstream_model::{
    config::{
        Configuration, HIGH_AVAILABILITY_STORAGE_DIR, SECURITY_AUTHORITY_FILE, SECURITY_CERTIFICATE_LIFETIME,
        SECURITY_JOIN_TOKEN_FILE,
    },
    fault::Failure,
};
use tonic::Status;

use super::accepted::storage;
use crate::security::{
    authority::Authority,
    join_token::JoinToken,
    tls::{self, Tls},
};

/// Below `high-availability.storageDir`.
const AUTHORITY: &str = "security/authority.pem";

/// The authority of a cluster, and what it asks of who wants to join.
pub(super) struct Members {
    authority: Authority,
    token: JoinToken,
    lifetime: Duration,
}

impl Members {
    /// What is configured, read again or made for the first time; `None` if nothing is asked of TaskManagers. For who
    /// leads: nobody else may write these files.
    ///
    /// # Errors
    /// If a file cannot be used, or others can read it.
    pub(super) fn open(configuration: &Configuration, now: SystemTime) -> Result<Option<Members>, Failure> {
        let Some(token) = configuration.get(&SECURITY_JOIN_TOKEN_FILE)? else { return Ok(None) };
        let kept = match configuration.get(&SECURITY_AUTHORITY_FILE)? {
            Some(path) => Some((PathBuf::from(path), SECURITY_AUTHORITY_FILE.name())),
            None => storage(configuration)?.map(|path| (path.join(AUTHORITY), HIGH_AVAILABILITY_STORAGE_DIR.name())),
        };
        let authority = match kept {
            Some((path, key)) => Authority::kept_in(&path, key, now)?,
            None => Authority::generate(now)
                .map_err(|cause| Failure::fatal(format!("no authority for TaskManagers can be made: {cause}")))?,
        };
        let token = JoinToken::kept_in(Path::new(&token), &authority)?;
        let lifetime = configuration.get(&SECURITY_CERTIFICATE_LIFETIME)?;
        tracing::info!(authority = authority.fingerprint(), "TaskManagers join with the join token");
        Ok(Some(Members { authority, token, lifetime }))
    }

    /// How the port of TaskManagers speaks TLS.
    ///
    /// # Errors
    /// If no keys can be made.
    pub(super) fn tls(&self, now: SystemTime) -> Result<Tls, Failure> {
        let unusable =
            |cause: String| Failure::fatal(format!("no certificate for the JobManager can be made: {cause}"));
        let own = self.authority.jobmanager(now).map_err(|cause| unusable(cause.to_string()))?;
        tls::of_task_managers(own, self.authority.certificate()).map_err(unusable)
    }

    /// Gives a TaskManager, which is to be called `id`, a certificate if it has the join token.
    ///
    /// # Errors
    /// If it has not, or its key is none.
    pub(super) fn join(
        &self,
        id: u128,
        request: &v1::JoinRequest,
        now: SystemTime,
    ) -> Result<v1::JoinResponse, Status> {
        if !self.token.is_secret(&request.token) {
            return Err(Status::unauthenticated(format!(
                "its join token is not this cluster's: {} has to name a copy of the JobManager's",
                SECURITY_JOIN_TOKEN_FILE.name()
            )));
        }
        let certificate = self.authority.task_manager(id, &request.public_key, now, self.lifetime);
        let certificate = certificate.map_err(|cause| Status::invalid_argument(format!("public_key: {cause}")))?;
        Ok(v1::JoinResponse { certificate: certificate.to_vec(), lifetime_millis: self.lifetime.as_millis() as u64 })
    }
}

#[cfg(test)]
mod tests {
    use millstream_model::config::Origin;
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};

    use super::*;

    #[test]
    fn who_has_the_join_token_gets_a_certificate_and_nobody_else_does() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("join-token");
        let mut configuration = Configuration::new();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 30);
        assert!(Members::open(&configuration, now).unwrap().is_none());
        configuration.set_text(SECURITY_JOIN_TOKEN_FILE.name(), path.to_str().unwrap(), Origin::Program);
        let members = Members::open(&configuration, now).unwrap().unwrap();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let token = JoinToken::read(&path).unwrap().secret;
        let ask = |token: &str, public_key: &[u8]| {
            let request = v1::JoinRequest { token: token.to_owned(), public_key: public_key.to_vec() };
            members.join(7, &request, now).map_err(|status| (status.code(), status.message().to_owned()))
        };
        assert_eq!(ask(&token, key.public_key_raw()).unwrap().lifetime_millis, 86_400_000);
        let (code, message) = ask(&token.replace(|digit| digit != 'a', "b"), key.public_key_raw()).unwrap_err();
        assert!(code == tonic::Code::Unauthenticated && message.contains("security.join-token-file"), "{message}");
        assert_eq!(ask(&token, b"no key").unwrap_err().0, tonic::Code::InvalidArgument);
    }

    #[test]
    fn the_authority_is_kept_where_the_jobs_are_and_new_at_each_start_where_nothing_is() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name).to_str().unwrap().to_owned();
        let mut configuration = Configuration::new();
        configuration.set_text(SECURITY_JOIN_TOKEN_FILE.name(), &path("join-token"), Origin::Program);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 30);
        let open = |configuration: &Configuration| {
            let members = Members::open(configuration, now).unwrap().unwrap();
            (members.authority.fingerprint(), members.token.secret)
        };
        assert_ne!(open(&configuration), open(&configuration));
        let mut kept = configuration.clone();
        kept.set_text("high-availability.type", "file", Origin::Program);
        kept.set_text("high-availability.storageDir", &path("storage"), Origin::Program);
        assert_eq!(open(&kept), open(&kept));
        assert!(root.path().join("storage").join(AUTHORITY).is_file());
        configuration.set_text(SECURITY_AUTHORITY_FILE.name(), &path("authority.pem"), Origin::Program);
        assert_eq!(open(&configuration), open(&configuration));
    }
}
