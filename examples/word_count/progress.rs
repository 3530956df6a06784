//! A line on standard error that says how far a job has come.

use std::{
    io::{self, IsTerminal, Write},
    thread,
    time::{Duration, Instant},
};

use millstream::prelude::*;

/// How often it is looked whether the job has ended.
const PAUSE: Duration = Duration::from_millis(10);

/// Blocks until the job has ended. On a terminal the line is written over; in a file there is one every few seconds.
pub fn show_until_end(job: &JobClient) {
    let terminal = io::stderr().is_terminal();
    let every = if terminal { Duration::from_millis(250) } else { Duration::from_secs(2) };
    let started = Instant::now();
    let mut shown = (started, 0);
    let mut lines = 0;
    while !job.status().is_terminal() {
        thread::sleep(PAUSE);
        let since = shown.0.elapsed();
        if since < every {
            continue;
        }
        let read = job.progress().records_read;
        // After a failure, the job reads again from its last checkpoint on.
        let rate = read.saturating_sub(shown.1) as f64 / since.as_secs_f64();
        shown = (Instant::now(), read);
        let line = format!(
            "{} records read, {} records/s, {:.1} s",
            grouped(read),
            grouped(rate as u64),
            started.elapsed().as_secs_f64()
        );
        // Nobody can be told that standard error is gone.
        let _ = if terminal { write!(io::stderr(), "\r\x1b[K{line}") } else { writeln!(io::stderr(), "{line}") };
        lines += 1;
    }
    if terminal && lines > 0 {
        eprintln!();
    }
}

/// A number with commas between thousands.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
