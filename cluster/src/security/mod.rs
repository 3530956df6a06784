//! Who may call what at the ports of a JobManager.
//!
//! ```text
//!   request ──► guard: who is it (a token)? ──► may it call this (permission)? ──► gRPC services, REST
//! ```
//! | Look here for | module |
//! |---|---|
//! | the one place where each request is checked | `guard` |
//! | TLS at the port of clients | `tls` |
//! | which role may call which method | `permission` |

mod guard;
mod permission;
pub(crate) mod tls;

pub(crate) use self::guard::Guard;
