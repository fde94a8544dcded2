//! When a question is answered with nothing.

use std::str::FromStr;

/// A threshold of the null rule, or that it is chosen on held-out questions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum NullThreshold {
    /// Chosen on held-out questions.
    Auto,
    /// This one.
    At(f64),
}

impl FromStr for NullThreshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let number = text.parse().ok().filter(|number: &f64| number.is_finite());
        number.map(Self::At).ok_or_else(|| format!("`{text}`, expected auto or a finite number"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_is_auto_or_a_finite_number() {
        assert_eq!("auto".parse(), Ok(NullThreshold::Auto));
        assert_eq!("-1.5".parse(), Ok(NullThreshold::At(-1.5)));
        for wrong in ["", "nan", "inf", "1,5", "Auto"] {
            assert!(wrong.parse::<NullThreshold>().is_err(), "{wrong}");
        }
    }
}
