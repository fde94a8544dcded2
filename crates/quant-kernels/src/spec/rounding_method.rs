//! How the weights of a layer are rounded to the levels of their scales.

use std::{fmt, str::FromStr};

use crate::{
    error::{Error, Result},
    spec::{quant_spec::QuantSpec, range_estimator::RangeEstimator, text_form::serde_as_text},
};

/// How the weights of a layer are rounded to the levels of their scales.
///
/// | variant | text form | what it sees | source |
/// |---|---|---|---|
/// | `Nearest` | `nearest` | each weight alone | |
/// | `Hqq` | `hqq` | the weights that share a scale | Badri and Shaji, *Half-Quadratic Quantization*, 2023 |
/// | `Nested` | `nested` | the weights that share a scale at 8 bits: the highest bits of those codes | arXiv:2502.06786 |
/// | `Gptq` | `gptq` | the second moments of the layer's inputs | arXiv:2210.17323 |
///
/// ```
/// use quant_kernels::RoundingMethod;
///
/// assert_eq!("gptq".parse(), Ok(RoundingMethod::Gptq));
/// assert_eq!(RoundingMethod::default().to_string(), "nearest");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum RoundingMethod {
    /// To the nearest level.
    #[default]
    Nearest,
    /// To the nearest level, under scales that a sparse error moved.
    Hqq,
    /// To the highest bits of the codes of 8 bits, which so hold every lower width; symmetric. Its values pass
    /// gradients through unchanged, so that weights can be trained for all widths of one tensor.
    Nested,
    /// One input after another, each making up for the error of those before it.
    Gptq,
}

impl RoundingMethod {
    /// Every method.
    pub const ALL: [Self; 4] = [Self::Nearest, Self::Hqq, Self::Nested, Self::Gptq];

    /// Whether weights cannot be rounded like this, under the scales of a quantiser, without the
    /// [moments](crate::InputMoments) of their inputs.
    ///
    /// ```
    /// use quant_kernels::{QuantSpec, RoundingMethod};
    ///
    /// assert!(RoundingMethod::Gptq.needs_moments(QuantSpec::default()));
    /// assert!(RoundingMethod::Nearest.needs_moments("per-channel,symmetric,importance".parse()?));
    /// assert!(!RoundingMethod::Hqq.needs_moments(QuantSpec::default()));
    /// # Ok::<(), quant_kernels::Error>(())
    /// ```
    pub fn needs_moments(self, spec: QuantSpec) -> bool {
        self == Self::Gptq || spec.range == RangeEstimator::Importance
    }
}

impl fmt::Display for RoundingMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nearest => "nearest",
            Self::Hqq => "hqq",
            Self::Nested => "nested",
            Self::Gptq => "gptq",
        })
    }
}

impl FromStr for RoundingMethod {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let named = Self::ALL.into_iter().find(|method| method.to_string() == text);
        named.ok_or_else(|| Error::Text {
            what: "rounding",
            got: text.to_owned(),
            expected: "`nearest`, `hqq`, `nested` or `gptq`",
        })
    }
}

serde_as_text!(RoundingMethod);
