//! The types that a key's values can have, and the texts they are read from. The forms are Flink's.

use std::{collections::BTreeMap, time::Duration};

use super::{collection, duration, memory_size::MemorySize};
use crate::{id::JobId, key_group::MaxParallelism};

/// A type that a key's values can have.
pub trait Value: Sized + 'static {
    /// The words for the type in the reference page.
    const TYPE_NAME: &'static str;

    /// How a user writes that there is no value, where there may be none.
    const ABSENT: &'static str = "";

    /// Reads a value.
    ///
    /// # Errors
    /// What would be accepted instead, as the end of a sentence that begins with "expected".
    fn parse(text: &str) -> Result<Self, String>;

    /// Writes the value so that [`parse`](Value::parse) reads the same one.
    fn to_text(&self) -> String;

    /// What a key's bounds are compared with; `None` if the type has no order, or the value is absent.
    fn magnitude(&self) -> Option<f64> {
        None
    }

    /// What a key without a default has, if its type allows for that.
    fn absent() -> Option<Self> {
        None
    }
}

impl<T: Value> Value for Option<T> {
    const TYPE_NAME: &'static str = T::TYPE_NAME;
    const ABSENT: &'static str = T::ABSENT;

    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() || text == T::ABSENT { Ok(None) } else { T::parse(text).map(Some) }
    }

    fn to_text(&self) -> String {
        self.as_ref().map_or_else(|| T::ABSENT.to_owned(), T::to_text)
    }

    fn magnitude(&self) -> Option<f64> {
        self.as_ref().and_then(T::magnitude)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl Value for bool {
    const TYPE_NAME: &'static str = "boolean";

    fn parse(text: &str) -> Result<Self, String> {
        match text.trim().to_ascii_lowercase().as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err("true or false".to_owned()),
        }
    }

    fn to_text(&self) -> String {
        self.to_string()
    }
}

/// Numbers: Rust's own text form, which is also Java's for everything a person would write.
macro_rules! number {
    ($($type:ty, $type_name:literal, $expected:expr;)+) => {$(
        impl Value for $type {
            const TYPE_NAME: &'static str = $type_name;

            fn parse(text: &str) -> Result<Self, String> {
                let number: Option<$type> = text.trim().parse().ok();
                // "NaN" and "inf" parse as f64, but are no sensible setting of anything.
                number.filter(|number| (*number as f64).is_finite()).ok_or_else(|| $expected)
            }

            fn to_text(&self) -> String {
                self.to_string()
            }

            fn magnitude(&self) -> Option<f64> {
                Some(*self as f64)
            }
        }
    )+};
}

number! {
    u16, "integer", format!("a whole number from 0 to {}", u16::MAX);
    u32, "integer", format!("a whole number from 0 to {}", u32::MAX);
    u64, "integer", format!("a whole number from 0 to {}", u64::MAX);
    f64, "number", "a number such as 0.5".to_owned();
}

impl Value for String {
    const TYPE_NAME: &'static str = "string";

    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }

    fn to_text(&self) -> String {
        self.clone()
    }
}

impl Value for Duration {
    const TYPE_NAME: &'static str = "duration";

    fn parse(text: &str) -> Result<Self, String> {
        duration::parse(text)
    }

    fn to_text(&self) -> String {
        duration::to_text(*self)
    }

    fn magnitude(&self) -> Option<f64> {
        Some(self.as_secs_f64())
    }
}

impl Value for MemorySize {
    const TYPE_NAME: &'static str = "memory size";

    fn parse(text: &str) -> Result<Self, String> {
        text.parse()
    }

    fn to_text(&self) -> String {
        self.to_string()
    }

    fn magnitude(&self) -> Option<f64> {
        Some(self.bytes() as f64)
    }
}

impl Value for Vec<String> {
    const TYPE_NAME: &'static str = "list";

    fn parse(text: &str) -> Result<Self, String> {
        collection::parse_list(text)
    }

    fn to_text(&self) -> String {
        collection::list_to_text(self)
    }
}

impl Value for BTreeMap<String, String> {
    const TYPE_NAME: &'static str = "map";

    fn parse(text: &str) -> Result<Self, String> {
        collection::parse_map(text)
    }

    fn to_text(&self) -> String {
        collection::map_to_text(self)
    }
}

impl Value for JobId {
    const TYPE_NAME: &'static str = "id";

    fn parse(text: &str) -> Result<Self, String> {
        text.trim().parse().map_err(|_| "32 hexadecimal digits".to_owned())
    }

    fn to_text(&self) -> String {
        self.to_string()
    }
}

impl Value for MaxParallelism {
    const TYPE_NAME: &'static str = "integer";
    const ABSENT: &'static str = "-1";

    fn parse(text: &str) -> Result<Self, String> {
        let number: Option<u32> = text.trim().parse().ok();
        let accepted = number.filter(|number| (1..=MaxParallelism::LIMIT).contains(number));
        accepted.map(MaxParallelism).ok_or_else(|| format!("1 to {}, or -1", MaxParallelism::LIMIT))
    }

    fn to_text(&self) -> String {
        self.0.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_are_words_in_any_case() {
        assert_eq!(bool::parse(" True "), Ok(true));
        assert_eq!(bool::parse("FALSE"), Ok(false));
        assert!(["yes", "1", ""].iter().all(|text| bool::parse(text).is_err()));
    }

    #[test]
    fn numbers_are_finite_and_within_their_type() {
        assert_eq!(u16::parse(" 8081 "), Ok(8081));
        assert_eq!(u16::parse("65536"), Err("a whole number from 0 to 65535".to_owned()));
        assert!(u32::parse("-1").is_err());
        assert_eq!(f64::parse("1e-1"), Ok(0.1));
        assert!(["NaN", "inf", "half", ""].iter().all(|text| f64::parse(text).is_err()));
    }

    #[test]
    fn nothing_is_a_value_only_where_there_may_be_none() {
        assert_eq!(Option::<u32>::parse("  "), Ok(None));
        assert!(u32::parse("").is_err());
        assert_eq!(Option::<u32>::parse("7"), Ok(Some(7)));
        assert_eq!(Option::<MaxParallelism>::parse("-1"), Ok(None));
        assert_eq!(Option::<MaxParallelism>::parse(""), Ok(None));
        assert_eq!(None::<MaxParallelism>.to_text(), "-1");
    }

    #[test]
    fn the_maximum_parallelism_ends_where_key_groups_do() {
        assert_eq!(MaxParallelism::parse("32768"), Ok(MaxParallelism(32768)));
        assert!(["0", "32769", "-2"].iter().all(|text| Option::<MaxParallelism>::parse(text).is_err()));
    }
}
