//! How factors between a layer and what computes its inputs are chosen.

use std::{fmt, str::FromStr};

use crate::{
    error::{Error, Result},
    spec::text_form::serde_as_text,
};

/// How much of the differences between inputs is moved into the weights: 0 none of them, 1 all. It is kept to a
/// ten-thousandth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SmoothingStrength(u16);

impl SmoothingStrength {
    const PER_ONE: f32 = 10_000.0;

    /// Half of them, as the paper has it.
    pub const HALF: Self = Self(5_000);

    /// Checks a strength.
    ///
    /// # Errors
    ///
    /// [`Error::Text`] unless it is from 0 to 1.
    pub fn new(alpha: f32) -> Result<Self> {
        if (0.0..=1.0).contains(&alpha) {
            return Ok(Self((alpha * Self::PER_ONE).round() as u16));
        }
        Err(Error::Text { what: "strength of smoothing", got: alpha.to_string(), expected: "a number from 0 to 1" })
    }

    /// The exponent `α`.
    pub fn alpha(self) -> f32 {
        f32::from(self.0) / Self::PER_ONE
    }
}

/// How factors between a layer and what computes its inputs are chosen.
///
/// | variant | text form | what it is for | source |
/// |---|---|---|---|
/// | `None` | `none` | | |
/// | `Awq` | `awq` | weights of few bits: of inputs that are large, weights get finer levels | arXiv:2306.00978 |
/// | `Smooth` | `smooth`, `smooth:0.5` | activations of few bits: large inputs are made smaller | arXiv:2211.10438 |
///
/// ```
/// use quant_kernels::spec::scaling_method::{ScalingMethod, SmoothingStrength};
///
/// let smooth: ScalingMethod = "smooth:0.75".parse()?;
/// assert_eq!(smooth, ScalingMethod::Smooth(SmoothingStrength::new(0.75)?));
/// assert_eq!("smooth".parse::<ScalingMethod>()?.to_string(), "smooth:0.5");
/// assert!("smooth:2".parse::<ScalingMethod>().is_err());
/// # Ok::<(), quant_kernels::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum ScalingMethod {
    /// No factors.
    #[default]
    None,
    /// A power of the inputs' magnitudes, the one of least error of the outputs.
    Awq,
    /// Powers of the largest magnitudes of inputs and of weights.
    Smooth(SmoothingStrength),
}

impl fmt::Display for ScalingMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Awq => f.write_str("awq"),
            Self::Smooth(strength) => write!(f, "smooth:{}", strength.alpha()),
        }
    }
}

impl FromStr for ScalingMethod {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let fault = || Error::Text {
            what: "scaling",
            got: text.to_owned(),
            expected: "`none`, `awq`, `smooth` or `smooth:ALPHA` with ALPHA from 0 to 1",
        };
        match text {
            "none" => Ok(Self::None),
            "awq" => Ok(Self::Awq),
            "smooth" => Ok(Self::Smooth(SmoothingStrength::HALF)),
            _ => {
                let alpha = text.strip_prefix("smooth:").and_then(|alpha| alpha.parse().ok()).ok_or_else(fault)?;
                SmoothingStrength::new(alpha).map(Self::Smooth).map_err(|_| fault())
            }
        }
    }
}

serde_as_text!(ScalingMethod);
