//! What may be chosen about connections.

use std::time::Duration;

/// The settings of a listener and of all its connections.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Lanes that each side sends on, per connection, and the peer may not have more; 0 for a stream per channel.
    pub lanes: u8,
    /// The most bytes of a connection that are queued or under way, unless a socket buffer can hold less.
    pub window: usize,
    /// The socket buffer to ask the kernel for, in each direction. It should be twice the window.
    pub socket_buffer: usize,
    /// The largest UDP payload to try, where the interface does not set a lower limit.
    pub mtu_max: u16,
    /// A connection that has been idle this long shows that it lives. Must be well below the peer's `idle_timeout`.
    pub keep_alive: Duration,
    /// A peer that has been silent this long is given up.
    pub idle_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            lanes: 16,
            window: 4 << 20,
            socket_buffer: 8 << 20,
            mtu_max: 65_507,
            keep_alive: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(10),
        }
    }
}

impl Options {
    /// Gives up peers after this time, and shows that it lives often enough that no peer with this limit gives it up, even
    /// if some of what shows it is lost.
    #[must_use]
    pub fn with_idle_timeout(self, idle_timeout: Duration) -> Options {
        Options { idle_timeout, keep_alive: self.keep_alive.min(idle_timeout / 8), ..self }
    }
}
