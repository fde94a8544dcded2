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

/// A number from 1 to `MOST`, for what takes memory for each.
///
/// # Errors
///
/// When it is none, with what was expected.
pub fn parse_up_to<const MOST: usize>(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if (1..=MOST).contains(&count) => Ok(count),
        _ => Err(format!("expected a whole number from 1 to {MOST}")),
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
            assert!(parse_up_to::<9>(text).unwrap_err().contains("from 1 to 9"), "{text}");
        }
        assert_eq!(parse_up_to::<9>("9"), Ok(9));
        assert!(parse_up_to::<9>("10").is_err() && parse_up_to::<9>("99999999999999999999").is_err());
    }
}
