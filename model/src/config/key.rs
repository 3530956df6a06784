//! A key: its name, the type of its values, its default, and what it is for.

use std::{cmp::Ordering, fmt, marker::PhantomData};

use super::value::Value;

/// A key whose values have the type `T`; `Option<T>` where there may be no value.
///
/// The engine's own keys are the constants of [`keys`](super::keys), where each is also registered for validation and
/// documentation. A program may have keys of its own; they are reported as unknown, since nothing can check them early.
pub struct Key<T: 'static> {
    pub definition: Definition,
    values: PhantomData<fn() -> T>,
}

/// What is known of a key without its type: enough to check texts, to find names and to write the reference page.
#[derive(Clone, Copy)]
pub struct Definition {
    /// Flink's name, where Flink has such a key.
    pub name: &'static str,
    /// Other names that are accepted: those that older versions of Flink used.
    pub aliases: &'static [&'static str],
    /// As a user would write it; `None` if the key has no value by default.
    pub default: Option<&'static str>,
    /// Markdown, one or more sentences.
    pub doc: &'static str,
    /// The words for the type in the reference page.
    pub type_name: &'static str,
    /// Flink has no such key.
    pub is_ours: bool,
    pub bounds: Bounds,
    check: fn(&str, Bounds) -> Result<(), String>,
}

/// The lowest and the highest value that are accepted, as a user would write them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bounds {
    pub lowest: Option<&'static str>,
    pub highest: Option<&'static str>,
}

impl<T: Value> Key<T> {
    /// A key that has this default, written as a user would write it.
    pub const fn new(name: &'static str, default: &'static str) -> Key<T> {
        Key::with_default(name, Some(default))
    }

    const fn with_default(name: &'static str, default: Option<&'static str>) -> Key<T> {
        let bounds = Bounds { lowest: None, highest: None };
        let definition = Definition {
            name,
            aliases: &[],
            default,
            doc: "",
            type_name: T::TYPE_NAME,
            is_ours: false,
            bounds,
            check: check::<T>,
        };
        Key { definition, values: PhantomData }
    }

    /// Reads a value of this key.
    ///
    /// # Errors
    /// What would be accepted instead, as the end of a sentence that begins with "expected".
    pub fn parse(&self, text: &str) -> Result<T, String> {
        parse(text, self.definition.bounds)
    }
}

impl<T: Value> Key<Option<T>> {
    /// A key that has no value by default.
    pub const fn optional(name: &'static str) -> Key<Option<T>> {
        Key::with_default(name, None)
    }
}

impl<T> Key<T> {
    /// Also accepts these older names.
    #[must_use]
    pub const fn aliases(mut self, names: &'static [&'static str]) -> Key<T> {
        self.definition.aliases = names;
        self
    }

    /// Refuses values below `lowest`, which is written as a user would write it.
    #[must_use]
    pub const fn at_least(mut self, lowest: &'static str) -> Key<T> {
        self.definition.bounds.lowest = Some(lowest);
        self
    }

    /// Refuses values above `highest`, which is written as a user would write it.
    #[must_use]
    pub const fn at_most(mut self, highest: &'static str) -> Key<T> {
        self.definition.bounds.highest = Some(highest);
        self
    }

    /// Marks a key that Flink does not have.
    #[must_use]
    pub const fn ours(mut self) -> Key<T> {
        self.definition.is_ours = true;
        self
    }

    /// Says what the key is for, in Markdown.
    #[must_use]
    pub const fn doc(mut self, doc: &'static str) -> Key<T> {
        self.definition.doc = doc;
        self
    }

    /// The name it is documented under.
    pub const fn name(&self) -> &'static str {
        self.definition.name
    }
}

impl Definition {
    /// Whether `text` is a value of this key.
    ///
    /// # Errors
    /// What would be accepted instead, as the end of a sentence that begins with "expected".
    pub fn check(&self, text: &str) -> Result<(), String> {
        (self.check)(text, self.bounds)
    }

    /// All names that are accepted, the documented one first.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + use<> {
        [self.name].into_iter().chain(self.aliases.iter().copied())
    }
}

fn check<T: Value>(text: &str, bounds: Bounds) -> Result<(), String> {
    parse::<T>(text, bounds).map(drop)
}

fn parse<T: Value>(text: &str, bounds: Bounds) -> Result<T, String> {
    let value = T::parse(text)?;
    // An absent value has no magnitude, and lies within all bounds.
    let beyond = |bound: Option<&'static str>, order: Ordering| {
        let limit = bound.and_then(|bound| T::parse(bound).ok()?.magnitude());
        value.magnitude().zip(limit).is_some_and(|(magnitude, limit)| magnitude.total_cmp(&limit) == order)
    };
    if beyond(bounds.lowest, Ordering::Less) || beyond(bounds.highest, Ordering::Greater) {
        return Err(bounds.to_string());
    }
    Ok(value)
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.lowest, self.highest) {
            (Some(lowest), Some(highest)) => write!(f, "{lowest} to {highest}"),
            (Some(lowest), None) => write!(f, "at least {lowest}"),
            (None, Some(highest)) => write!(f, "at most {highest}"),
            (None, None) => f.write_str("any value"),
        }
    }
}

impl<T> fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.definition.fmt(f)
    }
}

impl fmt::Debug for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.name)
    }
}
