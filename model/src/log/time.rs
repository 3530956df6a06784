//! Times as logs have them: RFC 3339 in UTC, with milliseconds.

const DAY_MILLIS: i64 = 86_400_000;

/// As in `2026-11-30T14:00:00.123Z`.
pub(super) fn to_text(millis: i64) -> String {
    let (days, rest) = (millis.div_euclid(DAY_MILLIS), millis.rem_euclid(DAY_MILLIS));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", rest % 1000)
}

/// Reads a time as logs have it; fractions of the second may be left out.
pub fn parse_time(text: &str) -> Option<i64> {
    from_text(text).or_else(|| from_text(&format!("{}.000Z", text.strip_suffix('Z')?)))
}

/// Back from [`to_text`].
pub(super) fn from_text(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let shape = b"0000-00-00T00:00:00.000Z";
    let fits = bytes.len() == shape.len()
        && bytes.iter().zip(shape).all(|(byte, at)| if *at == b'0' { byte.is_ascii_digit() } else { byte == at });
    if !fits {
        return None;
    }
    let number = |from: usize, to: usize| text[from..to].parse::<i64>().ok();
    let days = days(number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let seconds = number(11, 13)? * 3600 + number(14, 16)? * 60 + number(17, 19)?;
    Some(days * DAY_MILLIS + seconds * 1000 + number(20, 23)?)
}

/// The day of the calendar that is so many after 1970-01-01. By Howard Hinnant, <https://howardhinnant.github.io/date_algorithms.html>:
/// years begin in March, so that the leap day is the last of one.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Back from [`civil`].
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_text_that_others_give_them() {
        // By `date -u -d @SECONDS`.
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_007, "2000-02-29T00:00:00.007Z"),
            (1_796_047_199_999, "2026-11-30T13:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(to_text(millis), text);
            assert_eq!(from_text(text), Some(millis), "{text}");
            assert_eq!(parse_time(&format!("{}Z", &text[..19])), Some(millis.div_euclid(1000) * 1000), "{text}");
        }
        for text in ["", "2026-11-30T13:59:59Z", "2026-11-30 13:59:59.999Z", "2026-11-30T13:59:59.99éZ"] {
            assert_eq!(from_text(text), None, "{text}");
        }
    }
}
