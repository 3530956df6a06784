//! Credit: how many bytes of room a receiver has promised to its senders. Both ends are here.
//!
//! ```text
//!  Spender ── spent ──► received ─► Granter (all channels of a gate) ─► freed
//!     ▲  └── backlog (could use room up to …) ──►  │
//!     └───────────── grant (may use room up to …) ◄┘
//! ```
//! Everything that crosses is a running total per channel, in bytes of room, so what is late, repeated or out of order is
//! harmless. Room comes in whole segments.
//!
//! | Look here for | module |
//! |---|---|
//! | the receiver's end: who of a gate's channels gets room | [`granter`] |
//! | the sender's end of one channel | [`spender`] |
//! | how much of its room a gate should use | [`debloater`] |
//!
//! **Invariant:** `freed ≤ received ≤ sent ≤ granted ≤ freed + window` for each channel, and over all channels of a gate
//! `Σ(granted − freed) ≤ pool`.

pub mod debloater;
pub mod granter;
pub mod spender;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use self::{
    granter::{Granter, Opening, Overrun},
    spender::Spender,
};

/// A total up to which the sender may use room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Grant(pub u64);

/// A total up to which the sender could use room: what it has used, and what waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Backlog(pub u64);
