//! What happened within the measured time, as the measured thread tells it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use harness::{
    latency::{Percentiles, histogram},
    machine::{now_nanos, thread_cpu_seconds},
    report::Figure,
};
use hdrhistogram::Histogram;

/// Of the calling thread, which must stay the same.
pub struct Meter {
    /// What the peers have received, of all streams.
    received: Arc<AtomicU64>,
    /// What this side has sent, of all streams.
    sent: u64,
    round_trips: Histogram<u64>,
    from_nanos: u64,
    until_nanos: u64,
    before: Option<Reading>,
    after: Option<Reading>,
}

#[derive(Clone, Copy)]
struct Reading {
    at_nanos: u64,
    cpu_seconds: f64,
    sent: u64,
    received: u64,
}

impl Meter {
    /// Measures for `time`, after a third of it.
    pub fn start(time: Duration, received: Arc<AtomicU64>) -> Meter {
        let (from_nanos, nanos) =
            (now_nanos() + time.as_nanos() as u64 / 3, time.as_nanos() as u64);
        Meter {
            received,
            sent: 0,
            round_trips: histogram(),
            from_nanos,
            until_nanos: from_nanos + nanos,
            before: None,
            after: None,
        }
    }

    /// To be called after each step. Returns whether there is more to do.
    pub fn goes_on(&mut self, now: u64) -> bool {
        if now >= self.from_nanos && self.before.is_none() {
            self.before = Some(self.read(now));
        }
        if now >= self.until_nanos && self.after.is_none() {
            self.after = Some(self.read(now));
        }
        self.after.is_none()
    }

    pub fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    pub fn answered(&mut self, asked_at: u64, now: u64) {
        if self.before.is_some() && self.after.is_none() {
            self.round_trips.saturating_record(now - asked_at);
        }
    }

    /// Once all steps are done.
    pub fn pings(&self) -> Vec<Figure> {
        let (cpu_seconds, pings) = (self.between().cpu_seconds, self.round_trips.len() as f64);
        let mut figures = Percentiles::of(&self.round_trips).figures();
        let value = cpu_seconds * 1e6 / pings;
        figures.push(Figure { metric: "cpu_us_per_ping", value, unit: "us" });
        figures
    }

    /// Once all steps are done. The speed is that at which peers receive; processor time is of what
    /// was sent meanwhile, since socket buffers hold much of a second's bytes.
    pub fn bulk(&self) -> Vec<Figure> {
        let Reading { at_nanos, cpu_seconds, sent, received } = self.between();
        let (speed, cost) =
            (received as f64 / (at_nanos as f64 / 1e9), cpu_seconds / (sent as f64 / 1e9));
        vec![
            Figure { metric: "bytes_per_s", value: speed, unit: "B/s" },
            Figure { metric: "cpu_s_per_gb", value: cost, unit: "s/GB" },
        ]
    }

    fn read(&self, now: u64) -> Reading {
        Reading {
            at_nanos: now,
            cpu_seconds: thread_cpu_seconds(),
            sent: self.sent,
            received: self.received.load(Relaxed),
        }
    }

    fn between(&self) -> Reading {
        let (before, after) = self.before.zip(self.after).expect("the steps went on to the end");
        Reading {
            at_nanos: after.at_nanos - before.at_nanos,
            cpu_seconds: after.cpu_seconds - before.cpu_seconds,
            sent: after.sent - before.sent,
            received: after.received - before.received,
        }
    }
}
