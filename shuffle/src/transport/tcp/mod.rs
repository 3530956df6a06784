//! TCP, with TLS or without: one byte stream, in which pieces of the control stream and of the lanes take turns.
//!
//! ```text
//!  control ─┐                          ┌── plain: the chunks themselves
//!  lane 0  ─┼─► mux: piece by piece ─► pipe ─► socket ═══ socket ─► pipe ─► mux ─► control, lane 0, …
//!  lane 1  ─┘        control first     └── TLS: records
//! ```
//! Little is handed to the kernel ahead of time, since nothing can overtake it there.
//!
//! | Look here for | module |
//! |---|---|
//! | accepting and dialling | [`listener`] |
//! | one peer | [`connection`] |
//! | which bytes belong to which stream | [`mux`] |
//! | plain bytes or TLS records | [`pipe`], [`records`], [`run`] |

mod connection;
mod listener;
pub mod mux;
mod pipe;
mod records;
mod run;

pub use connection::TcpConnection;
pub use listener::TcpListener;
