//! When a question is answered with nothing.

use std::str::FromStr;

use anyhow::bail;

use switchable_quant::data::{Format, NullRule};

use crate::ending::usage;

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

/// When questions of data are answered with nothing: never without a threshold.
///
/// # Errors
///
/// When the data are of version 1.1, where each question has an answer, or the threshold is to be chosen.
pub fn null_rule(threshold: Option<NullThreshold>, format: Format) -> anyhow::Result<NullRule> {
    match (threshold, format) {
        (Some(NullThreshold::Auto), _) => {
            let chooser = "`evaluate`, which prints the threshold that it chooses";
            Err(usage(format!("`--null-threshold auto` is for {chooser}")))
        }
        (Some(_), Format::V1) => {
            bail!("`--null-threshold` is for data of version 2.0: in version 1.1 each question has an answer")
        }
        // The scores of a model are of this format.
        (Some(NullThreshold::At(threshold)), _) => Ok(NullRule::Threshold(threshold as f32)),
        (None, Format::V2) => {
            eprintln!("no `--null-threshold`: every question of these v2.0 data gets an answer");
            Ok(NullRule::Never)
        }
        (None, Format::V1) => Ok(NullRule::Never),
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
