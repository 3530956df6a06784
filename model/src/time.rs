//! Event time. The wall clock is not here: whoever needs it gets it as an argument.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01T00:00:00Z, in the time of the events themselves.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct EventTime(pub i64);

impl EventTime {
    /// Before every record; also what a record without a time stamp has.
    pub const MIN: EventTime = EventTime(i64::MIN);
    /// After every record.
    pub const MAX: EventTime = EventTime(i64::MAX);
}

/// The promise that no record with this time or an earlier one follows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Watermark(pub EventTime);

impl Watermark {
    /// What holds before anything was promised.
    pub const MIN: Watermark = Watermark(EventTime::MIN);
    /// The end of the stream.
    pub const MAX: Watermark = Watermark(EventTime::MAX);
}

impl fmt::Display for EventTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
