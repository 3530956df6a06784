//! Durations as Flink writes them (`TimeUtils`): a whole number and a unit, or a bare number of milliseconds.

use std::time::Duration;

/// Nanoseconds in a unit, and its names; the first of them is written.
const UNITS: [(u64, &[&str]); 7] = [
    (86_400_000_000_000, &["d", "day", "days"]),
    (3_600_000_000_000, &["h", "hour", "hours"]),
    (60_000_000_000, &["min", "m", "minute", "minutes"]),
    (1_000_000_000, &["s", "sec", "secs", "second", "seconds"]),
    (1_000_000, &["ms", "milli", "millis", "millisecond", "milliseconds"]),
    (1_000, &["us", "µs", "micro", "micros", "microsecond", "microseconds"]),
    (1, &["ns", "nano", "nanos", "nanosecond", "nanoseconds"]),
];

const EXPECTED: &str = "a duration such as '10 s': a whole number and one of d, h, min, s, ms, us, ns, or a bare \
                        number of milliseconds, at most 584 years";

/// Reads a duration.
///
/// # Errors
/// What would be accepted instead.
pub fn parse(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text);
    let nanos_per_unit = UNITS.iter().find(|(_, names)| names.contains(&unit.as_str())).map(|(nanos, _)| *nanos);
    let nanos_per_unit = if unit.is_empty() { Some(1_000_000) } else { nanos_per_unit };
    let nanos = number.zip(nanos_per_unit).and_then(|(number, nanos)| number.checked_mul(nanos));
    nanos.map(Duration::from_nanos).ok_or_else(|| EXPECTED.to_owned())
}

/// Writes a duration in the largest unit that keeps it whole.
pub fn to_text(duration: Duration) -> String {
    // Longer ones cannot be read back; no setting means anything beyond 584 years.
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    match UNITS.iter().find(|(unit, _)| nanos >= *unit && nanos.is_multiple_of(*unit)) {
        Some((unit, names)) => format!("{} {}", nanos / unit, names[0]),
        None => "0 ms".to_owned(),
    }
}

/// Splits `10 s` into its number and its unit, in lower case.
pub(super) fn split_unit(text: &str) -> (Option<u64>, String) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number.parse().ok(), unit.trim().to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_of_flink_is_understood_in_any_case_and_spacing() {
        let millis = Duration::from_millis;
        for (text, expected) in [
            ("10 s", millis(10_000)),
            ("500ms", millis(500)),
            ("1min", millis(60_000)),
            ("1 m", millis(60_000)),
            ("1 h", millis(3_600_000)),
            ("2 days", millis(2 * 86_400_000)),
            ("  7  Seconds ", millis(7_000)),
            ("20 us", Duration::from_micros(20)),
            ("20 µs", Duration::from_micros(20)),
            ("5 nanos", Duration::from_nanos(5)),
            ("1500", millis(1500)),
            ("0", Duration::ZERO),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in
            ["", "s", "ten s", "1.5 s", "-1", "-1 s", "10 parsecs", "10 s 5 ms", "99999999999999999999", "999999 d"]
        {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_written_duration_is_read_back_as_the_same() {
        for nanos in [0, 1, 999, 1_000, 20_000, 1_000_000, 90_000_000_000, 3_600_000_000_000, 86_400_000_000_001] {
            let duration = Duration::from_nanos(nanos);
            assert_eq!(parse(&to_text(duration)), Ok(duration), "{}", to_text(duration));
        }
        assert_eq!(to_text(Duration::from_secs(90)), "90 s");
    }
}
