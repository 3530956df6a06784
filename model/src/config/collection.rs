//! Lists and maps in one text, as Flink writes them (`StructuredOptionsSplitter`): `a;b`, and `k1:v1,k2:v2`. A part
//! that holds a separator is quoted: `'a;b'`; a quote inside quotes is doubled.

use std::collections::BTreeMap;

/// Reads a list.
///
/// # Errors
/// What would be accepted instead.
pub fn parse_list(text: &str) -> Result<Vec<String>, String> {
    let parts = split(text, ';').ok_or("a list such as 'a;b', with quotes in pairs")?;
    parts.into_iter().map(|part| unquote(part).ok_or_else(|| "quotes around whole parts".to_owned())).collect()
}

/// Writes a list.
pub fn list_to_text<S: AsRef<str>>(list: &[S]) -> String {
    list.iter().map(|part| quote(part.as_ref())).collect::<Vec<_>>().join(";")
}

/// Reads a map.
///
/// # Errors
/// What would be accepted instead.
pub fn parse_map(text: &str) -> Result<BTreeMap<String, String>, String> {
    let expected = || "a map such as 'k1:v1,k2:v2', with quotes in pairs".to_owned();
    let entry = |text| match *split(text, ':')?.as_slice() {
        [key, value] => unquote(key).zip(unquote(value)),
        _ => None,
    };
    split(text, ',').ok_or_else(expected)?.into_iter().map(|part| entry(part).ok_or_else(expected)).collect()
}

/// Writes a map.
pub fn map_to_text(map: &BTreeMap<String, String>) -> String {
    map.iter().map(|(key, value)| format!("{}:{}", quote(key), quote(value))).collect::<Vec<_>>().join(",")
}

/// Splits outside quotes, and trims the parts; `None` if a quote is not closed. Nothing but space has no parts.
fn split(text: &str, separator: char) -> Option<Vec<&str>> {
    let mut open = None;
    let parts: Vec<&str> = text
        .split(|c| {
            match open {
                // A doubled quote closes and opens at once, which comes to the same here.
                Some(quote) if c == quote => open = None,
                None if matches!(c, '\'' | '"') => open = Some(c),
                _ => {}
            }
            open.is_none() && c == separator
        })
        .map(str::trim)
        .collect();
    let parts = if parts == [""] { Vec::new() } else { parts };
    open.is_none().then_some(parts)
}

/// Removes the quotes around a part; `None` if there are quotes that are not around all of it.
fn unquote(part: &str) -> Option<String> {
    let Some(quote) = part.chars().next().filter(|c| matches!(c, '\'' | '"')) else {
        return Some(part.to_owned());
    };
    let inner = part[1..].strip_suffix(quote)?;
    let plain = inner.replace(&format!("{quote}{quote}"), "");
    (!plain.contains(quote)).then(|| inner.replace(&format!("{quote}{quote}"), &quote.to_string()))
}

fn quote(part: &str) -> String {
    let is_plain = !part.is_empty() && part.trim() == part && !part.contains([';', ',', ':', '\'', '"']);
    if is_plain { part.to_owned() } else { format!("'{}'", part.replace('\'', "''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_split_at_semicolons_outside_quotes() {
        let list = |text| parse_list(text).unwrap();
        assert_eq!(list("a; b ;c"), ["a", "b", "c"]);
        assert_eq!(list("'a;b';\"it's\";'it''s'"), ["a;b", "it's", "it's"]);
        assert_eq!(list("  "), [""; 0]);
    }

    #[test]
    fn a_map_is_split_at_commas_and_colons_outside_quotes() {
        let map = parse_map("k1: v1, 'k:2':'v,2'").unwrap();
        assert_eq!(
            map.into_iter().collect::<Vec<_>>(),
            [("k1".to_owned(), "v1".to_owned()), ("k:2".to_owned(), "v,2".to_owned())]
        );
    }

    #[test]
    fn open_quotes_and_missing_values_are_refused() {
        assert!(parse_list("'a;b").is_err());
        assert!(parse_list("it's;b").is_err());
        assert!(parse_list("'a'b").is_err());
        assert!(parse_list("'a'b'c'").is_err());
        assert!(parse_map("k1").is_err());
        assert!(parse_map("k1:v1:w1").is_err());
    }

    #[test]
    fn written_collections_are_read_back_as_the_same() {
        let parts = ["plain", "", "a;b", "k:v,w", "it's", "\"", " spaced "].map(str::to_owned);
        assert_eq!(parse_list(&list_to_text(&parts)).unwrap(), parts);
        assert_eq!(parse_list(&list_to_text(&[""])).unwrap(), [""]);
        let map: BTreeMap<String, String> = parts.iter().cloned().zip(parts.iter().cloned().rev()).collect();
        assert_eq!(parse_map(&map_to_text(&map)).unwrap(), map);
    }
}
