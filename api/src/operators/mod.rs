//! The operators behind the methods of streams.
//!
//! | Look here for | module |
//! |---|---|
//! | `map`, `filter`, `flat_map` in their three forms | [`stateless`] |
//! | `flat_map_iter`, which pauses between two items | [`flat_map_iter`] |
//! | async functions: results that come later | [`async_wait`] |
//! | `process` on a stream without keys | [`process`] |
//! | everything keyed: functions with state and timers | [`keyed`] |
//! | `sum`, `min`, `max`, `count`, `reduce` | [`aggregate`] |
//! | two inputs | [`two_inputs`] |
//! | time stamps and watermarks | [`watermarks`] |

pub(crate) mod aggregate;
pub mod async_wait;
pub(crate) mod flat_map_iter;
pub(crate) mod keyed;
pub(crate) mod process;
pub(crate) mod stateless;
pub(crate) mod two_inputs;
pub mod watermarks;
