//! Moves segments of records between tasks, and never lets a sender outrun its receiver.
//!
//! ```text
//!  in a process:  ChannelSender ─► queue of segments ─► ChannelReceiver ─► InputGate
//!                       ▲                                     │
//!                       └───────── grant (how much more) ◄────┘
//!
//!  to another:    ChannelSender ─► ChannelReceiver ─► link ═══ frames ═══ link ─► ChannelSender ─► ChannelReceiver
//!                   (task)            (net loop)                        (net loop)                    (task)
//! ```
//! A record is written straight into a segment, becomes visible by a store, and is read in place. Between processes the
//! net loop of each worker takes the tasks' place at the far ends; one connection per pair of workers is shared by all.
//!
//! | Look here for | module |
//! |---|---|
//! | memory: segments and their pool | [`segment`] |
//! | both ends of flow control | [`credit`] |
//! | one channel between two threads of a process | [`channel`] |
//! | the channels into one task, and which of them have something | [`gate`] |
//! | waking a sleeping thread | [`wake`] |
//! | the atomics of all these, and Loom's in their place | `sync`, `models` |
//! | how often the bytes of records are copied | [`copies`] |
//! | frames, the same over every transport | [`wire`] |
//! | all channels to one peer | [`link`] |
//! | what carries the bytes | [`transport`] |
//! | reading and writing many sockets with one system call | [`io`] |
//! | the net loop and how a worker speaks to it | [`exchange`] |

pub mod channel;
pub mod copies;
pub mod credit;
pub mod exchange;
pub mod gate;
pub mod io;
pub mod link;
#[cfg(all(test, loom))]
mod models;
pub mod segment;
mod sync;
pub mod transport;
pub mod wake;
pub mod wire;
