//! The values of `taskmanager.affinity`.

use super::value::Value;

/// Which CPUs the threads of slots run on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Affinity {
    /// One CPU each, if the process owns its CPUs.
    Auto,
    /// Wherever the system puts them.
    Off,
    /// These CPUs, as the system numbers them; in the order given, never empty, no duplicates.
    Cpus(Vec<u32>),
}

impl Value for Affinity {
    const TYPE_NAME: &'static str = "`auto`, `off`, or CPUs";

    fn parse(text: &str) -> Result<Self, String> {
        match text.trim().to_ascii_lowercase().as_str() {
            "auto" => Ok(Affinity::Auto),
            // YAML 1.1 has no word "off", it has the boolean; parsers that follow it hand out "false".
            "off" | "false" => Ok(Affinity::Off),
            list => parse_cpus(list)
                .map(Affinity::Cpus)
                .ok_or_else(|| "auto, off, or different CPUs such as 0-3,8".to_owned()),
        }
    }

    fn to_text(&self) -> String {
        match self {
            Affinity::Auto => "auto".to_owned(),
            Affinity::Off => "off".to_owned(),
            Affinity::Cpus(cpus) => cpus.iter().map(u32::to_string).collect::<Vec<_>>().join(","),
        }
    }
}

/// Reads `0-3,8`.
fn parse_cpus(text: &str) -> Option<Vec<u32>> {
    // More than any machine has: keeps a typing error from becoming a list of four billion.
    const CPUS_MAX: u32 = 1 << 16;
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= CPUS_MAX {
            return None;
        }
        cpus.extend(first..=last);
    }
    let mut sorted = cpus.clone();
    sorted.sort_unstable();
    sorted.windows(2).all(|pair| pair[0] != pair[1]).then_some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_list_may_hold_ranges_and_keeps_its_order() {
        assert_eq!(Affinity::parse("8, 0-3"), Ok(Affinity::Cpus(vec![8, 0, 1, 2, 3])));
        assert_eq!(Affinity::parse("AUTO"), Ok(Affinity::Auto));
        assert_eq!(Affinity::parse("off"), Ok(Affinity::Off));
        assert_eq!(Affinity::parse("65535"), Ok(Affinity::Cpus(vec![65535])));
    }

    #[test]
    fn lists_that_name_a_cpu_twice_or_none_are_refused() {
        for text in ["", "a", "3-1", "0-2,2", "0,,1", "-1", "65536", "0-4294967295"] {
            assert!(Affinity::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_written_affinity_is_read_back_as_the_same() {
        for affinity in [Affinity::Auto, Affinity::Off, Affinity::Cpus(vec![4, 2])] {
            assert_eq!(Affinity::parse(&affinity.to_text()), Ok(affinity));
        }
    }
}
