//! JSON for people: indented, with lists of numbers on one line.

use serde::Serialize;

/// Lists of numbers longer than this give way to their length in [`brief`].
const NUMBERS_SHOWN_MAX: usize = 16;

/// The value as it is.
///
/// # Errors
/// If it cannot be written as JSON.
pub fn full(value: &impl Serialize) -> serde_json::Result<String> {
    Ok(join_numbers(&serde_json::to_string_pretty(value)?, usize::MAX))
}

/// The value with long lists of numbers, which are serialized functions and of no use to a reader, replaced by a text
/// that says how long they are.
///
/// # Errors
/// If it cannot be written as JSON.
pub fn brief(value: &impl Serialize) -> serde_json::Result<String> {
    Ok(join_numbers(&serde_json::to_string_pretty(value)?, NUMBERS_SHOWN_MAX))
}

/// Works on lines: in JSON, a line break is never part of a text.
fn join_numbers(pretty: &str, shown_max: usize) -> String {
    let mut joined = String::with_capacity(pretty.len());
    let mut lines = pretty.lines();
    while let Some(line) = lines.next() {
        joined.push_str(line);
        if line.ends_with('[') {
            let is_number = |line: &&str| line.trim_start().starts_with(|c: char| c == '-' || c.is_ascii_digit());
            let ahead = lines.clone();
            let numbers: Vec<&str> = ahead.take_while(is_number).map(str::trim_start).collect();
            if let Some(end) = lines.clone().nth(numbers.len()).map(str::trim_start)
                && !numbers.is_empty()
                && end.starts_with(']')
            {
                lines.nth(numbers.len());
                if numbers.len() > shown_max {
                    joined.pop();
                    joined.push_str(&format!("\"({} bytes)\"{}", numbers.len(), &end[1..]));
                } else {
                    numbers.iter().for_each(|number| {
                        joined.push_str(number);
                        joined.push(' ');
                    });
                    joined.pop();
                    joined.push_str(end);
                }
            }
        }
        joined.push('\n');
    }
    joined
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn examples() -> [Value; 5] {
        [
            json!({"conf": [1, 2, -3], "empty": [], "name": "[\n1,\n2\n]"}),
            json!([[1.5, 2], ["1", "2"], [1, "2", 3], [[4], [5, 6]], {"deep": [7]}]),
            json!([]),
            json!("["),
            json!((0..100).collect::<Vec<i32>>()),
        ]
    }

    #[test]
    fn the_value_stays_the_same() {
        for value in examples() {
            let text = full(&value).expect("values can be written");
            assert_eq!(serde_json::from_str::<Value>(&text).expect(&text), value, "{text}");
        }
    }

    #[test]
    fn lists_of_numbers_take_one_line() {
        let text = full(&json!({"conf": [1, 2, -3], "names": ["1"], "next": [0]})).expect("values can be written");
        assert_eq!(text, "{\n  \"conf\": [1, 2, -3],\n  \"names\": [\n    \"1\"\n  ],\n  \"next\": [0]\n}\n");
    }

    #[test]
    fn long_lists_are_named_by_their_length_and_it_stays_json() {
        let numbers: Vec<i32> = (0..100).collect();
        let value = json!({"conf": numbers, "last": numbers});
        let text = brief(&value).expect("values can be written");
        assert_eq!(
            serde_json::from_str::<Value>(&text).expect(&text),
            json!({"conf": "(100 bytes)", "last": "(100 bytes)"})
        );
    }
}
