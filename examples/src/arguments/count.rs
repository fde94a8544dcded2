//! Numbers of things.

/// A number of at least 1.
///
/// # Errors
///
/// When it is none, with what was expected.
pub fn parse_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if count >= 1 => Ok(count),
        _ => Err("expected a whole number of at least 1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_not_a_count() {
        assert_eq!(parse_count("1"), Ok(1));
        for text in ["0", "-1", "1.5", "", "one"] {
            assert!(parse_count(text).unwrap_err().contains("at least 1"), "{text}");
        }
    }
}
