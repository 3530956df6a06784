//! The processes of a cluster: JobManager and TaskManagers, and how they speak with clients and with each other.
//!
//! ```text
//!   client ──JobSubmission (gRPC)──►  JobManager   jobs: a JobMaster each
//!                                        ▲  │      slot_manager: who gets which slots
//!            TaskManagers (gRPC,         │  ▼
//!            one call for life)     TaskManager    slot_table, artifacts
//!                                        │  ▲
//!                     lines of JSON      ▼  │      a worker process per job
//!                                      worker ══ QUIC ══ worker
//! ```
//! What decides is elsewhere: slots in `millstream-slots`, jobs in `millstream-controlplane`. Here are sockets, processes,
//! clocks and files.
//!
//! | Look here for | module |
//! |---|---|
//! | the JobManager | [`jobmanager`] |
//! | a TaskManager | [`taskmanager`] |
//! | artifacts by their hash | `artifacts` |
//! | what can be read from an artifact without running it | [`executable`] |
//! | programs that describe jobs, and their calls | [`program`] |
//! | a client and the cluster that it starts for one job | [`job_line`] |
//! | artifacts that were put in place before a cluster starts | [`usrlib`] |
//! | what workers and these processes log | `logs` |
//! | where a port may be opened | `address` |
//! | who may call what there | `security` |
//! | the numbers of both, and who is told them | `metrics` |

mod address;
mod artifacts;
pub mod executable;
pub mod job_line;
pub mod jobmanager;
mod logs;
mod metrics;
pub mod program;
mod security;
pub mod taskmanager;
pub mod usrlib;

/// The largest message between processes of a cluster, in bytes: job graphs, and reports with what sinks have collected.
const LARGEST_MESSAGE: usize = 64 << 20;

/// 128 bits that nobody else has, by the randomness that the standard library seeds its hashers with. Not a secret.
fn random_id() -> u128 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let half = || u128::from(RandomState::new().build_hasher().finish());
    half() << 64 | half()
}

/// Of this machine, as people know it.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}
