//! How a record becomes a line.

use std::fmt::{Display, Write};

use millstream_api::record::Record;

/// Writes records as lines. Closures without captures do: `|(word, count), line| …`.
pub trait LineFormat<T: Record>: Copy + 'static {
    /// Appends `record` to `line`, without a line end.
    fn write(&self, record: T::Ref<'_>, line: &mut String);
}

impl<T: Record, F> LineFormat<T> for F
where
    F: for<'a> Fn(T::Ref<'a>, &mut String) + Copy + 'static,
{
    #[inline]
    fn write(&self, record: T::Ref<'_>, line: &mut String) {
        self(record, line);
    }
}

/// A string is the line.
#[derive(Clone, Copy, Debug)]
pub struct AsIs;

impl LineFormat<String> for AsIs {
    #[inline]
    fn write(&self, record: &str, line: &mut String) {
        line.push_str(record);
    }
}

/// The elements of a tuple with tabs between them.
#[derive(Clone, Copy, Debug)]
pub struct TabSeparated;

macro_rules! tab_separated {
    ($first:ident $(, $rest:ident $index:tt)*) => {
        impl<$first: Record $(, $rest: Record)*> LineFormat<($first, $($rest,)*)> for TabSeparated
        where
            for<'a> $first::Ref<'a>: Display,
            $(for<'a> $rest::Ref<'a>: Display,)*
        {
            fn write(&self, record: ($first::Ref<'_>, $($rest::Ref<'_>,)*), line: &mut String) {
                // Writing to a string cannot fail unless a `Display` says so, and then half a record stands there.
                let _ = write!(line, "{}", record.0);
                $(let _ = write!(line, "\t{}", record.$index);)*
            }
        }
    };
}
tab_separated!(A);
tab_separated!(A, B 1);
tab_separated!(A, B 1, C 2);
tab_separated!(A, B 1, C 2, D 3);
tab_separated!(A, B 1, C 2, D 3, E 4);
tab_separated!(A, B 1, C 2, D 3, E 4, F 5);
