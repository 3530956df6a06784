//! Time as the control plane measures it. Deciders get it as an argument; only drivers own a [`Clock`].

use std::{
    ops::Add,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// A point in time, since 1970. It never goes backwards within a process: the wall clock is read once, at the start.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Moment(pub Duration);

impl Moment {
    /// The time from `earlier` until this moment; nothing if it is the later one.
    pub fn since(self, earlier: Moment) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    pub fn unix_millis(self) -> u64 {
        self.0.as_millis() as u64
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, duration: Duration) -> Moment {
        Moment(self.0.saturating_add(duration))
    }
}

/// The machine's clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    start_since_1970: Duration,
}

#[expect(clippy::disallowed_methods, reason = "this is the clock that the control plane's drivers own")]
impl Clock {
    pub fn start() -> Clock {
        let start_since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Clock { start: Instant::now(), start_since_1970 }
    }

    pub fn now(&self) -> Moment {
        Moment(self.start_since_1970 + self.start.elapsed())
    }
}
