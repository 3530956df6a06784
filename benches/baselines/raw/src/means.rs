//! By which means a program asks the kernel for input and output.

use std::io;

use tokio_uring::Runtime;

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Means {
    /// Calls that do not wait, and epoll; for files, calls that do
    Syscalls,
    /// The runtime on io_uring
    TokioUring,
}

impl Means {
    pub const ALL: [Means; 2] = [Means::Syscalls, Means::TokioUring];

    pub fn name(self) -> &'static str {
        match self {
            Means::Syscalls => "syscalls",
            Means::TokioUring => "tokio-uring",
        }
    }

    /// # Panics
    /// If no means has this name.
    pub fn named(name: &str) -> Means {
        Means::ALL.into_iter().find(|means| means.name() == name).expect("means name themselves")
    }

    /// Whether this kernel has it.
    ///
    /// # Errors
    /// If the kernel has no rings, or forbids them, as many containers do.
    pub fn is_there(self) -> io::Result<()> {
        match self {
            Means::Syscalls => Ok(()),
            Means::TokioUring => ring().map(drop),
        }
    }
}

/// A runtime of tokio-uring for the calling thread.
///
/// # Errors
/// See [`Means::is_there`].
pub fn ring() -> io::Result<Runtime> {
    let mut flags = tokio_uring::uring_builder();
    // As far as this runtime can go: it waits in epoll, which a ring with DEFER_TASKRUN does not wake.
    flags.setup_coop_taskrun().setup_single_issuer();
    Runtime::new(tokio_uring::builder().uring_builder(&flags))
}
