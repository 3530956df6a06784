//! Ports of which the first free one is taken, as Flink writes them: `9249`, `9249-9260`, `9249,9300-9310`.

use super::value::Value;

/// Some ports, in the order in which they are tried; never none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortRange(Vec<(u16, u16)>);

impl PortRange {
    /// All of them.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.0.iter().flat_map(|(first, last)| *first..=*last)
    }
}

impl Value for PortRange {
    const TYPE_NAME: &'static str = "ports";

    fn parse(text: &str) -> Result<Self, String> {
        let part = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            (first <= last).then_some((first, last))
        };
        let parts: Option<Vec<(u16, u16)>> = text.split(',').map(part).collect();
        parts.map(PortRange).ok_or_else(|| "a port, a range such as 9249-9260, or several of these with ','".to_owned())
    }

    fn to_text(&self) -> String {
        let part = |(first, last): &(u16, u16)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        };
        self.0.iter().map(part).collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_ranges_are_read_in_order() {
        let range = PortRange::parse("9300, 9249-9251").unwrap();
        assert_eq!(range.ports().collect::<Vec<_>>(), [9300, 9249, 9250, 9251]);
        assert_eq!(PortRange::parse(&range.to_text()), Ok(range));
        for bad in ["", "x", "2-1", "1-", "70000"] {
            assert!(PortRange::parse(bad).is_err(), "{bad}");
        }
    }
}
