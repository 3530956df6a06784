//! Keys about the exchange of records between worker processes.

use std::time::Duration;

use super::{
    super::{key::Key, memory_size::MemorySize, words::ShuffleTransport},
    Group,
};

group! {
    SHUFFLE: "Shuffle", "How records get from one worker process to another.";

    /// The address that a worker takes connections of other workers on. `0.0.0.0` is all of its machine's: then others are
    /// told the one that its TaskManager reaches the JobManager from.
    SHUFFLE_BIND_HOST: String = Key::new("taskmanager.bind-host", "127.0.0.1");

    /// The port that a worker takes connections of other workers on; `0` takes any that is free. With more than one
    /// worker on a machine it has to be `0`.
    SHUFFLE_PORT: u32 = Key::new("taskmanager.data.port", "0").at_most("65535");

    /// What carries records between workers. `auto` takes `tcp` on paths where QUIC would cost several times the
    /// processor time: where the MTU is below 4000 bytes, or the kernel grants socket buffers below 1 MiB.
    SHUFFLE_TRANSPORT: ShuffleTransport = Key::new("shuffle.transport", "quic").ours();

    /// Whether workers prove to each other who they are, and encrypt what they say. Without it everybody who reaches
    /// their ports can read and write records, and each record is checked before it is read; QUIC is always encrypted.
    /// Unlike in Flink it is on by default: a local cluster makes its own certificates.
    SHUFFLE_TLS: bool = Key::new("security.ssl.internal.enabled", "true");

    /// How many streams the data to one peer is spread over, in each direction; `0` for one per channel. A lost packet holds
    /// up its stream only, and each stream costs a little for every batch of records.
    SHUFFLE_LANES: u32 = Key::new("shuffle.quic.lanes", "16").at_least("0").at_most("255").ours();

    /// How much each UDP socket may hold in each direction, as the kernel counts it. The kernel grants up to
    /// `net.core.rmem_max` and `wmem_max`, twice, and more only to privileged workers. Half of it may be under way to a peer.
    SHUFFLE_SOCKET_BUFFER: MemorySize = Key::new("shuffle.quic.socket-buffer", "8 mb").at_least("128 kb").at_most("1 gb").ours();

    /// How long a peer may take to be connected before the job fails.
    SHUFFLE_CONNECT_TIMEOUT: Duration = Key::new("shuffle.connect-timeout", "10 s").at_least("10 ms").ours();

    /// A peer that has been silent for so long is given up, and the job fails over. The shorter of the two workers'
    /// values counts.
    SHUFFLE_IDLE_TIMEOUT: Duration = Key::new("shuffle.idle-timeout", "10 s").at_least("1 s").ours();
}
