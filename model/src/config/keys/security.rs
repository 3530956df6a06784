//! Keys about who may reach what.

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

    /// Whether clients speak to the JobManager over TLS, by gRPC and REST, and the JobManager serves them over nothing
    /// else.
    SSL_REST_ENABLED: bool = Key::new("security.ssl.rest.enabled", "false");

    /// The JobManager's certificate chain and its key, in one PEM file that nobody but its owner may read (mode 600).
    /// Flink wants a Java keystore here.
    SSL_REST_KEYSTORE: Option<String> = Key::optional("security.ssl.rest.keystore");

    /// The certificates of the authorities that clients believe, in one PEM file. Flink wants a Java keystore here.
    SSL_REST_TRUSTSTORE: Option<String> = Key::optional("security.ssl.rest.truststore");
}
