//! The range of values that the levels cover, and the scale that follows from it.
//!
//! ```text
//! min-max        [min x, max x]
//! percentile p   values beyond the p-th percentile of |x| (symmetric), or outside the (100−p)-th
//!                to p-th percentiles of x (asymmetric), are clipped
//! mse            f · [min x, max x] with the factor f that minimises Σ (x − y)²,
//!                f = 2^(−k/10), k = 0 ..= 50
//! ```
//!
//! Each block of values that share a scale has its own range. A symmetric range is widened to
//! ±max(|lo|, |hi|), an asymmetric one to contain 0.
//!
//! The factors of the search reach down to 1/32, because the largest weight of a trained layer may
//! be tens of standard deviations out, and are 7 % apart, because the error is flat about its
//! minimum. The search includes f = 1, so its error is never above that of min-max.

use std::{fmt, str::FromStr};

use burn::tensor::{Tensor, backend::Backend};

use crate::{
    Error, LevelRange, Result,
    blocks::{max_of, sum_of},
    quantize::{clamp_to, restore, to_levels},
    text_form::serde_as_text,
};

/// How many factors the MSE search tries after 1, and how many of them make one halving.
const MSE_STEPS: u32 = 50;
const MSE_STEPS_PER_HALVING: f32 = 10.0;

/// A percentile above 50 and up to 100, kept to a ten-thousandth of a percent.
///
/// ```
/// use quant_kernels::Percentile;
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

    /// The value at this percentile of each block, sorted along its middle dimension, linearly
    /// interpolated between neighbours.
    fn high_of_sorted<B: Backend>(self, sorted: &Tensor<B, 3>) -> Tensor<B, 3> {
        Self::at_fraction(sorted, self.percent() / 100.0)
    }

    /// The value at 100 minus this percentile of each sorted block.
    fn low_of_sorted<B: Backend>(self, sorted: &Tensor<B, 3>) -> Tensor<B, 3> {
        Self::at_fraction(sorted, 1.0 - self.percent() / 100.0)
    }

    fn at_fraction<B: Backend>(sorted: &Tensor<B, 3>, fraction: f64) -> Tensor<B, 3> {
        let last = sorted.dims()[1] - 1;
        let position = (fraction * last as f64).clamp(0.0, last as f64);
        let below = position.floor() as usize;
        let weight = (position - position.floor()) as f32;
        let at_below = sorted.clone().narrow(1, below, 1);
        if weight == 0.0 {
            return at_below;
        }
        let at_above = sorted.clone().narrow(1, below + 1, 1);
        at_below * (1.0 - weight) + at_above * weight
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
///
/// ```
/// use quant_kernels::{Percentile, RangeEstimator};
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
}

impl RangeEstimator {
    const EXPECTED: &str = "`min-max`, `percentile:<percent>` or `mse`";
}

impl fmt::Display for RangeEstimator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MinMax => f.write_str("min-max"),
            Self::Percentile(percentile) => write!(f, "percentile:{}", percentile.percent()),
            Self::Mse => f.write_str("mse"),
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

/// Scale and zero point of each block of a tensor, `[outer, values, inner]` to `[outer, 1, inner]`.
pub(crate) struct BlockQuantizer {
    pub(crate) levels: LevelRange,
    pub(crate) range: RangeEstimator,
}

impl BlockQuantizer {
    /// The scale of the symmetric mapping.
    pub(crate) fn scale<B: Backend>(&self, block: &Tensor<B, 3>) -> Tensor<B, 3> {
        let magnitude = match self.range {
            RangeEstimator::Percentile(percentile) => percentile.high_of_sorted(&block.clone().abs().sort(1)),
            RangeEstimator::MinMax => max_of(block.clone().abs()),
            RangeEstimator::Mse => {
                let magnitude = max_of(block.clone().abs());
                let factor = self
                    .factor_of_least_error(block, |factor| (self.symmetric_scale(magnitude.clone() * factor), None));
                magnitude * factor
            }
        };
        self.symmetric_scale(magnitude) + mark_of_non_finite(block)
    }

    /// The scale and the zero point of the asymmetric mapping.
    pub(crate) fn scale_and_zero_point<B: Backend>(&self, block: &Tensor<B, 3>) -> [Tensor<B, 3>; 2] {
        let [low, high] = match self.range {
            RangeEstimator::Percentile(percentile) => {
                let sorted = block.clone().sort(1);
                [percentile.low_of_sorted(&sorted), percentile.high_of_sorted(&sorted)]
            }
            RangeEstimator::MinMax | RangeEstimator::Mse => [max_of(block.clone().neg()).neg(), max_of(block.clone())],
        };
        let mut bounds = [low.clamp_max(0.0), high.clamp_min(0.0)];
        if self.range == RangeEstimator::Mse {
            let factor = self.factor_of_least_error(block, |factor| {
                let [scale, zero_point] = self.asymmetric_params(bounds.clone().map(|bound| bound * factor));
                (scale, Some(zero_point))
            });
            bounds = bounds.map(|bound| bound * factor.clone());
        }
        let [scale, zero_point] = self.asymmetric_params(bounds);
        [scale + mark_of_non_finite(block), zero_point]
    }

    fn symmetric_scale<B: Backend>(&self, magnitude: Tensor<B, 3>) -> Tensor<B, 3> {
        one_where_zero(magnitude / self.levels.high as f32)
    }

    fn asymmetric_params<B: Backend>(&self, [low, high]: [Tensor<B, 3>; 2]) -> [Tensor<B, 3>; 2] {
        let levels = self.levels.high as f32;
        // Divided before subtracted: `high − low` may overflow where the scale does not.
        let scale = one_where_zero(high / levels - low.clone() / levels);
        let zero_point = clamp_to((low.neg() / scale.clone()).round(), self.levels);
        [scale, zero_point]
    }

    /// The factor of the MSE search that serves each block best, `[outer, 1, inner]`.
    ///
    /// `params_at` gives scales and zero points for the min-max range times a factor.
    fn factor_of_least_error<B: Backend>(
        &self,
        block: &Tensor<B, 3>,
        params_at: impl Fn(f32) -> (Tensor<B, 3>, Option<Tensor<B, 3>>),
    ) -> Tensor<B, 3> {
        let error_at = |factor| {
            let (scale, zero_point) = params_at(factor);
            let levels = to_levels(block.clone(), scale.clone(), zero_point.clone());
            let restored = restore(clamp_to(levels, self.levels), scale, zero_point);
            sum_of((restored - block.clone()).square())
        };
        let mut least_error = error_at(1.0);
        let mut best = least_error.ones_like();
        for step in 1..=MSE_STEPS {
            let factor = (-(step as f32) / MSE_STEPS_PER_HALVING).exp2();
            let error = error_at(factor);
            let better = error.clone().lower(least_error.clone());
            least_error = least_error.mask_where(better.clone(), error);
            best = best.mask_fill(better, factor);
        }
        best
    }
}

/// 0 for a block of finite values, NaN for a block that holds a NaN or an infinity.
///
/// Backends disagree on the maximum of values that include NaN. Added to the scale, this makes
/// such a block NaN on all of them.
fn mark_of_non_finite<B: Backend>(block: &Tensor<B, 3>) -> Tensor<B, 3> {
    sum_of(block.clone() * 0.0)
}

/// A block of zeros keeps its zeros at any scale but 0.
fn one_where_zero<B: Backend>(scale: Tensor<B, 3>) -> Tensor<B, 3> {
    let zero = scale.clone().equal_elem(0.0);
    scale.mask_fill(zero, 1.0)
}
