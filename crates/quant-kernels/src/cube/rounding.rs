//! One value and its scale.
//!
//! ```text
//! level  ⌊x / s⌉ + z
//! value  (clamp(level, low, high) − z) · s
//! ```
//!
//! In f32 whatever the tensor holds. `⌊·⌉` is spelled out: what a runtime's own rounding does with
//! a half is up to the graphics driver (`Round` of SPIR-V may round it either way), and the usual
//! trick of adding and subtracting 1.5·2²³ is undone by drivers that reorder sums.

use cubecl::prelude::*;

const SIGN: u32 = 0x8000_0000;
const MAGNITUDE: u32 = 0x7fff_ffff;

/// The lowest and the highest level, and the largest number of the type of the values.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(super) struct Levels {
    pub(super) low: f32,
    pub(super) high: f32,
    pub(super) largest: f32,
}

/// Rounds half to even. The sign is kept, that of zero included.
#[cube]
pub(super) fn round_half_even(x: f32) -> f32 {
    let bits = u32::reinterpret(x);
    let magnitude = f32::reinterpret(bits & MAGNITUDE);
    let below = magnitude.floor();
    // Exact, and 0 from 2²³ on.
    let rest = magnitude - below;
    let is_odd = below - 2.0 * (below * 0.5).floor() == 1.0;
    let up = rest > 0.5 || (rest == 0.5 && is_odd);
    let rounded = select(up, below + 1.0, below);
    f32::reinterpret(u32::reinterpret(rounded) | (bits & SIGN))
}

/// `⌊x / s⌉ + z`, before clamping.
#[cube]
pub(super) fn level_of(x: f32, scale: f32, zero_point: ComptimeOption<f32>) -> f32 {
    let level = round_half_even(x / scale);
    #[comptime]
    match zero_point {
        // Not `level + 0` for symmetric levels: that would lose the sign of −0.
        ComptimeOption::None => level,
        ComptimeOption::Some(zero_point) => level + zero_point,
    }
}

#[cube]
pub(super) fn clamp_level(level: f32, levels: &Levels) -> f32 {
    let level = select(level < levels.low, levels.low, level);
    select(level > levels.high, levels.high, level)
}

/// `(q − z) · s`.
#[cube]
pub(super) fn restore(level: f32, scale: f32, zero_point: ComptimeOption<f32>) -> f32 {
    #[comptime]
    match zero_point {
        ComptimeOption::None => level * scale,
        ComptimeOption::Some(zero_point) => (level - zero_point) * scale,
    }
}

/// The value of `x` after quantisation, within the numbers of the type that it is rounded to.
#[cube]
pub(super) fn round_trip(x: f32, scale: f32, zero_point: ComptimeOption<f32>, levels: &Levels) -> f32 {
    let value = restore(clamp_level(level_of(x, scale, zero_point), levels), scale, zero_point);
    let value = select(value > levels.largest, levels.largest, value);
    let lowest = 0.0 - levels.largest;
    select(value < lowest, lowest, value)
}
