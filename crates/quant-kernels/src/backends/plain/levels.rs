//! Values and levels under scales that broadcast.
//!
//! ```text
//! q = clamp(round(x / s) + z, low, high)
//! y = (q − z) · s
//! ```
//!
//! Rounding is half to even. `x / s` is a true division, not a product with 1 / s, so that backends agree
//! to the last bit.

use burn::tensor::{Tensor, backend::Backend};

use crate::spec::mapping::LevelRange;

/// `round(x / s) + z`, before clamping.
pub(crate) fn to_levels<B: Backend, const D: usize>(
    x: Tensor<B, D>,
    scale: Tensor<B, D>,
    zero_point: Option<Tensor<B, D>>,
) -> Tensor<B, D> {
    let levels = (x / scale).round();
    match zero_point {
        Some(zero_point) => levels + zero_point,
        None => levels,
    }
}

/// Clamps levels to their range.
pub(crate) fn clamp_to<B: Backend, const D: usize>(levels: Tensor<B, D>, range: LevelRange) -> Tensor<B, D> {
    levels.clamp(range.low as f32, range.high as f32)
}

/// `(q − z) · s`.
pub(crate) fn restore<B: Backend, const D: usize>(
    levels: Tensor<B, D>,
    scale: Tensor<B, D>,
    zero_point: Option<Tensor<B, D>>,
) -> Tensor<B, D> {
    match zero_point {
        Some(zero_point) => (levels - zero_point) * scale,
        None => levels * scale,
    }
}
