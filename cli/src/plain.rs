//! Numbers and times as people read them.

/// With a comma between thousands.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn thousands_are_told_apart() {
        let texts = [0, 7, 999, 1_000, 1_234_567].map(super::thousands);
        assert_eq!(texts, ["0", "7", "999", "1,000", "1,234,567"]);
    }
}
