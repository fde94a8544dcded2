//! Quantisation and its reverse on slices: ranges of blocks, and values by given scales.
//!
//! ```text
//! symmetric    s = max|x| / high                 y = clamp(⌊x / s⌉, low, high) · s
//! asymmetric   s = max / high − min / high       y = (clamp(⌊x / s⌉ + z, low, high) − z) · s
//!              z = clamp(⌊−min / s⌉, low, high)
//! ```
//!
//! `⌊·⌉` rounds half to even; `min` and `max` include 0; `s` is 1 for a block of zeros, NaN for one that
//! holds a NaN or an infinity, and never so large that a level stands for infinity. These are the formulas of the plain-tensor functions in
//! `params` and `quantize`, operation for operation, so the results are the same to the bit.
//!
//! Each function here is written once in plain Rust and compiled for every instruction set.

use std::mem::MaybeUninit;

use crate::{
    cpu::multiversion::multiversion,
    spec::formats::{
        code_book::{LevelRange, params_of_range},
        format::Format,
    },
};

/// What the range of a block follows from, gathered value by value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    /// The largest magnitude as its bits, which order as the magnitudes do: NaN above infinity
    /// above all numbers.
    magnitude: u32,
    min: f32,
    max: f32,
}

impl Extent {
    /// The extent of no value. Ranges contain 0.
    pub(crate) const EMPTY: Self = Self { magnitude: 0, min: 0.0, max: 0.0 };

    pub(crate) fn join(self, other: Self) -> Self {
        Self {
            magnitude: self.magnitude.max(other.magnitude),
            min: self.min.min(other.min),
            max: self.max.max(other.max),
        }
    }

    /// Scale and zero point of a block of this extent.
    #[inline(always)]
    pub(crate) fn params(self, format: Format, highest: f32) -> (f32, f32) {
        const INFINITY: u32 = f32::INFINITY.to_bits();
        let finite = self.magnitude < INFINITY;
        let has_zero_point = format.has_zero_points();
        let magnitude = f32::from_bits(self.magnitude);
        let range = if has_zero_point { [self.min, self.max] } else { [-magnitude, magnitude] };
        let (scale, zero_point) = params_of_range(range, highest, has_zero_point);
        // A zero point of a broken block is never looked at: the scale makes all of it NaN.
        let broken = if has_zero_point { f32::NAN } else { 0.0 };
        (if finite { scale } else { f32::NAN }, if finite { zero_point } else { broken })
    }
}

/// Evenly spaced levels as the inner loops want them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    low: f32,
    high: f32,
}

impl Bounds {
    pub(crate) fn new(levels: LevelRange) -> Self {
        Self { low: levels.low as f32, high: levels.high as f32 }
    }

    /// `⌊x / s⌉ + z`, before clamping.
    #[inline(always)]
    fn level<const ZERO_POINT: bool>(x: f32, scale: f32, zero_point: f32) -> f32 {
        let level = (x / scale).round_ties_even();
        if ZERO_POINT { level + zero_point } else { level }
    }

    #[inline(always)]
    fn value<const ZERO_POINT: bool>(self, x: f32, scale: f32, zero_point: f32) -> f32 {
        // Not `clamp`: these are one vector instruction each, which leave a NaN level as it is.
        let level = Self::level::<ZERO_POINT>(x, scale, zero_point);
        let level = if level < self.low { self.low } else { level };
        let level = if level > self.high { self.high } else { level };
        if ZERO_POINT { (level - zero_point) * scale } else { level * scale }
    }

    /// The gradient where the level is inside the range, else 0.
    #[inline(always)]
    fn passed<const ZERO_POINT: bool>(self, x: f32, gradient: f32, scale: f32, zero_point: f32) -> f32 {
        let level = Self::level::<ZERO_POINT>(x, scale, zero_point);
        let outside = level < self.low || level > self.high || level.is_nan();
        if outside { 0.0 } else { gradient }
    }
}

multiversion! {
    /// The extent of a run of values.
    pub(crate) fn extent(x: &[f32]) -> Extent {
        // Independent lanes, which the compiler maps to registers.
        const LANES: usize = 64;
        let mut magnitude = [0u32; LANES];
        let mut min = [0f32; LANES];
        let mut max = [0f32; LANES];
        let chunks = x.chunks_exact(LANES);
        let rest = chunks.remainder();
        for chunk in chunks {
            for lane in 0..LANES {
                let value = chunk[lane];
                magnitude[lane] = magnitude[lane].max(value.to_bits() & 0x7fff_ffff);
                min[lane] = if value < min[lane] { value } else { min[lane] };
                max[lane] = if value > max[lane] { value } else { max[lane] };
            }
        }
        let mut total = Extent::EMPTY;
        for lane in 0..LANES {
            total = total.join(Extent { magnitude: magnitude[lane], min: min[lane], max: max[lane] });
        }
        for &value in rest {
            total = total.join(Extent { magnitude: value.to_bits() & 0x7fff_ffff, min: value, max: value });
        }
        total
    }
}

multiversion! {
    /// The largest magnitude of a run of values, as an extent for the symmetric mapping.
    pub(crate) fn magnitude(x: &[f32]) -> Extent {
        const LANES: usize = 64;
        let mut magnitude = [0u32; LANES];
        let chunks = x.chunks_exact(LANES);
        let rest = chunks.remainder();
        for chunk in chunks {
            for lane in 0..LANES {
                magnitude[lane] = magnitude[lane].max(chunk[lane].to_bits() & 0x7fff_ffff);
            }
        }
        let of_lanes = magnitude.into_iter().max().unwrap_or(0);
        let of_rest = rest.iter().map(|value| value.to_bits() & 0x7fff_ffff).max().unwrap_or(0);
        Extent { magnitude: of_lanes.max(of_rest), ..Extent::EMPTY }
    }
}

multiversion! {
    /// Takes one row into the magnitudes of its columns.
    pub(crate) fn raise_magnitudes(row: &[f32], magnitudes: &mut [u32]) {
        for (magnitude, value) in magnitudes.iter_mut().zip(row) {
            *magnitude = (*magnitude).max(value.to_bits() & 0x7fff_ffff);
        }
    }
}

multiversion! {
    /// Takes one row into the lowest and highest values of its columns.
    pub(crate) fn include_row(row: &[f32], min: &mut [f32], max: &mut [f32]) {
        for ((min, max), &value) in min.iter_mut().zip(max.iter_mut()).zip(row) {
            *min = if value < *min { value } else { *min };
            *max = if value > *max { value } else { *max };
        }
    }
}

multiversion! {
    /// Scales and zero points of columns from their magnitudes and bounds.
    pub(crate) fn column_params(
        magnitudes: &[u32], min: &[f32], max: &[f32], format: Format, highest: f32,
        scales: &mut [f32], zero_points: &mut [f32]
    ) {
        for column in 0..magnitudes.len() {
            let extent = Extent { magnitude: magnitudes[column], min: min[column], max: max[column] };
            (scales[column], zero_points[column]) = extent.params(format, highest);
        }
    }
}

multiversion! {
    /// Values of a run under one scale.
    pub(crate) fn round_trip_run(
        x: &[f32], scale: f32, zero_point: Option<f32>, bounds: Bounds, y: &mut [MaybeUninit<f32>]
    ) {
        match zero_point {
            None => for (y, &x) in y.iter_mut().zip(x) {
                y.write(bounds.value::<false>(x, scale, 0.0));
            },
            Some(zero_point) => for (y, &x) in y.iter_mut().zip(x) {
                y.write(bounds.value::<true>(x, scale, zero_point));
            },
        }
    }
}

multiversion! {
    /// Values of a row whose columns have a scale each.
    pub(crate) fn round_trip_columns(
        x: &[f32], scales: &[f32], zero_points: Option<&[f32]>, bounds: Bounds, y: &mut [MaybeUninit<f32>]
    ) {
        match zero_points {
            None => for ((y, &x), &scale) in y.iter_mut().zip(x).zip(scales) {
                y.write(bounds.value::<false>(x, scale, 0.0));
            },
            Some(zero_points) => for (((y, &x), &scale), &zero_point) in y.iter_mut().zip(x).zip(scales).zip(zero_points) {
                y.write(bounds.value::<true>(x, scale, zero_point));
            },
        }
    }
}

multiversion! {
    /// Gradients of a run under one scale by the clipped rule.
    pub(crate) fn pass_run(
        x: &[f32], gradient: &[f32], scale: f32, zero_point: Option<f32>, bounds: Bounds,
        out: &mut [MaybeUninit<f32>]
    ) {
        match zero_point {
            None => for ((out, &x), &gradient) in out.iter_mut().zip(x).zip(gradient) {
                out.write(bounds.passed::<false>(x, gradient, scale, 0.0));
            },
            Some(zero_point) => for ((out, &x), &gradient) in out.iter_mut().zip(x).zip(gradient) {
                out.write(bounds.passed::<true>(x, gradient, scale, zero_point));
            },
        }
    }
}

multiversion! {
    /// Gradients of a row whose columns have a scale each, by the clipped rule.
    pub(crate) fn pass_columns(
        x: &[f32], gradient: &[f32], scales: &[f32], zero_points: Option<&[f32]>, bounds: Bounds,
        out: &mut [MaybeUninit<f32>]
    ) {
        for column in 0..x.len() {
            let passed = match zero_points {
                None => bounds.passed::<false>(x[column], gradient[column], scales[column], 0.0),
                Some(zero_points) => {
                    bounds.passed::<true>(x[column], gradient[column], scales[column], zero_points[column])
                }
            };
            out[column].write(passed);
        }
    }
}
