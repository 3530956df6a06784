//! Who may call what at the ports of a JobManager.
//!
//! ```text
//!   join token ──Join──► authority: a certificate for a TaskManager
//!
//!   connection ──► tls: a certificate of whom it trusts (peer), or none
//!      └─ request ──► guard: who is it (by certificate, by token)? ──► may it call this (permission)? ──► gRPC, REST
//! ```
//! | Look here for | module |
//! |---|---|
//! | the one place where each request is checked | `guard` |
//! | who somebody is by a certificate | `peer` |
//! | TLS at both ports | `tls` |
//! | who signs for TaskManagers | `authority` |
//! | how they show that they belong to a cluster | `join_token` |
//! | which role may call which method | `permission` |

pub(crate) mod authority;
mod guard;
pub(crate) mod join_token;
mod peer;
mod permission;
pub(crate) mod tls;

pub(crate) use self::{
    guard::{Guard, in_clear},
    peer::Peer,
};
