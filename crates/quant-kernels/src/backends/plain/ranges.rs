//! Scales and zero points of blocks from the range of their values.
//!
//! ```text
//! symmetric    s = max|x| / (2^(b−1)−1)
//! asymmetric   s = (max − min) / (2^b−1)      z = clamp(round(−min / s), 0, 2^b−1)
//! ```
//!
//! The range is that of a [`RangeEstimator`], whose file has the formulas. A percentile that is 0 in a block that
//! is not all 0 gives way to the largest magnitude: a range of 0 would lose every value.
//!
//! A scale is at most `MAX / r`, where the outermost level is `r` levels from 0, so that no level stands for
//! infinity.

use burn::tensor::{DType, Tensor, backend::Backend};

use crate::{
    backends::plain::{
        blocks::{max_of, sum_of},
        levels::{Broadcast, clamp_to},
        precision::largest_of,
    },
    spec::{
        formats::code_book::CodeBook,
        range_estimator::{Percentile, RangeEstimator},
    },
};

/// How many factors the MSE search tries after 1, and how many of them make one halving.
const MSE_STEPS: u32 = 50;
const MSE_STEPS_PER_HALVING: f32 = 10.0;

/// Scale and zero point of each block of a tensor, `[outer, values, inner]` to `[outer, 1, inner]`.
pub(crate) struct BlockQuantizer {
    pub(crate) book: CodeBook,
    pub(crate) range: RangeEstimator,
}

impl BlockQuantizer {
    /// The scale of a format without zero points.
    pub(crate) fn scale<B: Backend>(&self, block: &Tensor<B, 3>) -> Tensor<B, 3> {
        let magnitude = match self.range {
            RangeEstimator::Percentile(percentile) => {
                let sorted = block.clone().abs().sort(1);
                let magnitude = high_of_sorted(percentile, &sorted);
                let zero = magnitude.clone().equal_elem(0.0);
                magnitude.mask_where(zero, last_of(&sorted))
            }
            RangeEstimator::MinMax => max_of(block.clone().abs()),
            // Without inputs all of them count the same.
            RangeEstimator::Mse | RangeEstimator::Importance => {
                let magnitude = max_of(block.clone().abs());
                let factor = self
                    .factor_of_least_error(block, |factor| (self.symmetric_scale(magnitude.clone() * factor), None));
                magnitude * factor
            }
        };
        self.symmetric_scale(magnitude) + mark_of_non_finite(block)
    }

    /// The scale and the zero point of a format that has them.
    pub(crate) fn scale_and_zero_point<B: Backend>(&self, block: &Tensor<B, 3>) -> [Tensor<B, 3>; 2] {
        let [low, high] = match self.range {
            RangeEstimator::Percentile(percentile) => {
                let sorted = block.clone().sort(1);
                let of_percentile =
                    including_zero([low_of_sorted(percentile, &sorted), high_of_sorted(percentile, &sorted)]);
                let of_all = including_zero([sorted.clone().narrow(1, 0, 1), last_of(&sorted)]);
                let [low, high] = of_percentile.clone();
                let zero = (high - low).equal_elem(0.0);
                let [low, high] = of_percentile;
                let [lowest, highest] = of_all;
                [low.mask_where(zero.clone(), lowest), high.mask_where(zero, highest)]
            }
            RangeEstimator::MinMax | RangeEstimator::Mse | RangeEstimator::Importance => {
                including_zero([max_of(block.clone().neg()).neg(), max_of(block.clone())])
            }
        };
        let mut bounds = [low, high];
        if matches!(self.range, RangeEstimator::Mse | RangeEstimator::Importance) {
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
        let scale = one_where_zero(magnitude / self.book.highest());
        let reach = scale.ones_like() * self.book.highest();
        at_most_finite(scale, reach)
    }

    fn asymmetric_params<B: Backend>(&self, [low, high]: [Tensor<B, 3>; 2]) -> [Tensor<B, 3>; 2] {
        let levels = self.book.highest();
        // Divided before subtracted: `high − low` may overflow where the scale does not.
        let scale = one_where_zero(high / levels - low.clone() / levels);
        let zero_point = clamp_to((low.neg() / scale.clone()).round(), self.book.levels());
        let reach = zero_point.clone().max_pair(zero_point.clone().neg() + levels);
        [at_most_finite(scale, reach), zero_point]
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
            let params = Broadcast { scale, zero_point, book: self.book };
            let restored = params.values(params.nearest(block.clone()));
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

/// The value at a percentile of each block, sorted along its middle dimension, linearly interpolated
/// between neighbours.
fn high_of_sorted<B: Backend>(percentile: Percentile, sorted: &Tensor<B, 3>) -> Tensor<B, 3> {
    at_fraction(sorted, percentile.percent() / 100.0)
}

/// The value at 100 minus a percentile of each sorted block.
fn low_of_sorted<B: Backend>(percentile: Percentile, sorted: &Tensor<B, 3>) -> Tensor<B, 3> {
    at_fraction(sorted, 1.0 - percentile.percent() / 100.0)
}

/// The largest value of each sorted block.
fn last_of<B: Backend>(sorted: &Tensor<B, 3>) -> Tensor<B, 3> {
    sorted.clone().narrow(1, sorted.dims()[1] - 1, 1)
}

/// A range, widened to contain 0.
fn including_zero<B: Backend>([low, high]: [Tensor<B, 3>; 2]) -> [Tensor<B, 3>; 2] {
    [low.clamp_max(0.0), high.clamp_min(0.0)]
}

/// Scales, lowered to where the level that is `reach` levels from 0 still stands for a finite number. This is
/// [`largest_scale`](crate::spec::formats::code_book::largest_scale), operation for operation.
fn at_most_finite<B: Backend>(scale: Tensor<B, 3>, reach: Tensor<B, 3>) -> Tensor<B, 3> {
    let dtype = scale.dtype();
    let below_one = if dtype == DType::F64 { 1.0 - f64::EPSILON / 2.0 } else { 1.0 - f64::from(f32::EPSILON) / 2.0 };
    let largest = (reach.zeros_like() + largest_of(dtype)) / reach * below_one;
    scale.min_pair(largest)
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

/// 0 for a block of finite values, NaN for a block that holds a NaN or an infinity.
///
/// Backends disagree on the maximum of values that include NaN. Added to the scale, this makes
/// such a block NaN on all of them.
pub(crate) fn mark_of_non_finite<B: Backend>(block: &Tensor<B, 3>) -> Tensor<B, 3> {
    sum_of(block.clone() * 0.0)
}

/// A block of zeros keeps its zeros at any scale but 0. So does a block of subnormal numbers so small that its
/// scale is 0.
fn one_where_zero<B: Backend>(scale: Tensor<B, 3>) -> Tensor<B, 3> {
    let zero = scale.clone().equal_elem(0.0);
    scale.mask_fill(zero, 1.0)
}
