//! Keys about coordinators, addresses, security and logs.

use std::time::Duration;

use super::{
    super::{key::Key, words::*},
    Group,
};

group! {
    CLUSTER: "Cluster", "Coordinators, addresses, security and logs.";

    /// The address of the JobManager, for TaskManagers and clients.
    JOBMANAGER_ADDRESS: Option<String> = Key::optional("jobmanager.rpc.address");

    /// The address of the REST interface: the server binds to it, clients connect to it. Any address that is not a
    /// loopback needs TLS and authentication. Flink has no default here.
    REST_ADDRESS: String = Key::new("rest.address", "localhost");

    /// The port of the REST interface. `0` takes any free one.
    REST_PORT: u16 = Key::new("rest.port", "8081").aliases(&["web.port"]);

    /// Where a coordinator keeps what must survive it: `NONE` keeps nothing, `file` uses `high-availability.storageDir`
    /// on one machine, `etcd` keeps pointers in etcd and the rest in `high-availability.storageDir`, `memory` is for
    /// tests.
    HIGH_AVAILABILITY: HighAvailability = Key::new("high-availability.type", "NONE")
        .aliases(&["high-availability", "recovery.mode"]);

    /// The directory or object store for job graphs, artifacts and results, as a path or a URI.
    HIGH_AVAILABILITY_STORAGE_DIR: Option<String> = Key::optional("high-availability.storageDir")
        .aliases(&["high-availability.zookeeper.storageDir", "recovery.zookeeper.storageDir"]);

    /// How long a job waits for slots, at its start and at a restart, before it fails.
    SLOT_REQUEST_TIMEOUT: Duration = Key::new("slot.request.timeout", "5 min");

    /// Lets ports bind to addresses that are not loopbacks without TLS and authentication. Whoever reaches such a port
    /// can run any code here: submitting a job is running code. Logged at every start.
    SECURITY_INSECURE: bool = Key::new("security.insecure", "false").ours();

    /// The least important messages that are logged.
    LOG_LEVEL: LogLevel = Key::new("env.log.level", "INFO").ours();
}
