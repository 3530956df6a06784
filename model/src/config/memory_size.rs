//! Memory sizes as Flink writes them (`MemorySize`): a whole number and a unit of 1024, or a bare number of bytes.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::duration::split_unit;

/// An amount of memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct MemorySize(u64);

/// Bytes in a unit, and its names; the first of them is written.
const UNITS: [(u64, &[&str]); 5] = [
    (1 << 40, &["tb", "t", "tebibytes"]),
    (1 << 30, &["gb", "g", "gibibytes"]),
    (1 << 20, &["mb", "m", "mebibytes"]),
    (1 << 10, &["kb", "k", "kibibytes"]),
    (1, &["b", "bytes"]),
];

impl MemorySize {
    pub const fn from_bytes(bytes: u64) -> MemorySize {
        MemorySize(bytes)
    }

    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for MemorySize {
    type Err = String;

    /// Reads a size; the error says what would be accepted instead.
    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = split_unit(text);
        let bytes_per_unit = UNITS.iter().find(|(_, names)| names.contains(&unit.as_str())).map(|(bytes, _)| *bytes);
        let bytes_per_unit = if unit.is_empty() { Some(1) } else { bytes_per_unit };
        let bytes = number.zip(bytes_per_unit).and_then(|(number, bytes)| number.checked_mul(bytes));
        bytes.map(MemorySize).ok_or_else(|| {
            "a memory size such as '64 mb': a whole number and one of b, kb, mb, gb, tb (steps of 1024), or a bare \
             number of bytes"
                .to_owned()
        })
    }
}

impl fmt::Display for MemorySize {
    /// In the largest unit that keeps it whole.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(unit, _)| self.0 >= *unit && self.0.is_multiple_of(*unit)) {
            Some((unit, names)) => write!(f, "{} {}", self.0 / unit, names[0]),
            None => f.write_str("0 b"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_step_by_1024_and_a_bare_number_is_bytes() {
        for (text, bytes) in [
            ("64mb", 64 << 20),
            ("1g", 1 << 30),
            ("32 KB", 32 << 10),
            ("2 tebibytes", 2 << 40),
            ("7 bytes", 7),
            (" 1024 ", 1024),
            ("0", 0),
        ] {
            assert_eq!(text.parse(), Ok(MemorySize(bytes)), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_memory_size_is_refused() {
        for text in ["", "mb", "-1", "1.5 gb", "64 megs", "64 mb 3", "99999999999 tb"] {
            assert!(text.parse::<MemorySize>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_written_size_is_read_back_as_the_same() {
        for bytes in [0, 1, 1023, 1024, 1536, 64 << 20, (1 << 30) + 1, 3 << 40] {
            let size = MemorySize(bytes);
            assert_eq!(size.to_string().parse(), Ok(size), "{size}");
        }
        assert_eq!(MemorySize(64 << 20).to_string(), "64 mb");
    }
}
