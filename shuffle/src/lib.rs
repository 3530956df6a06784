//! Moves segments of records between tasks, and never lets a sender outrun its receiver.
//!
//! ```text
//!  ChannelSender ─► credit::Spender ─► (queue of segments) ─► ChannelReceiver ─► InputGate
//!        ▲                                                          │
//!        └────────────── credit::Granter: grant (how much more) ◄───┘
//! ```
//! A record is written straight into a segment, becomes visible by a store, and is read in place. This first version
//! joins tasks of one process; channels between processes ride on the same segments and credits.
//!
//! | Look here for | module |
//! |---|---|
//! | memory: segments and their pool | [`segment`] |
//! | both ends of flow control | [`credit`] |
//! | one channel between two tasks of a process | [`channel`] |
//! | the channels into one task, and which of them have something | [`gate`] |
//! | waking a parked thread | [`wake`] |

pub mod channel;
pub mod credit;
pub mod gate;
pub mod segment;
pub mod wake;
