//! Keys about who may reach what.

use std::time::Duration;

use super::{super::key::Key, Group};

group! {
    SECURITY: "Security", "Who may reach the ports of a cluster. Submitting a job is running code.";

    /// Lets ports bind to addresses that are not loopbacks without TLS and authentication. Whoever reaches such a port
    /// can run any code here: submitting a job is running code. Logged at every start.
    SECURITY_INSECURE: bool = Key::new("security.insecure", "false").ours();

    /// A file with a token that clients have to show: as `Authorization: Bearer TOKEN`, to gRPC and REST alike. The
    /// JobManager and its clients have the same; nobody but its owner may read the file (mode 600). Without it nothing
    /// is asked of clients, which only goes on loopback addresses.
    SECURITY_TOKEN_FILE: Option<String> = Key::optional("security.token-file").ours();

    /// What a TaskManager joins the cluster with: a file that the JobManager makes at its first start, if it is not there,
    /// and that TaskManagers on other machines need a copy of. Nobody but its owner may read it (mode 600). With it the
    /// port of TaskManagers speaks TLS, which proves to each side who the other is; without it that port only goes on
    /// loopback addresses.
    SECURITY_JOIN_TOKEN_FILE: Option<String> = Key::optional("security.join-token-file").ours();

    /// Where the JobManager keeps the authority that signs for its TaskManagers: a PEM file with a certificate and its key,
    /// made at its first start (mode 600), and not for the machines of TaskManagers. Without it, it is in
    /// `high-availability.storageDir`, and without that, made anew at each start, and the join token with it.
    SECURITY_AUTHORITY_FILE: Option<String> = Key::optional("security.authority-file").ours();

    /// How long the certificate of a TaskManager is good for. It gets another one in time.
    SECURITY_CERTIFICATE_LIFETIME: Duration =
        Key::new("security.certificate-lifetime", "1 d").at_least("1 s").at_most("3650 d").ours();

    /// Whether clients speak to the JobManager over TLS, by gRPC and REST, and the JobManager serves them over nothing
    /// else.
    SSL_REST_ENABLED: bool = Key::new("security.ssl.rest.enabled", "false");

    /// Whether clients are let in that show a certificate of an authority in the JobManager's
    /// `security.ssl.rest.truststore`. Others then need the token, or are refused if there is none.
    SSL_REST_AUTHENTICATION: bool = Key::new("security.ssl.rest.authentication-enabled", "false");

    /// A certificate chain and its key, in one PEM file that nobody but its owner may read (mode 600): the JobManager's, or
    /// the client's if `security.ssl.rest.authentication-enabled`. Flink wants a Java keystore here.
    SSL_REST_KEYSTORE: Option<String> = Key::optional("security.ssl.rest.keystore");

    /// The certificates of the authorities that are believed, in one PEM file: by clients, and by the JobManager if
    /// `security.ssl.rest.authentication-enabled`. Flink wants a Java keystore here.
    SSL_REST_TRUSTSTORE: Option<String> = Key::optional("security.ssl.rest.truststore");
}
