//! The clocks of the data plane; nothing else here reads one.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// For durations.
#[expect(clippy::disallowed_methods, reason = "the data plane's only look at the monotonic clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Processing time: milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "the data plane's only look at the wall clock")]
pub(crate) fn wall_millis() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as i64)
}
