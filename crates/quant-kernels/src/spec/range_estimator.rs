//! The range of values that the levels cover, and the scale that follows from it.
//!
//! ```text
//! min-max        [min x, max x]
//! percentile p   values beyond the p-th percentile of |x| (symmetric), or outside the (100−p)-th
//!                to p-th percentiles of x (asymmetric), are clipped
//! mse            f · [min x, max x] with the factor f that minimises Σ (x − y)²,
//!                f = 2^(−k/10), k = 0 ..= 50
//! importance     the same with Σ h (x − y)², h the mean square of the weight's input, and least squares after it
//! ```
//!
//! Where GPTQ rounds, the ranges of `mse` and `importance` are only a start, since its feedback needs more room:
//! the factor of each output's scales is then the one of least error of the outputs themselves.
//!
//! Each block of values that share a scale has its own range. A symmetric range is widened to
//! ±max(|lo|, |hi|), an asymmetric one to contain 0.
//!
//! The factors of the search reach down to 1/32, because the largest weight of a trained layer may
//! be tens of standard deviations out, and are 7 % apart, because the error is flat about its
//! minimum. The search includes f = 1, so its error is never above that of min-max.

use std::{fmt, str::FromStr};

use crate::{
    error::{Error, Result},
    spec::text_form::serde_as_text,
};

/// A percentile above 50 and up to 100, kept to a ten-thousandth of a percent.
///
/// ```
/// use quant_kernels::spec::range_estimator::Percentile;
///
/// assert_eq!(Percentile::new(99.9)?.percent(), 99.9);
/// assert!(Percentile::new(50.0).is_err());
/// # Ok::<(), quant_kernels::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percentile(u32);

impl Percentile {
    const PER_PERCENT: f64 = 10_000.0;

    /// Checks a percentile, given in percent.
    ///
    /// # Errors
    ///
    /// [`Error::Percentile`] unless `percent` is more than 50 and at most 100.
    pub fn new(percent: f64) -> Result<Self> {
        let steps = (percent * Self::PER_PERCENT).round();
        let [above, last] = [50.0, 100.0].map(|percent| percent * Self::PER_PERCENT);
        if above < steps && steps <= last { Ok(Self(steps as u32)) } else { Err(Error::Percentile { got: percent }) }
    }

    /// The percentile in percent.
    pub fn percent(self) -> f64 {
        f64::from(self.0) / Self::PER_PERCENT
    }
}

/// How the range of the values that share a scale is found.
///
/// The formulas are at the top of the module's source; in short:
///
/// | variant | text form | range | cost |
/// |---|---|---|---|
/// | `MinMax` | `min-max` | every value, nothing is clipped | one pass |
/// | `Percentile` | `percentile:<percent>` | the largest values are clipped | a sort |
/// | `Mse` | `mse` | least squared error among 51 shrunken min-max ranges | 51 quantisations |
/// | `Importance` | `importance` | the same, where errors count by their inputs: weights alone, and [calibrated](crate::Calibrated) | 60 quantisations |
///
/// ```
/// use quant_kernels::{RangeEstimator, spec::range_estimator::Percentile};
///
/// let range: RangeEstimator = "percentile:99.9".parse()?;
/// assert_eq!(range, RangeEstimator::Percentile(Percentile::new(99.9)?));
/// # Ok::<(), quant_kernels::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum RangeEstimator {
    /// The smallest and the largest value.
    #[default]
    MinMax,
    /// A percentile of the values.
    Percentile(Percentile),
    /// The shrunken min-max range of least squared error.
    Mse,
    /// The range of least squared error where each error counts by the mean square of its input.
    Importance,
}

impl RangeEstimator {
    const EXPECTED: &str = "`min-max`, `percentile:<percent>`, `mse` or `importance`";

    /// Whether it is a search for the least error, rather than a fixed share of the values.
    pub const fn is_searched(self) -> bool {
        matches!(self, Self::Mse | Self::Importance)
    }
}

impl fmt::Display for RangeEstimator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MinMax => f.write_str("min-max"),
            Self::Percentile(percentile) => write!(f, "percentile:{}", percentile.percent()),
            Self::Mse => f.write_str("mse"),
            Self::Importance => f.write_str("importance"),
        }
    }
}

impl FromStr for RangeEstimator {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let unknown = || Error::Text { what: "range estimator", got: text.to_owned(), expected: Self::EXPECTED };
        match text.split_once(':') {
            None => match text {
                "min-max" => Ok(Self::MinMax),
                "mse" => Ok(Self::Mse),
                "importance" => Ok(Self::Importance),
                _ => Err(unknown()),
            },
            Some(("percentile", percent)) => {
                let percent = percent.parse().map_err(|_| unknown())?;
                Percentile::new(percent).map(Self::Percentile)
            }
            Some(_) => Err(unknown()),
        }
    }
}

serde_as_text!(RangeEstimator);
