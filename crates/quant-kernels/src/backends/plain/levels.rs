//! Values and levels under scales that broadcast.
//!
//! ```text
//! q = nearest(x / s)           clamp(round(x / s) + z, low, high) where levels are evenly spaced
//! y = value(q) · s             (q − z) · s
//! ```
//!
//! Rounding is half to even. `x / s` is a true division, not a product with 1 / s, so that backends agree
//! to the last bit. Values of 16 bits are widened first, and levels and values are f32 then. A NaN stays one.

use burn::tensor::{Bool, Tensor, backend::Backend};

use crate::{
    backends::plain::precision::widened,
    spec::formats::code_book::{CodeBook, LevelRange, Table},
};

/// Scales, and zero points where the format has them, that broadcast against values.
#[derive(Debug, Clone)]
pub(crate) struct Broadcast<B: Backend, const D: usize> {
    pub(crate) scale: Tensor<B, D>,
    pub(crate) zero_point: Option<Tensor<B, D>>,
    pub(crate) book: CodeBook,
}

impl<B: Backend, const D: usize> Broadcast<B, D> {
    /// The level nearest to each value.
    pub(crate) fn nearest(&self, x: Tensor<B, D>) -> Tensor<B, D> {
        match self.book {
            CodeBook::Uniform(levels) => clamp_to(self.unclamped(x), levels),
            CodeBook::Table(table) => nearest_in_table(&self.ratio(x), table),
        }
    }

    /// What levels stand for.
    pub(crate) fn values(&self, levels: Tensor<B, D>) -> Tensor<B, D> {
        match (self.book, &self.zero_point) {
            (CodeBook::Uniform(_), Some(zero_point)) => (levels - zero_point.clone()) * self.scale.clone(),
            (CodeBook::Uniform(_), None) => levels * self.scale.clone(),
            (CodeBook::Table(table), _) => entries_of_table(&levels, table) * self.scale.clone(),
        }
    }

    /// Where values lie beyond the lowest or the highest level, NaN included.
    pub(crate) fn outside(&self, x: Tensor<B, D>) -> Tensor<B, D, Bool> {
        match self.book {
            CodeBook::Uniform(levels) => {
                let unclamped = self.unclamped(x);
                clamp_to(unclamped.clone(), levels).not_equal(unclamped)
            }
            CodeBook::Table(table) => {
                let ratio = self.ratio(x);
                let [first, .., last] = table.entries;
                ratio.clone().clamp(first, last).not_equal(ratio)
            }
        }
    }

    /// `x / s`.
    fn ratio(&self, x: Tensor<B, D>) -> Tensor<B, D> {
        widened(x) / self.scale.clone()
    }

    /// `round(x / s) + z`.
    fn unclamped(&self, x: Tensor<B, D>) -> Tensor<B, D> {
        let levels = self.ratio(x).round();
        match &self.zero_point {
            Some(zero_point) => levels + zero_point.clone(),
            None => levels,
        }
    }
}

/// Clamps levels to their range. Not every backend's own clamp keeps a NaN.
pub(crate) fn clamp_to<B: Backend, const D: usize>(levels: Tensor<B, D>, range: LevelRange) -> Tensor<B, D> {
    let clamped = levels.clone().clamp(range.low as f32, range.high as f32);
    keep_nan(clamped, levels)
}

/// `y` where `x` is a number, else NaN.
fn keep_nan<B: Backend, const D: usize>(y: Tensor<B, D>, x: Tensor<B, D>) -> Tensor<B, D> {
    y.mask_where(x.clone().is_nan(), x)
}

fn nearest_in_table<B: Backend, const D: usize>(ratio: &Tensor<B, D>, table: &Table) -> Tensor<B, D> {
    let levels = table.middles.iter().zip(1u8..).fold(ratio.zeros_like(), |levels, (middle, level)| {
        levels.mask_fill(ratio.clone().greater_elem(*middle), level)
    });
    keep_nan(levels, ratio.clone())
}

fn entries_of_table<B: Backend, const D: usize>(levels: &Tensor<B, D>, table: &Table) -> Tensor<B, D> {
    let values =
        table.entries.iter().zip(0u8..).fold(levels.zeros_like(), |values, (entry, level)| {
            values.mask_fill(levels.clone().equal_elem(level), *entry)
        });
    keep_nan(values, levels.clone())
}
