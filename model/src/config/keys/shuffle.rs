//! Keys about the exchange of records between worker processes.

use std::time::Duration;

use super::{super::key::Key, Group};

group! {
    SHUFFLE: "Shuffle", "How records get from one worker process to another.";

    /// The address that a worker takes connections of other workers on.
    SHUFFLE_BIND_HOST: String = Key::new("taskmanager.bind-host", "127.0.0.1");

    /// The port that a worker takes connections of other workers on; `0` takes any that is free. With more than one
    /// worker on a machine it has to be `0`.
    SHUFFLE_PORT: u32 = Key::new("taskmanager.data.port", "0").at_most("65535");

    /// How many streams the data to one peer is spread over, in each direction. A lost packet holds up its stream only.
    SHUFFLE_LANES: u32 = Key::new("shuffle.quic.lanes", "16").at_least("1").at_most("255").ours();

    /// How long a peer may take to be connected before the job fails.
    SHUFFLE_CONNECT_TIMEOUT: Duration = Key::new("shuffle.connect-timeout", "10 s").at_least("10 ms").ours();
}
