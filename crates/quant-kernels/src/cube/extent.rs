//! The range of a block, and the scale and zero point that follow from it.
//!
//! ```text
//! above = max(x, 0)      below = max(−x, 0)
//!
//! symmetric    s = max(above, below) / high
//! asymmetric   s = above / high + below / high      z = clamp(⌊below / s⌉, 0, high)
//! ```
//!
//! `s` is 1 for a block of zeros, NaN for one that holds a NaN or an infinity, and never so large that a level
//! stands for infinity.
//!
//! `above` and `below` are kept as the bits of non-negative f32, which order as the numbers do, with
//! infinity and NaN above all of them. So maxima are those of integers: exact on every device,
//! whatever it does to NaN and to subnormal numbers in float arithmetic.

use cubecl::prelude::*;

use crate::cube::{
    block_view::Lanes,
    rounding::{Levels, clamp_level, round_half_even},
};

const SIGN: u32 = 0x8000_0000;
const MAGNITUDE: u32 = 0x7fff_ffff;
const INFINITY: u32 = 0x7f80_0000;
const QUIET_NAN: u32 = 0x7fc0_0000;
const LARGEST: f32 = f32::MAX;
const BELOW_ONE: f32 = 1.0 - f32::EPSILON / 2.0;

#[derive(CubeType, Clone, Copy)]
pub(super) struct Extent {
    pub(super) above: u32,
    pub(super) below: u32,
}

#[cube]
impl Extent {
    pub(super) fn of_nothing() -> Self {
        Extent { above: 0u32, below: 0u32 }
    }

    /// Takes in one more value.
    pub(super) fn include(&mut self, x: f32) {
        let bits = u32::reinterpret(x);
        let magnitude = bits & MAGNITUDE;
        let negative = bits >= SIGN;
        self.join(select(negative, 0u32, magnitude), select(negative, magnitude, 0u32));
    }

    pub(super) fn join(&mut self, above: u32, below: u32) {
        self.above = max(self.above, above);
        self.below = max(self.below, below);
    }
}

/// The extent of a column of the cube from those of its units, for every unit of the column.
#[cube]
pub(super) fn of_column(extent: Extent, #[comptime] lanes: Lanes) -> Extent {
    let mut above = SharedMemory::<u32>::new(comptime!(lanes.units()));
    let mut below = SharedMemory::<u32>::new(comptime!(lanes.units()));
    let unit = UNIT_POS as usize;
    above[unit] = extent.above;
    below[unit] = extent.below;
    sync_cube();
    let halvings = comptime!(lanes.per_column.ilog2());
    #[unroll]
    for halving in 0..halvings {
        let reach = comptime!(lanes.units() >> (halving + 1));
        if unit < reach {
            above[unit] = max(above[unit], above[unit + reach]);
            below[unit] = max(below[unit], below[unit + reach]);
        }
        sync_cube();
    }
    let column = unit % comptime!(lanes.columns);
    Extent { above: above[column], below: below[column] }
}

#[cube]
pub(super) fn symmetric_scale(extent: Extent, levels: &Levels) -> f32 {
    let magnitude = max(extent.above, extent.below);
    let scale = one_where_zero(f32::reinterpret(magnitude) / levels.high);
    marked(at_most_finite(scale, levels.high), magnitude)
}

/// The scale and the zero point of a block.
#[derive(CubeType, Clone, Copy)]
pub(super) struct AsymmetricParams {
    pub(super) scale: f32,
    pub(super) zero_point: f32,
}

#[cube]
pub(super) fn asymmetric_params(extent: Extent, levels: &Levels) -> AsymmetricParams {
    // Divided before added: the width of the range may overflow where the scale does not.
    let above = f32::reinterpret(extent.above);
    let below = f32::reinterpret(extent.below);
    let scale = one_where_zero(above / levels.high + below / levels.high);
    let zero_point = clamp_level(round_half_even(below / scale), levels);
    let reach = select(zero_point > levels.high - zero_point, zero_point, levels.high - zero_point);
    AsymmetricParams { scale: marked(at_most_finite(scale, reach), max(extent.above, extent.below)), zero_point }
}

#[cube]
fn one_where_zero(scale: f32) -> f32 {
    select(scale == 0.0, 1.0, scale)
}

/// `largest_scale` of the CPU's kernels, operation for operation.
#[cube]
fn at_most_finite(scale: f32, reach: f32) -> f32 {
    let largest = LARGEST / reach * BELOW_ONE;
    select(scale > largest, largest, scale)
}

/// NaN for the scale of a block whose largest magnitude is no number.
#[cube]
fn marked(scale: f32, magnitude: u32) -> f32 {
    // Built from what was read: shader compilers refuse a constant that is NaN.
    select(magnitude >= INFINITY, f32::reinterpret(magnitude | QUIET_NAN), scale)
}
